"""Tensors without memory, on which a run is counted: they have shapes and types, and no numbers."""

from torch import Tensor

try:
    from torch._subclasses import FakeTensor
except ImportError:  # of a PyTorch that calls it otherwise nothing can be counted
    FakeTensor = type(None)


def is_weightless(tensor: Tensor) -> bool:
    """Whether the tensor has no numbers."""
    return isinstance(tensor, FakeTensor)
