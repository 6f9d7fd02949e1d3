"""What a velocity is: of a state x_t, at time t, for a step to time r."""

from typing import Protocol

from torch import Tensor


class Velocity(Protocol):
    """u(x_t, t, r) [B, C, T, H, W] at the times t, r [B]; a velocity that is not told r takes None."""

    def __call__(self, x_t: Tensor, t: Tensor, r: Tensor | None, **options) -> Tensor: ...
