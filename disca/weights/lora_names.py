"""The names that trainers give to HunyuanVideo's layers, as a pure map to ComfyUI's layers and rows of them.

| trainer | names |
| --- | --- |
| kohya-ss, musubi-tuner | `lora_unet_` and the published name with `_` for `.` |
| diffusion-pipe, PEFT | `diffusion_model.`, `transformer.` or `base_model.model.` and the published name |
| diffusers, OneTrainer | `transformer.` or `lora_transformer_` and diffusers' name: `transformer_blocks.0.attn.to_q` |
| OMI | the published name, parts numbered: `img_attn_qkv.0` |
| LyCORIS | `lycoris_` and any of these |
| ComfyUI | `diffusion_model.` and ComfyUI's name |

Published names are split (`img_attn_q`) or merged (`img_attn_qkv`), ComfyUI's layers always merged. Dots and
underscores are taken for the same, so that all of them are one map.
"""

from collections.abc import Iterable, Mapping

from .diffusers_names import SWAPPED, Place, diffusers_names, parts_of
from .files import Shape
from .layouts import WHOLE

PREFIXES = (
    "base_model_model_",
    "lora_unet_",
    "lora_transformer_",
    "lycoris_",
    "diffusion_model_",
    "transformer_",
    "unet_",
    "model_",
    "module_",
)
TEXT_ENCODERS = ("lora_te", "text_encoder", "text_model", "cond_stage_model", "clip_l", "clip_g", "llama", "qwen25")

ENDINGS = {  # of ComfyUI's names -> of published ones
    ".in_layer": (".mlp.0", ".linear_1"),
    ".out_layer": (".mlp.2", ".linear_2"),
    "mlp.0": ("mlp.fc1", "mlp.fc0"),
    "mlp.2": ("mlp.fc2",),
    ".lin": (".linear",),
    ".norm.query_norm": (".q_norm",),
    ".norm.key_norm": (".k_norm",),
    ".linear2": (".linear2.fc",),
}


def places(layers: Iterable[str]) -> dict[str, Place]:
    """Every name, with `_` for `.`, that a trainer may give to one of ComfyUI's layers or to a part of it."""
    known = {}
    for layer in layers:
        for name in (layer, *_published(layer)):
            known[_flat(name)] = Place(layer)
        for number, part in enumerate(parts_of(layer)):
            stem = layer.removesuffix(".qkv")
            for name in (f"{stem}_{part}", f"{layer}.{number}"):
                known[_flat(name)] = Place(layer, part)
        known |= {_flat(name): place for name, place in diffusers_names(layer)}
    return known


def find(name: str, known: Mapping[str, Place]) -> Place | None:
    """The place of a trainer's name, with any of the usual prefixes; None if there is none."""
    name = _flat(name)
    while name not in known:
        prefix = next((prefix for prefix in PREFIXES if name.startswith(prefix)), None)
        if prefix is None:
            return None
        name = name.removeprefix(prefix)
    return known[name]


def is_text_encoder(name: str) -> bool:
    """Whether the name is that of a text encoder's layer."""
    return _flat(name).removeprefix("base_model_model_").startswith(TEXT_ENCODERS)


def rows_of(place: Place, shape: Shape) -> tuple[int, int] | None:
    """First row and number of rows of a part in its layer's weight of that shape; None for the whole."""
    if place.part in (WHOLE, SWAPPED):
        return None
    width = shape[1] if place.layer.endswith(".linear1") else shape[0] // 3
    number = parts_of(place.layer).index(place.part)
    return number * width, shape[0] - 3 * width if place.part == "mlp" else width


def _flat(name: str) -> str:
    return name.replace(".", "_")


def _published(layer: str) -> list[str]:
    return [
        layer.removesuffix(ending) + published
        for ending, names in ENDINGS.items()
        if layer.endswith(ending)
        for published in names
    ]
