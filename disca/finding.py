"""Which list of anchors to keep: those that measurements speak for and those that others use, each tried by a run."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from .autoschedule import Choice, least
from .messages import cause

Steps = tuple[int, ...]  # a list of anchors
Run = Callable[[Steps], float]  # anchors -> squared error of the end, relative to that of the run in full
BY_COST, BY_MISS = "least error expected of the end", "least error of the answers"
BY_RUNS = "an anchor of the best list moved"
MOST_LINES = 12  # of lists that were tried


class Listed(NamedTuple):
    """A list of anchors and where it is from."""

    anchors: Steps
    origin: str


class Goal(NamedTuple):
    """What is asked for: a number of full steps, or the error that is allowed."""

    full_steps: int | None = None
    allowed_error: float | None = None


class Search:
    """Tries lists; the best one is kept, so that none that was tried is better on what it was tried on."""

    def __init__(self, choices: Sequence[Sequence[Choice]], rivals: Sequence[Listed], run: Run, thorough: bool = False):
        """`choices` are `Measured.choices`: for every budget, by one measure or by two.

        A thorough search goes on from the best of these lists: see `near`.
        """
        self.errors: dict[Steps, float] = {}  # of the lists that were tried
        self.origins: dict[Steps, str] = {}
        self._choices, self._rivals, self._run, self._thorough = choices, rivals, run, thorough
        self._steps = len(choices[0])

    @property
    def expected(self) -> list[float]:
        """The error expected with at most 1, 2, ... full steps; of the answers, where only these were measured."""
        return [choice.error for choice in self._choices[0]]

    def proposed(self, full_steps: int) -> Steps:
        """The list of that many full steps, or fewer, that measurements speak for, whether it is the best or not."""
        return self._choices[0][full_steps - 1].anchors

    def find(self, goal: Goal) -> Steps:
        """The list to keep."""
        return self.best(goal.full_steps) if goal.allowed_error is None else self.within(goal.allowed_error)

    def best(self, full_steps: int) -> Steps:
        """The best list of that many full steps, or fewer."""
        if full_steps >= self._steps:
            return self._all()
        best = self._best_of(candidates(self._choices, self._rivals, full_steps))
        while self._thorough:
            better = self._best_of([Listed(anchors, BY_RUNS) for anchors in (best, *near(best, self._steps))])
            if better == best:
                break
            best = better
        return best

    def within(self, allowed_error: float) -> Steps:
        """A list of few full steps whose run is off by at most the allowed error; of all steps if no other is.

        The estimate leaves out how the errors of stretches meet, and on the toy twice as much came (1.8 to 2.25
        times). So a run decides: what came over what was expected corrects the estimate, which names the next number
        of full steps, at least one more, until a run is within. Where the estimate has no unit, the run of half of
        the steps gives it one.
        """
        at_once = len(self._choices) > 1
        scale = 1.0 if at_once else self._came_over_expected(max(self._steps // 2, 1))
        full_steps = self._count_for(allowed_error, scale)
        while full_steps < self._steps:
            best = self.best(full_steps)
            if self.errors[best] <= allowed_error:
                return best
            scale = max(scale, self._came_over_expected(full_steps))
            full_steps = max(full_steps + 1, self._count_for(allowed_error, scale))
        return self._all()

    def _best_of(self, lists: Sequence[Listed]) -> Steps:
        """The one whose run is best; of equal ones the first. None is run twice."""
        for listed in lists:
            if listed.anchors not in self.errors:
                self.errors[listed.anchors] = self._run(listed.anchors)
                self.origins[listed.anchors] = listed.origin
        return min((listed.anchors for listed in lists), key=self.errors.get)

    def _count_for(self, allowed_error: float, scale: float) -> int:
        return len(least(self._choices[0], allowed_error / scale).anchors)

    def _came_over_expected(self, full_steps: int) -> float:
        expected = self.expected[full_steps - 1]
        came = self.errors[self.best(full_steps)]
        return came / expected if came and expected else 1.0

    def _all(self) -> Steps:
        """Every step in full, which is the run that others are compared with."""
        anchors = tuple(range(self._steps))
        self.errors[anchors], self.origins[anchors] = 0.0, "every step in full"
        return anchors


def candidates(choices: Sequence[Sequence[Choice]], rivals: Sequence[Listed], full_steps: int) -> list[Listed]:
    """The lists that are tried for that many full steps, each once."""
    by = (BY_COST, BY_MISS) if len(choices) > 1 else (BY_MISS,)
    found = [Listed(measure[full_steps - 1].anchors, name) for measure, name in zip(choices, by, strict=True)]
    found += [rival for rival in rivals if len(rival.anchors) == full_steps]
    return each_once(found)


def near(anchors: Steps, steps: int) -> list[Steps]:
    """The lists that differ in one anchor by one step; a run starts in full in all of them."""
    first, *others = anchors
    moved = [{*anchors} - {step} | {step + by} for step in others for by in (-1, 1) if first < step + by < steps]
    return [tuple(sorted(one)) for one in moved if len(one) == len(anchors)]


def rival_of(search: Search, rivals: Sequence[Listed], full_steps: int) -> Steps:
    """The best of the lists of others with that many full steps; () if none was tried."""
    tried = [one.anchors for one in rivals if len(one.anchors) == full_steps and one.anchors in search.errors]
    return min(tried, key=search.errors.get, default=())


def report_of(search: Search, kept: Steps, steps: int, in_units: bool, facts: Sequence[str]) -> str:
    """What was found, what else was tried, and what is expected of other numbers of full steps."""
    tried = sorted(search.errors.items(), key=lambda one: one[1])
    lines = [
        f"{written(kept)}: {len(kept):d} of {steps:d} steps in full, error {search.errors[kept]:.3g}",
        "errors are squared distances to the run with every step in full, relative to it: 0.0001 is 1 % off",
        *(
            f"tried {written(anchors)}: error {error:.3g}, {cause(search.origins[anchors])}"
            for anchors, error in tried[:MOST_LINES]
        ),
        *([f"tried {len(tried) - MOST_LINES:d} more"] if len(tried) > MOST_LINES else ()),
    ]
    unit = "error expected, of which about twice as much comes" if in_units else "error of answers on the path"
    by_count = ", ".join(f"{count:d}: {error:.2g}" for count, error in enumerate(search.expected, start=1))
    return "\n".join([*lines, *facts, f"{unit}, by full steps: {by_count}"])


def written(anchors: Steps) -> str:
    """The anchors as a schedule's node takes them."""
    return " ".join(f"{step:d}" for step in anchors)


def each_once(lists: Sequence[Listed]) -> list[Listed]:
    """Each list once, where it comes first."""
    by_anchors: dict[Steps, Listed] = {}
    for listed in lists:
        by_anchors.setdefault(listed.anchors, listed)
    return list(by_anchors.values())
