"""Predictor files: the authors' and our own, which has the authors' keys and says in its metadata what it is."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from safetensors.torch import save_file
from torch import Tensor

from . import layouts
from .files import WeightsFile, listing, refuse_lora

FORMAT_VERSION = 1
FAMILIES = {"1.0": "HunyuanVideo 1.0", "1.5": "HunyuanVideo 1.5"}


@dataclass(frozen=True)
class PredictorSpec:
    """What a Predictor is: read from its tensors, but for where it comes from, which only metadata can tell."""

    family: str  # a key of FAMILIES
    width: int
    depth: int
    heads: int
    mlp_ratio: float
    base_model: str = ""
    training: Mapping = field(default_factory=dict)

    def __str__(self) -> str:
        return f"a {FAMILIES[self.family]} Predictor (width {self.width}, {self.depth} blocks)"


def read_predictor(file: WeightsFile) -> tuple[PredictorSpec, dict[str, Tensor]]:
    """What the Predictor is and its weights, under the names of our module.

    Reads every published layout behind any prefix, such as `module.` or `module.predictor.` (see `layouts`).
    """
    refuse_lora(file.name, list(file.tensors), "a Predictor")
    mark = next((mark for mark in layouts.PREDICTOR_MARKS if layouts.prefix_of(file.tensors, mark) is not None), None)
    if mark is None:
        raise ValueError(
            f"'{file.name}' is not a DisCa Predictor: it has no {' or '.join(layouts.PREDICTOR_MARKS)}, "
            f"but {listing(sorted(file.tensors), 3)}. Choose a file such as hyvideo10_t2v_predictor_540p.safetensors."
        )
    names = layouts.without_prefix(file.tensors, layouts.prefix_of(file.tensors, mark))
    sources, missing = layouts.merged(names)
    if missing:
        raise ValueError(f"'{file.name}' is incomplete: {len(missing)} keys missing: {listing(missing)}.")
    tensors = dict(file.read(list(names.values())))
    published = {key: torch.cat([tensors[names[part]] for part in parts]) for key, parts in sources.items()}
    spec = _spec(file, layouts.PREDICTOR_MARKS[mark], published)
    return spec, to_module(published)


def write_predictor(path: str, spec: PredictorSpec, state: Mapping[str, Tensor]) -> None:
    """Our own form: `state` under the authors' merged keys, `spec` in the metadata."""
    metadata = {
        "disca.format_version": str(FORMAT_VERSION),
        "disca.family": spec.family,
        "disca.width": str(spec.width),
        "disca.depth": str(spec.depth),
        "disca.base_model": spec.base_model,
        "disca.training": json.dumps(dict(spec.training)),
    }
    save_file({key: tensor.contiguous() for key, tensor in to_published(state).items()}, path, metadata)


def to_module(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Merged keys -> the names of our module, whose fusion layer keeps its first weight in two halves."""
    state = {}
    for key, tensor in published.items():
        fusion, _, rest = key.partition(".")
        if not fusion.startswith("fusion_mlp"):
            state[layouts.module_key(key)] = tensor
        elif rest == "0.weight" and tensor.ndim == 2:
            now, cached = tensor.tensor_split(2, dim=1)
            state[f"{fusion}.now.weight"], state[f"{fusion}.cached.weight"] = now.contiguous(), cached.contiguous()
        else:
            state[key.replace(f"{fusion}.0.", f"{fusion}.now.").replace(f"{fusion}.2.", f"{fusion}.out.")] = tensor
    return state


def to_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `to_module`."""
    published = {}
    for key, tensor in state.items():
        if key.endswith(".now.weight"):
            both = (tensor, state[key.replace(".now.", ".cached.")])
            published[key.replace(".now.", ".0.")] = torch.cat(both, dim=1)
        elif not key.endswith(".cached.weight"):
            key = key.replace(".now.", ".0.").replace(".out.", ".2.")
            published[layouts.published_key(key)] = tensor
    return published


def _spec(file: WeightsFile, family: str, published: Mapping[str, Tensor]) -> PredictorSpec:
    fusion, blocks, mlp, norm = {
        "1.0": ("fusion_mlp", "mm_single_blocks", "linear1", "norm.key_norm"),
        "1.5": ("fusion_mlp_img", "double_blocks", "img_mlp.0", "img_attn.norm.key_norm"),
    }[family]
    rows = {layouts.module_key(key): tensor.shape[0] for key, tensor in published.items() if tensor.ndim}
    indices = {int(key.split(".")[1]) for key in rows if key.startswith(blocks + ".") and key.split(".")[1].isdigit()}
    needed = [f"{fusion}.2.weight", f"{blocks}.0.{mlp}.weight", f"{blocks}.0.{norm}.weight"]
    absent = [key for key in needed if key not in rows]
    if absent:
        raise ValueError(f"'{file.name}' is incomplete: {listing(absent)} missing. Download it again.")
    width, mlp_rows, head_dim = (rows[key] for key in needed)
    spec = PredictorSpec(
        family=family,
        width=width,
        depth=max(indices) + 1,
        heads=max(1, width // max(1, head_dim)),
        mlp_ratio=max(1, mlp_rows - (3 * width if family == "1.0" else 0)) / max(1, width),
        base_model=file.metadata.get("disca.base_model", ""),
        training=json.loads(file.metadata.get("disca.training", "{}")),
    )
    _check_metadata(file, spec)
    return spec


def _check_metadata(file: WeightsFile, spec: PredictorSpec) -> None:
    version = file.metadata.get("disca.format_version", str(FORMAT_VERSION))
    if version != str(FORMAT_VERSION):
        raise ValueError(
            f"'{file.name}' is a Predictor of format version {version}; this DisCa reads {FORMAT_VERSION}. "
            "Update DisCa."
        )
    for name in ("family", "width", "depth"):
        said, read = file.metadata.get(f"disca.{name}"), str(getattr(spec, name))
        if said is not None and said != read:
            raise ValueError(f"'{file.name}' says {name} {said} but its tensors have {name} {read}. It is damaged.")
