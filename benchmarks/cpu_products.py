"""What the matrix products, convolutions and attentions of some code take on the CPU: operations and seconds."""

import time

from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


class Products(TorchDispatchMode):
    """Counts and times them while it is entered; all else passes unseen."""

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
