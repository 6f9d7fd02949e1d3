"""MagCache: how the length of what the blocks add changes from step to step is known before the run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from ...schedule import Anchors
from ...settings.fields import number
from ...settings.section import section
from ..seam.anchors import AtAnchors
from ..seam.cache import Cache
from ..seam.method import Way
from ..seam.whats import Residual
from ..seam.when import Rule
from .calibration import MOST_STEPS, Ratio, resampled
from .magcache_ratios import CALIBRATIONS


@dataclass(frozen=True)
class Magnitudes(Rule):
    """Cached while Σ |1 - R| is below the threshold, R the product of the ratios since the last full step.

    At most `most` steps are cached in a row, and none in the first `retention` of the run. The ratios are resampled to
    the run's steps.
    """

    ratios: tuple[float, ...]
    threshold: float
    most: int
    retention: float

    def plan(self, sigmas: Sequence[float]) -> tuple[int, ...]:
        return AtAnchors(Anchors(tuple(self.full(len(sigmas) - 1)))).plan(sigmas)

    def full(self, steps: int) -> list[int]:
        """The full steps of a run of that many."""
        found, ratio, error = [], 1.0, 0.0
        for step, gamma in enumerate(resampled(self.ratios, steps)):
            ratio *= gamma
            error += abs(1 - ratio)
            early = not found or step < int(self.retention * steps)
            if early or step - found[-1] > self.most or not error < self.threshold:
                found.append(step)
                ratio, error = 1.0, 0.0
        return found


@section
class MagCache(Cache):
    """What all blocks added in the last full step, while by measured ratios its length cannot be far off.

    The ratios of HunyuanVideo 1.5 were measured for positive and negative conditions apart. They are nearly alike, and
    those of the positive one serve both.
    """

    name = "MagCache"
    title = "MagCache"
    calibrated = "ratios"
    source = "Ma et al. 2025, arXiv 2506.09045"
    presets = {
        f"1.0, {size}, {speed}": {"calibration": f"HunyuanVideo 1.0, {size}"} | values
        for size in ("720p", "544p")
        for speed, values in {
            "slow": {"threshold": 0.12, "most": 4, "retention": 0.2},
            "fast": {"threshold": 0.24, "most": 6, "retention": 0.2},
        }.items()
    } | {
        f"1.5, {steps}": {"calibration": f"HunyuanVideo 1.5, {steps}", "threshold": 0.03, "most": 2, "retention": 0.25}
        for steps in ("20 steps", "40 steps")
    }

    calibration: Literal[
        "HunyuanVideo 1.0, 720p",
        "HunyuanVideo 1.0, 544p",
        "HunyuanVideo 1.5, 20 steps",
        "HunyuanVideo 1.5, 40 steps",
    ] = Field("HunyuanVideo 1.0, 720p", description="The ratios; another number of steps takes the nearest ones.")
    threshold: float = number(0.12, 0, 100, "A step runs in full when errors add up to this. 0: every step.", 0.01)
    most: int = number(4, 0, 100, "At most this many cached steps in a row. 0: every step runs in full.")
    retention: float = number(0.2, 0, 1, "Share of the steps at the start that run in full.", 0.01)
    ratios: Annotated[tuple[Ratio, ...], Field(max_length=MOST_STEPS)] = Field(
        (), description="Ratios of your own, one a step, in place of the calibration's."
    )

    def rule(self) -> Magnitudes:
        ratios = self.ratios or CALIBRATIONS[self.calibration].values
        return Magnitudes(ratios, self.threshold, self.most, self.retention)

    def notice(self, sigmas: Sequence[float], family: str) -> str | None:
        return None if self.ratios else CALIBRATIONS[self.calibration].notice(sigmas, family)

    def ways(self) -> tuple[Way, ...]:
        return (Way(Residual()),)
