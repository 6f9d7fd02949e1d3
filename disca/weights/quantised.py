"""Scaled fp8 as ComfyUI keeps it: which keys of a file are scales, and whether they are sound."""

import json
from typing import NamedTuple

import torch

from ..messages import cause, listing, quoted
from .files import WeightsFile
from .merged import MergedWeights

FORMATS = ("float8_e4m3fn", "float8_e5m2")
FP8 = (torch.float8_e4m3fn, torch.float8_e5m2)
SCALES = (".scale_weight", ".scale_input", ".weight_scale", ".input_scale")
LAYER = ".comfy_quant"  # a layer's settings, as bytes of JSON
FILE = "scaled_fp8"  # older files: says that there are scales
METADATA = "_quantization_metadata"  # newer files: the settings of all layers


class Quantisation(NamedTuple):
    """The keys that are not weights, and what ComfyUI reads from the metadata; both empty for plain weights."""

    keys: frozenset[str]
    metadata: dict[str, str]


def quantisation_of(weights: MergedWeights) -> Quantisation:
    """How the file is quantised; ValueError unless it is by a format DisCa reads, and each scale fits its weight."""
    keys = frozenset(key for key in weights.sources if key.endswith((*SCALES, LAYER)) or key == FILE)
    metadata, layers = _metadata(weights)
    if not keys and not layers:
        return Quantisation(keys, {})
    if any(len(parts) > 1 for parts in weights.sources.values()):
        raise ValueError(
            f"{quoted(weights.file.name)} is quantised with split q, k, v, whose scales differ. "
            "Use the bf16 file with weight_dtype fp8_e4m3fn, or a quantised file in ComfyUI's layout."
        )
    for key in sorted(keys):
        _require_sound(weights, key)
    layers |= _settings(weights, keys)
    for layer, settings in layers.items():
        if not isinstance(settings, dict) or settings.get("format") not in FORMATS:
            raise ValueError(
                f"{quoted(weights.file.name)} has layer {quoted(layer)} quantised as {quoted(settings)}, "
                f"but DisCa reads only {' and '.join(FORMATS)}. "
                "Load it with core's Load Diffusion Model, or choose a bf16 or fp8 file."
            )
    _require_agreement(weights, set(layers), old=FILE in keys and not metadata)
    return Quantisation(keys, metadata)


def _require_sound(weights: MergedWeights, key: str) -> None:
    layer, _, kind = key.rpartition(".")
    if key != FILE and f"{layer}.weight" not in weights.sources:
        raise ValueError(
            f"{quoted(weights.file.name)} has {quoted(key)} without {quoted(layer + '.weight')}. Download it again."
        )
    info = weights.file.tensors[weights.sources[key][0]]
    if f".{kind}" == LAYER and info.dtype != torch.uint8:
        raise ValueError(f"{quoted(weights.file.name)} has {quoted(key)} that is not text. Download it again.")
    if f".{kind}" in SCALES and (info.nbytes != info.dtype.itemsize or not info.dtype.is_floating_point):
        raise ValueError(
            f"{quoted(weights.file.name)} has {quoted(key)} {quoted(list(info.shape))}, "
            "but DisCa reads only scaled fp8, with one scale per layer. "
            "Load it with core's Load Diffusion Model, or choose a bf16 or fp8 file."
        )


def _require_agreement(weights: MergedWeights, layers: set[str], old: bool) -> None:
    fp8 = {key for key, dtype in weights.dtypes.items() if dtype in FP8 and key.endswith(".weight")}
    scale = ".scale_weight" if old else ".weight_scale"
    scaled = {key.removesuffix(scale) + ".weight" for key in weights.sources if key.endswith(scale)}
    listed = scaled if old else {f"{layer}.weight" for layer in layers}
    if wrong := sorted((fp8 ^ scaled) | (scaled ^ listed)):
        raise ValueError(
            f"{quoted(weights.file.name)} has {len(wrong)} layers that are fp8 without a scale, "
            f"or the other way round: {listing(wrong)}. Download it again, or choose a bf16 file."
        )


def _metadata(weights: MergedWeights) -> tuple[dict[str, str], dict]:
    found = weights.file.metadata.get(METADATA)
    if found is None:
        return {}, {}
    layers = _json(weights.file, found, METADATA).get("layers")
    if not isinstance(layers, dict):
        raise ValueError(f"{quoted(weights.file.name)} has no layers in its {METADATA}. Download it again.")
    layers = {layer.removeprefix(weights.prefix): settings for layer, settings in layers.items()}
    return {METADATA: json.dumps({"layers": layers})}, layers


def _settings(weights: MergedWeights, keys: frozenset[str]) -> dict:
    parts = {weights.sources[key][0]: key for key in keys if key.endswith(LAYER)}
    found = {parts[part]: tensor.numpy().tobytes() for part, tensor in weights.file.read(list(parts))}
    return {key.removesuffix(LAYER): _json(weights.file, text, key) for key, text in found.items()}


def _json(file: WeightsFile, text: str | bytes, where: str) -> dict:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{quoted(file.name)} has {quoted(where)} that is not JSON ({cause(error)}). Download it again."
        ) from error
    if not isinstance(value, dict):
        raise ValueError(f"{quoted(file.name)} has {quoted(where)} that is not a JSON object. Download it again.")
    return value
