"""Spectrum: Chebyshev polynomials of time, fitted to the features of the last full steps, forecast the next ones."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...settings.fields import number
from ...settings.section import section
from ..seam.anchors import AtAnchors
from ..seam.cache import Cache
from ..seam.intervals import WARMUP
from ..seam.method import Compute, Context, Span, Tokens, Way, What
from ..seam.whats import by_order

INTERVAL = "After the warm-up, every n-th step runs in full, at first. 1, with growth 0: every step."
GROWTH = "Added to n after every full step; the sum is rounded down. 0: n stays."
DEGREE = "Degree of the polynomials."
RIDGE = "How much the fit is held back from large coefficients."
BLEND = "Share of the polynomials; the rest is the line through the last two full steps."
HISTORY = "How many full steps are kept at most."


@dataclass(frozen=True)
class Chebyshev(What):
    """blend · Σ_m c_m T_m(τ) + (1 - blend) · line, where τ = 2 · step / steps - 1.

    The coefficients c_m are those of ridge regression on what is kept, |X c - H|² + ridge · |c|². Both terms weigh the
    kept features by numbers that depend on their steps alone. With one full step it is reuse.
    """

    degree: int = 4
    ridge: float = 0.1
    blend: float = 0.5
    history: int = 8

    @property
    def tensors(self) -> int:
        return self.history

    def answer(
        self, given: Tokens, kept: Tokens, ages: Sequence[Span], compute: Compute | None, context: Context
    ) -> Tokens:
        history = by_order(kept, len(given))
        if len(history) == 1:
            return history[0]
        weights = self.weights([age.steps for age in ages[: len(history)]], context["step"], len(context["sigmas"]) - 1)
        return [sum(w * h for w, h in zip(weights, feature, strict=True)) for feature in zip(*history, strict=True)]

    def weights(self, ages: Sequence[float], step: int, steps: int) -> list[float]:
        """What each of the kept full steps counts for, so many steps ago each."""
        fitted = self._fitted(torch.tensor([step, *(step - age for age in ages)], dtype=torch.float64) * 2 / steps - 1)
        ahead = ages[0] / (ages[1] - ages[0])
        line = [1 + ahead, -ahead] + [0.0] * (len(ages) - 2)
        return [self.blend * curve + (1 - self.blend) * straight for curve, straight in zip(fitted, line, strict=True)]

    def _fitted(self, times: Tensor) -> list[float]:
        """x (XᵀX + ridge)⁻¹ Xᵀ; the first time is the one to forecast, X has a row for each of the others."""
        now, *rows = torch.cos(torch.acos(times)[:, None] * torch.arange(self.degree + 1))  # T_m(cos a) = cos m a
        held = math.sqrt(self.ridge) * torch.eye(self.degree + 1, dtype=times.dtype)
        return (now @ torch.linalg.pinv(torch.cat([torch.stack(rows), held])))[: len(rows)].tolist()


@dataclass(frozen=True)
class Growing:
    """The first `warmup` steps, then gaps of `interval`, of `interval + growth`, and so on, rounded down."""

    interval: float = 2.0
    growth: float = 0.75
    warmup: int = 3

    def of(self, steps: int) -> frozenset[int]:
        """The steps that run in full, in a run of that many."""
        found, step, grown = [*range(min(self.warmup, steps))], self.warmup - 1, 0
        while (step := step + math.floor(round(self.interval + grown * self.growth, 3))) < steps:
            found.append(step)
            grown += 1
        return frozenset(found)


@section
class Spectrum(Cache):
    """The forecast of the features behind the last block."""

    name = "Spectrum"
    title = "Spectrum"
    source = "Han et al. 2026, arXiv 2603.01623"
    scheduled = True
    presets = {  # of 50 steps, 14 and 10 in full; the repository blends half and half since, and keeps all
        "paper, low speed": {"interval": 2.0, "growth": 0.75, "warmup": 5, "blend": 1.0, "history": 14},
        "paper, high speed": {"interval": 2.0, "growth": 3.0, "warmup": 5, "blend": 1.0, "history": 10},
        "ComfyUI-Spectrum": {"interval": 2.0, "growth": 0.75, "warmup": 3, "blend": 0.5, "history": 8},
    }

    degree: int = number(4, 1, 8, DEGREE)
    ridge: float = number(0.1, 0.01, 10, RIDGE, 0.01)
    blend: float = number(0.5, 0, 1, BLEND, 0.05)
    history: int = number(8, 2, 32, HISTORY)
    interval: float = number(2.0, 1, 100, INTERVAL, 0.05)
    growth: float = number(0.75, 0, 20, GROWTH, 0.05)
    warmup: int = number(3, 1, 100, WARMUP)

    def rule(self) -> AtAnchors:
        return AtAnchors(Growing(self.interval, self.growth, self.warmup))

    def ways(self) -> tuple[Way, ...]:
        return (Way(Chebyshev(self.degree, self.ridge, self.blend, self.history)),)
