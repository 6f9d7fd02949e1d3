"""EasyCache: how fast the answer has changed with the latent tells how far it has moved since the last full step."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from ...settings.fields import number
from ...settings.section import section
from ..seam.cache import Cache
from ..seam.intervals import warmup
from ..seam.method import OUTPUT as WHOLE
from ..seam.method import Way
from ..seam.whats import Residual
from ..seam.when import FULL, LATENT, OUTPUT, Decider, Now, Rule
from .change import each_once, final_steps, size


@dataclass(frozen=True)
class RateOfChange(Rule):
    """Cached while Σ k·|x_t - x_{t-1}| / |v| is below the threshold, v the last full answer.

    k = |v - v'| / |x - x'| between the last two full steps. Where the network reads more channels than latents, and
    those stay as they are, they cancel. The warm-up and the last step are full.
    """

    threshold: float
    warmup: int
    sees = (OUTPUT,)
    latents = 3

    def fresh(self, sigmas: Sequence[float]) -> Decider:
        return _Rates(self, final_steps(sigmas))


class _Rates(Decider):
    """The latent of the step before, latent and answer of the last full step, and the sum since then."""

    def __init__(self, rule: RateOfChange, final: frozenset[int]):
        self._rule, self._final = rule, final
        self._latent: Tensor | None = None
        self._full: tuple[Tensor, Tensor] | None = None
        self._rate: Tensor | None = None  # k / |v|, read together with what it is a factor of
        self._sum = 0.0

    def decide(self, now: Now) -> int:
        before, self._latent = self._latent, now.look(LATENT)
        if now.step < self._rule.warmup or now.step in self._final or before is None or self._rate is None:
            return FULL
        self._sum += (self._rate * size(self._latent - before)).item()
        return 0 if self._sum < self._rule.threshold else FULL

    def saw(self, now: Now) -> None:
        self._sum = 0.0
        latent, answer = self._latent, now.look(OUTPUT)
        if self._full is not None:
            latent_before, answer_before = self._full
            rate = size(answer - answer_before) / size(latent - latent_before)
            self._rate = rate / size(answer)
        self._full = latent, answer

    def held(self) -> Iterable[Tensor]:
        return each_once(self._latent, *(self._full or ()))


@section
class EasyCache(Cache):
    """The latent plus what the last full answer was apart from it: nothing of the network runs."""

    name = "EasyCache"
    title = "EasyCache"
    source = "Zhou et al. 2025, arXiv 2507.02860"
    presets = {"released": {"threshold": 0.025, "warmup": 5}}

    threshold: float = number(
        0.025, 0, 100, "A step runs in full when the estimated changes add up to this. 0: every step.", 0.005
    )
    warmup: int = warmup(5)

    def rule(self) -> RateOfChange:
        return RateOfChange(self.threshold, self.warmup)

    def ways(self) -> tuple[Way, ...]:
        return (Way(Residual(), WHOLE),)
