"""Plain reuse: the features of the last full step, as they are."""

from ...settings.section import section
from ..seam.anchors import AtAnchors
from ..seam.cache import Cache
from ..seam.intervals import every, interval, warmup
from ..seam.method import Way
from ..seam.whats import Reuse


@section
class PlainReuse(Cache):
    """The features behind the last block, once more: what every other method has to beat."""

    name = "reuse"
    title = "Plain reuse"
    source = "the simplest cache there is"
    scheduled = True

    interval: int = interval(2)
    warmup: int = warmup(3)

    def rule(self) -> AtAnchors:
        return every(self.interval, self.warmup)

    def ways(self) -> tuple[Way, ...]:
        return (Way(Reuse()),)
