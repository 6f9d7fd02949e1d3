"""The samples of each iteration, read ahead, the same at any number of processes."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from ..contract.protocol import Batch, Samples
from ..data.dataset import Sample, collate, without_caption
from ..data.order import order
from .distributed import Processes

MicroBatch = list[Batch]  # what goes through the network before the next samples are taken: a batch for each shape


class Feed:
    """Hands each process its share of the samples from a position on."""

    def __init__(
        self, dataset: Samples, seed: int, processes: Processes, batch: int, accumulate: int, dropout: float = 0.0
    ):
        self._dataset, self._seed, self._processes, self._batch = dataset, seed, processes, batch
        self.accumulate, self._dropout = accumulate, dropout
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="disca-samples")
        self._ahead: tuple[int, Future] | None = None

    @property
    def samples(self) -> int:
        """Samples of an iteration, from all processes."""
        return self._batch * self.accumulate * self._processes.size

    def take(self, position: int) -> list[MicroBatch]:
        """This process's share of the samples position .. position + samples; the next ones are read meanwhile."""
        micro_batches = self._ahead[1].result() if self._ahead and self._ahead[0] == position else self._read(position)
        following = position + self.samples
        self._ahead = (following, self._reader.submit(self._read, following))
        return micro_batches

    def close(self) -> None:
        """Stops reading ahead."""
        self._reader.shutdown(wait=True, cancel_futures=True)

    def name(self, position: int) -> str:
        """What to call the sample at a position in a message."""
        index = self.index(position)
        named: Callable[[int], str] | None = getattr(self._dataset, "name", None)
        return f"sample {index:d}" + (f" ({named(index)})" if named else "")

    def index(self, position: int) -> int:
        """The dataset's index of the sample at a position."""
        return order(len(self._dataset), self._seed, position)

    def _read(self, position: int) -> list[MicroBatch]:
        micro_batches = []
        for number in range(self.accumulate):
            first = position + (number * self._processes.size + self._processes.rank) * self._batch
            positions = list(range(first, first + self._batch))
            micro_batches.append(collate([self._sample(place) for place in positions], positions))
        return micro_batches

    def _sample(self, position: int) -> Sample:
        """The sample at a position, with the empty caption where its own is dropped."""
        sample = self._dataset[self.index(position)]
        if not self._dropout:
            return sample
        generator = torch.Generator().manual_seed(sample_seed(self._seed, position))
        dropped = torch.rand((), generator=generator) < self._dropout
        return without_caption(sample, self._dataset.null) if dropped else sample


def bad_positions(batch: Batch) -> set[int]:
    """The positions of samples that hold NaN or infinity."""
    bad = torch.zeros(len(batch["index"]), dtype=torch.bool)
    for tensor in batch.values():
        if tensor.is_floating_point():
            bad |= ~torch.isfinite(tensor.flatten(1)).all(1)
    return set(batch["index"][bad].tolist())


def without(batch: Batch, bad: set[int]) -> Batch:
    """The batch with another sample's tensors, or zeros if none is left, in place of the bad ones."""
    places = [place for place, position in enumerate(batch["index"].tolist()) if position in bad]
    good = [place for place in range(len(batch["index"])) if place not in places]
    if not places:
        return batch
    cleaned = {name: tensor.clone() for name, tensor in batch.items()}
    for name in cleaned.keys() - {"index"}:
        cleaned[name][places] = cleaned[name][good[0]].clone() if good else 0
    return cleaned


def sample_seed(seed: int, position: int) -> int:
    """A seed for what is drawn for the samples from a position on."""
    return (seed * 0x9E3779B97F4A7C15 + position * 0xBF58476D1CE4E5B9 + 1) % 2**63
