"""When, by a schedule: its anchors run in full, all other steps do not."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from ..schedule import Schedule, first_steps
from .method import FULL, Decider, Now, Rule


@dataclass(frozen=True)
class AtAnchors(Rule):
    """Full at the anchors, the first way between them."""

    schedule: Schedule

    def fresh(self, sigmas: Sequence[float]) -> Decider:
        step_of = first_steps(sigmas)  # and so is an anchor at any step of a repeated time
        return _AtAnchors(sorted({step_of[sigmas[step]] for step in self.schedule.of(len(sigmas) - 1)}))


class _AtAnchors(Decider):
    def __init__(self, anchors: list[int]):
        self._anchors = anchors

    def decide(self, now: Now) -> int:
        return FULL if now.step in self._anchors else 0

    def due(self, step: int) -> int:
        earlier = bisect_left(self._anchors, step)
        return self._anchors[earlier - 1] if earlier else 0
