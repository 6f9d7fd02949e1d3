"""What it costs to leave steps out, measured on runs: the numbers that `autoschedule` chooses anchors by.

The path x_0 ... x_n is run in full once, and what the method keeps of each step is held. From each step i on that
answers the steps behind it, in a run of its own: y_(i+1) = x_(i+1), y_(j+1) = y_j - Δ_j·û(y_j). The cost of the stretch
from i to k is what its error makes of the end: |y_k - x_k|² · a_k² / |x_n|², where a_k says how many times as large an
error before step k is at the end. The cheap form asks only how wrong û is on the path itself: Σ |û - u|² / |u|².
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .autoschedule import Choice, Costs, History, best_paths, between, histories_of
from .rehearsal import Anchor, Calls, Counted, Path, Progress, Prompts, full_run, square, tail

FIRST_TAIL, EVERY_TAIL = 2, 4  # a_k is measured before steps 2, 6, 10, ...
PUSH = 0.01  # length of the error that it is measured with, of the length of x
LEAST = 1e-30  # in place of a length of 0


@dataclass(frozen=True)
class Measured:
    """What was measured, together over all prompts."""

    costs: Costs | None  # squared error of the end relative to |x_n|²; None in the cheap form
    misses: Costs  # Σ |û - u|² / |u|², mean over the batches
    amplification: tuple[float, ...]  # a_0 ... a_n; () in the cheap form
    ends: tuple[Tensor, ...]  # x_n of each batch
    calls: Calls

    def choices(self) -> list[list[Choice]]:
        """The best anchors for every budget, by each measure; the errors by the first are those expected of the end."""
        return [best_paths(costs) for costs in (self.costs, self.misses) if costs is not None]


def calls_to_measure(steps: int, reach: int = 1, cheap: bool = False) -> Calls:
    """The calls that `measure` makes for each batch of prompts."""
    left_out = [steps - 1 - history[-1] for history in histories_of(steps, reach)]
    if cheap:
        return Calls(steps, sum(left_out))
    pushes = _pushed_before(steps)
    tails = sum(steps - k for k in pushes)
    return Calls(steps + tails, sum(2 * count - 1 for count in left_out if count) + len(pushes))


@torch.no_grad()
def measure(
    batches: Sequence[Prompts],
    sigmas: Sequence[float],
    reach: int = 1,
    cheap: bool = False,
    progress: Progress = lambda calls: None,
) -> Measured:
    """The costs of all stretches of a run at these times. An exception on the way leaves nothing behind.

    `reach` is the number of full steps that an answer is made of: 1, for Taylor's series its order + 1; all are those
    of the full path. Held at once: what the method keeps of every step of one batch, where `Prompts.full` puts it,
    2n + 1 tensors of the size of x, and the ends of all batches.
    """
    if not batches:
        raise ValueError("There are no prompts to measure on. Give one at least.")
    steps = len(sigmas) - 1
    sums, ends, calls = _Sums(steps, histories_of(steps, reach)), [], Calls()
    for prompts in batches:
        counted = Counted(prompts, progress, calls)
        path = full_run(counted, sigmas)
        for history in sums.misses:
            sums.add_stretches(counted, path, history, cheap)
        for k in () if cheap else _pushed_before(steps):
            sums.add_push(counted, path, k, reach)
        ends.append(path.x[-1])
        calls = counted.calls
    misses = {history: [miss / len(batches) for miss in row] for history, row in sums.misses.items()}
    if cheap:
        return Measured(None, misses, (), tuple(ends), calls)
    a, norm = between(sums.amplification(), steps), sum(map(square, ends))
    costs = {
        history: [off * factor**2 / norm for off, factor in zip(row, a, strict=True)]
        for history, row in sums.drift.items()
    }
    return Measured(costs, misses, tuple(a), tuple(ends), calls)


class _Sums:
    """Sums over the batches."""

    def __init__(self, steps: int, histories: Sequence[History]):
        self.drift = {history: [0.0] * (steps + 1) for history in histories}  # |y_k - x_k|²
        self.misses = {history: [0.0] * (steps + 1) for history in histories}
        self._before, self._after = {steps: 1.0}, {steps: 1.0}  # an error at the end stays as large as it is

    def add_stretches(self, prompts: Prompts, path: Path, history: History, cheap: bool) -> None:
        """Runs on from the last step of a history, answered to the end."""
        first = history[-1] + 1
        if first == len(path.u):
            return
        answer = prompts.answering([Anchor(i, path.features[i]) for i in history])
        y, missed = path.x[first], 0.0
        for j in range(first, len(path.u)):
            u_hat = answer(j, path.x[j])
            missed += square(u_hat - path.u[j]) / max(square(path.u[j]), LEAST)
            self.misses[history][j + 1] += missed
            if not cheap:
                y = y - path.deltas[j] * (u_hat if j == first else answer(j, y))
                self.drift[history][j + 1] += square(y - path.x[j + 1])

    def add_push(self, prompts: Prompts, path: Path, k: int, reach: int) -> None:
        """Moves x_k in the direction of the error of one answered step, and looks how far the end moves."""
        latest = range(max(0, k - 1 - reach), k - 1)
        answer = prompts.answering([Anchor(i, path.features[i]) for i in latest])
        error = path.u[k - 1] - answer(k - 1, path.x[k - 1])
        push = PUSH * _lengths(path.x[k]) * error / _lengths(error).clamp(min=LEAST)
        end = tail(prompts, k, path.x[k] + push, path.deltas)
        self._before[k] = self._before.get(k, 0.0) + square(push)
        self._after[k] = self._after.get(k, 0.0) + square(end - path.x[-1])

    def amplification(self) -> dict[int, float]:
        """a_k at the steps where it was measured; not where no answer was wrong."""
        return {k: math.sqrt(self._after[k] / before) for k, before in self._before.items() if before}


def _pushed_before(steps: int) -> range:
    return range(FIRST_TAIL, steps, EVERY_TAIL)


def _lengths(x: Tensor) -> Tensor:
    """|x| of each row, to be multiplied with x."""
    return x.float().flatten(1).norm(dim=1).to(x.dtype).view(-1, *[1] * (x.ndim - 1))
