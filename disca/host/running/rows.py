"""The rows of a batch that go different ways: taken out of what a block is given, and put together after it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class Narrowed:
    """What belongs to some rows of a batch; what all blocks are given alike is taken out once."""

    def __init__(self, rows: Sequence[int], batch: int):
        self._rows, self._batch = list(rows), batch
        self._shared: dict[int, tuple[Tensor, Tensor]] = {}  # by id: the whole, so that its id stays its own, and ours

    def args(self, args: Mapping[str, Any], own: Sequence[str]) -> dict[str, Any]:
        """A handler's arguments for these rows; those named `own` are the block's own, which it may write to.

        What has no row for each video belongs to all.
        """
        return {name: self._part(value, name in own) for name, value in args.items()}

    def _part(self, value: Any, own: bool) -> Any:
        if not isinstance(value, Tensor) or value.shape[:1] != (self._batch,):
            return value
        if own:
            return value[self._rows]
        if id(value) not in self._shared:
            self._shared[id(value)] = value, value[self._rows]
        return self._shared[id(value)][1]


def in_batch_order(parts: Sequence[tuple[Sequence[int], Mapping[str, Tensor]]]) -> dict[str, Tensor]:
    """The outputs of parts of a batch, in the order of the batch."""
    order = torch.tensor([row for rows, _ in parts for row in rows]).argsort().tolist()
    return {name: torch.cat([out[name] for _, out in parts])[order] for name in parts[0][1]}
