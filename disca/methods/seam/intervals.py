"""What caches of a fixed interval share: two settings and the rule they make."""

from ...schedule import Interval
from ...settings.fields import number
from .anchors import AtAnchors

EVERY = "After the warm-up, every n-th step runs in full. 1: every step."
WARMUP = "How many steps at the start run in full."


def interval(default: int) -> int:
    """The setting `interval`."""
    return number(default, 1, 100, EVERY)


def warmup(default: int = 1) -> int:
    """The setting `warmup`."""
    return number(default, 1, 100, WARMUP)


def listed(interval: int, warmup: int) -> Interval:
    """The first steps, then every interval-th; the last step is not special."""
    return Interval(interval, warmup, last_step=False)


def every(interval: int, warmup: int) -> AtAnchors:
    """Full in these steps."""
    return AtAnchors(listed(interval, warmup))
