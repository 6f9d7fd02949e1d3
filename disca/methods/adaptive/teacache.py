"""TeaCache: how much what the first block reads has changed tells how much the answer will have."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from ...settings.fields import number
from ...settings.section import section
from ..seam.cache import Cache
from ..seam.method import Way
from ..seam.whats import Residual
from ..seam.when import FULL, MODULATED, Decider, Now, Rule
from .calibration import DEGREE, Calibration, Coefficient
from .change import each_once, final_steps, relative_change

IDENTITY = (1.0, 0.0)
RELEASED = Calibration(
    method="TeaCache",
    family="1.0",
    width=3072,
    steps=50,
    shift=7.0,
    size=(),
    values=(7.33226126e02, -4.01131952e02, 6.75869174e01, -3.14987800e00, 9.61237896e-02),
)
CALIBRATIONS = {"HunyuanVideo 1.0": RELEASED}  # none is published for 1.5, or for a MeanFlow model


@dataclass(frozen=True)
class InputChange(Rule):
    """Cached while Σ p(d) is below the threshold, d the relative change of a step; the first and the last are full."""

    threshold: float
    coefficients: tuple[float, ...] = IDENTITY  # of p, the highest power first
    looks = (MODULATED,)
    tensors = 1

    def estimated(self, change: float) -> float:
        """p(d): how much the answer will have changed; infinite where that is unknown."""
        value = 0.0
        for coefficient in self.coefficients:
            value = value * change + coefficient
        return max(value, 0.0) if math.isfinite(value) else math.inf

    def full(self, changes: Sequence[float]) -> list[int]:
        """The full steps of a run whose input changes so much before each step but the first."""
        found, total = [0], 0.0
        for step, change in enumerate(changes, start=1):
            total += self.estimated(change)
            if step == len(changes) or not total < self.threshold:
                found.append(step)
                total = 0.0
        return found

    def fresh(self, sigmas: Sequence[float]) -> Decider:
        return _Changes(self, final_steps(sigmas))


class _Changes(Decider):
    """What the first block read a step before, whether that was cached or not, and the sum since the last full step."""

    def __init__(self, rule: InputChange, final: frozenset[int]):
        self._rule, self._final = rule, final
        self._read: Tensor | None = None
        self._sum = 0.0

    def decide(self, now: Now) -> int:
        if now.step in self._final or not self._rule.threshold:  # nothing is below 0: no need to look
            return FULL
        before, self._read = self._read, now.look(MODULATED)
        if before is None or now.last is None:
            return FULL
        self._sum += self._rule.estimated(relative_change(self._read, before).item())
        return 0 if self._sum < self._rule.threshold else FULL

    def saw(self, now: Now) -> None:
        self._sum = 0.0

    def held(self) -> Iterable[Tensor]:
        return each_once(self._read)


@section
class TeaCache(Cache):
    """What all blocks added in the last full step, until the changes of the input add up to the threshold."""

    name = "TeaCache"
    title = "TeaCache"
    calibrated = "coefficients"
    source = "Liu et al. 2024, arXiv 2411.19108"
    presets = {
        "released, slow": {"calibration": "HunyuanVideo 1.0", "threshold": 0.1},
        "DisCa, low speed": {"calibration": "HunyuanVideo 1.0", "threshold": 0.15},
        "DisCa, high speed": {"calibration": "HunyuanVideo 1.0", "threshold": 0.4},
    }

    threshold: float = number(0.15, 0, 100, "A step runs in full when changes add up to this. 0: every step.", 0.01)
    calibration: Literal["HunyuanVideo 1.0", "none"] = Field(
        "HunyuanVideo 1.0",
        description="The polynomial that makes a change of the answer of one of the input. none: the change itself.",
    )
    coefficients: Annotated[tuple[Coefficient, ...], Field(max_length=DEGREE + 1)] = Field(
        (), description="A polynomial of your own in place of the calibration's, the highest power first."
    )

    def rule(self) -> InputChange:
        published = CALIBRATIONS.get(self.calibration)
        return InputChange(self.threshold, self.coefficients or (published.values if published else IDENTITY))

    def notice(self, sigmas: Sequence[float], family: str) -> str | None:
        published = None if self.coefficients else CALIBRATIONS.get(self.calibration)
        return published and published.notice(sigmas, family)

    def ways(self) -> tuple[Way, ...]:
        return (Way(Residual()),)
