"""What a MODEL must be for DisCa, and the sentence for each way it can fall short."""

from itertools import chain
from typing import NamedTuple

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..messages import listing, quoted
from ..weights.predictor_spec import PredictorSpec
from .family import FAMILIES, Family, family_of
from .lesa_file import LesaSpec

ROUNDING = 1e-4  # by which a sigma may be out of [0, 1]
FOREIGN_CACHES = {  # key in transformer_options -> node
    "easycache": "EasyCache or LazyCache",
    "cache_dit_turbo": "CacheDiT",
    "spectrum": "Spectrum",
}


class LoadedPredictor(NamedTuple):
    """A Predictor under ComfyUI's memory management, and what it is."""

    patcher: ModelPatcher
    spec: PredictorSpec


class LoadedLesa(NamedTuple):
    """LESA's experts under ComfyUI's memory management, and what they are."""

    patcher: ModelPatcher
    spec: LesaSpec


Learned = LoadedPredictor | LoadedLesa


def family_of_model(model: ModelPatcher) -> Family:
    """The family of a MODEL's network; ValueError if it is of none that DisCa knows."""
    network = getattr(model.model, "diffusion_model", None)
    family = None if network is None else family_of(network)
    if family is None:
        titles = [family.title for family in FAMILIES.values()]
        raise ValueError(
            f"This MODEL is a {type(model.model).__name__}, but DisCa works on {listing(titles, 9, str)}. "
            "Load one of them, with DisCa Load MeanFlow Model or core's Load Diffusion Model."
        )
    return family


def require_meanflow(model: ModelPatcher) -> None:
    """ValueError unless the MODEL is a HunyuanVideo that is told both times."""
    if not family_of_model(model).takes_r(model.model.diffusion_model):
        raise ValueError(
            "This HunyuanVideo has no time_r_in weights: it is not a MeanFlow model, and large steps would go wrong. "
            "Load a Restricted-MeanFlow or step-distilled file with DisCa Load MeanFlow Model. DisCa Apply "
            "Cache and core's KSampler take any HunyuanVideo."
        )


def require_match(model: ModelPatcher, spec: PredictorSpec) -> None:
    """ValueError unless the Predictor was made for a model of this family and width."""
    family = family_of_model(model)
    width, heads = family.widths(model.model.diffusion_model)
    if spec.family != family.name:
        raise ValueError(
            f"The Predictor is for {FAMILIES[spec.family].title}, but the MODEL is {family.title}. "
            f"Load a {family.title} Predictor in DisCa Load Predictor."
        )
    if (spec.width, spec.heads) != (width, heads):
        raise ValueError(
            f"The Predictor has width {spec.width:d} and {spec.heads:d} heads, but the MODEL has "
            f"{width:d} and {heads:d}. Load the Predictor that was trained for this model."
        )


def require_no_foreign_cache(transformer_options: dict) -> None:
    """ValueError that names another step-skipping node on the same MODEL."""
    for key, node in FOREIGN_CACHES.items():
        if key in transformer_options:
            raise ValueError(
                f"{node} is on this MODEL too, and both decide which steps to skip. "
                f"Remove {node}, or DisCa Apply Predictor or Apply Cache."
            )


def require_video(model: ModelPatcher, latent) -> None:
    """ValueError unless the latent is one tensor of numbers with the dimensions of a video or of pictures."""
    if latent.is_nested:
        raise ValueError(
            f"The latent is nested, as one of video with sound is, but {family_of_model(model).title} needs a video "
            "alone. Use the Empty Latent node of this model, or encode with its VAE."
        )
    if latent.ndim not in (4, 5):
        raise ValueError(_other_shape(model, latent))
    if not latent.numel() or not latent.is_floating_point():
        raise ValueError(
            f"The latent is {quoted(list(latent.shape))} of {quoted(str(latent.dtype))}, but has to hold "
            "floating-point numbers, of one frame at least. Use an Empty Latent node, or encode with the VAE."
        )


def require_channels(model: ModelPatcher, latent) -> None:
    """ValueError unless the latent has the channels and dimensions of the MODEL's latent space, and whole patches."""
    require_video(model, latent)
    if latent.ndim != 5 or latent.shape[1] != _channels(model):
        raise ValueError(_other_shape(model, latent))
    patch = model.model.diffusion_model.patch_size
    if any(side % part for side, part in zip(latent.shape[2:], patch, strict=True)):
        raise ValueError(
            f"The latent is {quoted(list(latent.shape))}, {latent.shape[-1]:d} wide and {latent.shape[-2]:d} high, but "
            f"{family_of_model(model).title} needs an even width and height. "
            "Make it of a picture whose width and height are multiples of 16."
        )


def _channels(model: ModelPatcher) -> int:
    return model.get_model_object("latent_format").latent_channels


def _other_shape(model: ModelPatcher, latent: Tensor) -> str:
    return (
        f"The latent is {quoted(list(latent.shape))}, but {family_of_model(model).title} needs "
        f"[batch, {_channels(model):d}, frames, height, width]. Use the Empty Latent node of this model, or encode "
        "with its VAE."
    )


def require_sigmas(sigmas: Tensor) -> None:
    """ValueError unless all times of a run are finite, in [0, 1] and never rise: nothing else was ever trained."""
    wanted = None
    if not torch.isfinite(sigmas).all():
        wanted = "be finite numbers"
    elif (sigmas.diff() > 0).any() or (sigmas < -ROUNDING).any() or (sigmas > 1 + ROUNDING).any():
        wanted = "fall, from 1 at most to 0 at least"
    if wanted:
        raise ValueError(
            f"The sigmas are {quoted(sigmas.tolist())}, but have to {wanted}. Take them from DisCa MeanFlow Sigmas."
        )


def require_conditioning(model: ModelPatcher, conds: dict[str, list[dict]]) -> None:
    """ValueError unless every condition is as wide as the text inputs of the MODEL's network."""
    texts = family_of_model(model).texts(model.model.diffusion_model)
    for condition in chain.from_iterable(conds.values()):
        for name, text in texts.items():
            found = condition.get(name)
            fits = _holds(found, text.dimensions) and (
                found.shape[-1] == text.width or (not text.exact and found.shape[-1] > text.width)
            )
            if not fits:
                raise ValueError(_other_encoders(model, name, found, text.width))


def _holds(value: object, dimensions: int) -> bool:
    """Whether it is a tensor of numbers with so many dimensions, none of them empty."""
    return isinstance(value, Tensor) and value.is_floating_point() and value.ndim == dimensions and value.numel() > 0


def _other_encoders(model: ModelPatcher, name: str, found: object, width: int) -> str:
    title, shape = family_of_model(model).title, list(found.shape) if isinstance(found, Tensor) else found
    return (
        f"The conditioning's {quoted(name)} is {quoted(shape)}, but this {title} "
        f"reads {width:d} numbers of it. It was encoded for another model: use the text encoders of {title}."
    )
