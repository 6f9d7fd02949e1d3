"""The optimiser of a part: PyTorch's, or one of torchao's with its moments in a byte or less."""

from collections.abc import Iterable
from contextlib import nullcontext
from inspect import signature

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from ...messages import cause, listing, quoted
from ..contract.settings import OptimiserSettings
from ..contract.torch_names import find_class, uses_torchao

FUSED = ("cuda", "cpu")  # where PyTorch updates all weights in one pass


def make_optimiser(settings: OptimiserSettings, params: Iterable[nn.Parameter], lr: float) -> Optimizer:
    """The optimiser that the settings name, over those of the parameters that are trained.

    fp32 weights are their own master copy. bf16 weights are for torchao's alone, which round them stochastically,
    so that updates below bf16's resolution are kept on average; others would lose them.
    """
    params = [parameter for parameter in params if parameter.requires_grad]
    found = find_class(settings.name)
    known = signature(found).parameters
    shared = {"lr": lr, "betas": tuple(settings.betas), "weight_decay": settings.weight_decay}
    options = {name: value for name, value in shared.items() if name in known} | settings.options
    if settings.weight_decay and "weight_decay" not in known:
        raise ValueError(f"optimizer.weight_decay is set, but {quoted(settings.name)} has none. Set it to 0.")
    if uses_torchao(settings.name):
        return _adjustable(found, params)(_groups(params), **options, bf16_stochastic_round=True)
    kept = sorted({str(parameter.dtype) for parameter in params if parameter.dtype != torch.float32})
    if kept:
        raise ValueError(
            f"{quoted(settings.name)} was given trained weights in {listing(kept)}, where small updates are rounded "
            "away. Keep trained weights in float32, or set optimizer.name to adamw_8bit."
        )
    if found is torch.optim.AdamW:  # in one pass over all weights, where there is one
        options = {"fused": all(parameter.device.type in FUSED for parameter in params)} | options
    try:
        return found(_groups(params), **options)
    except ValueError as error:  # Muon moves matrices only
        raise ValueError(
            f"{quoted(settings.name)} cannot move the weights of this training ({cause(error)}). "
            "Set optimizer.name to another."
        ) from None


def set_learning_rate(optimiser: Optimizer, lr: float) -> None:
    """Sets the learning rate of every group."""
    for group in optimiser.param_groups:
        group["lr"] = lr


def _groups(params: list[nn.Parameter]) -> list[dict]:
    """Sharded weights apart from those that every process holds whole: one pass over both is refused."""
    groups = [[p for p in params if isinstance(p, DTensor)], [p for p in params if not isinstance(p, DTensor)]]
    return [{"params": group} for group in groups if group]


def _adjustable(found: type[Optimizer], params: list[nn.Parameter]) -> type[Optimizer]:
    """torchao's with a learning rate that may be a number, repeatable rounding, and no compiler on the CPU."""
    compiles = torch.utils._triton.has_triton() and all(parameter.is_cuda for parameter in params)

    class Adjustable(found):
        def _new_buffer(self, p, signed):
            # of sharded bf16 weights it would be fp32 under a DTensor that says bf16, on which the first update fails
            return super()._new_buffer(p.float() if isinstance(p, DTensor) else p, signed)

        def step(self, closure=None):
            for group in self.param_groups:
                group["lr"] = torch.as_tensor(group["lr"], dtype=torch.float32)
            done = int(max((state["step"] for state in self.state.values() if state), default=0))
            stance = nullcontext() if compiles else torch.compiler.set_stance("force_eager")
            with stance, torch.random.fork_rng():
                torch.manual_seed(done)  # the rounding of bf16 weights: the same after a resume
                return super().step(closure)

    return Adjustable
