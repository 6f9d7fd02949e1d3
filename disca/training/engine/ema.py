"""The running average of the product's weights, which is what gets exported."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from .distributed import local


class Ema:
    """An exponential average in fp32; it follows quickly at first, so that the start is soon forgotten."""

    def __init__(self, weights: dict[str, nn.Parameter], decay: float):
        self.decay = decay
        self.updates = 0
        self._weights = weights
        self.average = {key: weight.detach().float().clone() for key, weight in weights.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Takes the weights as they are now into the average."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for key, weight in self._weights.items():
            local(self.average[key]).lerp_(local(weight).float(), 1 - decay)
        self.updates += 1

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The product computes with the average meanwhile."""
        kept = {key: local(weight).detach().clone() for key, weight in self._weights.items()}
        self._copy({key: local(tensor) for key, tensor in self.average.items()})
        try:
            yield
        finally:
            self._copy(kept)

    @torch.no_grad()
    def _copy(self, tensors: dict[str, Tensor]) -> None:
        for key, weight in self._weights.items():
            local(weight).copy_(tensors[key])
