"""DCM's file: HunyuanVideo in diffusers' layout, and what its second expert has in place of some of its weights.

DCM (Dual-Expert Consistency Model, arXiv 2506.03123) has an expert for high noise, the semantic one, and one for low
noise, the detail one. Its file is the state of one network with both:

| in the file | what it is |
| --- | --- |
| diffusers' names, `.base_layer.` in those that have a LoRA | the semantic expert |
| `.lora_A.lora1.`, `.lora_B.lora1.` | the detail expert's LoRA on to_q, to_k, to_v and to_out.0 |
| `time_text_embed_lora.`, `norm_out_lora.`, `proj_out_lora.` | layers that the detail expert has in place of these |
"""

from collections.abc import Collection
from dataclasses import replace
from typing import NamedTuple

from ..messages import listing, quoted
from . import layouts
from .checks import require_floating, require_once
from .diffusers_names import LAST_MODULATION, SWAPPED, diffusers_names, diffusers_place
from .files import WeightsFile
from .impostors import seems_to_be
from .lora_file import Lora, read_layers, split_key
from .merged import MergedWeights, joined_weights

SCALE = 2.0  # of the LoRA: alpha 256 over rank 128 in the authors' inference_hy.py; the file has no alpha
BASE = ".base_layer."  # in the name of a weight that has a LoRA
OWN = "_lora."  # ends the first part of a name that is the detail expert's own


class ExpertsFile(NamedTuple):
    """The semantic expert, the detail expert's own weights, and its LoRA's keys, all under names without a prefix."""

    semantic: MergedWeights  # ComfyUI's names
    own: MergedWeights  # ComfyUI's names of what they replace
    lora: dict[str, str]  # diffusers' name -> key in the file


def experts_of(file: WeightsFile) -> ExpertsFile:
    """What each expert has; ValueError if the file is not DCM's, or not whole."""
    prefix = layouts.prefix_of(file.tensors, layouts.EXPERTS_MARK)
    if prefix is None:
        raise ValueError(
            f"{quoted(file.name)} is not DCM's file of two experts: it has no {layouts.EXPERTS_MARK}, "
            f"but {listing(sorted(file.tensors), 3)}.{seems_to_be(file.tensors)} Choose DCM's "
            "diffusion_pytorch_model.safetensors for HunyuanVideo."
        )
    names, twice = layouts.without_prefix(file.tensors, prefix)
    require_once(file.name, twice)
    lora = {name: key for name, key in names.items() if split_key(name)}
    own = {name: key for name, key in names.items() if name.partition(".")[0].endswith(OWN[:-1])}
    semantic = {name: key for name, key in names.items() if name not in lora and name not in own}
    _require_whole(file, semantic, lora)
    plain = {name.replace(BASE, "."): key for name, key in semantic.items()}
    require_once(file.name, sorted(set(semantic.values()) - set(plain.values())))
    replaced = {name.replace(OWN, ".", 1): key for name, key in own.items()}
    return ExpertsFile(_as_comfy(file, prefix, plain), _as_comfy(file, prefix, replaced), lora)


def read_expert_lora(file: WeightsFile, keys: dict[str, str]) -> Lora:
    """The detail expert's LoRA with its scale as alpha, by diffusers' names; ValueError for NaN or whole numbers."""
    places = {key: split_key(name) for name, key in keys.items()}
    require_floating(file.name, {key: file.tensors[key].dtype for key in sorted(places)})
    layers = read_layers(file, places)
    for tensors in layers.values():
        down = tensors.get("lora_down.weight")
        if down is not None and down.ndim:
            tensors["alpha"] = down.new_tensor(SCALE * len(down))
    return Lora(file.name, {}, layers, [])


def _require_whole(file: WeightsFile, semantic: Collection[str], lora: Collection[str]) -> None:
    """ValueError unless each weight that is named as one with a LoRA has both its factors, and no other has any."""
    expected = {
        (name.partition(BASE)[0], factor)
        for name in semantic
        if name.endswith(f"{BASE}weight")
        for factor in ("lora_down.weight", "lora_up.weight")
    }
    found = {split_key(name) for name in lora}
    if wrong := [f"{quoted(what)} of {quoted(layer)}" for layer, what in sorted(expected ^ found)]:
        raise ValueError(
            f"{quoted(file.name)} has {len(wrong)} factors of its LoRA too few or too many: "
            f"{listing(wrong, 4, str)}. Download it again."
        )


def _as_comfy(file: WeightsFile, prefix: str, names: dict[str, str]) -> MergedWeights:
    weights = joined_weights(file, prefix, names, DIFFUSERS)
    return replace(
        weights, swapped=frozenset(key for key in weights.sources if key.startswith(f"{LAST_MODULATION[0]}."))
    )


def _place(key: str) -> tuple[str, str]:
    """ComfyUI's key of diffusers' one, and the part; a key that is none of diffusers' stays, to be named later."""
    layer, _, kind = key.rpartition(".")
    place = diffusers_place(layer)
    if place is None:
        return key, layouts.WHOLE
    return f"{place.layer}.{kind}", layouts.WHOLE if place.part == SWAPPED else place.part


def _key(target: str, part: str) -> str:
    layer, _, kind = target.rpartition(".")
    return next(f"{name}.{kind}" for name, place in diffusers_names(layer) if place.part == part)


DIFFUSERS = layouts.Split(_place, _key)
