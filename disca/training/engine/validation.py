"""Validation: the loss on samples that are not trained on, at times and noise that stay the same."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext

import torch

from ..contract.protocol import Batch, Samples, Training
from ..contract.settings import Settings
from ..data.dataset import collate
from .distributed import Processes
from .ema import Ema

BEFORE = -1  # the iteration that a training is asked for: its first phase, so that all of a run's figures compare


class Validation:
    """Held-out samples, and how good the product is on them. Every process computes all: shards are of all anyway."""

    def __init__(self, training: Training, samples: Samples, settings: Settings, ema: Ema | None, processes: Processes):
        self._training, self._samples, self._settings = training, samples, settings
        self._ema, self._processes = ema, processes

    def loss(self, asked_to_stop: Callable[[], bool] = lambda: False) -> float | None:
        """The product's mean loss with the average of its weights; None if none is finite, or it was to stop.

        Whether to stop is asked before each batch, in all processes alike.
        """
        total, count, product = 0.0, 0, next(iter(self._training.parts))
        with self._ema.in_place() if self._ema is not None else nullcontext(), torch.no_grad():
            for batch in self._batches():
                if asked_to_stop():
                    return None
                for loss in self._training.losses(batch, BEFORE):
                    values = loss.value[torch.isfinite(loss.value)] if loss.name == product else loss.value[:0]
                    total, count = total + float(values.double().sum()), count + len(values)
        return total / count if count else None

    def _batches(self) -> Iterator[Batch]:
        draws, size = self._settings.validation.draws, self._settings.data.batch
        for first in range(0, len(self._samples) * draws, size):
            places = list(range(first, min(first + size, len(self._samples) * draws)))
            for batch in collate([self._samples[place // draws] for place in places], places):
                yield {name: tensor.to(self._processes.device) for name, tensor in batch.items()}
