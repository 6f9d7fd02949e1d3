"""What several methods keep and answer with: the last one, what was added, a series of differences, a line."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .method import Compute, Context, Span, Tokens, What


class Reuse(What):
    """Keeps the last, and answers with it."""

    answers_from_given = False

    def answer(self, given: Tokens, kept: Tokens, ages, compute, context) -> Tokens:
        return kept


class Residual(What):
    """Keeps what the last full step added, and adds it again."""

    reads_given = True

    def keep(self, given: Tokens, made: Tokens, kept: Tokens, ages) -> Tokens:
        return [after - before for before, after in zip(given, made, strict=True)]

    def answer(self, given: Tokens, kept: Tokens, ages, compute, context) -> Tokens:
        return [now + added for now, added in zip(given, kept, strict=True)]


@dataclass(frozen=True)
class Taylor(What):
    """The series Σ Δ^i · k^i / i!, k steps behind the last full one; order 0 is reuse.

    Δ^i are backward differences over the distance of two full steps (TaylorSeer, equations 4 to 6), as many as there
    are. Terms above the first count by `damping`.
    """

    order: int = 1
    damping: float = 1.0
    answers_from_given = False

    @property
    def tensors(self) -> int:
        return self.order + 1

    def keep(self, given: Tokens, made: Tokens, kept: Tokens, ages: Sequence[Span]) -> Tokens:
        now = list(made)
        for earlier in by_order(kept, len(made))[: self.order]:
            now += [(new - old) / ages[0].steps for new, old in zip(now[-len(made) :], earlier, strict=True)]
        return now

    def answer(self, given: Tokens, kept: Tokens, ages: Sequence[Span], compute, context) -> Tokens:
        last, *differences = by_order(kept, len(given))
        found = list(last)
        for order, terms in enumerate(differences, start=1):
            share = self.damping * ages[0].steps ** order / math.factorial(order)
            if share:
                found = [torch.add(sum_, term, alpha=share) for sum_, term in zip(found, terms, strict=True)]
        return found


def by_order(kept: Tokens, count: int) -> list[Tokens]:
    """What is kept, in groups of as many tensors as were made at once."""
    return [kept[i : i + count] for i in range(0, len(kept), count)]


@dataclass(frozen=True)
class Line(What):
    """C + damping · age / gap · (C - C'), in sigma: C' was made in the full step before the last; 0 is plain reuse."""

    damping: float = 1.0
    tensors = 2
    answers_from_given = False

    def answer(
        self, given: Tokens, kept: Tokens, ages: Sequence[Span], compute: Compute | None, context: Context
    ) -> Tokens:
        last, earlier = kept[: len(given)], kept[len(given) :]
        if not earlier or not self.damping:
            return last
        share = self.damping * (ages[0].sigma / (ages[1].sigma - ages[0].sigma))
        return [c + _per_row(share, c) * (c - before) for c, before in zip(last, earlier, strict=True)]


def _per_row(share: Tensor | float, like: Tensor) -> Tensor | float:
    """A number, or one for each row, with the trailing dimensions of `like`."""
    return share.view(-1, *[1] * (like.ndim - 1)).to(like.dtype) if isinstance(share, torch.Tensor) else share
