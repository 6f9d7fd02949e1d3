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

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from .files import Shape
from .layouts import WHOLE

SWAPPED = "swapped"  # diffusers keeps the halves of the last modulation the other way round
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
BLOCK = re.compile(r"(double_blocks|single_blocks|txt_in\.individual_token_refiner\.blocks)\.(\d+)\.(.+)")
DIFFUSERS_BLOCKS = {  # ComfyUI's list of blocks -> diffusers', and the layers in a block, part by part
    "double_blocks": (
        "transformer_blocks",
        {
            "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
            "img_attn.proj": ("attn.to_out.0",),
            "img_attn.norm.query_norm": ("attn.norm_q",),
            "img_attn.norm.key_norm": ("attn.norm_k",),
            "img_mod.lin": ("norm1.linear",),
            "img_mlp.0": ("ff.net.0.proj",),
            "img_mlp.2": ("ff.net.2",),
            "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
            "txt_attn.proj": ("attn.to_add_out",),
            "txt_attn.norm.query_norm": ("attn.norm_added_q",),
            "txt_attn.norm.key_norm": ("attn.norm_added_k",),
            "txt_mod.lin": ("norm1_context.linear",),
            "txt_mlp.0": ("ff_context.net.0.proj",),
            "txt_mlp.2": ("ff_context.net.2",),
        },
    ),
    "single_blocks": (
        "single_transformer_blocks",
        {
            "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
            "linear2": ("proj_out",),
            "modulation.lin": ("norm.linear",),
            "norm.query_norm": ("attn.norm_q",),
            "norm.key_norm": ("attn.norm_k",),
        },
    ),
    "txt_in.individual_token_refiner.blocks": (
        "context_embedder.token_refiner.refiner_blocks",
        {
            "self_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
            "self_attn.proj": ("attn.to_out.0",),
            "mlp.0": ("ff.net.0.proj",),
            "mlp.2": ("ff.net.2",),
            "adaLN_modulation.1": ("norm_out.linear",),
            "norm1": ("norm1",),
            "norm2": ("norm2",),
        },
    ),
}
DIFFUSERS_EMBEDDERS = {  # each has an in_layer and an out_layer; 1.0's name, 1.5's
    "time_in": ("time_text_embed.timestep_embedder", "time_embed.timestep_embedder"),
    "time_r_in": ("time_text_embed.timestep_embedder_r", "time_embed.timestep_embedder_r"),
    "guidance_in": ("time_text_embed.guidance_embedder",),
    "vector_in": ("time_text_embed.text_embedder",),
    "txt_in.t_embedder": ("context_embedder.time_text_embed.timestep_embedder",),
    "txt_in.c_embedder": ("context_embedder.time_text_embed.text_embedder",),
}
DIFFUSERS_OTHERS = {
    "img_in.proj": "x_embedder.proj",
    "txt_in.input_embedder": "context_embedder.proj_in",
    "final_layer.linear": "proj_out",
    "byt5_in.layernorm": "context_embedder_2.norm",
    "byt5_in.fc1": "context_embedder_2.linear_1",
    "byt5_in.fc2": "context_embedder_2.linear_2",
    "byt5_in.fc3": "context_embedder_2.linear_3",
    "vision_in.proj.0": "image_embedder.norm_in",
    "vision_in.proj.1": "image_embedder.linear_1",
    "vision_in.proj.3": "image_embedder.linear_2",
    "vision_in.proj.4": "image_embedder.norm_out",
    "cond_type_embedding": "cond_type_embed",
}
LAST_MODULATION = ("final_layer.adaLN_modulation.1", "norm_out.linear")


class Place(NamedTuple):
    """A layer by ComfyUI's name, and which rows of it: q, k, v, mlp, or WHOLE."""

    layer: str
    part: str = WHOLE


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
        known |= {_flat(name): place for name, place in _diffusers(layer)}
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


def parts_of(layer: str) -> tuple[str, ...]:
    """The parts of a layer that other layouts keep apart, in their order; none if it is whole everywhere."""
    if layer.endswith(".qkv"):
        return ("q", "k", "v")
    return ("q", "k", "v", "mlp") if layer.endswith(".linear1") else ()


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


def _diffusers(layer: str) -> list[tuple[str, Place]]:
    if match := BLOCK.fullmatch(layer):
        blocks, names = DIFFUSERS_BLOCKS[match[1]]
        parts = parts_of(layer) or (WHOLE,)
        found = names.get(match[3], ())
        return [(f"{blocks}.{match[2]}.{name}", Place(layer, part)) for name, part in zip(found, parts, strict=False)]
    if layer == LAST_MODULATION[0]:
        return [(LAST_MODULATION[1], Place(layer, SWAPPED))]
    if layer in DIFFUSERS_OTHERS:
        return [(DIFFUSERS_OTHERS[layer], Place(layer))]
    stem, _, end = layer.rpartition(".")
    number = {"in_layer": "1", "out_layer": "2"}.get(end)
    names = DIFFUSERS_EMBEDDERS.get(stem, ()) if number else ()
    return [(f"{name}.linear_{number}", Place(layer)) for name in names]
