"""The losses of the paper's three algorithms, each sample's own; u are functions of (x_t, t) or (x_t, t, r)."""

from collections.abc import Callable

import torch
from torch import Tensor

from ..contract.times import at_least_fp32, at_time, lengths, per_sample
from ..contract.velocity import Velocity

Derivative = Callable[[Velocity, Tensor, Tensor, Tensor, Tensor], Tensor]  # (u, x_t, t, r, v) -> du/dt

ADAPTIVE_C = 1e-3


def mse(a: Tensor, b: Tensor) -> Tensor:
    """The mean squared difference of each sample, [B], in fp32 or wider."""
    return (at_least_fp32(a) - at_least_fp32(b)).square().flatten(1).mean(1)


def adaptive_weight(error: Tensor, power: float) -> Tensor:
    """MeanFlow's weights 1 / (error + c)^power, [B]: bring easy and hard times to one scale."""
    return (error.detach() + ADAPTIVE_C) ** -power


def flow_matching_loss(u: Velocity, x_0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """‖u(x_t, t) - (noise - x_0)‖²: how the base model is trained."""
    return mse(u(at_time(x_0, noise, t), t), noise - x_0)


def cfg_distillation_loss(
    student: Velocity, teacher: Velocity, teacher_null: Velocity, x_0: Tensor, noise: Tensor, t: Tensor, g: Tensor
) -> Tensor:
    """DisCa, Algorithm 1: the student learns the teacher's guided velocity at the guidance scales g [B]."""
    x_t = at_time(x_0, noise, t)  # line 5
    with torch.no_grad():
        v_c, v_null, scale = teacher(x_t, t), teacher_null(x_t, t), per_sample(g, x_t)
        v_target = scale * v_c + (1.0 - scale) * v_null  # line 6
    return mse(student(x_t, t, g), v_target)  # lines 7 and 8, with g handed to the student


def meanflow_target(v: Tensor, du_dt: Tensor, t: Tensor, r: Tensor, cap: float = 0.0) -> tuple[Tensor, Tensor]:
    """v - (t - r)·du/dt, and which samples [B] were capped: |(t - r)·du/dt| is at most cap·|v|; 0 caps nothing."""
    correction = per_sample(t - r, v) * at_least_fp32(du_dt)
    size = lengths(correction)
    limit = cap * lengths(v) if cap else torch.full_like(size, torch.inf)
    factor = (limit / size.clamp(min=1e-12)).clamp(max=1.0)
    return v - per_sample(factor, v) * correction, factor < 1.0


def meanflow_loss(
    student: Velocity,
    teacher: Velocity,
    derivative: Derivative,
    x_0: Tensor,
    noise: Tensor,
    t: Tensor,
    r: Tensor,
    cap: float = 0.0,
    in_step: bool = False,
) -> tuple[Tensor, Tensor]:
    """DisCa, Algorithm 2, Restricted MeanFlow: the loss, and which samples were capped (see `meanflow_target`).

    `in_step`: takes the derivative whatever was drawn, so that processes that share weights run as often.
    """
    x_t = at_time(x_0, noise, t)  # line 4
    with torch.no_grad():
        v = teacher(x_t, t)  # line 5
        du_dt = torch.zeros_like(at_least_fp32(v))
        moving = r < t  # where r = t the derivative has no weight
        chosen = moving if moving.any() else ~moving
        if in_step or moving.any():
            given = (x_t[chosen], t[chosen], r[chosen], v[chosen])
            du_dt[chosen] = derivative(_rows(student, chosen), *given).to(du_dt.dtype)  # line 6
        u_target, capped = meanflow_target(v, du_dt, t, r, cap)  # line 7
    return mse(student(x_t, t, r), u_target), capped  # line 8


def _rows(u: Velocity, chosen: Tensor) -> Velocity:
    return lambda x_t, t, r, **options: u(x_t, t, r, chosen=chosen, **options)
