"""When, by a schedule: its anchors run in full, all other steps do not."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ...schedule import first_steps
from .when import FULL, Listing, Rule


@dataclass(frozen=True)
class AtAnchors(Rule):
    """Full at the anchors, the first way between them."""

    schedule: Listing

    def plan(self, sigmas: Sequence[float]) -> tuple[int, ...]:
        return planned(self.schedule.of(len(sigmas) - 1), sigmas)

    def listing(self) -> Listing:
        return self.schedule


def planned(anchors: Iterable[int], sigmas: Sequence[float]) -> tuple[int, ...]:
    """The plan that is full in these steps, and goes the first way in the others."""
    step_of = first_steps(sigmas)  # and so is an anchor at any step of a repeated time
    full = {step_of[sigmas[step]] for step in anchors}
    return tuple(FULL if step in full else 0 for step in range(len(sigmas) - 1))


def planned_in_full(rule: Rule, sigmas: Sequence[float]) -> frozenset[int] | None:
    """The steps that the rule plans in full, each time once; None if it decides while it runs.

    ValueError if it does not fit the run.
    """
    plan = rule.plan(sigmas)
    return None if plan is None else frozenset(step for step in first_steps(sigmas).values() if plan[step] == FULL)
