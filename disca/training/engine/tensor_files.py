"""The tensors of a run in safetensors files: each process writes what it holds, and reads what it needs.

A file's header says which rows of how many it holds of each tensor, so that other processes can share them out anew.
Rows are along the first dimension, the one that weights are sharded along. Nothing in such a file is ever unpickled.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from ...messages import quoted
from ..data.tensors import write_tensors
from . import eight_bits
from .distributed import Processes

SUFFIX = ".safetensors"
ROWS = "rows"  # in the header: JSON, name -> [first row, rows in all]
GROUP_BYTES = 2**30  # of a file: as much is copied from the GPU at a time
TYPES = set("F64 F32 F16 BF16 F8_E4M3 F8_E5M2 I64 I32 I16 I8 U8 BOOL".split())


class Chunk(NamedTuple):
    """Rows of a tensor in a file."""

    file: safe_open
    name: str
    first: int
    total: int  # rows of the whole tensor
    shape: tuple[int, ...]  # of these rows
    block: int  # values that share a scale, if they are in 8 bits; else 0

    @property
    def end(self) -> int:
        """The row after the last."""
        return self.first + (self.shape[0] if self.shape else 1)

    def values(self, first: int, end: int) -> Tensor:
        """These rows of the whole tensor as numbers."""
        if not self.shape:
            return self.file.get_tensor(self.name)
        if not self.block:
            return self.file.get_slice(self.name)[first - self.first : end - self.first]
        return eight_bits.numbers(self.pieces())[first - self.first : end - self.first]

    def pieces(self) -> dict[str, Tensor]:
        """What the 8-bit form of all its rows consists of."""
        return {piece: self.file.get_tensor(f"{self.name}/{piece}") for piece in eight_bits.PIECES}


def write(tensors: dict[str, Tensor], folder: Path, processes: Processes) -> None:
    """Writes what this process holds of the tensors; of those that all hold whole, the main process does."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (pieces, rows) in enumerate(_groups(tensors, processes)):
        write_tensors(folder / f"{processes.rank:05}-{number:05}{SUFFIX}", pieces, {ROWS: json.dumps(rows)})


class SavedTensors:
    """The tensors in some files, of which only the headers are read at first; ValueError if one is not such a file."""

    def __init__(self, files: Iterable[Path]):
        self._chunks: dict[str, list[Chunk]] = {}
        with ExitStack() as stack:
            for path in files:
                try:
                    self._add(stack.enter_context(safe_open(path, framework="pt")))
                except (SafetensorError, OSError, ValueError, TypeError, KeyError, RecursionError) as error:
                    raise ValueError(f"{quoted(path.name)} is damaged ({quoted(str(error))})") from None
            self._open = stack.pop_all()
        for chunks in self._chunks.values():
            chunks.sort(key=lambda chunk: chunk.first)

    def __enter__(self) -> "SavedTensors":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the files."""
        self._chunks = {}
        self._open.close()

    @property
    def names(self) -> set[str]:
        """Of all tensors that are there."""
        return set(self._chunks)

    def lacks(self, tensors: dict[str, Tensor]) -> list[str]:
        """The names of those that are not there, not whole, or of another shape."""
        return sorted(name for name, tensor in tensors.items() if not self._has(name, tensor))

    def read_into(self, name: str, tensor: Tensor) -> None:
        """Overwrites the tensor, or the rows of it that this process holds."""
        held, first = _held(tensor)
        end = first + (held.shape[0] if held.dim() else 1)
        chunks = [chunk for chunk in self._chunks[name] if chunk.first < end and chunk.end > first]
        if not eight_bits.is_quantised(held):
            _fill(held, first, end, chunks)
        elif not (eight_bits.is_packed(held) and all(eight_bits.copy_rows(held, first, chunk) for chunk in chunks)):
            numbers = torch.empty(held.shape, device=held.device)
            _fill(numbers, first, end, chunks)
            held.copy_(numbers)

    def _add(self, file: safe_open) -> None:
        keys = set(file.keys())
        rows = json.loads(file.metadata()[ROWS])
        if not isinstance(rows, dict):
            raise ValueError(f"its {ROWS} are no object")
        for name, (first, total) in rows.items():
            chunk = _chunk(file, keys, name, first, total)
            self._chunks.setdefault(name, []).append(chunk)

    def _has(self, name: str, tensor: Tensor) -> bool:
        end, wanted = 0, tuple(tensor.shape)
        for chunk in self._chunks.get(name, []):
            if chunk.first != end or chunk.shape[1:] != wanted[1:] or bool(chunk.shape) != bool(wanted):
                return False
            end = chunk.end
        return name in self._chunks and end == self._chunks[name][0].total == (wanted[0] if wanted else 1)


def _groups(
    tensors: dict[str, Tensor], processes: Processes
) -> Iterator[tuple[dict[str, Tensor], dict[str, list[int]]]]:
    pieces, rows, size = {}, {}, 0
    for name, tensor in tensors.items():
        held, first = _held(tensor)
        if not (held.numel() if isinstance(tensor, DTensor) else processes.is_main):
            continue
        rows[name] = [first, tensor.shape[0] if tensor.dim() else 1]
        found = {f"{name}/{piece}": part for piece, part in eight_bits.pieces(held).items()} or {
            name: eight_bits.plain(held)
        }
        pieces |= found
        size += sum(part.nbytes for part in found.values())
        if size >= GROUP_BYTES:
            yield pieces, rows
            pieces, rows, size = {}, {}, 0
    if rows:
        yield pieces, rows


def _held(tensor: Tensor) -> tuple[Tensor, int]:
    """The rows that this process holds, sharing their memory, and the number of the first."""
    if not isinstance(tensor, DTensor):
        return tensor, 0
    _, offset = compute_local_shape_and_global_offset(tensor.shape, tensor.device_mesh, tensor.placements)
    with torch.no_grad():
        return tensor.to_local(), offset[0]


def _chunk(file: safe_open, keys: set[str], name: str, first: int, total: int) -> Chunk:
    plain = name in keys
    parts = [file.get_slice(key) for key in ([name] if plain else [f"{name}/{piece}" for piece in eight_bits.PIECES])]
    shapes, types = [tuple(part.get_shape()) for part in parts], [part.get_dtype() for part in parts]
    block = 0 if plain else eight_bits.block_size(shapes, types)
    chunk = Chunk(file, name, first, total, shapes[0], block)
    if not (type(first) is type(total) is int and 0 <= first and chunk.end <= total and TYPES.issuperset(types)):
        raise ValueError(
            f"{quoted(name)} in {quoted(types)} of {quoted(chunk.shape)}: {quoted(first)} of {quoted(total)}"
        )
    return chunk


def _fill(target: Tensor, first: int, end: int, chunks: list[Chunk]) -> None:
    for chunk in chunks:
        low, high = max(first, chunk.first), min(end, chunk.end)
        part = target[low - first : high - first] if target.dim() else target
        part.copy_(chunk.values(low, high))
