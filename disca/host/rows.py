"""The rows of a batch that go different ways: taken out of what a block is given, and put together after it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


def narrowed(args: Mapping[str, Any], rows: Sequence[int], batch: int) -> dict[str, Any]:
    """A handler's arguments for these rows of a batch; what has no row for each of them belongs to all."""
    return {
        name: value[list(rows)] if isinstance(value, Tensor) and value.shape[:1] == (batch,) else value
        for name, value in args.items()
    }


def in_batch_order(parts: Sequence[tuple[Sequence[int], Mapping[str, Tensor]]]) -> dict[str, Tensor]:
    """The outputs of parts of a batch, in the order of the batch."""
    order = torch.tensor([row for rows, _ in parts for row in rows]).argsort().tolist()
    return {name: torch.cat([out[name] for _, out in parts])[order] for name in parts[0][1]}
