"""What some code does on the CPU: its matrix products, convolutions and attentions, or all that it asks PyTorch for."""

import statistics
import time
from collections import defaultdict

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


class Products(TorchDispatchMode):
    """Counts and times products while it is entered; all else passes unseen."""

    def __init__(self):
        super().__init__()
        self.operations, self.seconds = 0, 0.0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        count = flop_registry.get(function.overloadpacket)
        if count is None:
            with self:  # in inference mode a linear layer arrives whole
                made = function.decompose(*args, **kwargs)
            return function(*args, **kwargs) if made is NotImplemented else made
        started = time.process_time()
        made = function(*args, **kwargs)
        self.seconds += time.process_time() - started
        self.operations += count(*args, **kwargs, out_val=made)
        return made


class Calls(TorchDispatchMode):
    """Notes what each of PyTorch's functions took, by its name and its tensors' shapes."""

    def __init__(self):
        super().__init__()
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        with self:  # in inference mode a composite function arrives whole
            made = function.decompose(*args, **kwargs)
        if made is not NotImplemented:
            return made
        started = time.process_time()
        made = function(*args, **kwargs)
        taken = time.process_time() - started
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, torch.Tensor)]
        shapes = [(tuple(tensor.shape), tuple(tensor.stride())) for tensor in tensors]
        self.seconds[f"{function} {shapes}"].append(taken)
        return made

    def beyond(self, other: "Calls") -> float:
        """Seconds of the calls here that the other made fewer of, less those that it made more of."""
        each = {**other.seconds, **self.seconds}
        return sum(
            (len(self.seconds.get(name, ())) - len(other.seconds.get(name, ()))) * statistics.median(taken)
            for name, taken in each.items()
        )
