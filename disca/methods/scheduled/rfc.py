"""RFC: the direction of a module's change is that of the last full steps, its size follows the change of its input."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...settings.fields import number
from ...settings.section import section
from ..seam.cache import Cache
from ..seam.intervals import every, interval, warmup
from ..seam.method import MODULES, SITES, Compute, Context, Span, Tokens, Way, What
from ..seam.whats import by_order
from ..seam.when import FULL, MODULATED, Decider, Now, Rule

THRESHOLD = (
    "A step runs in full once the error of the first module's predicted input, summed since the last full step, is "
    "larger. 0: the interval counts instead."
)
POINTS = 2  # that a line needs


class Relational(What):
    """O + |I_now - I| · ΔO / |ΔI|, which is relational feature estimation at order 1.

    I is what goes in, O what comes out, Δ the change between the last two full steps; a norm goes over all tokens of a
    row. It needs `given` in cached steps too. With one full step, or where the input did not change, it is reuse.
    """

    reads_given = True
    tensors = 3
    reach = POINTS

    def keep(self, given: Tokens, made: Tokens, kept: Tokens, ages: Sequence[Span]) -> Tokens:
        now = [*made, *given]
        if kept:
            outputs, inputs = by_order(kept, len(made))[:2]
            now += [_slope(*change) for change in zip(made, outputs, given, inputs, strict=True)]
        return now

    def answer(
        self, given: Tokens, kept: Tokens, ages: Sequence[Span], compute: Compute | None, context: Context
    ) -> Tokens:
        outputs, inputs, *slopes = by_order(kept, len(given))
        if not slopes:
            return outputs
        return [
            torch.addcmul(output, _size(now - before).to(output.dtype), slope)
            for output, before, now, slope in zip(outputs, inputs, given, slopes[0], strict=True)
        ]


def _slope(made: Tensor, output: Tensor, given: Tensor, before: Tensor) -> Tensor:
    """ΔO / |ΔI|, 0 where the input did not change."""
    size = _size(given - before)
    return (made - output) * torch.where(size > 0, 1 / size, 0).to(made.dtype)


def _size(change: Tensor) -> Tensor:
    """The root of the mean square of each row, [B, 1, ...]: in half precision a norm over all tokens may overflow."""
    exact = torch.promote_types(change.dtype, torch.float32)
    norms = torch.linalg.vector_norm(change.flatten(1), dim=1, dtype=exact) / math.sqrt(change[0].numel())
    return norms.view(-1, *[1] * (change.ndim - 1))


@dataclass(frozen=True)
class InputError(Rule):
    """Full once Σ |I - I_Taylor|₁ / |I|₁ since the last full step exceeds the threshold (relational cache scheduling).

    I is the first module's input, I_Taylor the line through it in the last two full steps. The paper tunes the
    threshold for each model and gives none.
    """

    threshold: float
    warmup: int
    sees = (MODULATED,)
    tensors = 2

    def fresh(self, sigmas: Sequence[float]) -> Decider:
        return _Summing(self)


class _Summing(Decider):
    """Keeps the first module's input in the last two full steps, the latest first, and the sum of its errors."""

    def __init__(self, rule: InputError):
        self._rule, self._error = rule, 0.0
        self._seen: list[tuple[int, Tensor]] = []

    def decide(self, now: Now) -> int:
        if now.step < self._rule.warmup or len(self._seen) < POINTS:
            return FULL
        (last, latest), (earlier, before) = self._seen
        found, latest, before = now.look(MODULATED).float(), latest.float(), before.float()
        line = latest + (latest - before) * ((now.step - last) / (last - earlier))
        self._error += float((found - line).abs().sum() / found.abs().sum())
        return 0 if self._error <= self._rule.threshold else FULL  # not a number: full

    def saw(self, now: Now) -> None:
        self._error = 0.0
        others = [seen for seen in self._seen if seen[0] != now.step]
        self._seen = [(now.step, now.look(MODULATED)), *others[: POINTS - 1]]

    def held(self) -> list[Tensor]:
        return [tensor for _, tensor in self._seen]


@section
class Rfc(Cache):
    """The relation of input and output of every module: attention and MLP of each stream, before the gates."""

    name = "RFC"
    title = "RFC"
    source = "Relational Feature Caching, ICLR 2026, arXiv 2602.19506"
    scheduled = True

    threshold: float = number(0.0, 0, 100, THRESHOLD, 0.01)
    interval: int = interval(6)
    warmup: int = warmup(3)

    def rule(self) -> Rule:
        return InputError(self.threshold, self.warmup) if self.threshold else every(self.interval, self.warmup)

    def ways(self) -> tuple[Way, ...]:
        return (Way(Relational(), SITES, MODULES),)


@section
class RfcLite(Rfc):
    """The relation of what enters the first block and the features behind the last one: a fortieth of the memory."""

    name = "RFC-Lite"
    title = "RFC-Lite"

    def ways(self) -> tuple[Way, ...]:
        return (Way(Relational()),)
