"""What a feature cache is: a `Rule` says when, a `Way` where, a `What` what is kept and made of it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from torch import Tensor

from .when import Rule

FIRST, SECOND, LATE = "first", "second", "late"
SITES, OUTPUT = "sites", "output"

ATTENTION = ("img_attn", "txt_attn", "attn")  # what attention gives in a block of two streams, and of one
MODULES = ("img_attn", "txt_attn", "img_mlp", "txt_mlp", "all")  # all that is added to a stream, before the gates

Tokens = Sequence[Tensor]  # [B, L, h] of each stream; at a site one; of the output one [B, C, T, H, W]
Compute = Callable[..., Any]  # the method's own network, or at a site the module that stands there
Context = Mapping[str, Any]  # step, sigmas, and t, the step's time; over a stretch arguments, what its blocks are given
# besides tokens; at a site block and blocks, its number and how many there are, and site

# the rule that is in use, a run's times and its model's family -> what to know before it
Notice = Callable[[Rule, Sequence[float], str], str | None]


class Span(NamedTuple):
    """How far two steps are apart."""

    steps: float
    sigma: Tensor | float  # of the earlier one minus that of the later one; in training [B]


class What(ABC):
    """What is kept of full steps, and what is made of it on the others: functions without state.

    `given` went into the place, `made` came out of it. `ages` says how far back the full steps are whose `made` is
    kept, the latest first.
    """

    computes = False  # whether it answers with a network of its own
    reads_given = False  # whether `keep` looks at `given`
    answers_from_given = True  # whether `answer` looks at `given`, not only at how many tensors it is
    renews = False  # whether an answer changes what is kept
    tensors = 1  # how many it keeps of each that was made

    @property
    def reach(self) -> int:
        """Of how many full steps an answer is made at most."""
        return self.tensors

    def keep(self, given: Tokens, made: Tokens, kept: Tokens, ages: Sequence[Span]) -> Sequence[Tensor]:
        """What to hold after a full step, by default what was made in the last `tensors` of them, the latest first.

        `kept` is what was held before it, [] the first time.
        """
        return [*made, *kept][: self.tensors * len(made)]

    @abstractmethod
    def answer(
        self, given: Tokens, kept: Tokens, ages: Sequence[Span], compute: Compute | None, context: Context
    ) -> Tokens:
        """What would have been made, in a step that is not run."""

    def picks(self, tokens: int, context: Context) -> Tensor | None:
        """At a site, which of so many tokens its module runs for in an answer, as indices; None: for none."""
        return None

    def renewed(self, made: Tokens, kept: Tokens) -> Sequence[Tensor]:
        """What to hold after an answer, where it `renews`."""
        return kept


@dataclass(frozen=True)
class Way:
    """Where something stands in, and what it is.

    FIRST, SECOND, LATE: for the blocks from the first, the second or a later one on; LATE: those of the last stream, or
    the last two thirds where there is one kind. SITES: for modules inside blocks. OUTPUT: for the whole network.
    """

    what: What
    where: str = FIRST
    sites: tuple[str, ...] = ()
    others: Mapping[str, What] = field(default_factory=dict)  # sites with another What

    def at(self, site: str) -> What:
        """What stands in at a site."""
        return self.others.get(site, self.what)

    @property
    def whats(self) -> Iterable[What]:
        """All that stand in."""
        return (self.what, *self.others.values())


def nothing(when: Rule, sigmas: Sequence[float], family: str) -> None:
    """What most methods have to say of a run."""


@dataclass(frozen=True)
class Method:
    """A feature cache."""

    name: str
    when: Rule
    ways: tuple[Way, ...]
    warning: Notice = nothing

    def notice(self, sigmas: Sequence[float], family: str) -> str | None:
        """What a user should know before a run at these times, of a model of that family."""
        return self.warning(self.when, sigmas, family)

    def at(self, full: Rule) -> "Method":
        """The method, full where another rule is."""
        return replace(self, when=self.when.at(full))

    @property
    def looks_inside(self) -> bool:
        """Whether it keeps and answers inside blocks."""
        return any(way.where == SITES for way in self.ways)

    @property
    def computes(self) -> bool:
        """Whether it answers with a network of its own."""
        return any(what.computes for way in self.ways for what in way.whats)
