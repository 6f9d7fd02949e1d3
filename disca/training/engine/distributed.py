"""One process, or several that torchrun started: who we are, sums over all, and sharded weights."""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor

from ..network.comfy import choose_device

TIMEOUT = timedelta(minutes=30)  # rank 0 may write a large export while the others wait


@dataclass(frozen=True)
class Processes:
    """All processes that train, and which of them this is."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes and speaks for all."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, on the CPU."""
        if self.size == 1:
            return values.cpu()
        total = values.to(self.device)
        dist.all_reduce(total)
        return total.cpu()

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in one of the processes."""
        return bool(self.max(int(flag)))

    def max(self, value: int) -> int:
        """The greatest value of all processes."""
        if self.size == 1:
            return value
        total = torch.tensor(value, device=self.device)
        dist.all_reduce(total, op=dist.ReduceOp.MAX)
        return int(total)

    def gather(self, value: Any) -> list:
        """What each process gave, by rank; it travels as JSON, for PyTorch's own way would unpickle what comes."""
        if self.size == 1:
            return [value]
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        given = torch.zeros(self.max(len(text)), dtype=torch.uint8, device=self.device)
        given[: len(text)] = text.to(self.device)
        all_given = [torch.empty_like(given) for _ in range(self.size)]
        dist.all_gather(all_given, given)
        return [json.loads(bytes(each.cpu().tolist()).rstrip(b"\0")) for each in all_given]

    def main_first(self, act: Callable[[], object], otherwise: Exception) -> None:
        """Has the main process act while the others wait; where it fails it says why, and they raise `otherwise`."""
        failure = None
        try:
            if self.is_main:
                act()
        except (OSError, ValueError, RuntimeError) as error:
            failure = error
        if self.any(failure is not None):
            raise failure or otherwise

    def barrier(self) -> None:
        """Waits until all processes are here."""
        if self.size > 1:
            dist.barrier()


@contextmanager
def process_group(device: str) -> Iterator[Processes]:
    """The processes that torchrun's environment describes, or one process without it; left at the end."""
    chosen = choose_device(device)
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield Processes(0, 1, chosen)
        return
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(chosen)
    start = _start_number()
    store, rank, size = next(rendezvous("env://"))
    store = dist.PrefixStore(f"start-{start}", store)
    store = dist.PrefixStore(f"run-{store.add(f'runs-{rank}', 1)}", store)  # a process may train twice
    backend = "nccl" if chosen.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), chosen)
    finally:
        dist.destroy_process_group()


def _start_number() -> str:
    """Tells this start of the processes from those before a restart, whose addresses may still be in torchrun's store.

    PyTorch issue 135712: restarts of several machines are not counted alike, so that they need stores of their own.
    """
    machines, restarts = os.environ.get("GROUP_WORLD_SIZE", "1"), os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0")
    if machines == "1":
        return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if restarts != "0" and os.environ.get("TORCH_DISABLE_SHARE_RDZV_TCP_STORE") != "1":
        raise RuntimeError(
            "torchrun cannot restart processes on several machines with the store that it shares with them. "
            "Set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in its environment on each, or leave out --max-restarts."
        )
    return "0"


def shard(modules: list[nn.Module], parts: Iterable[nn.Module], processes: Processes, dtype: str) -> None:
    """Spreads the weights of the modules over all processes, in their order; what is left out starts out equal.

    Each is whole only while it runs: a module that is sharded by itself would stay so after its first forward.
    """
    if processes.size == 1:
        return
    policy = MixedPrecisionPolicy()
    if dtype == "bf16":
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for module in modules:
        fully_shard(module, mp_policy=policy, reshard_after_forward=True)
    with torch.no_grad():
        for tensor in (tensor for part in parts for tensor in [*part.parameters(), *part.buffers()]):
            if not isinstance(tensor, DTensor):
                dist.broadcast(tensor, 0)


def average_gradients(parameters: Iterable[nn.Parameter], processes: Processes) -> None:
    """Averages over processes the gradients of weights that every process holds whole; those sharded already are."""
    if processes.size == 1:
        return
    for parameter in parameters:
        if parameter.grad is not None and not isinstance(parameter.grad, DTensor):
            dist.all_reduce(parameter.grad)
            parameter.grad /= processes.size


def local(tensor: Tensor) -> Tensor:
    """The part of the tensor that this process holds, sharing its memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def full_tensor(tensor: Tensor, processes: Processes) -> Tensor | None:
    """The tensor put together from all processes, on the CPU of the main one; all of them must ask."""
    tensor = tensor.detach()
    tensor = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return tensor.cpu() if processes.is_main else None


def norm(tensors: list[Tensor], processes: Processes) -> float:
    """The Euclidean norm of all tensors together, whichever way they are held."""
    squares = torch.zeros(2, dtype=torch.float64)
    for tensor in tensors:
        held = local(tensor)
        if held.numel():
            squares[int(isinstance(tensor, DTensor))] += torch.linalg.vector_norm(held.float()).double().cpu() ** 2
    return float((squares[0] + processes.sum(squares[1].to(torch.float32).reshape(1))[0].double()).sqrt())
