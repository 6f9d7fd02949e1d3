"""LoRA files as each trainer writes them, and the weights with them merged."""

from typing import NamedTuple

import torch
from torch import Tensor

Weights = dict[str, Tensor]
RANK, ALPHA = 3, 6.0
PARTS = {"_attn_qkv": "qkv", "linear1": ("q", "k", "v", "mlp")}
COMFYS = [
    ("_attn_qkv", "_attn.qkv"), ("_attn_proj", "_attn.proj"), ("_mod.linear", "_mod.lin"),
    ("modulation.linear", "modulation.lin"), ("mlp.fc1", "mlp.0"), ("mlp.fc2", "mlp.2"),
    ("_in.mlp.0", "_in.in_layer"), ("_in.mlp.2", "_in.out_layer"), ("t_embedder.mlp.0", "t_embedder.in_layer"),
    ("t_embedder.mlp.2", "t_embedder.out_layer"), ("c_embedder.linear_1", "c_embedder.in_layer"),
    ("c_embedder.linear_2", "c_embedder.out_layer"),
]  # fmt: skip
REFINER = [
    ("txt_in.individual_token_refiner.blocks", "context_embedder.token_refiner.refiner_blocks"),
    ("self_attn_q", "attn.to_q"), ("self_attn_k", "attn.to_k"), ("self_attn_v", "attn.to_v"),
    ("self_attn_proj", "attn.to_out.0"), ("mlp.fc1", "ff.net.0.proj"), ("mlp.fc2", "ff.net.2"),
    ("adaLN_modulation.1", "norm_out.linear"), ("txt_in.input_embedder", "context_embedder.proj_in"),
    ("txt_in.t_embedder.mlp.0", "context_embedder.time_text_embed.timestep_embedder.linear_1"),
    ("txt_in.t_embedder.mlp.2", "context_embedder.time_text_embed.timestep_embedder.linear_2"),
    ("txt_in.c_embedder", "context_embedder.time_text_embed.text_embedder"),
]  # fmt: skip
DIFFUSERS = [
    ("double_blocks", "transformer_blocks"), ("img_attn_proj", "attn.to_out.0"), ("txt_attn_proj", "attn.to_add_out"),
    ("img_attn_q", "attn.to_q"), ("img_attn_k", "attn.to_k"), ("img_attn_v", "attn.to_v"),
    ("txt_attn_q", "attn.add_q_proj"), ("txt_attn_k", "attn.add_k_proj"), ("txt_attn_v", "attn.add_v_proj"),
    ("img_mod.linear", "norm1.linear"), ("txt_mod.linear", "norm1_context.linear"),
    ("img_mlp.fc1", "ff.net.0.proj"), ("img_mlp.fc2", "ff.net.2"),
    ("txt_mlp.fc1", "ff_context.net.0.proj"), ("txt_mlp.fc2", "ff_context.net.2"),
    ("single_blocks", "single_transformer_blocks"), ("linear1_mlp", "proj_mlp"), ("linear1_", "attn.to_"),
    ("linear2.fc", "proj_out"), ("linear2", "proj_out"), ("modulation.linear", "norm.linear"),
    ("img_in.proj", "x_embedder.proj"), ("final_layer.linear", "proj_out"),
    ("final_layer.adaLN_modulation.1", "norm_out.linear"),
    ("time_in.mlp.0", "time_text_embed.timestep_embedder.linear_1"),
    ("time_in.mlp.2", "time_text_embed.timestep_embedder.linear_2"),
    ("time_r_in.mlp.0", "time_embed.timestep_embedder_r.linear_1"),
    ("time_r_in.mlp.2", "time_embed.timestep_embedder_r.linear_2"),
    ("guidance_in.mlp.0", "time_text_embed.guidance_embedder.linear_1"),
    ("guidance_in.mlp.2", "time_text_embed.guidance_embedder.linear_2"),
    ("vector_in.in_layer", "time_text_embed.text_embedder.linear_1"),
    ("vector_in.out_layer", "time_text_embed.text_embedder.linear_2"),
    ("byt5_in.fc", "context_embedder_2.linear_"), ("vision_in.proj.1", "image_embedder.linear_1"),
    ("vision_in.proj.3", "image_embedder.linear_2"),
]  # fmt: skip
LOW_RANK = {"down": ".lora_down.weight", "up": ".lora_up.weight", "alpha": ".alpha"}
PEFT = {"down": ".lora_A.weight", "up": ".lora_B.weight"}
NAMED_PEFT = {"down": ".lora_A.default.weight", "up": ".lora_B.default.weight"}
DOTTED_DIFFUSERS = {"down": ".lora.down.weight", "up": ".lora.up.weight"}
TRAINERS = {  # layout of the layers' names, what stands before them, ends of the keys
    "musubi-tuner": ("native", "lora_unet_", LOW_RANK),
    "musubi-tuner on merged layers": ("merged", "lora_unet_", LOW_RANK),
    "musubi-tuner on split layers": ("split", "lora_unet_", LOW_RANK),
    "diffusion-pipe": ("native", "diffusion_model.", PEFT),
    "diffusion-pipe on split layers": ("split", "diffusion_model.", PEFT),
    "diffusion-pipe on merged layers": ("merged", "diffusion_model.", PEFT),
    "under transformer": ("native", "transformer.", PEFT),
    "PEFT": ("native", "base_model.model.", PEFT),
    "PEFT with the adapter's name": ("split", "base_model.model.", NAMED_PEFT),
    "diffusers": ("diffusers", "transformer.", PEFT),
    "older diffusers": ("diffusers", "transformer.", DOTTED_DIFFUSERS),
    "OneTrainer": ("diffusers", "lora_transformer_", LOW_RANK),
    "OMI": ("numbered", "transformer.", LOW_RANK),
    "LyCORIS": ("native", "lycoris_", LOW_RANK),
    "ComfyUI": ("comfy", "diffusion_model.", LOW_RANK),
    "ComfyUI, underscored": ("comfy", "lora_unet_", LOW_RANK),
    "bare": ("native", "", PEFT),
}


