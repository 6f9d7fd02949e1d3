"""A look at the derivative before a MeanFlow training: wrong ones raise no error, they only train badly."""

from collections.abc import Callable

import torch
from torch import Tensor

from ...messages import cause
from ..contract.velocity import Velocity
from .derivative import central_difference, dual_numbers

STEPS = (0.0025, 0.005, 0.01, 0.02, 0.05)
APART = 0.5  # relative difference between the two derivatives that is worth a warning
INTERVAL = 0.1


@torch.no_grad()
def probe_derivative(u: Velocity, teacher: Callable[[Tensor, Tensor], Tensor], x_t: Tensor, h: float) -> list[str]:
    """Lines to print: finite differences beside the exact derivative at t = 1/2, and warnings."""
    t = torch.full((len(x_t),), 0.5, device=x_t.device)
    r = t - INTERVAL
    v = teacher(x_t, t)
    try:
        exact = dual_numbers(u, x_t, t, r, v)
    except RuntimeError as error:
        return [f"WARNING: no exact derivative to compare with ({cause(error)})", *_effect_of_r(u, x_t, t, r)]
    apart = {step: _apart(central_difference(u, x_t, t, r, v, step), exact) for step in sorted({*STEPS, h})}
    table = ", ".join(f"{step:g}: {difference:.0%}" for step, difference in apart.items())
    lines = [
        f"du/dt has the size {exact.norm() / v.norm():.2g} of v. Finite differences differ from it by h = {table}."
    ]
    if exact.norm() == 0.0:
        lines.append("WARNING: the exact derivative is zero: the network does not move with x and t. Do not train so.")
    elif apart[h] > APART:
        lines.append(
            f"WARNING: at h = {h:g} the finite difference is {apart[h]:.0%} off. If the differences grow with h, the "
            "network ripples in t and the average is what you want; if they shrink, take a larger h."
        )
    return lines + _effect_of_r(u, x_t, t, r)


def _effect_of_r(u: Velocity, x_t: Tensor, t: Tensor, r: Tensor) -> list[str]:
    moved = _apart(u(x_t, t, r), u(x_t, t, t))
    if moved > 0.0:
        return [f"r changes u by {moved:.2%} over an interval of {INTERVAL}."]
    return [
        "r has no effect yet, as a new time_r_in that starts at zero has none. "
        "WARNING: if this model was trained with MeanFlow before, its r is lost."
    ]


def _apart(a: Tensor, b: Tensor) -> float:
    return ((a - b).norm() / b.norm().clamp(min=1e-12)).item()
