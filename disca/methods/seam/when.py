"""When a step runs in full: a `Rule` is settings, its `Decider` one row's state in one run."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

FULL = -1  # a decision: the whole network runs. Others are the number of the way that stands in

# What a decider may look at, of its row alone
LATENT = "latent"  # [C, T, H, W], what goes into the network
ENTERING = "entering"  # [L, h], image tokens before the first block
MODULATED = "modulated"  # [L, h], what the first block's attention reads of them
AFTER_FIRST = "after_first"  # [L, h], image tokens behind the first block, which has then run
MIDDLE = "middle"  # [L, h], what the middle block adds to image tokens; after a full step only
FEATURES = "features"  # [L, h], image tokens behind the last block; after a full step only
OUTPUT = "output"  # [C, T, H, W], the network's answer; after a full step only


class Listing(Protocol):
    """What knows the steps that run in full."""

    def of(self, steps: int) -> Collection[int]:
        """They, in a run of that many steps."""
        ...


@dataclass(frozen=True)
class Now:
    """What a row may be decided by."""

    step: int
    last: int | None  # its latest full step
    look: Callable[[str], Tensor]  # made when it is asked for; nobody writes to it later


class Decider:
    """One row's decisions in one run: made at its first call, dropped with the run."""

    def decide(self, now: Now) -> int:
        """FULL, or the number of a way; asked once in each step that the row comes to.

        A way may turn out to be impossible, and the step then runs in full.
        """
        raise NotImplementedError

    def saw(self, now: Now) -> None:
        """Told after each step that ran in full, whoever wanted it; what its rule `sees` can be looked at."""

    def checked(self, now: Now, drafted: Tensor, exact: Tensor) -> bool:
        """Whether a draft is good enough: [L, h], image tokens behind the last block; False: the step runs in full."""
        return True

    def due(self, step: int) -> int:
        """The latest step before this one that was to run in full; what is kept from before it is too old."""
        return 0

    def held(self) -> Iterable[Tensor]:
        """The tensors that it keeps."""
        return ()


class Rule:
    """When a step runs in full: settings, without state."""

    looks: tuple[str, ...] = ()  # what `decide` looks at
    sees: tuple[str, ...] = ()  # what `saw` looks at
    tensors = 0  # how many of a row's image tokens a decider keeps
    latents = 0  # how many of the size of a row's latent
    checks = False  # whether answers are checked: on a cached step the last block runs too

    def plan(self, sigmas: Sequence[float]) -> tuple[int, ...] | None:
        """The decision for each step of a run at these times, if it is known before; ValueError if it does not fit."""
        return None

    def listing(self) -> Listing | None:
        """What its full steps come from, if that is a list; it may be made for certain runs."""
        return None

    def at(self, full: "Rule") -> "Rule":
        """The rule that is full where another one is; what it says of the other steps stays."""
        return full

    def fresh(self, sigmas: Sequence[float]) -> Decider:
        """A decider for one row of a run at these times."""
        if (plan := self.plan(sigmas)) is None:
            raise NotImplementedError
        return Planned(plan)


class Planned(Decider):
    """Goes by a plan."""

    def __init__(self, plan: Sequence[int]):
        self._plan = plan

    def decide(self, now: Now) -> int:
        return self._plan[now.step]

    def due(self, step: int) -> int:
        return max((i for i in range(step) if self._plan[i] == FULL), default=0)
