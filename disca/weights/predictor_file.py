"""Predictor files: the authors' and our own, which has the authors' keys and says in its metadata what it is."""

import json
import os
import re
from collections.abc import Mapping

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..messages import cause, listing, quoted
from . import layouts
from .checks import require_fit
from .files import Shape, WeightsFile, refuse_lora
from .impostors import seems_to_be
from .merged import MergedWeights, merged_weights
from .predictor_layout import LAYOUTS, PredictorLayout
from .predictor_spec import AGES_MARK, PredictorSpec, published_shapes

VERSIONS = {"authors": 1, "residual": 2, "two": 3}  # of the format: each form is written as the first that has it
FORMAT_VERSION = max(VERSIONS.values())


def read_predictor(file: WeightsFile) -> tuple[PredictorSpec, dict[str, Tensor]]:
    """What the Predictor is and its weights, under the names of our module; ValueError if a key or shape is off.

    Reads every published layout under any prefix, such as `module.` or `module.predictor.` (see `layouts`).
    """
    spec, weights = _checked(file)
    return spec, to_module(_read(weights))


def read_predictor_spec(file: WeightsFile) -> PredictorSpec:
    """What the Predictor is, without reading its weights; ValueError as by `read_predictor`."""
    return _checked(file)[0]


def _checked(file: WeightsFile) -> tuple[PredictorSpec, MergedWeights]:
    refuse_lora(file.name, list(file.tensors), "a Predictor")
    found = [layout for layout in LAYOUTS.values() if layouts.prefix_of(file.tensors, layout.mark) is not None]
    if not found:
        marks = [layout.mark for layout in LAYOUTS.values()]
        raise ValueError(
            f"{quoted(file.name)} is not a DisCa Predictor: it has neither {listing(marks, 9, str)}, "
            f"but {listing(sorted(file.tensors), 3)}.{seems_to_be(file.tensors)} "
            "Choose a file such as hyvideo10_t2v_predictor_540p.safetensors."
        )
    _require_version(file)
    weights = merged_weights(file, found[0].mark)
    weights = weights.renamed({layouts.published_key(key): key for key in weights.sources})
    weights.require_floating()
    spec = _spec(file, found[0], weights.shapes)
    require_fit(file.name, spec.described, published_shapes(spec), weights.shapes)
    return spec, weights


def write_predictor(path: str, spec: PredictorSpec, state: Mapping[str, Tensor]) -> None:
    """Our own form: `state` under the authors' merged keys, `spec` in the metadata."""
    published = {key: tensor.contiguous() for key, tensor in to_published(state).items()}
    shapes = {key: tuple(tensor.shape) for key, tensor in published.items()}
    require_fit(os.path.basename(path), spec.described, published_shapes(spec), shapes)
    metadata = {
        "disca.format_version": str(VERSIONS[spec.form]),
        "disca.family": spec.family,
        "disca.width": str(spec.width),
        "disca.depth": str(spec.depth),
        "disca.residual": str(spec.residual).lower(),
        "disca.form": spec.form,
        "disca.base_model": spec.base_model,
        "disca.training": json.dumps(dict(spec.training)),
    }
    save_file(published, path, metadata)


def to_module(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Merged keys -> the names of our module, whose fusion layer keeps its first weight in two halves."""
    state = {}
    for key, tensor in published.items():
        fusion, _, rest = key.partition(".")
        if not fusion.startswith("fusion_mlp"):
            state[layouts.module_key(key)] = tensor
        elif rest == "0.weight":
            now, cached = tensor.chunk(2, dim=1)
            state[f"{fusion}.now.weight"], state[f"{fusion}.cached.weight"] = now.contiguous(), cached.contiguous()
        else:
            state[f"{fusion}.{rest.replace('0.', 'now.').replace('2.', 'out.')}"] = tensor
    return state


def to_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `to_module`."""
    published = {}
    for key, tensor in state.items():
        if key.endswith(".now.weight"):
            both = (tensor, state[key.replace(".now.", ".cached.")])
            published[key.replace(".now.", ".0.")] = torch.cat(both, dim=1)
        elif not key.endswith(".cached.weight"):
            published[layouts.published_key(key).replace(".now.", ".0.").replace(".out.", ".2.")] = tensor
    return published


def _read(weights: MergedWeights) -> dict[str, Tensor]:
    dtypes = weights.dtypes
    published = {key: torch.empty(shape, dtype=dtypes[key]) for key, shape in weights.shapes.items()}
    weights.read_into(published)
    return published


def _spec(file: WeightsFile, layout: PredictorLayout, shapes: Mapping[str, Shape]) -> PredictorSpec:
    needed = layout.size_keys
    wrong = [key for key in needed if not all(shapes.get(key, ())) or not shapes.get(key)]
    if wrong:
        raise ValueError(
            f"{quoted(file.name)} is incomplete: {listing(wrong)} missing or without values. Download it again."
        )
    width, mlp_rows, head = (shapes[key][0] for key in needed)
    mlp_rows -= layout.others * width
    spec = PredictorSpec(
        family=layout.family,
        width=width,
        depth=_depth(file, layout.blocks, shapes),
        heads=max(1, width // head),
        mlp_ratio=max(1, mlp_rows) / width,
        residual=file.metadata.get("disca.residual") == "true",
        features=2 if AGES_MARK in shapes else 1,
        base_model=file.metadata.get("disca.base_model", ""),
        training=_training(file),
    )
    _require_true_metadata(file, spec)
    return spec


def _depth(file: WeightsFile, blocks: str, shapes: Mapping[str, Shape]) -> int:
    numbers = re.compile(rf"{blocks}\.([0-9]{{1,4}})\.")
    found = {int(match[1]) for match in map(numbers.match, shapes) if match}
    gaps = sorted(set(range(max(found))) - found)
    if gaps:
        raise ValueError(
            f"{quoted(file.name)} is incomplete: it has {quoted(blocks)} up to {max(found):d}, but lacks "
            f"{listing([str(number) for number in gaps])}. Download it again."
        )
    return len(found)


def _training(file: WeightsFile) -> dict:
    text = file.metadata.get("disca.training", "{}")
    try:
        training = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{quoted(file.name)} has training settings that are not JSON ({cause(error)}). Write the Predictor anew."
        ) from error
    if not isinstance(training, dict):
        raise ValueError(
            f"{quoted(file.name)} has training settings that are not a JSON object. Write the Predictor anew."
        )
    return training


def _require_version(file: WeightsFile) -> None:
    version = file.metadata.get("disca.format_version", str(FORMAT_VERSION))
    if version not in map(str, range(1, FORMAT_VERSION + 1)):
        raise ValueError(
            f"{quoted(file.name)} is a Predictor of format version {quoted(version)}; "
            f"this DisCa reads up to {FORMAT_VERSION}. Update DisCa."
        )


def _require_true_metadata(file: WeightsFile, spec: PredictorSpec) -> None:
    form = file.metadata.get("disca.form")
    if form is not None and (form == "two") != (spec.features > 1):
        has = "those of two features" if spec.features > 1 else "no weights for a second feature"
        raise ValueError(
            f"{quoted(file.name)} says form {quoted(form)}, but its tensors have {quoted(has)}. "
            "It is damaged: download it again."
        )
    for name in ("family", "width", "depth"):
        claimed, read = file.metadata.get(f"disca.{name}"), str(getattr(spec, name))
        if claimed is not None and claimed != read:
            raise ValueError(
                f"{quoted(file.name)} says {name} {quoted(claimed)}, but its tensors have {name} {quoted(read)}. "
                "It is damaged: download it again."
            )
