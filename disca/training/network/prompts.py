"""Samples of a dataset as ComfyUI's conditioning: what its nodes would have given for them."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

UNREAD = 768  # width of the pooled text that ComfyUI asks for where no network reads it


class Vision(NamedTuple):
    """A CLIP_VISION_OUTPUT, as far as HunyuanVideo reads it."""

    last_hidden_state: Tensor


def conditioning(sample: Mapping[str, Tensor], out: Callable[[Tensor], Tensor], guidance: float | None = None) -> list:
    """Conditioning that tells the network what the sample says; `out` makes of its latents what a VAE gives.

    `guidance` is for networks that are told their scale; None: what ComfyUI tells them.
    """
    given = {name: tensor[None].float() for name, tensor in sample.items()}
    options = {"pooled_output": given.get("y", torch.zeros(1, UNREAD))}
    if guidance is not None:
        options["guidance"] = guidance
    if "attention_mask" in given:
        options["attention_mask"] = sample["attention_mask"][None]
    if "txt_byt5" in given:
        options["conditioning_byt5small"] = given["txt_byt5"]
    if "clip_fea" in given:
        options["clip_vision_output"] = Vision(given["clip_fea"])
    if "concat" in given:
        options["concat_latent_image"] = out(given["concat"][:, :-1].clone())
        options["concat_mask"] = 1.0 - given["concat"][:, -1:]
    return [[given["context"], options]]
