"""Which sample comes when: the same at any number of processes, and after any resume."""

from functools import lru_cache
from hashlib import blake2b

import torch
from torch import Tensor


def order(length: int, seed: int, position: int) -> int:
    """The index of the position-th sample ever drawn from `length`: each epoch is a permutation of its own."""
    if length < 1 or position < 0:
        raise ValueError(f"No sample at position {position:d} of a dataset of {length}: give at least one, from 0 on.")
    epoch, index = divmod(position, length)
    return int(_permutation(length, seed, epoch)[index])


@lru_cache(maxsize=2)  # an iteration may end in the next epoch; a million samples take 8 MB
def _permutation(length: int, seed: int, epoch: int) -> Tensor:
    # hashed: PyTorch's generator heeds the low 32 bits alone, which another seed and epoch could share
    mixed = int.from_bytes(blake2b(f"{seed}/{epoch}".encode(), digest_size=4).digest(), "little")
    return torch.randperm(length, generator=torch.Generator().manual_seed(mixed))
