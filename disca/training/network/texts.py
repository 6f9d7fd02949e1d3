"""Captions -> what the network is told of them, by ComfyUI's own text encoders and model classes."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import comfy.model_base
import comfy.sd
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...messages import cause, listing, quoted
from ...models.checks import family_of_model
from ...models.family import FAMILIES
from ...weights.files import open_weights
from ..data.dataset import TEXT, Sample

NAMES = {  # ComfyUI's conditions -> the network's inputs
    "c_crossattn": "context",
    "y": "y",
    "txt_byt5": "txt_byt5",
    "attention_mask": "attention_mask",
    "clip_fea": "clip_fea",
    "c_concat": "concat",
}
FOREIGN = (  # HunyuanVideos that are given more than text, and of which no MeanFlow model exists
    comfy.model_base.HunyuanVideoI2V,
    comfy.model_base.HunyuanVideoSkyreelsI2V,
    comfy.model_base.HunyuanVideo15_SR_Distilled,
)
GLYPHS = 256  # tokens that byT5 reads of a caption's quoted words


class Text(NamedTuple):
    """An encoded caption."""

    tokens: Tensor  # [1, L, D]
    more: dict[str, Any]  # what else ComfyUI's text encoder gives
    cut: bool  # the caption was longer than the family reads


def model_without_weights(family: str) -> ModelPatcher:
    """A MODEL of the family with the real inputs and no weights: enough to build a dataset."""
    config = FAMILIES[family].comfy_config(**one_block(family))
    config.set_inference_dtype(torch.float32, None)
    return ModelPatcher(config.get_model({}, device="meta"), torch.device("cpu"), torch.device("cpu"))


def one_block(family: str) -> dict[str, Any]:
    """What a network of one narrow block of each kind has otherwise than the published one."""
    row = FAMILIES[family]
    return row.sized(128, 1, [min(1, row.config[kind.count]) for kind in row.kinds]) | {"meanflow": False}


def load_text_encoder(family: str, paths: Sequence[str]) -> "TextEncoder":
    """The text encoders of a family, in these safetensors files; ValueError if they are of another."""
    for path in paths:
        open_weights(path)
    return TextEncoder(model_without_weights(family), load_clip(family, paths))


def load_clip(family: str, paths: Sequence[str]) -> comfy.sd.CLIP:
    """ComfyUI's CLIP of these files; ValueError if they are not a family's."""
    try:
        return comfy.sd.load_clip([*paths], clip_type=FAMILIES[family].clip_type())
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, KeyError, AttributeError) as error:  # weights of other shapes, or a kind it knows no use for
        raise ValueError(
            f"The text encoders {listing(paths)} cannot be loaded as those of {FAMILIES[family].title} "
            f"({cause(error)}). Give the files of its own text encoders."
        ) from None


class TextEncoder:
    """ComfyUI's text encoders, seen through the MODEL's inputs."""

    def __init__(self, model: ModelPatcher, clip: comfy.sd.CLIP):
        _require(model, clip)
        self._model, self._clip = model.model, clip
        self._latent_channels = model.model.latent_format.latent_channels
        self.family = family_of_model(model).name

    @torch.inference_mode()
    def text(self, caption: str) -> Text:
        """What the text encoders make of a caption, its tokens cut where HunyuanVideo's own code cuts them.

        The language models read from left to right: these are their states of a caption that was cut before.
        """
        ((tokens, more),) = self._clip.encode_from_tokens_scheduled(self._clip.tokenize(caption), show_pbar=False)
        wanted = self._model.diffusion_model.txt_in.input_embedder.in_features
        family = FAMILIES[self.family]
        if tokens.shape[-1] != wanted:
            raise ValueError(
                f"The text encoder gives {tokens.shape[-1]:d} values per token, but "
                f"{family.title} takes {quoted(wanted)}. Load the text encoders of {family.title}."
            )
        limits = {"attention_mask": family.caption_tokens, "conditioning_byt5small": GLYPHS}
        cut = tokens.shape[1] > family.caption_tokens
        more = {name: value[:, : limits[name]] if name in limits else value for name, value in more.items()}
        return Text(tokens[:, : family.caption_tokens], more, cut)

    @torch.inference_mode()
    def inputs(self, caption: str) -> Sample:
        """The text inputs of a caption."""
        condition = self._condition(self.text(caption), torch.zeros(1, self._latent_channels, 1, 2, 2), {})
        return stored({name: tensor for name, tensor in condition.items() if name in TEXT})

    def null(self) -> Sample:
        """The text inputs of the empty caption."""
        return self.inputs("")

    def _condition(self, text: Text, latent: Tensor, options: dict) -> Sample:
        conditions = self._model.extra_conds(
            cross_attn=text.tokens, noise=latent, device=latent.device, **{**text.more, **options}
        )
        found = {NAMES[name]: value.cond[0] for name, value in conditions.items() if name in NAMES}
        if self._model.diffusion_model.vector_in is None:
            found.pop("y", None)  # 1.5's text encoder gives one all the same, and the network does not read it
        return found


def stored(sample: Sample) -> Sample:
    """As datasets hold it: bfloat16, which is what the network computes in."""
    return {
        name: tensor.to("cpu", torch.bfloat16) if tensor.is_floating_point() else tensor.cpu()
        for name, tensor in sample.items()
    }


def _require(model: ModelPatcher, clip: comfy.sd.CLIP) -> None:
    if isinstance(model.model, FOREIGN):
        raise ValueError(
            f"No dataset can be built for a {type(model.model).__name__}: DisCa trains HunyuanVideo 1.0 (text to "
            "video) and 1.5 (text or image to video). Load one of these."
        )
    if clip.patcher.patches:
        raise ValueError("A LoRA is on the text encoders. Take them from before it: a dataset is of the plain ones.")
