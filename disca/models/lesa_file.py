"""LESA's predictor as a safetensors file: the published keys and shapes, and what it was trained for as metadata."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..messages import cause, listing, quoted
from ..schedule import parse_anchors
from ..weights.checks import require_fit, require_floating
from ..weights.files import Shape, WeightsFile, refuse_lora
from ..weights.impostors import seems_to_be

FORMAT, VERSION = "LESA", "1"
READS = (4, 8, 8)  # of each expert: how many of the last outputs
BASES, KNOTS = 8, 12  # of a cubic spline on five intervals
FIRST = "timestep.0.layers.0.base_weight"  # [hidden, steps + 1]
MOST_STEPS, MOST_HIDDEN = 1000, 4096


@dataclass(frozen=True)
class LesaSpec:
    """What a LESA predictor is: its sizes, read from the tensors, and what only metadata can tell."""

    steps: int  # of the runs it is for
    hidden: int
    shift: float | None = None  # of these runs' times; None where the file does not say
    anchors: tuple[int, ...] = ()  # the steps in full of the runs it was trained on
    base_model: str = ""
    training: Mapping = field(default_factory=dict)

    @property
    def described(self) -> str:
        """What it is, in a message."""
        return f"a LESA predictor (for {self.steps:d} steps, width {self.hidden:d})"


def lesa_shapes(spec: LesaSpec) -> dict[str, Shape]:
    """The keys and shapes that such a predictor has."""
    shapes, widths = {}, (spec.steps + 1, spec.hidden, spec.hidden, 1)
    for expert, reads in enumerate(READS):
        shapes |= {f"latent.{expert}.weight": (1, reads), f"latent.{expert}.bias": (1,)}
        for i, (ins, outs) in enumerate(zip(widths[:-1], widths[1:], strict=True)):
            layer = f"timestep.{expert}.layers.{i:d}."
            shapes |= {layer + "base_weight": (outs, ins), layer + "spline_scaler": (outs, ins)}
            shapes |= {layer + "spline_weight": (outs, ins, BASES), layer + "grid": (ins, KNOTS)}
    return shapes


def is_lesa(file: WeightsFile) -> bool:
    """Whether it has a LESA predictor's keys."""
    return FIRST in file.tensors


def read_lesa(file: WeightsFile) -> tuple[LesaSpec, dict[str, Tensor]]:
    """What the predictor is and its weights in fp32; ValueError if a key, shape or number is off."""
    refuse_lora(file.name, list(file.tensors), "a LESA predictor")
    first = file.tensors.get(FIRST)
    if first is None or len(first.shape) != 2:
        raise ValueError(
            f"{quoted(file.name)} is not a LESA predictor: it has no {quoted(FIRST)}, but "
            f"{listing(sorted(file.tensors), 3)}.{seems_to_be(file.tensors)} Choose a file that a LESA training wrote."
        )
    spec = _spec(file, first.shape)
    shapes = {key: info.shape for key, info in file.tensors.items()}
    require_fit(file.name, spec.described, lesa_shapes(spec), shapes)
    require_floating(file.name, {key: info.dtype for key, info in file.tensors.items()})
    state = {key: tensor.to(torch.float32, copy=True) for key, tensor in file.read(list(file.tensors))}
    for key, tensor in state.items():
        if key.endswith(".grid") and not (tensor.diff(dim=1) > 0).all():
            raise ValueError(
                f"{quoted(file.name)} has knots in {quoted(key)} that do not rise. The file is damaged: "
                "download it again."
            )
    return spec, state


def write_lesa(path: str, spec: LesaSpec, state: Mapping[str, Tensor]) -> None:
    """A file that reads back as the same."""
    found = {key: tensor.contiguous() for key, tensor in state.items()}
    shapes = {key: tuple(tensor.shape) for key, tensor in found.items()}
    require_fit(os.path.basename(path), spec.described, lesa_shapes(spec), shapes)
    metadata = {
        "disca.format": FORMAT,
        "disca.format_version": VERSION,
        "disca.steps": str(spec.steps),
        "disca.anchors": " ".join(map(str, spec.anchors)),
        "disca.base_model": spec.base_model,
        "disca.training": json.dumps(dict(spec.training)),
    }
    if spec.shift is not None:
        metadata["disca.shift"] = str(spec.shift)
    save_file(found, path, metadata)


def _spec(file: WeightsFile, shape: Shape) -> LesaSpec:
    told, (hidden, times) = file.metadata, shape
    if told.get("disca.format", FORMAT) != FORMAT or told.get("disca.format_version", VERSION) != VERSION:
        raise ValueError(
            f"{quoted(file.name)} is a file of format {quoted(told.get('disca.format'))}, version "
            f"{quoted(told.get('disca.format_version'))}; this DisCa reads LESA predictors of version {VERSION}. "
            "Update DisCa."
        )
    if not (1 < times <= MOST_STEPS + 1 and 0 < hidden <= MOST_HIDDEN):
        raise ValueError(
            f"{quoted(file.name)} has {quoted(FIRST)} of shape {quoted(list(shape))}, but a LESA predictor is for 1 to "
            f"{MOST_STEPS:d} steps and has a width of 1 to {MOST_HIDDEN:d}. Train one anew."
        )
    if told.get("disca.steps", str(times - 1)) != str(times - 1):
        raise ValueError(
            f"{quoted(file.name)} says that it is for {quoted(told['disca.steps'])} steps, but its tensors are for "
            f"{times - 1:d}. It is damaged: download it again."
        )
    try:
        shift = float(told["disca.shift"]) if "disca.shift" in told else None
        anchors = _anchors(told.get("disca.anchors", ""), times - 1)
        training = json.loads(told.get("disca.training", "{}"))
        if not (shift is None or 0.01 <= shift <= 100.0):
            raise ValueError("the shift is out of range")
        if not isinstance(training, dict):
            raise ValueError("the training is no JSON object")
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{quoted(file.name)} says in its metadata what cannot be ({cause(error)}). It is damaged: "
            "download it again."
        ) from error
    return LesaSpec(times - 1, hidden, shift, anchors, told.get("disca.base_model", ""), training)


def _anchors(text: str, steps: int) -> tuple[int, ...]:
    return tuple(sorted(parse_anchors(text).of(steps))) if text else ()
