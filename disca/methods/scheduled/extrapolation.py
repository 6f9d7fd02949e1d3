"""Extrapolation: on from the features of the last two full steps, damped if asked for."""

from typing import Literal

from pydantic import Field

from ...settings.fields import number
from ...settings.section import section
from ..seam.anchors import AtAnchors
from ..seam.cache import Cache
from ..seam.intervals import every, interval, warmup
from ..seam.method import Way
from ..seam.whats import Line, Taylor


@section
class Extrapolation(Cache):
    """C + damping · share · (C - C'), where the share of the way from C' to C is counted in steps or in sigma."""

    name = "extrapolation"
    title = "Damped extrapolation"
    source = "a series of order 1, as TaylorSeer-Lite's, with a factor"
    scheduled = True

    damping: float = number(0.5, 0, 1, "Factor on what is added to the last features. 0: plain reuse.", 0.05)
    along: Literal["steps", "sigma"] = Field("steps", description="What distances are counted in.")
    interval: int = interval(2)
    warmup: int = warmup(3)

    def rule(self) -> AtAnchors:
        return every(self.interval, self.warmup)

    def ways(self) -> tuple[Way, ...]:
        return (Way(Taylor(1, self.damping) if self.along == "steps" else Line(self.damping)),)
