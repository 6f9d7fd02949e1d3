"""Inputs that nodes share which make runs of their own: seed, guidance, further prompts; and what is made of them."""

import numpy as np
import torch
from comfy_api.v0_0_2 import io
from PIL import Image
from torch import Tensor

from ...disca.host.compat import room

UNCONNECTED = object()  # of an input that takes a link, when a prompt is queued


def seed_input(tooltip: str) -> io.Input:
    """The seed of the noise."""
    control = io.ControlAfterGenerate.fixed
    return io.Int.Input(
        "seed", default=0, min=0, max=0xFFFFFFFFFFFFFFFF, control_after_generate=control, tooltip=tooltip
    )


def shift_input(tooltip: str) -> io.Input:
    """The shift of the times."""
    return io.Float.Input("shift", default=5.0, min=0.01, max=100.0, step=0.01, tooltip=tooltip)


def cfg_input(tooltip: str) -> io.Input:
    """The scale of classifier-free guidance."""
    return io.Float.Input(
        "cfg",
        default=1.0,
        min=0.0,
        max=100.0,
        step=0.1,
        round=0.01,
        optional=True,
        advanced=True,
        tooltip=tooltip,
    )


def prompts_input(most: int, tooltip: str) -> io.Input:
    """Conditionings beside the first one, as many as are connected."""
    prompt = io.Conditioning.Input("prompt", optional=True)
    template = io.Autogrow.TemplatePrefix(prompt, prefix="prompt", min=1, max=most)
    return io.Autogrow.Input("prompts", template=template, optional=True, tooltip=tooltip)


def require_guidance(negative: object, cfg: float | None) -> None:
    """ValueError for a cfg that needs a negative where none is connected; None comes by a link."""
    if negative is UNCONNECTED and cfg is not None:
        room("sampling").require_no_cfg(cfg)


def all_prompts(positive: list, prompts: dict | None) -> list[list]:
    """The first prompt, and those beside it that are connected."""
    return [positive, *(one for one in (prompts or {}).values() if one is not None)]


def as_image(picture: Image.Image) -> Tensor:
    """The picture as ComfyUI's IMAGE, [1, H, W, 3]."""
    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255.0)[None]