class Part(NamedTuple):
    """A layer as a trainer has it: its name there, the merged layer, and which rows of that it is."""

    name: str
    layer: str
    start: int
    rows: int
    swapped: bool = False


def merged_layout(weights: Weights) -> Weights:
    """The weights with q, k, v joined."""
    joined = {}
    for key, tensor in weights.items():
        if "_attn_q." in key:
            joined[key.replace("_attn_q.", "_attn_qkv.")] = torch.cat(
                [weights[key.replace("_attn_q.", f"_attn_{part}.")] for part in "qkv"]
            )
        elif "_attn_k." not in key and "_attn_v." not in key:
            joined[key] = tensor
    return joined


def parts(weights: Weights, layout: str) -> list[Part]:
    """Every layer of merged weights that a LoRA can be for, as a trainer of that layout has them."""
    layers = [
        key.removesuffix(".weight")
        for key, tensor in weights.items()
        if tensor.ndim > 1 and key.endswith(".weight") and "cond_type" not in key
    ]
    if layout == "native":
        layout = "merged" if any("single_blocks" in layer for layer in layers) else "native"
    return [part for layer in layers for part in _parts(layer, weights[f"{layer}.weight"], layout)]


def _parts(layer: str, weight: Tensor, layout: str) -> list[Part]:
    ending = next((ending for ending in PARTS if layer.endswith(ending)), None)
    whole = layout in ("merged", "comfy") or ending is None or (layout == "native" and "refiner" in layer)
    if whole:
        swapped = layout == "diffusers" and layer == "final_layer.adaLN_modulation.1"
        return [Part(_name(layer, layout), layer, 0, len(weight), swapped)]
    width = weight.shape[1]
    starts = [*range(0, 3 * width, width), *([3 * width] if ending == "linear1" else [])]
    ends = [*starts[1:], len(weight)]
    stem = layer.removesuffix("_qkv")
    names = [
        f"{layer}.{number}" if layout == "numbered" else _name(f"{stem}_{part}", layout)
        for number, part in enumerate(PARTS[ending])
    ]
    return [Part(name, layer, start, end - start) for name, start, end in zip(names, starts, ends, strict=True)]


def _name(layer: str, layout: str) -> str:
    if layout == "split" and layer.endswith("linear2"):
        return f"{layer}.fc"
    renames = {"comfy": COMFYS, "diffusers": REFINER if "txt_in" in layer else DIFFUSERS}.get(layout, [])
    if layout == "diffusers" and "txt_in" not in layer:
        renames = [pair for pair in renames if pair[0] != "linear2.fc"]
    for old, new in renames:
        layer = layer.replace(old, new)
    return layer


def lora_file(weights: Weights, trainer: str, seed: int = 5) -> tuple[Weights, Weights]:
    """A LoRA of every layer of merged weights as the trainer names it, and what it adds to each weight."""
    layout, prefix, ends = TRAINERS[trainer]
    generator = torch.Generator().manual_seed(seed)
    file, added = {}, {}
    for part in parts(weights, layout):
        weight = weights[f"{part.layer}.weight"]
        up, down = _drawn(part.rows, weight.shape[1:], generator)
        name = part.name.replace(".", "_") if prefix.endswith("_") else part.name
        held = {"up": up, "down": down, "alpha": torch.tensor(ALPHA)}
        file |= {f"{prefix}{name}{end}": held[kind] for kind, end in ends.items()}
        scale = ALPHA / RANK if "alpha" in ends else 1.0
        change = scale * (up.flatten(1) @ down.flatten(1)).reshape(part.rows, *weight.shape[1:])
        if part.swapped:
            change = torch.cat(change.chunk(2)[::-1])
        whole = added.setdefault(f"{part.layer}.weight", torch.zeros_like(weight))
        whole[part.start : part.start + part.rows] += change
    return file, added


def _drawn(rows: int, inner: torch.Size, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    ones = [1] * (len(inner) - 1)
    up = torch.randn([rows, RANK, *ones], generator=generator) * 0.1
    return up, torch.randn([RANK, *inner], generator=generator) * 0.1
