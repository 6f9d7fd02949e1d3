"""Δ-DiT: what the later blocks added in the last full step is added again; the earlier ones run in every step."""

from ...settings.section import section
from ..seam.anchors import AtAnchors
from ..seam.cache import Cache
from ..seam.intervals import every, interval, warmup
from ..seam.method import LATE, Way
from ..seam.whats import Residual


@section
class DeltaDit(Cache):
    """Reuses what the blocks of one stream added; a cached step costs a third. DisCa's form (supplement 8.4)."""

    name = "Delta-DiT"
    title = "Δ-DiT"
    source = "Chen et al. 2024, arXiv 2406.01125"
    scheduled = True
    presets = {
        "DisCa, low speed": {"interval": 5, "warmup": 1},
        "DisCa, high speed": {"interval": 8, "warmup": 1},
    }

    interval: int = interval(5)
    warmup: int = warmup(1)

    def rule(self) -> AtAnchors:
        return every(self.interval, self.warmup)

    def ways(self) -> tuple[Way, ...]:
        return (Way(Residual(), LATE),)
