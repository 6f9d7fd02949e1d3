"""What a sampler does with a MeanFlow model, seen from its calls: any sampler is judged by this, not by its name.

The network answers at t for the step to r. A sampler is exact where it asks at the run's times, so that there is an r,
and asks next at r, from where the mean velocity led: x_r = x_t - (t - r)·u, u = (x_t - x_0) / t.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from ....messages import quoted

TOLERANCE = 1e-3  # of a step's length; rounding stays below 1e-5, the mildest extrapolation above 1e-2


class End(NamedTuple):
    """Where the step that the network answered for ends."""

    time: float
    latent: Tensor
    length: Tensor


class Observed:
    """The calls of one run's sampler."""

    def __init__(self, sampler: str, masked: bool):
        self._sampler = sampler
        self._masked = masked  # then ComfyUI puts the known part back between the steps
        self._calls = 0
        self._lost = 0  # asked at a time that has no r
        self._asked_elsewhere = 0  # asked next at another time than r
        self._strayed: list[Tensor] = []  # for each step that arrived at r: whether elsewhere
        self._end: End | None = None

    def saw(self, t: float, r: float | None, x_t: Tensor, x_0: Tensor) -> None:
        """One evaluation: its time, the r that the network is told, the latent and the answer."""
        if self._end is not None:
            self._arrived(t, x_t, self._end)
        self._calls += 1
        self._lost += r is None
        self._end = None
        if r is not None and t > 0.0 and not self._masked and x_t.shape == x_0.shape:
            way = (x_t - x_0) * ((r - t) / t)
            self._end = End(r, x_t + way, torch.linalg.vector_norm(way))

    def problem(self) -> str | None:
        """What the sampler does that a MeanFlow model is not made for, if anything."""
        found, wrong = [], self._asked_elsewhere + sum(bool(strayed) for strayed in self._strayed)
        if self._lost:
            found.append(f"lost r in {self._lost:d} of {self._calls:d} calls")
        if wrong:
            found.append(
                f"left the mean velocity's way after {wrong:d} of {self._calls:d} calls (noise or other stages)"
            )
        if self._lost <= 1 and not wrong:  # one call more, of which nothing comes, does no harm
            return None
        cure = "use DisCa MeanFlow Sampler or euler"
        if self._sampler == "euler":  # by itself it is exact
            cure = "its sigmas repeat a time, or were changed on the way: use DisCa MeanFlow Sampler"
        return f"the sampler {quoted(self._sampler)} {' and '.join(found)}: {cure}"

    def _arrived(self, t: float, x_t: Tensor, end: End) -> None:
        if t != end.time:
            self._asked_elsewhere += 1
        elif x_t.shape == end.latent.shape:
            self._strayed.append(torch.linalg.vector_norm(x_t - end.latent) > TOLERANCE * end.length)


def r_of(sigma: float, sample_sigmas: Tensor | None) -> float | None:
    """The r that ComfyUI's HunyuanVideo finds for this time: the entry after the first one that equals it."""
    times = [] if sample_sigmas is None else sample_sigmas.tolist()
    ends = times[times.index(sigma) + 1 :] if sigma in times else []
    return ends[0] if ends else None
