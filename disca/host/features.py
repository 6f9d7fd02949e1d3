"""The features of the last anchor step, kept apart for each condition, context window and device."""

from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

import torch
from comfy import model_management
from torch import Tensor

try:
    from comfy.model_prefetch import pause_malloc_graph
except ImportError:  # ComfyUI before its compiler
    from contextlib import nullcontext as pause_malloc_graph

Signature = tuple  # of block 0's inputs: features are only used for inputs of the same shapes, type and device


class Features(NamedTuple):
    """One condition's features, and the inputs they belong to."""

    signature: Signature
    tensors: list[Tensor]


class FeatureStore:
    """Owns its tensors: what is kept is copied in, what is taken is not written to."""

    def __init__(self, cache_device: str):
        self._cache_device = cache_device
        self._features: dict[Hashable, Features] = {}

    def __contains__(self, key: Hashable) -> bool:
        return key in self._features

    @property
    def nbytes(self) -> int:
        """Memory held now, on whichever device."""
        return sum(tensor.nbytes for features in self._features.values() for tensor in features.tensors)

    def keep(self, keys: Sequence[Hashable], signature: Signature, tensors: Sequence[Tensor]) -> None:
        """Copies each key's rows of a batch, into the memory of the key's earlier features where they fit."""
        for key, *rows in zip(keys, *(tensor.chunk(len(keys)) for tensor in tensors), strict=True):
            earlier = self._features.pop(key, None)
            reuse = earlier is not None and earlier.signature == signature
            buffers = earlier.tensors if reuse else [self._buffer(row) for row in rows]
            for buffer, row in zip(buffers, rows, strict=True):
                buffer.copy_(row)
            self._features[key] = Features(signature, buffers)

    def fits(self, keys: Sequence[Hashable], signature: Signature) -> bool:
        """Whether every key has features that belong to inputs like these."""
        return all(key in self._features and self._features[key].signature == signature for key in keys)

    def drop(self, keys: Iterable[Hashable]) -> None:
        """Lets these features go, if they are there."""
        for key in keys:
            self._features.pop(key, None)

    def clear(self) -> None:
        """Lets all features go."""
        self._features.clear()

    def take(self, keys: Sequence[Hashable], device: torch.device) -> list[Tensor]:
        """The features of a batch, on the device; for one key already there, without a copy."""
        per_key = ([tensor.to(device) for tensor in self._features[key].tensors] for key in keys)
        return [torch.cat(rows) if len(rows) > 1 else rows[0] for rows in zip(*per_key, strict=True)]

    def _buffer(self, row: Tensor) -> Tensor:
        on_cpu = self._cache_device == "cpu" or (
            self._cache_device == "auto" and model_management.get_free_memory(row.device) < 2 * row.nbytes
        )
        with pause_malloc_graph():
            return torch.empty_like(row, device="cpu" if on_cpu else row.device, memory_format=torch.contiguous_format)
