"""Runs of a model with a method, outside of a sampler: in full, and with steps left out, each call counted.

The steps are those of a run at the times σ: x_(j+1) = x_j - Δ_j·u_j with Δ_j = σ_j - σ_(j+1).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor


class Calls(NamedTuple):
    """How often a network was called."""

    full: int = 0
    answered: int = 0


Progress = Callable[[Calls], None]  # told after each call of all that were made; what it raises ends the measurement
Answer = Callable[[int, Tensor], Tensor]  # a step and its state -> û, behind certain anchors


class Anchor(NamedTuple):
    """A step that ran in full."""

    step: int
    features: Any  # as `Prompts.full` gave them


class Prompts(Protocol):
    """Videos that go through the network together: a batch of prompts with their noise."""

    noise: Tensor  # [B, ...]

    def full(self, step: int, x: Tensor) -> tuple[Tensor, Any]:
        """u of a step in full, and what answers are made of, put where that of all steps has room: on the host."""

    def answering(self, anchors: Sequence[Anchor]) -> Answer:
        """How a method answers behind these anchors, the latest last; their features move to the device here."""


class Counted:
    """Prompts whose calls are counted, on from those made before."""

    def __init__(self, prompts: Prompts, progress: Progress, before: Calls):
        self.noise, self.calls = prompts.noise, before
        self._prompts, self._progress = prompts, progress

    def full(self, step: int, x: Tensor) -> tuple[Tensor, Any]:
        """As the prompts'."""
        return self._count(self._prompts.full(step, x), full=1)

    def answering(self, anchors: Sequence[Anchor]) -> Answer:
        """As the prompts'."""
        answer = self._prompts.answering(anchors)
        return lambda step, y: self._count(answer(step, y), answered=1)

    def _count(self, found: Any, full: int = 0, answered: int = 0) -> Any:
        self.calls = Calls(self.calls.full + full, self.calls.answered + answered)
        self._progress(self.calls)
        return found


@dataclass(frozen=True)
class Path:
    """A run with every step in full: x_0 ... x_n, and u and the features of each step."""

    deltas: list[float]
    x: list[Tensor]
    u: list[Tensor]
    features: list[Any]


class Tried(NamedTuple):
    """Lists of anchors that were run, the best one first."""

    errors: dict[tuple[int, ...], float]  # Σ |y_n - x_n|² / Σ |x_n|²
    calls: Calls

    @property
    def best(self) -> tuple[int, ...]:
        """The anchors whose runs ended closest to the full ones."""
        return next(iter(self.errors))


def calls_to_try(lists: Sequence[Sequence[int]], steps: int) -> Calls:
    """The calls that `try_lists` makes for each batch of prompts."""
    full = sum(map(len, lists))
    return Calls(full, steps * len(lists) - full)


@torch.no_grad()
def try_lists(
    lists: Sequence[tuple[int, ...]],
    batches: Sequence[Prompts],
    ends: Sequence[Tensor],
    sigmas: Sequence[float],
    reach: int = 1,
    progress: Progress = lambda calls: None,
) -> Tried:
    """Runs each list of anchors once, against the ends of the full runs; of equal ones the earlier is better."""
    calls, errors = Calls(), {}
    for anchors in dict.fromkeys(lists):
        off = 0.0
        for prompts, end in zip(batches, ends, strict=True):
            counted = Counted(prompts, progress, calls)
            off += square(cached_run(counted, anchors, sigmas, reach) - end)
            calls = counted.calls
        errors[anchors] = off / sum(map(square, ends))
    return Tried(dict(sorted(errors.items(), key=lambda tried: tried[1])), calls)


def full_run(prompts: Prompts, sigmas: Sequence[float]) -> Path:
    """The run that others are compared with; ValueError if its end is not finite."""
    path = Path([t - r for t, r in pairwise(sigmas)], [prompts.noise], [], [])
    for step, delta in enumerate(path.deltas):
        u, features = prompts.full(step, path.x[-1])
        path.u.append(u)
        path.features.append(features)
        path.x.append(path.x[-1] - delta * u)
    if not path.x[-1].isfinite().all():
        raise ValueError(
            "The run with every step in full ends in NaN or infinity, so nothing can be compared with it. "
            "Make the model give a video without DisCa first."
        )
    return path


def cached_run(prompts: Prompts, anchors: Sequence[int], sigmas: Sequence[float], reach: int = 1) -> Tensor:
    """The end of a run that is in full at the anchors only; answers are made of the latest `reach` of them."""
    y, behind, answer = prompts.noise, [], None
    for step, (t, r) in enumerate(pairwise(sigmas)):
        if step in anchors:
            u, features = prompts.full(step, y)
            behind, answer = [*behind, Anchor(step, features)][-reach:], None
        else:
            answer = answer or prompts.answering(behind)
            u = answer(step, y)
        y = y - (t - r) * u
    return y


def tail(prompts: Prompts, step: int, x: Tensor, deltas: Sequence[float]) -> Tensor:
    """The end of a run that goes on in full from x_step."""
    for j in range(step, len(deltas)):
        x = x - deltas[j] * prompts.full(j, x)[0]
    return x


def square(x: Tensor) -> float:
    """|x|², over all rows."""
    return x.float().square().sum().item()
