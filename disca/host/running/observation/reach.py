"""Which steps of a run reached the network: what other nodes answered in its place is reported, not counted as ours."""

from collections.abc import Hashable, Iterable, Sequence
from itertools import pairwise

OWN_WAY = "another node runs the network in its own way, past DisCa: its calls cannot be counted"


class Reach:
    """The steps of a run, and for each the conditions that were to be answered and those that the network answered."""

    def __init__(self, sigmas: Sequence[float]):
        self._expected: dict[float, set[Hashable] | None] = {t: None for t, r in pairwise(sigmas) if t != r}
        self._answered: dict[float, set[Hashable]] = {}
        self._calls = 0  # that came as far as the network
        self._other_times = 0  # answered calls at times that are not the run's
        self._idle: set[float] = set()  # with no condition in one of the lists

    @property
    def steps(self) -> int:
        """How many there are; one that ends where it starts is none."""
        return len(self._expected)

    def expect(self, sigma: float, conditions: Iterable[Hashable], idle: bool = False) -> None:
        """The conditions are evaluated at this time; `idle` if a list of them has none that is active."""
        if sigma in self._expected:
            self._expected[sigma] = (self._expected[sigma] or set()) | {*conditions}
            self._idle |= {sigma} if idle else set()

    def call(self, sigma: float, conditions: Iterable[Hashable], answered: bool) -> None:
        """A call came as far as the network, whose blocks or Predictor answered, or something else in their place."""
        self._calls += 1
        if answered:
            self._other_times += sigma not in self._expected
            self._answered.setdefault(sigma, set()).update(conditions)

    def problem(self) -> str | None:
        """What is to be said of steps that the network did not answer, if there are any."""
        missing = [sigma for sigma, wanted in self._expected.items() if wanted is None or wanted - self._got(sigma)]
        partly = sum(bool(self._got(sigma)) for sigma in missing)
        if not missing:
            return None
        if not self._answered and self._calls:
            return OWN_WAY
        if self._other_times:
            return (
                f"the sampler or another node changed the times: {len(missing)} of {self.steps:d} steps never came, "
                f"{self._other_times:d} calls at other times did"
            )
        part = f" ({partly:d} of them in part)" if partly else ""
        return f"another cache answered {len(missing)} of {self.steps:d} steps{part}: the network was not asked"

    def idle_problem(self) -> str | None:
        """What is to be said of steps that nothing was asked of, if there are any."""
        if not self._idle:
            return None
        return (
            f"no condition was active at {len(self._idle)} of {self.steps:d} steps, where ComfyUI takes zeros for the "
            "answer: let start and end percent of the conditions leave no gap"
        )

    def _got(self, sigma: float) -> set[Hashable]:
        return self._answered.get(sigma, set())
