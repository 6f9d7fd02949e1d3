"""What methods keep of full steps, apart for each row: a video of a condition in a context window on a device."""

from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

import torch
from comfy import model_management
from torch import Tensor

from ...methods.seam.method import Span, What

try:
    from comfy.model_prefetch import pause_malloc_graph
except ImportError:  # ComfyUI before its compiler
    from contextlib import nullcontext as pause_malloc_graph

Signature = tuple  # of block 0's inputs: features are only used for inputs of the same shapes, type and device


class Features(NamedTuple):
    """What a method keeps for one row, by its place in the network, and the inputs it belongs to."""

    signature: Signature
    tensors: dict[Hashable, list[Tensor]]


class FeatureStore:
    """Owns its tensors: what is kept is copied in, what is taken is not written to."""

    def __init__(self, cache_device: str):
        self._cache_device = cache_device
        self._features: dict[Hashable, Features] = {}

    @property
    def nbytes(self) -> int:
        """Memory held now, on whichever device."""
        held = (tensors for features in self._features.values() for tensors in features.tensors.values())
        return sum(tensor.nbytes for tensors in held for tensor in tensors)

    def open(self, row: Hashable, signature: Signature) -> None:
        """From now on features of the row belong to inputs like these; it has none if it had others."""
        if not self.fits(row, signature):
            self._features[row] = Features(signature, {})

    def keep(
        self,
        rows: Sequence[Hashable],
        place: Hashable,
        what: What,
        given: Sequence[Tensor],
        made: Sequence[Tensor],
        ages: Sequence[Sequence[Span]],
    ) -> None:
        """Holds what is wanted of a full step, for each row of a batch, in memory that is there.

        `ages` says for each row how far back the full steps are of which it holds something.
        """
        for number, row in enumerate(rows):
            ours = [[tensor[number : number + 1] for tensor in tensors] for tensors in (given, made)]
            held = self._features[row].tensors.get(place, [])
            there = [tensor.to(made[0].device) for tensor in held]
            self._put(row, place, what.keep(*ours, there, ages[number]), there)

    def put(self, rows: Sequence[Hashable], place: Hashable, wanted: Sequence[Tensor]) -> None:
        """Holds these instead of what was held, for each row of a batch."""
        for number, row in enumerate(rows):
            self._put(row, place, [tensor[number : number + 1] for tensor in wanted], [])

    def fits(self, row: Hashable, signature: Signature) -> bool:
        """Whether the row has features that belong to inputs like these."""
        return row in self._features and self._features[row].signature == signature

    def drop(self, rows: Iterable[Hashable]) -> None:
        """Lets these features go, if they are there."""
        for row in rows:
            self._features.pop(row, None)

    def clear(self) -> None:
        """Lets all features go."""
        self._features.clear()

    def take(self, rows: Sequence[Hashable], place: Hashable, device: torch.device) -> list[Tensor]:
        """The features of a batch, on the device; for one row already there, without a copy."""
        per_row = ([tensor.to(device) for tensor in self._features[row].tensors[place]] for row in rows)
        return [torch.cat(parts) if len(parts) > 1 else parts[0] for parts in zip(*per_row, strict=True)]

    def _put(self, row: Hashable, place: Hashable, wanted: Sequence[Tensor], there: Sequence[Tensor]) -> None:
        """`there` are the tensors that are held, on the device where they were read."""
        held = self._features[row].tensors.get(place, [])
        ours = {id(read): own for read, own in zip(there, held, strict=False)}
        self._features[row].tensors[place] = self._hold([ours.get(id(tensor), tensor) for tensor in wanted], held)

    def _hold(self, wanted: list[Tensor], held: list[Tensor]) -> list[Tensor]:
        """The wanted tensors as our own: those that are stay, the rest is copied, into what is no longer wanted."""
        used = {tensor.untyped_storage()._cdata for tensor in wanted}  # also where there is no memory, as when counted
        free = [old for old in held if old.untyped_storage()._cdata not in used]
        mine = []
        for tensor in wanted:
            if not any(tensor is old for old in held):
                tensor = self._place(tensor, free).copy_(tensor)
            mine.append(tensor)
        return mine

    def _place(self, tensor: Tensor, free: list[Tensor]) -> Tensor:
        """Memory for a tensor: one of the free ones if it is of the same shape and type, which is free no longer."""
        for number, old in enumerate(free):
            if (old.shape, old.dtype) == (tensor.shape, tensor.dtype):
                return free.pop(number)
        return self._buffer(tensor)

    def _buffer(self, row: Tensor) -> Tensor:
        on_cpu = self._cache_device == "cpu" or (
            self._cache_device == "auto" and model_management.get_free_memory(row.device) < 2 * row.nbytes
        )
        with pause_malloc_graph():
            return torch.empty_like(row, device="cpu" if on_cpu else row.device, memory_format=torch.contiguous_format)
