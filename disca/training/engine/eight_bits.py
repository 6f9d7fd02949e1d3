"""torchao's 8-bit optimiser state, taken apart: a byte for each value, and a scale for each block of values."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...messages import quoted

if TYPE_CHECKING:
    from .tensor_files import Chunk

PIECES = ("codes", "scale", "qmap")  # bytes of the values' shape, scales in one row, the number of each byte


def is_packed(tensor: Tensor) -> bool:
    """Whether the tensor is in 8 bits of a map, which are saved as they are."""
    return all(hasattr(tensor, piece) for piece in PIECES)


def pieces(tensor: Tensor) -> dict[str, Tensor]:
    """What it consists of; nothing for a plain tensor."""
    return {piece: getattr(tensor, piece) for piece in PIECES} if is_packed(tensor) else {}


def is_quantised(tensor: Tensor) -> bool:
    """Whether it is of one of torchao's forms, in 8 bits of whichever kind."""
    return hasattr(tensor, "codes")


def plain(tensor: Tensor) -> Tensor:
    """Its values as numbers, which give the same bits when they are quantised again."""
    return tensor.dequantize() if is_quantised(tensor) else tensor


def block_size(shapes: list[tuple[int, ...]], types: list[str]) -> int:
    """The values that share a scale, from the pieces' shapes and types; ValueError if they do not fit together."""
    codes, scale, qmap = shapes
    values, scales = torch.Size(codes).numel(), torch.Size(scale).numel()
    fits = codes and len(scale) == 1 and qmap == (256,) and scales and values and values % scales == 0
    if not fits or types != ["U8", "F32", "F32"]:
        raise ValueError(f"8-bit state of {quoted(types)} and {quoted(shapes)}")
    return values // scales


def numbers(parts: dict[str, Tensor]) -> Tensor:
    """The values that the pieces stand for."""
    codes, scale, qmap = (parts[piece] for piece in PIECES)
    return (qmap[codes.int()].view(len(scale), -1) * scale[:, None]).view(codes.shape)


def copy_rows(held: Tensor, first: int, chunk: "Chunk") -> bool:
    """Copies the chunk's rows into the tensor, which begins at row `first`, if their blocks are the same blocks."""
    low, high = max(first, chunk.first), min(first + len(held), chunk.end)
    row = held.codes[0].numel()
    here, there = (low - first) * row, (low - chunk.first) * row
    count, block = (high - low) * row, held.codes.numel() // len(held.scale)
    if chunk.block != block or here % block or there % block or count % block:
        return False
    saved = chunk.pieces()
    held.codes.view(-1)[here : here + count] = saved["codes"].view(-1)[there : there + count].to(held.codes.device)
    here, there, count = here // block, there // block, count // block
    held.scale[here : here + count] = saved["scale"][there : there + count].to(held.scale.device)
    return True
