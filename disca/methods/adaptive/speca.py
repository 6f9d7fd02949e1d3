"""SpeCa: TaylorSeer drafts a step, its last block is run for real, and the difference tells whether to go on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field
from torch import Tensor

from ...settings.fields import number
from ...settings.section import section
from ..seam.cache import Cache
from ..seam.method import MODULES, SITES, Way
from ..seam.whats import Taylor
from ..seam.when import FULL, Decider, Now, Rule
from .change import relative_change

ORDERS = {"L1": 1, "L2": 2}


@dataclass(frozen=True)
class Verified(Rule):
    """Drafted while the last block's relative error is at most max(threshold · decay^(step / steps), floor).

    `fewest` drafts follow a full step whatever their errors, and never more than `most`. A draft beyond that with too
    large an error is run again in full where `rejects`, else it stays and the next step is full.
    """

    threshold: float = 1.0
    decay: float = 0.1
    floor: float = 0.1
    fewest: int = 4
    most: int = 12
    order: int = 1  # of the norm
    rejects: bool = False
    checks = True

    def tolerance(self, progress: float) -> float:
        """The largest error that passes, by the share of the steps that are done."""
        return max(self.threshold * self.decay**progress, self.floor)

    def fresh(self, sigmas: Sequence[float]) -> Decider:
        return _Verifier(self, len(sigmas) - 1)


class _Verifier(Decider):
    """The error of the last draft."""

    def __init__(self, rule: Verified, steps: int):
        self._rule, self._steps = rule, steps
        self._error: Tensor | None = None  # read when it is needed

    def decide(self, now: Now) -> int:
        if now.last is None:
            return FULL
        drafted = now.step - now.last - 1
        if drafted >= self._rule.most:
            return FULL
        asked = not self._rule.rejects and drafted >= self._rule.fewest
        return FULL if asked and self._error is not None and not self._passes(now, self._error) else 0

    def checked(self, now: Now, drafted: Tensor, exact: Tensor) -> bool:
        rule = self._rule
        if rule.rejects and now.step - now.last <= rule.fewest:
            return True
        self._error = relative_change(drafted, exact, rule.order)
        return not rule.rejects or self._passes(now, self._error)

    def saw(self, now: Now) -> None:
        self._error = None

    def _passes(self, now: Now, error: Tensor) -> bool:
        return error.item() <= self._rule.tolerance(now.step / self._steps)


@section
class SpeCa(Cache):
    """TaylorSeer's series of order 1 at every module, for as long as the last block agrees."""

    name = "SpeCa"
    title = "SpeCa"
    source = "Liu et al. 2025, arXiv 2509.11628"
    presets = {
        "released": {"fewest": 4, "most": 12, "error": "L1", "runs": "next step"},
        "paper": {"fewest": 2, "most": 8, "error": "L2", "runs": "this step"},
    }

    threshold: float = number(1.0, 0, 100, "The relative error that passes in the first step.", 0.01)
    decay: float = number(0.1, 0, 1, "What the threshold has been multiplied by at the end.", 0.01)
    floor: float = number(0.1, 0, 100, "The threshold never falls below this.", 0.01)
    fewest: int = number(4, 0, 100, "At least this many drafts follow a full step, whatever their errors.")
    most: int = number(12, 0, 100, "At most this many drafts follow a full step. 0: every step runs in full.")
    error: Literal["L1", "L2"] = Field("L1", description="The norm. L1: as released. L2: as in the paper.")
    runs: Literal["next step", "this step"] = Field(
        "next step",
        description="What runs in full after too large an error. next step: as released. this step: as in the paper.",
    )

    def rule(self) -> Verified:
        return Verified(
            threshold=self.threshold,
            decay=self.decay,
            floor=self.floor,
            fewest=self.fewest,
            most=self.most,
            order=ORDERS[self.error],
            rejects=self.runs == "this step",
        )

    def ways(self) -> tuple[Way, ...]:
        return (Way(Taylor(1), SITES, MODULES),)
