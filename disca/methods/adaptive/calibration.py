"""What was measured of a model for a cache that needs it, as a JSON file: who may use it, and how it is made."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import model_validator
from torch import Tensor

from ...files import replacing
from ...limits import require_number
from ...meanflow import NEAR, farthest
from ...messages import cause, listing, quoted
from ...settings.fields import Text, fields_of, limits
from ...settings.section import section

FORMAT = 1
MOST_BYTES = 1_000_000
MOST_STEPS = 10_000
LEAST_RATIO, MOST_RATIO = 1e-6, 1e6
DEGREE = 4  # of TeaCache's polynomial
LARGEST = 1e9  # coefficient

Count = Annotated[int, limits(1, 1_000_000)]
Shift = Annotated[float, limits(0, 1000)]
Coefficient = Annotated[float, limits(-LARGEST, LARGEST)]
Ratio = Annotated[float, limits(LEAST_RATIO, MOST_RATIO)]


@section
class Calibration:
    """Values that a method goes by, and what they were measured on."""

    method: Literal["TeaCache", "MagCache"]
    family: Text
    width: Count  # of the network's tokens
    steps: Annotated[int, limits(1, MOST_STEPS)]
    shift: Shift | None  # None: not published
    size: tuple[Count, ...]  # width, height, frames; (): not published
    values: tuple[Coefficient, ...]  # TeaCache: coefficients, the highest power first. MagCache: a ratio a step

    @model_validator(mode="after")
    def _has_enough(self):
        least, most = (self.steps, self.steps) if self.method == "MagCache" else (1, DEGREE + 1)
        if not least <= len(self.values) <= most:
            needed = f"{least:d}" if least == most else f"{least:d} to {most:d}"
            raise ValueError(f"'values' has {len(self.values):d} numbers, but must have {needed}.")
        for value in self.values if self.method == "MagCache" else ():
            if not LEAST_RATIO <= value <= MOST_RATIO:
                raise ValueError(
                    f"'values' has {value:g} in it, but ratios must be from {LEAST_RATIO:g} to {MOST_RATIO:g}."
                )
        if len(self.size) not in (0, 3):
            raise ValueError(f"'size' has {len(self.size):d} numbers, but must have 3: width, height and frames.")
        return self

    def require(self, method: str, family: str, width: int) -> None:
        """ValueError unless it was measured for this method on such a model."""
        for name, needed in {"method": method, "family": family, "width": width}.items():
            if (found := getattr(self, name)) != needed:
                raise ValueError(
                    f"The calibration's {quoted(name)} is {quoted(found)}, but the run's is {quoted(needed)}. "
                    "Calibrate with this method and model, or choose a calibration that was."
                )

    def notice(self, sigmas: Sequence[float], family: str) -> str | None:
        """What a user should know before a run at these times, of a model of that family."""
        steps, notes = len(sigmas) - 1, []
        if family != self.family:
            needs = f"HunyuanVideo {quoted(self.family)}"
            notes.append(f"The calibration is for {needs}, but the model is {quoted(family)}.")
        if steps != self.steps:
            used = "the nearest ratio is taken for each step" if self.method == "MagCache" else "it is used as it is"
            notes.append(f"The calibration was made with {self.steps:d} steps, but the run has {steps:d}: {used}.")
        if self.shift and farthest(sigmas, self.shift).apart > NEAR:
            notes.append(f"The calibration was made at shift {self.shift:g}, but the run is at other times.")
        return " ".join(notes) or None


def resampled(values: Sequence[float], steps: int) -> tuple[float, ...]:
    """The nearest value for each step of a run with another number of steps."""
    scale = (len(values) - 1) / max(steps - 1, 1)
    return tuple(values[round(step * scale)] for step in range(steps))


def write(path: Path, calibration: Calibration) -> None:
    """A file that `read` gives the calibration of; whole or not at all."""
    with replacing(path) as aside:
        aside.write_text(json.dumps({"format": FORMAT} | asdict(calibration), indent=1), encoding="utf-8")


def read(path: Path) -> Calibration:
    """The calibration in a file; ValueError with what is wrong with the file."""
    try:
        content = _content(path)
        _require_object(content)
        return Calibration(**{key: value for key, value in content.items() if key != "format"})
    except ValueError as error:
        raise ValueError(
            f"The calibration {quoted(path.name)} cannot be used: {cause(error)} Calibrate again, or choose another."
        ) from None


def _content(path: Path) -> object:
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ValueError(f"{cause(error.strerror)}.") from None
    if len(text) > MOST_BYTES:
        raise ValueError(f"it has more than {MOST_BYTES:d} bytes.")
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # no text, no JSON, a number of too many digits, too deep
        raise ValueError("it is not JSON.") from None


def _require_object(content: object) -> None:
    if not isinstance(content, dict):
        raise ValueError("it is not a JSON object.")
    needed = ["format", *fields_of(Calibration)]
    if lacking := [key for key in needed if key not in content]:
        raise ValueError(f"it lacks {listing(lacking)}.")
    if unknown := [key for key in content if key not in needed]:
        raise ValueError(f"it has keys that are not known: {listing(unknown)}.")
    require_number("format", content["format"], True, FORMAT, FORMAT)


def fitted(pairs: Sequence[tuple[float, float]]) -> tuple[float, ...]:
    """TeaCache's coefficients, the highest power first: least squares over (change going in, change coming out)."""
    at = torch.tensor([change for change, _ in pairs], dtype=torch.float64)
    out = torch.tensor([change for _, change in pairs], dtype=torch.float64)
    different = len(at[at.isfinite() & out.isfinite()].unique())
    if different <= DEGREE or not (at.isfinite() & out.isfinite()).all():
        raise ValueError(
            f"A polynomial needs {DEGREE + 1:d} different finite changes, but {different:d} of {len(pairs):d} pairs "
            "are that. Calibrate with more steps or prompts, and in a precision that gives no NaN."
        )
    scale = at.abs().max()  # powers of numbers up to 1 are of one size
    found = torch.linalg.lstsq(torch.linalg.vander(at / scale, N=DEGREE + 1), out[:, None]).solution[:, 0]
    coefficients = (found / scale ** torch.arange(DEGREE + 1)).flip(0)
    if not (coefficients.abs() <= LARGEST).all():
        raise ValueError(
            f"The {len(pairs):d} changes that were measured are too alike for a polynomial. Calibrate with more steps "
            "or other prompts."
        )
    return tuple(coefficients.tolist())


def magnitude_ratio(now: Tensor, before: Tensor) -> Tensor:
    """MagCache's γ: the mean over tokens [L, h] of how much longer each is than a step before."""
    return (now.float().norm(dim=-1) / before.float().norm(dim=-1)).mean()


def mean_ratios(runs: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """MagCache's values: the mean over runs of as many steps, of the ratios at each step; the first has none, 1."""
    ratios = torch.tensor(runs, dtype=torch.float64).mean(0)
    if not ratios[1:].isfinite().all():
        raise ValueError(
            "The ratios that were measured are not all finite. Calibrate in a precision and with prompts that give no "
            "NaN."
        )
    ratios[0] = 1
    return tuple(ratios.tolist())
