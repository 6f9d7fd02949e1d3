"""FORA: attention and MLP of each stream give once more what they gave in the last full step."""

from ...settings.section import section
from ..seam.anchors import AtAnchors
from ..seam.cache import Cache
from ..seam.intervals import every, interval, warmup
from ..seam.method import MODULES, SITES, Way
from ..seam.whats import Reuse


@section
class Fora(Cache):
    """Every module's last answer, under the gates of the current step."""

    name = "FORA"
    title = "FORA"
    source = "Selvaraju et al. 2024, arXiv 2407.01425"
    scheduled = True
    presets = {
        "DisCa, low speed": {"interval": 3, "warmup": 1},
        "DisCa, high speed": {"interval": 6, "warmup": 1},
        "TaylorSeer repo": {"interval": 5, "warmup": 1},
    }

    interval: int = interval(5)
    warmup: int = warmup(1)

    def rule(self) -> AtAnchors:
        return every(self.interval, self.warmup)

    def ways(self) -> tuple[Way, ...]:
        return (Way(Reuse(), SITES, MODULES),)
