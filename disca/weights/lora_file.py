"""LoRA files: which layers of a network they name, by whatever trainer, and what is done to each."""

import json
import math
import re
from collections.abc import Mapping
from typing import NamedTuple

import torch

from ..messages import listing, quoted
from .checks import require_floating
from .files import WeightsFile
from .impostors import refuse_experts, seems_to_be
from .lora_kinds import Tensors

ADAPTER = r"(?:\.[^.]+)?"  # PEFT's name of the adapter, which may stand in a key
KEYS = [  # ends of keys, and ComfyUI's name of what stands there
    (rf"\.lora_up\.weight|\.lora_B{ADAPTER}\.weight|[._]lora\.up\.weight|\.lora_linear_layer\.up\.weight|\.lora_B",
     "lora_up.weight"),
    (rf"\.lora_down\.weight|\.lora_A{ADAPTER}\.weight|[._]lora\.down\.weight|\.lora_linear_layer\.down\.weight|\.lora_A",
     "lora_down.weight"),
    (rf"\.lora_B{ADAPTER}\.bias|\.lora_up\.bias", "lora_up.bias"),
    (r"\.dora_scale|\.lora_magnitude_vector(?:\.(?!weight$)[^.]+)?(?:\.weight)?", "dora_scale"),
]  # fmt: skip
PLAIN = (
    "lora_mid.weight alpha rescale oft_blocks diff diff_b set_weight w_norm b_norm a1.weight a2.weight b1.weight "
    "b2.weight hada_w1_a hada_w1_b hada_w2_a hada_w2_b hada_t1 hada_t2 lokr_w1 lokr_w1_a lokr_w1_b lokr_w2 lokr_w2_a "
    "lokr_w2_b lokr_t2"
)
KEYS += [(rf"\.{re.escape(name)}", name) for name in PLAIN.split()]
PATTERNS = [(re.compile(rf"(.+?)(?:{ends})"), name) for ends, name in KEYS]
CONFIGS = ("lora_adapter_metadata", "adapter_config")  # keys of the metadata: diffusers', PEFT's


class Lora(NamedTuple):
    """The layers of a LoRA file, each with its tensors under ComfyUI's names, and the keys that are none of any."""

    name: str
    metadata: dict[str, str]
    layers: dict[str, Tensors]
    others: list[str]


def split_key(key: str) -> tuple[str, str] | None:
    """The layer that a LoRA's key is of, and ComfyUI's name of what it holds; None for another file's key."""
    for pattern, name in PATTERNS:
        if match := pattern.fullmatch(key):
            return match[1], name
    return None


def read_lora(file: WeightsFile) -> Lora:
    """The file's layers; ValueError if it is none of a LoRA, or has a tensor twice, NaN or whole numbers."""
    refuse_experts(file.name, list(file.tensors), "a LoRA")
    places = {key: split_key(key) for key in file.tensors}
    others = sorted(key for key, place in places.items() if place is None)
    if len(others) == len(places):
        raise ValueError(
            f"{quoted(file.name)} is not a LoRA: it has no lora_down, lora_A or the like, but "
            f"{listing(others, 3)}.{seems_to_be(others)} Choose a LoRA; a whole model goes into a model loader."
        )
    weights = {key for key, place in places.items() if place and place[1] != "alpha"}
    require_floating(file.name, {key: file.tensors[key].dtype for key in sorted(weights)})
    layers = read_layers(file, {key: place for key, place in places.items() if place})
    _give_alphas(file, layers)
    return Lora(file.name, file.metadata, layers, others)


def read_layers(file: WeightsFile, places: Mapping[str, tuple[str, str]]) -> dict[str, Tensors]:
    """The tensors of each layer, from each key's layer and name in it; ValueError for one that is there twice, NaN."""
    layers: dict[str, Tensors] = {}
    for key, tensor in file.read(list(places)):
        layer, name = places[key]
        if name in layers.setdefault(layer, {}):
            raise ValueError(
                f"{quoted(file.name)} holds the {quoted(name)} of {quoted(layer)} twice, under two names. Only one can "
                "be right: download the file again, or export it anew."
            )
        layers[layer][name] = tensor.clone()
    return layers


def _give_alphas(file: WeightsFile, layers: dict[str, Tensors]) -> None:
    """Puts the metadata's alpha beside each down weight that has none of its own; without it, alpha is the rank."""
    config = _config(file)
    alpha, patterns = config.get("lora_alpha"), config.get("alpha_pattern") or {}
    if alpha is None and not patterns:
        return
    if not isinstance(patterns, dict):
        raise ValueError(_not_read(file, "alpha_pattern", patterns))
    for layer, tensors in layers.items():
        if "lora_down.weight" not in tensors or "alpha" in tensors:
            continue
        found = next((value for name, value in patterns.items() if f".{layer}".endswith(f".{name}")), alpha)
        if found is not None:
            value = _number(file, found)
            rank = len(tensors["lora_down.weight"]) if tensors["lora_down.weight"].ndim else 1
            tensors["alpha"] = torch.tensor(value * math.sqrt(rank) if config.get("use_rslora") is True else value)


def _config(file: WeightsFile) -> dict:
    """The adapter's settings in the metadata, without the prefix of the transformer."""
    text = next((file.metadata[key] for key in CONFIGS if key in file.metadata), None)
    if text is None:
        return {"lora_alpha": file.metadata["lora_alpha"]} if "lora_alpha" in file.metadata else {}
    try:
        config = json.loads(text)
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise ValueError(_not_read(file, "settings of the adapter", text))
    return {key.removeprefix("transformer."): value for key, value in config.items()}


def _number(file: WeightsFile, value: object) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(_not_read(file, "lora_alpha", value))
    return number


def _not_read(file: WeightsFile, what: str, value: object) -> str:
    return (
        f"{quoted(file.name)} has {what} in its metadata that cannot be read: {quoted(value)}. Download it again, or "
        "export it anew."
    )
