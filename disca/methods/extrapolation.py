"""Extrapolation along sigma: on the line through the features of the last two full steps, damped if asked for."""

from dataclasses import dataclass

import torch
from torch import Tensor

from .method import Method, Rule, Span, Tokens, Way, What


@dataclass(frozen=True)
class Line(What):
    """C + damping · age / gap · (C - C'): C' are the features of the full step before the last; 0 is plain reuse."""

    damping: float = 1.0

    def keep(self, made: Tokens, kept: Tokens) -> list[Tensor]:
        return [*made, *kept[: len(made)]]

    def answer(self, tokens: Tokens, kept: Tokens, age: Span, gap: Span | None, compute, context) -> Tokens:
        last, earlier = kept[: len(tokens)], kept[len(tokens) :]
        if not earlier or gap is None or not self.damping:
            return last
        share = self.share(age, gap)
        return [c + _per_row(share, c) * (c - before) for c, before in zip(last, earlier, strict=True)]

    def share(self, age: Span, gap: Span) -> Tensor | float:
        """How far behind the last features, in units of the distance between the last two."""
        return self.damping * (age.sigma / gap.sigma)


def _per_row(share: Tensor | float, like: Tensor) -> Tensor | float:
    """A number, or one for each row, with the trailing dimensions of `like`."""
    return share.view(-1, *[1] * (like.ndim - 1)).to(like.dtype) if isinstance(share, torch.Tensor) else share


def extrapolation(when: Rule, damping: float = 1.0) -> Method:
    """Extrapolation along sigma on the steps that the rule leaves out."""
    return Method("extrapolation", when, (Way(Line(damping)),))
