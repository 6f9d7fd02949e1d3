"""What rules that look at a run share: how far tensors are apart, and which steps are the last."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ...schedule import first_steps


def size(tensor: Tensor, order: int = 1) -> Tensor:
    """Σ|x|, or at order 2 the root of Σx²: a tensor, as reading its number waits for the device."""
    return torch.linalg.vector_norm(tensor, order, dtype=torch.promote_types(tensor.dtype, torch.float32))


def relative_change(now: Tensor, before: Tensor, order: int = 1) -> Tensor:
    """|now - before| / |before|, with sums of magnitudes, or at order 2 of squares; NaN or infinite before zeros."""
    return size(now - before, order) / size(before, order)


def each_once(*tensors: Tensor | None) -> tuple[Tensor, ...]:
    """Those that are there, each once."""
    return tuple({id(tensor): tensor for tensor in tensors if tensor is not None}.values())


def final_steps(sigmas: Sequence[float], count: int = 1) -> frozenset[int]:
    """The last steps of a run at these times; a repeated time is its first step."""
    step_of = first_steps(sigmas)
    return frozenset(step_of[sigma] for sigma in sigmas[-1 - count : -1])
