"""The layouts in which HunyuanVideo and Predictor weights are published, as pure maps from key to key.

| layout | transformer | Predictor |
| --- | --- | --- |
| merged (HunyuanVideo 1.0) | `*_attn_qkv`, `linear1` | the same |
| tensor-parallel (HunyuanVideo 1.0, R-MeanFlow) | `*_attn_q/_k/_v`, `linear1_q/_k/_v/_mlp`, `linear2.fc` | the same |
| split (HunyuanVideo 1.5) | `*_attn_q/_k/_v` | the same |
| ComfyUI's | `*_attn.qkv`, `*_mod.lin` ... | the same |

Any of them may have a prefix that all keys share (`model.`, `module.`, `model.diffusion_model.`, ...).
"""

import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

MODEL_MARK = "txt_in.individual_token_refiner.blocks.0.norm1.weight"  # the same key in every transformer layout
DIFFUSERS_MARK = "transformer_blocks.0.attn.to_q.weight"
EXPERTS_MARK = "transformer_blocks.0.attn.to_q.base_layer.weight"  # of DCM
CHECKPOINT_COMPANIONS = ("vae.", "text_encoders.", "first_stage_model.", "cond_stage_model.", "conditioner.")

SPLIT_ATTENTION = re.compile(r"(.+_attn)_([qkv])\.(weight|bias)")
SPLIT_LINEAR1 = re.compile(r"(.+\.linear1)_(q|k|v|mlp)\.(weight|bias)")
WHOLE = ""  # the part of a weight that is not split

BLOCK_NAMES = (  # (published, ComfyUI's)
    ("_attn_qkv.", "_attn.qkv."),
    ("_attn_proj.", "_attn.proj."),
    ("_attn_q_norm.", "_attn.norm.query_norm."),
    ("_attn_k_norm.", "_attn.norm.key_norm."),
    (".q_norm.", ".norm.query_norm."),
    (".k_norm.", ".norm.key_norm."),
    ("_mod.linear.", "_mod.lin."),
    (".modulation.linear.", ".modulation.lin."),
    (".img_mlp.fc1.", ".img_mlp.0."),
    (".img_mlp.fc2.", ".img_mlp.2."),
    (".txt_mlp.fc1.", ".txt_mlp.0."),
    (".txt_mlp.fc2.", ".txt_mlp.2."),
)

Sources = dict[str, tuple[str, ...]]  # key -> keys that make it, concatenated on dim 0


class Split(NamedTuple):
    """How a layout splits weights: a key's place in the merged layout, key and part; the key of a part, the inverse."""

    place: Callable[[str], tuple[str, str]]
    key: Callable[[str, str], str]


class Merged(NamedTuple):
    """Keys in the merged layout, the ones that a split weight lacks, and the ones given in two layouts at once."""

    sources: Sources
    missing: list[str]
    twice: list[str]


def prefix_of(keys: Iterable[str], mark: str) -> str | None:
    """What stands before the mark in the key that ends with it, the longest if there are several; None without one."""
    found = [key[: -len(mark)] for key in keys if key == mark or key.endswith("." + mark)]
    return max(found, key=len) if found else None


def without_prefix(keys: Iterable[str], prefix: str) -> tuple[dict[str, str], list[str]]:
    """Key without the prefix -> key in the file; and the keys that are there with and without it.

    The other parts of a whole checkpoint are left out; what else stands outside the prefix keeps its name.
    """
    kept = [key for key in keys if not (prefix and key.startswith(CHECKPOINT_COMPANIONS))]
    names = {key.removeprefix(prefix): key for key in kept}
    return names, sorted(set(kept) - set(names.values()))


def merged(keys: Iterable[str], split: Split | None = None) -> Merged:
    """The merged layout, split attention and `linear1` joined in the order q, k, v (, mlp); by default the authors'."""
    place, key_of = split or PUBLISHED
    found: dict[str, dict[str, str]] = {}
    twice = []
    for key in keys:
        target, part = place(key)
        parts = found.setdefault(target, {})
        if part in parts or (parts and WHOLE in (part, *parts)):
            twice.append(key)
        parts[part] = key
    sources, missing = {}, []
    for target, parts in found.items():
        order = (WHOLE,) if WHOLE in parts else ("q", "k", "v", "mlp") if ".linear1." in target else ("q", "k", "v")
        missing += [key_of(target, part) for part in order if part not in parts]
        sources[target] = tuple(parts[part] for part in order if part in parts)
    return Merged(sources, sorted(missing), sorted(twice))


def module_key(key: str) -> str:
    """The name that ComfyUI's blocks give to a merged Predictor key; a name that is ComfyUI's already stays."""
    for published, comfy in BLOCK_NAMES:
        key = key.replace(published, comfy)
    return key


def published_key(key: str) -> str:
    """The inverse of `module_key`."""
    for published, comfy in BLOCK_NAMES:
        key = key.replace(comfy, published)
    return key


def _place(key: str) -> tuple[str, str]:
    if match := SPLIT_ATTENTION.fullmatch(key):
        return f"{match[1]}_qkv.{match[3]}", match[2]
    if match := SPLIT_LINEAR1.fullmatch(key):
        return f"{match[1]}.{match[3]}", match[2]
    return key.replace(".linear2.fc.", ".linear2."), WHOLE


def _split_name(target: str, part: str) -> str:
    stem, _, kind = target.rpartition(".")
    return f"{stem.removesuffix('_qkv')}_{part}.{kind}"


PUBLISHED = Split(_place, _split_name)
