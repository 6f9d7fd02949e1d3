"""Runs in full that a calibration is made of: what each row shows from one step to the next."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..seam.method import Method
from ..seam.when import ENTERING, FEATURES, FULL, MODULATED, OUTPUT, Decider, Now, Rule
from .calibration import fitted, magnitude_ratio, mean_ratios
from .change import each_once, relative_change

Seen = tuple[Tensor, ...]
Series = dict[int, Any]  # step -> what has changed since the step before


@dataclass(frozen=True)
class Looking(Rule):
    """Every step in full; what each row shows goes into `record`, which lives as long as the calibration."""

    record: list[Series]  # one a row

    @abstractmethod
    def part(self, now: Now) -> Seen:
        """What of a step is compared with the step before."""

    @abstractmethod
    def change(self, now: Seen, before: Seen) -> Any:
        """How they differ."""

    @abstractmethod
    def values(self, steps: int) -> tuple[float, ...]:
        """What a calibration for runs of that many steps holds; ValueError if the record does not suffice."""

    def plan(self, sigmas: Sequence[float]) -> tuple[int, ...]:
        return (FULL,) * (len(sigmas) - 1)

    def fresh(self, sigmas: Sequence[float]) -> Decider:
        self.record.append({})
        return _Looker(self, self.record[-1])

    def complete(self, steps: int) -> list[list[Any]]:
        """The changes of each row, in the order of the steps; ValueError if a step was not seen in full."""
        lacking = sum(len(series) != steps - 1 for series in self.record)
        if lacking or not self.record:
            raise ValueError(
                f"{lacking:d} of {len(self.record):d} videos and conditions were not seen in every one of {steps:d} "
                "steps. Take conditions that hold from start to end, fewer steps or a smaller shift, and no node that "
                "calls the MODEL's blocks in its own way."
            )
        return [[series[step] for step in range(1, steps)] for series in self.record]


class _Looker(Decider):
    """What a row showed in its latest step."""

    def __init__(self, rule: Looking, series: Series):
        self._rule, self._series = rule, series
        self._step, self._before = -1, ()

    def decide(self, now: Now) -> int:
        return FULL

    def saw(self, now: Now) -> None:
        seen = self._rule.part(now)
        if self._before and self._step == now.step - 1:
            self._series[now.step] = self._rule.change(seen, self._before)
        self._step, self._before = now.step, seen

    def held(self) -> Seen:
        return each_once(*self._before)


class Magnifying(Looking):
    """MagCache's γ: how much longer than a step before what the blocks add to image tokens is."""

    sees = (ENTERING, FEATURES)
    tensors = 1

    def part(self, now: Now) -> Seen:
        return (now.look(FEATURES) - now.look(ENTERING),)

    def change(self, now: Seen, before: Seen) -> float:
        return magnitude_ratio(*now, *before).item()

    def values(self, steps: int) -> tuple[float, ...]:
        return mean_ratios([[1.0, *ratios] for ratios in self.complete(steps)])


class Changing(Looking):
    """TeaCache's pairs: by how much what the first block reads has changed, and by how much the network's answer."""

    sees = (MODULATED, OUTPUT)
    tensors = 1

    def part(self, now: Now) -> Seen:
        return now.look(MODULATED), now.look(OUTPUT)

    def change(self, now: Seen, before: Seen) -> tuple[float, float]:
        into, out = (relative_change(*both).item() for both in zip(now, before, strict=True))
        return into, out

    def values(self, steps: int) -> tuple[float, ...]:
        return fitted(self.pairs(steps))

    def pairs(self, steps: int) -> list[tuple[float, float]]:
        """Those of all rows and steps."""
        return [pair for pairs in self.complete(steps) for pair in pairs]


MEASURED: dict[str, type[Looking]] = {"TeaCache": Changing, "MagCache": Magnifying}  # a cache -> what it goes by


def looking(rule: Looking) -> Method:
    """The method that looks on, and stands in for nothing."""
    return Method("calibration", rule, ())
