"""Several datasets as one, and the samples of them that are held out."""

import json
from bisect import bisect_right
from collections.abc import Sequence
from hashlib import sha256
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...messages import quoted
from .order import order


class Source(NamedTuple):
    """A dataset, and how often each of its samples comes in an epoch."""

    dataset: Any  # a Dataset, or the toy world's
    repeats: int = 1


MOST_SAMPLES = 100_000_000  # of eight bytes each


class Mixture:
    """Samples of several datasets: those with these numbers, which count through all of them."""

    def __init__(self, datasets: Sequence[Any], numbers: Tensor):
        self.datasets, self._numbers = datasets, numbers
        self._starts = [*accumulate(map(len, datasets), initial=0)]
        first = datasets[0]  # all are from the same encoders
        self.family, self.encoder, self.null = first.family, first.encoder, first.null
        content = json.dumps([dataset.fingerprint for dataset in datasets]).encode()
        self.fingerprint = sha256(content + numbers.numpy().tobytes()).hexdigest()

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        dataset, own = self._place(i)
        return dataset[own]

    def name(self, i: int) -> str:
        """What to call a sample in a message."""
        dataset, own = self._place(i)
        return dataset.name(own)

    def _place(self, i: int) -> tuple[Any, int]:
        number = int(self._numbers[i])
        place = bisect_right(self._starts, number) - 1
        return self.datasets[place], number - self._starts[place]


def mixed(sources: Sequence[Source], held_out: int, seed: int) -> tuple[Any, Mixture | None]:
    """The samples to train on, and so many others for validation, drawn by the seed; None for 0 of them.

    ValueError if the datasets are of other encoders, or if nothing would be left.
    """
    datasets = [source.dataset for source in sources]
    _require_same_encoders(datasets)
    total = sum(map(len, datasets))
    if held_out >= total:
        raise ValueError(
            f"validation.samples is {held_out:d}, but there are {total:d} samples in all: none would be left to train "
            "on. Hold out fewer."
        )
    if len(sources) == 1 and sources[0].repeats == 1 and not held_out:
        return datasets[0], None
    chosen = torch.tensor([order(total, seed, place) for place in range(held_out)], dtype=torch.int64)
    repeats = torch.cat([torch.full((len(dataset),), times) for dataset, times in sources])
    repeats[chosen] = 0
    if (in_all := int(repeats.sum())) > MOST_SAMPLES:
        raise ValueError(
            f"With their repeats the datasets are {in_all:,d} samples, more than {MOST_SAMPLES:,d}: the numbers would "
            "not fit in memory. Repeat less; what counts is how often one dataset comes beside another."
        )
    numbers = torch.arange(total).repeat_interleave(repeats)
    return Mixture(datasets, numbers), Mixture(datasets, chosen) if held_out else None


def _require_same_encoders(datasets: Sequence[Any]) -> None:
    first = datasets[0]
    for dataset in datasets[1:]:
        found, needed = (dataset.family, dataset.encoder), (first.family, first.encoder)
        if found != needed:
            raise ValueError(
                f"A dataset in data.more is for HunyuanVideo {quoted(found[0])}, by the encoder "
                f"{quoted(found[1][:12])}; data.path is for {quoted(needed[0])}, by {quoted(needed[1][:12])}. "
                "Build both with the same VAE and text encoders."
            )
