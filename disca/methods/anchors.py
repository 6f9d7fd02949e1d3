"""When, by a schedule: its anchors run in full, all other steps do not."""

from collections.abc import Sequence
from dataclasses import dataclass

from ..schedule import Schedule, first_steps
from .when import FULL, Rule


@dataclass(frozen=True)
class AtAnchors(Rule):
    """Full at the anchors, the first way between them."""

    schedule: Schedule

    def plan(self, sigmas: Sequence[float]) -> tuple[int, ...]:
        step_of = first_steps(sigmas)  # and so is an anchor at any step of a repeated time
        steps = len(sigmas) - 1
        anchors = {step_of[sigmas[step]] for step in self.schedule.of(steps)}
        return tuple(FULL if step in anchors else 0 for step in range(steps))
