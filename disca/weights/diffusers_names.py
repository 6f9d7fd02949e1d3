"""The names that diffusers gives to the layers of HunyuanVideo, as pure maps from and to those of ComfyUI."""

import re
from typing import NamedTuple

from .layouts import WHOLE

SWAPPED = "swapped"  # diffusers keeps the halves of the last modulation the other way round
BLOCK = re.compile(r"(double_blocks|single_blocks|txt_in\.individual_token_refiner\.blocks)\.(\d+)\.(.+)")
DIFFUSERS_BLOCK = re.compile(r"(.*_blocks)\.(\d+)\.(.+)")
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


def parts_of(layer: str) -> tuple[str, ...]:
    """The parts of a layer that other layouts keep apart, in their order; none if it is whole everywhere."""
    if layer.endswith(".qkv"):
        return ("q", "k", "v")
    return ("q", "k", "v", "mlp") if layer.endswith(".linear1") else ()


def diffusers_names(layer: str) -> list[tuple[str, Place]]:
    """Every name that diffusers gives to one of ComfyUI's layers or to a part of it, and which part."""
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


def diffusers_place(name: str) -> Place | None:
    """The place of diffusers' name, the inverse of `diffusers_names`; None if there is none."""
    match = DIFFUSERS_BLOCK.fullmatch(name)
    if match is None:
        return _PLACES.get(name)
    place = _PLACES.get(f"{match[1]}.0.{match[3]}")
    return place and place._replace(layer=place.layer.replace(".0.", f".{match[2]}.", 1))


_LAYERS = [  # ComfyUI's, the first of each list of blocks
    *(f"{blocks}.0.{layer}" for blocks, (_, layers) in DIFFUSERS_BLOCKS.items() for layer in layers),
    *(f"{embedder}.{end}" for embedder in DIFFUSERS_EMBEDDERS for end in ("in_layer", "out_layer")),
    *DIFFUSERS_OTHERS,
    LAST_MODULATION[0],
]
_PLACES = dict(pair for layer in _LAYERS for pair in diffusers_names(layer))
