"""MeanFlow: one large step from time t to time r along the mean velocity between them.

x_t = (1 - t)·x_0 + t·noise with t = sigma in [0, 1]. The network is told t and r and answers with
u = 1/(t - r) ∫ v dτ, so that x_r = x_t - (t - r)·u is exact however long the step is (MeanFlow, Eq. 3 and 12;
restricted to t - r <= R while training, DisCa, Algorithm 2).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .messages import quoted

LEAST_DENOISE = 0.0001
NEAR = 0.01  # of sigmas: schedulers round to a table of a thousand times


def shifted_sigmas(steps: int, shift: float, denoise: float = 1.0) -> Tensor:
    """The `steps + 1` times of a run, decreasing to 0: `shifted` over evenly spaced u.

    With `denoise` below 1 the last `steps` of int(steps / denoise) steps, as ComfyUI's schedulers do; empty at 0.
    """
    require_denoise(denoise)
    if denoise == 0.0:
        return torch.empty(0)
    total = int(steps / denoise)
    u = 1.0 - torch.arange(total - steps, total + 1, dtype=torch.float64) / total
    return shifted(u, shift).to(torch.float32)


class Farthest(NamedTuple):
    """The step of a run whose time is farthest from where it was expected."""

    step: int
    expected: float
    apart: float


def farthest(sigmas: Sequence[float], shift: float) -> Farthest:
    """Where a run's times are farthest from those of as many steps at this shift."""
    pairs = enumerate(zip(shifted_sigmas(len(sigmas) - 1, shift).tolist(), sigmas, strict=True))
    return max((Farthest(step, one, abs(one - other)) for step, (one, other) in pairs), key=lambda found: found.apart)


def require_denoise(denoise: float) -> None:
    """ValueError unless it is 0, which leaves the latent as it is, or large enough to change something."""
    if not (denoise == 0.0 or LEAST_DENOISE <= denoise <= 1.0):
        raise ValueError(
            f"'denoise' is {quoted(denoise)}, but must be from {LEAST_DENOISE} to 1, or 0 to leave the latent as it "
            "is. So little noise changes nothing that could be seen."
            if 0.0 < denoise < LEAST_DENOISE
            else f"'denoise' is {quoted(denoise)}, but must be from 0 to 1."
        )


def shifted(u: Tensor, shift: float) -> Tensor:
    """s·u / (1 + (s - 1)·u): times in [0, 1], leaning towards noise for s above 1."""
    return shift * u / (1.0 + (shift - 1.0) * u)


def mean_velocity(x_t: Tensor, x_0: Tensor, t: Tensor | float) -> Tensor:
    """u, recovered from the clean sample x_0 = x_t - t·u that ComfyUI's models answer with."""
    return (x_t - x_0) / t


def step(x_t: Tensor, u: Tensor, t: Tensor | float, r: Tensor | float) -> Tensor:
    """x_r = x_t - (t - r)·u."""
    return x_t - (t - r) * u
