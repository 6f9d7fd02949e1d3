"""First-Block-Cache: the first block always runs, and how much it adds tells whether the others have to."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from ...settings.fields import number
from ...settings.section import section
from ..seam.cache import Cache
from ..seam.method import SECOND, Way
from ..seam.whats import Residual
from ..seam.when import AFTER_FIRST, ENTERING, FULL, Decider, Now, Rule
from .change import each_once, relative_change


@dataclass(frozen=True)
class FirstBlock(Rule):
    """Cached while what the first block adds is near what it added in the last full step, by its relative change.

    `start` and `end` are shares of the steps, between which steps may be cached; `most` in a row.
    """

    threshold: float
    start: float = 0.0
    end: float = 1.0
    most: int = 100
    looks = (ENTERING, AFTER_FIRST)
    tensors = 2

    def fresh(self, sigmas: Sequence[float]) -> Decider:
        return _FirstBlocks(self, len(sigmas) - 1)


class _FirstBlocks(Decider):
    """What the first block added in this step, and in the last full one."""

    def __init__(self, rule: FirstBlock, steps: int):
        self._rule, self._steps = rule, steps
        self._added: Tensor | None = None
        self._full: Tensor | None = None

    def decide(self, now: Now) -> int:
        rule = self._rule
        if now.step >= rule.end * self._steps:  # and so are all that follow: nothing is compared any more
            self._added = None
            return FULL
        self._added = now.look(AFTER_FIRST) - now.look(ENTERING)
        if now.last is None or self._full is None or now.step < rule.start * self._steps:
            return FULL
        if now.step - now.last > rule.most:
            return FULL
        return 0 if relative_change(self._added, self._full).item() < rule.threshold else FULL

    def saw(self, now: Now) -> None:
        self._full = self._added

    def held(self) -> Iterable[Tensor]:
        return each_once(self._added, self._full)


@section
class FirstBlockCache(Cache):
    """What the blocks from the second on added in the last full step, behind a first block that runs."""

    name = "First-Block-Cache"
    title = "First-Block-Cache"
    source = "ParaAttention, github.com/chengzeyi/ParaAttention"
    presets = {"ParaAttention": {"threshold": 0.06}, "WaveSpeed": {"threshold": 0.1}}

    threshold: float = number(
        0.06, 0, 100, "A step runs in full where the first block has changed by this. 0: every step.", 0.01
    )
    start: float = number(0.0, 0, 1, "Share of the steps before the first that may be cached.", 0.01)
    end: float = number(1.0, 0, 1, "Share of the steps after which all run in full.", 0.01)
    most: int = number(100, 0, 100, "At most this many cached steps in a row. 0: every step runs in full.")

    def rule(self) -> FirstBlock:
        return FirstBlock(self.threshold, self.start, self.end, self.most)

    def ways(self) -> tuple[Way, ...]:
        return (Way(Residual(), SECOND),)
