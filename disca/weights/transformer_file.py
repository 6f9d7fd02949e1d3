"""Transformer files: HunyuanVideo, with or without the second time embedding of MeanFlow, in any published layout."""

from ..messages import listing, quoted
from . import layouts
from .files import WeightsFile, refuse_lora
from .impostors import seems_to_be
from .merged import MergedWeights, merged_weights


def transformer_weights(file: WeightsFile) -> MergedWeights:
    """The file's transformer in the merged layout; ValueError if it has none."""
    refuse_lora(file.name, list(file.tensors), "a whole model")
    if layouts.prefix_of(file.tensors, layouts.DIFFUSERS_MARK) is not None:
        raise ValueError(
            f"{quoted(file.name)} is in diffusers' layout: it has {layouts.DIFFUSERS_MARK} and the like, which DisCa "
            "does not read. Choose the authors' file or ComfyUI's, which the README names."
        )
    if layouts.prefix_of(file.tensors, layouts.MODEL_MARK) is None:
        raise ValueError(
            f"{quoted(file.name)} is not a HunyuanVideo transformer: it has no {layouts.MODEL_MARK}, "
            f"but {listing(sorted(file.tensors), 3)}.{seems_to_be(file.tensors)} Choose a file such as "
            "hyvideo10_t2v_restricted_meanflow_540p.safetensors."
        )
    return merged_weights(file, layouts.MODEL_MARK)


def is_meanflow(weights: MergedWeights) -> bool:
    """Whether the transformer has a second time embedding."""
    return any(key.startswith("time_r_in.") for key in weights.sources)


def require_meanflow(weights: MergedWeights) -> None:
    """ValueError if the transformer has no second time embedding."""
    if not is_meanflow(weights):
        raise ValueError(
            f"{quoted(weights.file.name)} has no time_r_in weights: it is HunyuanVideo without MeanFlow. "
            "Load it with core's Load Diffusion Model, or choose a MeanFlow or step-distilled file."
        )
