"""Kolmogorov-Arnold networks: a learned function of one variable, a spline, on every edge."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ORDER = 3  # of the splines: cubic
INTERVALS = 5  # that the range is cut into
RANGE = (-3.0, 3.0)  # outside, a spline falls to 0 within ORDER intervals


class KanLayer(nn.Module):
    """y_o = Σ_i base_oi · silu(x_i) + scaler_oi · Σ_j spline_oij · B_j(x_i).

    Parameters are named and shaped as in the files of LESA: `base_weight` and `spline_scaler` [out, in],
    `spline_weight` [out, in, INTERVALS + ORDER], and the knots, `grid` [in, INTERVALS + 2 · ORDER + 1].
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        low, high = RANGE
        knots = low + (high - low) / INTERVALS * torch.arange(-ORDER, INTERVALS + ORDER + 1)
        self.register_buffer("grid", knots.repeat(inputs, 1))
        self.base_weight = nn.Parameter(torch.empty(outputs, inputs))
        self.spline_weight = nn.Parameter(torch.empty(outputs, inputs, INTERVALS + ORDER))
        self.spline_scaler = nn.Parameter(torch.empty(outputs, inputs))
        for weight in (self.base_weight, self.spline_scaler):
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))
        nn.init.normal_(self.spline_weight, std=0.1 / INTERVALS)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in] to [B, out]."""
        splines = self.spline_weight * self.spline_scaler[..., None]
        return F.linear(F.silu(x), self.base_weight) + F.linear(self.bases(x).flatten(1), splines.flatten(1))

    def bases(self, x: Tensor) -> Tensor:
        """B_j(x_i) by the recursion of Cox and de Boor, [B, in, INTERVALS + ORDER]."""
        x = x[..., None]
        found = ((self.grid[:, :-1] <= x) & (x < self.grid[:, 1:])).to(x.dtype)
        for order in range(1, ORDER + 1):
            starts = self.grid[:, :-order]
            rise = (x - starts) / (self.grid[:, order:] - starts)
            found = (rise * found)[..., :-1] + ((1 - rise) * found)[..., 1:]
        return found


class Kan(nn.Module):
    """Layers of these widths."""

    def __init__(self, widths: Sequence[int]):
        super().__init__()
        self.layers = nn.ModuleList(KanLayer(*pair) for pair in zip(widths[:-1], widths[1:], strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """[B, widths[0]] to [B, widths[-1]]."""
        for layer in self.layers:
            x = layer(x)
        return x
