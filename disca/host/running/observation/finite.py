"""Where the first NaN or infinity of a run stood. Looking costs small kernels and never waits for the GPU."""

from typing import NamedTuple

import torch
from torch import Tensor

from ....weightless import is_weightless


class Look(NamedTuple):
    """One tensor that was looked at, in the order of the run."""

    step: int | None  # None: no step of the run's
    place: str
    finite: Tensor


class Finite:
    """All looks of one run; read once, when it has ended."""

    def __init__(self):
        self._looks: list[Look] = []

    def look(self, step: int | None, place: str, tensor: Tensor) -> None:
        """Notes whether all numbers of the tensor are finite."""
        if tensor.is_floating_point() and tensor.numel() and not is_weightless(tensor):
            ends = torch.stack(torch.aminmax(tensor))  # no copy of the tensor, and NaN comes through
            self._looks.append(Look(step, place, torch.isfinite(ends).all()))

    def problem(self) -> str | None:
        """What was not finite first, if anything."""
        spoiled = next((look for look in self._looks if not look.finite), None)
        self._looks.clear()
        if spoiled is None:
            return None
        where = spoiled.place if spoiled.step is None else f"{spoiled.place} at step {spoiled.step:d}"
        return f"NaN or infinity in {where}: the result is spoiled"
