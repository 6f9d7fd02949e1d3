"""What a GPU need not hold all the time: the inputs of recomputed blocks, and frozen weights of waiting blocks.

Both are exact: what comes back from the host is what went there, bit for bit.
"""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef

from ...models.family import family_of

LEAST_BYTES = 2**20  # smaller tensors stay: a copy costs more than it saves
ONLY_FROZEN = (
    "memory.swap_blocks is above 0, but the blocks' own weights are trained, and only frozen weights can wait on the "
    "host. Set it to 0, or train with lora.rank above 0."
)

Entry = tuple[nn.Module, str, nn.Parameter]  # a module, the name of one of its weights, the weight


@dataclass
class OffloadTotals:
    """How many tensors were copied to the host so far, and their bytes."""

    tensors: int = 0
    bytes: int = 0


@dataclass(eq=False)
class HostCopy:
    """A tensor's copy on the host, and where it belongs."""

    host: Tensor
    device: torch.device
    stream: torch.cuda.Stream | None

    def back(self) -> Tensor:
        """The tensor where it was."""
        if self.stream is not None:
            torch.cuda.current_stream(self.device).wait_stream(self.stream)
        return self.host.to(self.device, non_blocking=True, copy=True)


@dataclass
class Offloader:
    """Copies saved tensors to the host; one that is saved many times, as the rotary embedding is, goes once."""

    least: int
    totals: OffloadTotals = field(default_factory=OffloadTotals)
    known: dict[tuple, tuple[StorageWeakRef, weakref.ref]] = field(default_factory=dict)
    stream: torch.cuda.Stream | None = None

    def pack(self, tensor: Tensor) -> Tensor | HostCopy:
        """Called when autograd saves a tensor."""
        if tensor.nbytes < self.least or _is_weight(tensor):
            return tensor
        storage = StorageWeakRef(tensor.untyped_storage())
        key = (storage.cdata, tensor.dtype, tensor.shape, tensor.stride(), tensor.storage_offset(), tensor._version)
        earlier = self._earlier(key)
        if earlier is not None:
            return earlier
        moved = self._move(tensor)
        self.known[key] = (storage, weakref.ref(moved))
        self.totals.tensors += 1
        self.totals.bytes += tensor.nbytes
        return moved

    def _move(self, tensor: Tensor) -> HostCopy:
        host = torch.empty_like(tensor, device="cpu", pin_memory=tensor.is_cuda, requires_grad=False)
        if not tensor.is_cuda:
            return HostCopy(host.copy_(tensor.detach()), tensor.device, None)
        self.stream = self.stream or torch.cuda.Stream(tensor.device)
        self.stream.wait_stream(torch.cuda.current_stream(tensor.device))
        with torch.cuda.stream(self.stream):
            host.copy_(tensor.detach(), non_blocking=True)
        tensor.record_stream(self.stream)  # its memory is not given to others before the copy is done
        return HostCopy(host, tensor.device, self.stream)

    def _earlier(self, key: tuple) -> HostCopy | None:
        storage, moved = self.known.get(key, (None, None))
        if storage is None or storage.expired():  # then its address may be another tensor's now
            return None
        return moved()


@contextmanager
def offloaded_activations(least: int = LEAST_BYTES) -> Iterator[OffloadTotals]:
    """Keeps on the host what a forward pass saves for backward, from `least` bytes on.

    Around the forward pass of recomputed blocks that is their inputs: those that are tensors among the positional
    arguments of `checkpoint`. What a block saves while it is recomputed stays on the device.
    """
    offloader = Offloader(least)
    with saved_tensors_hooks(offloader.pack, lambda held: held.back() if isinstance(held, HostCopy) else held):
        yield offloader.totals


