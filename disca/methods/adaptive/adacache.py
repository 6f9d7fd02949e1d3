"""AdaCache: how fast a block's contribution changes tells, after each full step, when the next one is due."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field
from torch import Tensor

from ...settings.fields import number
from ...settings.section import section
from ..seam.cache import Cache
from ..seam.method import Way
from ..seam.whats import Residual
from ..seam.when import FULL, MIDDLE, Decider, Now, Rule
from .change import each_once, final_steps, relative_change

Codebook = tuple[tuple[float, int], ...]

CODEBOOKS: dict[str, Codebook] = {  # (changes below this, steps to the next full one), as released
    "slow": ((0.08, 3), (0.16, 2), (0.24, 1), (0.32, 1), (0.40, 1), (1.0, 1)),
    "fast": ((0.08, 6), (0.16, 5), (0.24, 4), (0.32, 3), (0.40, 2), (1.0, 1)),
    "100 steps": ((0.03, 12), (0.05, 10), (0.07, 8), (0.09, 6), (0.11, 4), (1.0, 3)),
}


@dataclass(frozen=True)
class RateByChange(Rule):
    """After a full step, the next is as far as the codebook says for the change a step since the one before.

    The first two steps are full, and so are the last `final`.
    """

    codebook: Codebook
    rate: float = 1.0  # a factor on the codebook's steps
    final: int = 2
    sees = (MIDDLE,)
    tensors = 1

    def steps_after(self, change: float) -> int:
        """The steps to the next full one; 1 where the change is unknown."""
        if not math.isfinite(change):
            return 1
        steps = next((steps for limit, steps in self.codebook if change < limit), self.codebook[-1][1])
        return max(1, int(steps * self.rate))

    def fresh(self, sigmas: Sequence[float]) -> Decider:
        return _Due(self, final_steps(sigmas, self.final))


class _Due(Decider):
    """The last full step with what the block added, and the step that is due next."""

    def __init__(self, rule: RateByChange, final: frozenset[int]):
        self._rule, self._final = rule, final
        self._added: Tensor | None = None
        self._step = self._next = 0

    def decide(self, now: Now) -> int:
        return FULL if now.last is None or now.step >= self._next or now.step in self._final else 0

    def saw(self, now: Now) -> None:
        before, self._added = self._added, now.look(MIDDLE)
        distance, self._step = now.step - self._step, now.step
        change = math.nan if before is None else relative_change(self._added, before).item() / max(distance, 1)
        self._next = now.step + self._rule.steps_after(change)

    def held(self) -> Iterable[Tensor]:
        return each_once(self._added)


@section
class AdaCache(Cache):
    """What all blocks added in the last full step, for as many steps as a codebook says.

    Adapted: the published form watches a gated attention in one block of Open-Sora and keeps what each block adds.
    Here it is all that the middle block adds to image tokens, and one sum over all blocks is kept. Its motion
    regularisation is left out.
    """

    name = "AdaCache"
    title = "AdaCache (adapted)"
    source = "Kahatapitiya et al. 2024, arXiv 2411.02397"
    presets = {"slow": {"codebook": "slow"}, "fast": {"codebook": "fast"}, "100 steps": {"codebook": "100 steps"}}

    codebook: Literal["slow", "fast", "100 steps"] = Field(
        "fast", description="How many steps pass after which change. slow and fast are made for 30 steps."
    )
    rate: float = number(
        1.0, 0, 10, "Factor on the codebook's numbers of steps, rounded down to 1 or more. 0: every step in full.", 0.1
    )
    final: int = number(2, 0, 100, "How many steps at the end run in full.")

    def rule(self) -> RateByChange:
        return RateByChange(CODEBOOKS[self.codebook], self.rate, self.final)

    def ways(self) -> tuple[Way, ...]:
        return (Way(Residual()),)
