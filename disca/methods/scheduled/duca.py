"""DuCa: cached steps alternate between ToCa's, which brings some tokens up to date, and plain reuse of the features."""

from collections.abc import Sequence
from dataclasses import dataclass

from ...settings.section import section
from ..seam.intervals import every
from ..seam.method import Way
from ..seam.whats import Reuse
from ..seam.when import FULL, Listing, Rule
from .toca import ToCa, token_wise

WAYS = 2


@dataclass(frozen=True)
class Alternating(Rule):
    """Between the full steps of another rule, which is a plan, the ways by turns, the first one first."""

    full: Rule

    def plan(self, sigmas: Sequence[float]) -> tuple[int, ...]:
        plan, since = [], 0
        for decision in self.full.plan(sigmas):
            since = 0 if decision == FULL else since + 1
            plan.append((since - 1) % WAYS if since else FULL)
        return tuple(plan)

    def listing(self) -> Listing | None:
        return self.full.listing()

    def at(self, full: Rule) -> "Alternating":
        return Alternating(full)


@section
class DuCa(ToCa):
    """ToCa in each odd step after a full one, and in each even step the features behind the last block once more."""

    name = "DuCa"
    title = "DuCa"
    source = "Zou et al. 2024, arXiv 2412.18911; tokens drawn at random, as in TaylorSeer's repository"

    def rule(self) -> Alternating:
        return Alternating(every(self.interval, self.warmup))

    def ways(self) -> tuple[Way, ...]:
        return token_wise(self.ratio, self.slope), Way(Reuse())
