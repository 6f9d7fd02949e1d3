"""TaylorSeer: a series of differences between full steps predicts what each module, or the last block, gives."""

from ...settings.fields import number
from ...settings.section import section
from ..seam.anchors import AtAnchors
from ..seam.cache import Cache
from ..seam.intervals import every, interval, warmup
from ..seam.method import MODULES, SITES, Way
from ..seam.whats import Taylor

ORDER = "Order of the series. 0: the last full step's once more."


@section
class TaylorSeer(Cache):
    """The series at every module: attention and MLP of each stream, before the gates."""

    name = "TaylorSeer"
    title = "TaylorSeer"
    source = "Liu et al. 2025, arXiv 2503.06923"
    scheduled = True
    presets = {
        "DisCa, low speed": {"interval": 3, "warmup": 3, "order": 1},
        "DisCa, high speed": {"interval": 6, "warmup": 3, "order": 1},
    }

    order: int = number(1, 0, 2, ORDER)
    interval: int = interval(5)
    warmup: int = warmup(1)

    def rule(self) -> AtAnchors:
        return every(self.interval, self.warmup)

    def ways(self) -> tuple[Way, ...]:
        return (Way(Taylor(self.order), SITES, MODULES),)


@section
class TaylorSeerLite(TaylorSeer):
    """The series over the features behind the last block alone: a fortieth of the memory."""

    name = "TaylorSeer-Lite"
    title = "TaylorSeer-Lite"
    presets = {"HunyuanImage, slow": {"interval": 3, "warmup": 3, "order": 2}} | {
        "HunyuanImage, fast": {"interval": 5, "warmup": 3, "order": 2}
    }

    order: int = number(2, 0, 2, ORDER)
    interval: int = interval(4)
    warmup: int = warmup(3)

    def ways(self) -> tuple[Way, ...]:
        return (Way(Taylor(self.order)),)
