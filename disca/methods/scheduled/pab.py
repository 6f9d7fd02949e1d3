"""PAB, Pyramid Attention Broadcast: attention gives its last answer once more, all else runs in every step."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import model_validator

from ...settings.fields import number
from ...settings.section import section
from ..seam.anchors import planned
from ..seam.cache import Cache
from ..seam.intervals import interval, listed, warmup
from ..seam.method import ATTENTION, SITES, Way
from ..seam.whats import Reuse
from ..seam.when import Listing, Rule

LOW = "Steps at this timestep and below run in full; a timestep is 1000 sigma. 0: none do for that."
HIGH = "Steps at this timestep and above run in full. 1000: only the first does."


@dataclass(frozen=True)
class Window(Rule):
    """Full at the anchors, and wherever 1000 sigma is not strictly between `low` and `high`."""

    schedule: Listing
    low: float = 0.0
    high: float = 1000.0

    def plan(self, sigmas: Sequence[float]) -> tuple[int, ...]:
        steps = len(sigmas) - 1
        outside = (step for step in range(steps) if not self.low < 1000 * sigmas[step] < self.high)
        return planned((*self.schedule.of(steps), *outside), sigmas)

    def listing(self) -> Listing:
        return self.schedule


@section
class Pab(Cache):
    """What attention gives before the gates, of all blocks; there is one kind of it, so that no pyramid is left."""

    name = "PAB"
    title = "PAB"
    source = "Zhao et al. 2024, arXiv 2408.12588"
    scheduled = True
    presets = {
        "DisCa, low speed": {"interval": 5, "warmup": 1, "low": 0.0, "high": 1000.0},
        "DisCa, high speed": {"interval": 8, "warmup": 1, "low": 0.0, "high": 1000.0},
    }

    interval: int = interval(5)
    warmup: int = warmup(1)
    low: float = number(0.0, 0, 1000, LOW)
    high: float = number(1000.0, 0, 1000, HIGH)

    @model_validator(mode="after")
    def _open(self):
        if self.low >= self.high:
            raise ValueError(
                f"'low' is {self.low:g} and 'high' is {self.high:g}: no timestep lies between them, and every step "
                "would run in full. Set 'low' below 'high'."
            )
        return self

    def rule(self) -> Window:
        return Window(listed(self.interval, self.warmup), self.low, self.high)

    def ways(self) -> tuple[Way, ...]:
        return (Way(Reuse(), SITES, ATTENTION),)
