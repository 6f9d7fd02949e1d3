"""What a feature cache is: a `Rule` says when, a `Way` where, a `What` what is kept and made of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

FULL = -1  # a decision: the whole network runs

Tokens = Sequence[Tensor]  # one tensor [B, L, h] for each stream
Compute = Callable[..., Any]  # a network
Context = dict[str, Any]  # what blocks are given besides tokens


class Span(NamedTuple):
    """How far two steps are apart."""

    steps: float
    sigma: Tensor | float  # of the earlier one minus that of the later one; in training [B]


@dataclass(frozen=True)
class Now:
    """What a row may be decided by."""

    step: int


class Decider:
    """One row's decisions in one run: made at its first call, dropped with the run."""

    def decide(self, now: Now) -> int:
        """FULL, or the number of the way that stands in."""
        raise NotImplementedError

    def due(self, step: int) -> int:
        """The latest step before this one that was to run in full; what is kept from before it is too old."""
        return 0


class Rule:
    """When a step runs in full: settings, without state."""

    def fresh(self, sigmas: Sequence[float]) -> Decider:
        """A decider for one row of a run at these times; ValueError if the rule does not fit the run."""
        raise NotImplementedError


class What:
    """What is kept of full steps, and what is made of it on the others: two functions without state."""

    computes = False  # whether it answers with a network of its own

    def keep(self, made: Tokens, kept: Tokens) -> list[Tensor]:
        """What to hold after a full step that made these tokens; `kept` is what was held before, [] the first time."""
        return list(made)

    def answer(
        self,
        tokens: Tokens,
        kept: Tokens,
        age: Span,
        gap: Span | None,
        compute: Compute | None,
        context: Context,
    ) -> Tokens:
        """The tokens of a step that is not run.

        `tokens` come in where the way begins, `age` is the time since the last full step and `gap` that between the
        last two, None while there was one. `compute` is a network of the method's own, `context` what blocks are given.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Way:
    """Where a method stands in: from the first block of the last stream on, and nowhere else yet."""

    what: What


@dataclass(frozen=True)
class Method:
    """A feature cache."""

    name: str
    when: Rule
    ways: tuple[Way, ...]