class Swap:
    """Frozen weights of some blocks that live on the host and visit the device for each run of their block."""

    def __init__(self, blocks: list[nn.Module], device: torch.device):
        self.device = device
        self.visits = 0
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.ahead: dict[nn.Module, list[Tensor]] = {}
        self.host = {block: [self._settle(*entry) for entry in _frozen(block)] for block in blocks}
        self.hooks = [block.register_forward_pre_hook(self._enter) for block in blocks]
        # always: a recompute ends in an exception as soon as it has what backward needs
        self.hooks += [block.register_forward_hook(self._leave, always_call=True) for block in blocks]

    def remove(self) -> None:
        """Puts all weights on the device for good."""
        for hook in self.hooks:
            hook.remove()
        for entries in self.host.values():
            for module, name, weight in entries:
                module._parameters[name] = _parameter(weight.to(self.device))

    def _settle(self, module: nn.Module, name: str, weight: Tensor) -> Entry:
        host = torch.empty_like(weight, device="cpu", pin_memory=self.stream is not None, requires_grad=False)
        module._parameters[name] = _parameter(host.copy_(weight.detach()))
        return module, name, module._parameters[name]

    def _enter(self, block: nn.Module, args: tuple) -> None:
        if any(weight.requires_grad for _, _, weight in self.host[block]):
            raise RuntimeError(ONLY_FROZEN)
        # new parameters each time: backward keeps the ones it saved, and frees them when it is done
        copies = self.ahead.pop(block, None) or self._copy(block)
        if self.stream is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_stream(self.stream)
            for copy in copies:
                copy.record_stream(current)
        for (module, name, _), copy in zip(self.host[block], copies, strict=True):
            module._parameters[name] = _parameter(copy)
        self.visits += 1
        self._fetch_next(block)

    def _leave(self, block: nn.Module, args: tuple, out: object) -> None:
        for module, name, weight in self.host[block]:
            module._parameters[name] = weight

    def _fetch_next(self, block: nn.Module) -> None:
        if self.stream is None:
            return
        blocks = list(self.host)
        recomputing = torch._C._current_graph_task_id() != -1  # backward visits the blocks from the last
        following = blocks.index(block) + (-1 if recomputing else 1)
        self.ahead.clear()
        if 0 <= following < len(blocks):
            self.ahead[blocks[following]] = self._copy(blocks[following])

    def _copy(self, block: nn.Module) -> list[Tensor]:
        if self.stream is None:
            return [weight.detach().clone() for _, _, weight in self.host[block]]
        with torch.cuda.stream(self.stream):
            return [weight.detach().to(self.device, non_blocking=True) for _, _, weight in self.host[block]]


def swap_blocks(network: nn.Module, count: int, device: torch.device) -> Swap:
    """Leaves the frozen weights of the network's last `count` blocks on the host, and moves all others to the device.

    For one GPU: under `fully_shard` the weights are FSDP's to move. Not left to ComfyUI's layers, which cast weights
    from the host themselves: into a buffer that the next layer overwrites while backward still needs it.
    """
    family = family_of(network)
    blocks = [family.module(network, block) for block in family.blocks(network)]
    if not 0 <= count <= len(blocks):
        raise ValueError(
            f"memory.swap_blocks is {count:d}, but the network has {len(blocks)} blocks. Set at most that."
        )
    swapped = blocks[len(blocks) - count :]
    if not all(_frozen(block) for block in swapped):
        raise ValueError(ONLY_FROZEN)
    swap = Swap(swapped, torch.device(device))
    waiting = {id(weight) for entries in swap.host.values() for _, _, weight in entries}
    for tensor in [*network.parameters(), *network.buffers()]:
        if id(tensor) not in waiting:
            tensor.data = tensor.data.to(device)
    return swap


def _frozen(block: nn.Module) -> list[Entry]:
    return [
        (module, name, weight)
        for module in block.modules()
        for name, weight in module._parameters.items()
        if weight is not None and not weight.requires_grad
    ]


def _parameter(tensor: Tensor) -> nn.Parameter:
    return nn.Parameter(tensor, requires_grad=False)


def _is_weight(tensor: Tensor) -> bool:
    return isinstance(tensor, nn.Parameter) or isinstance(tensor._base, nn.Parameter)
