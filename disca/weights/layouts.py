"""The layouts in which HunyuanVideo and Predictor weights are published, as pure maps from key to key.

| layout | transformer | Predictor |
| --- | --- | --- |
| merged (HunyuanVideo 1.0) | `*_attn_qkv`, `linear1` | the same |
| tensor-parallel (HunyuanVideo 1.0, R-MeanFlow) | `*_attn_q/_k/_v`, `linear1_q/_k/_v/_mlp`, `linear2.fc` | the same |
| split (HunyuanVideo 1.5) | `*_attn_q/_k/_v` | the same |
| ComfyUI's | `*_attn.qkv`, `*_mod.lin` ... | the same |

Any of them may stand behind a prefix that all keys share (`model.`, `module.`, `model.diffusion_model.`, ...).
"""

import re
from collections.abc import Iterable

MODEL_MARK = "txt_in.individual_token_refiner.blocks.0.norm1.weight"  # the same key in every transformer layout
PREDICTOR_MARKS = {"fusion_mlp.0.weight": "1.0", "fusion_mlp_img.0.weight": "1.5"}
CHECKPOINT_COMPANIONS = ("vae.", "text_encoders.", "first_stage_model.", "cond_stage_model.", "conditioner.")

SPLIT_ATTENTION = re.compile(r"(.+_attn)_([qkv])\.(weight|bias)")
SPLIT_LINEAR1 = re.compile(r"(.+\.linear1)_(q|k|v|mlp)\.(weight|bias)")

BLOCK_NAMES = (  # (published, ComfyUI's)
    ("_attn_qkv.", "_attn.qkv."),
    ("_attn_proj.", "_attn.proj."),
    ("_attn_q_norm.", "_attn.norm.query_norm."),
    ("_attn_k_norm.", "_attn.norm.key_norm."),
    (".q_norm.", ".norm.query_norm."),
    (".k_norm.", ".norm.key_norm."),
    ("_mod.linear.", "_mod.lin."),
    (".modulation.linear.", ".modulation.lin."),
    ("_mlp.fc1.", "_mlp.0."),
    ("_mlp.fc2.", "_mlp.2."),
)

Sources = dict[str, tuple[str, ...]]  # key -> keys of the file that make it, concatenated on dim 0


def prefix_of(keys: Iterable[str], mark: str) -> str | None:
    """What stands before the mark in the one key that ends with it; None without such a key."""
    found = [key[: -len(mark)] for key in keys if key == mark or key.endswith("." + mark)]
    return min(found, key=len) if found else None


def without_prefix(keys: Iterable[str], prefix: str) -> dict[str, str]:
    """Key without the prefix -> key in the file.

    The other parts of a whole checkpoint are left out; what else stands outside the prefix keeps its name.
    """
    kept = [key for key in keys if not (prefix and key.startswith(CHECKPOINT_COMPANIONS))]
    names = {key.removeprefix(prefix): key for key in kept}
    twice = sorted(set(kept) - set(names.values()))
    if twice:
        raise ValueError(f"The file holds weights twice, with and without '{prefix}': {', '.join(twice[:8])}.")
    return names


def merged(keys: Iterable[str]) -> tuple[Sources, list[str]]:
    """The merged layout, split attention and `linear1` joined in the order q, k, v (, mlp); and the keys it lacks."""
    sources: Sources = {}
    parts: dict[str, dict[str, str]] = {}
    for key in keys:
        if match := SPLIT_ATTENTION.fullmatch(key):
            parts.setdefault(f"{match[1]}_qkv.{match[3]}", {})[match[2]] = key
        elif match := SPLIT_LINEAR1.fullmatch(key):
            parts.setdefault(f"{match[1]}.{match[3]}", {})[match[2]] = key
        else:
            sources[re.sub(r"\.linear2\.fc\.", ".linear2.", key)] = (key,)
    missing = []
    for target, found in parts.items():
        order = ("q", "k", "v", "mlp") if ".linear1." in target else ("q", "k", "v")
        missing += [_split_name(target, part) for part in order if part not in found]
        sources[target] = tuple(found[part] for part in order if part in found)
    return sources, sorted(missing)


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


def _split_name(target: str, part: str) -> str:
    stem, _, kind = target.rpartition(".")
    return f"{stem.removesuffix('_qkv')}_{part}.{kind}"
