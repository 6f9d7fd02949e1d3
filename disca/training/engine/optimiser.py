"""AdamW, with its moments in 32 or in 8 bits."""

from collections.abc import Iterable
from contextlib import nullcontext

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from ...messages import listing
from ..contract.settings import OptimiserSettings

FUSED = ("cuda", "cpu")  # where PyTorch updates all weights in one pass


def make_optimiser(settings: OptimiserSettings, params: Iterable[nn.Parameter], lr: float) -> Optimizer:
    """The optimiser that the settings name, over those of the parameters that are trained.

    fp32 weights are their own master copy. bf16 weights are for `adamw_8bit` alone, which rounds them stochastically,
    so that updates below bf16's resolution are kept on average; AdamW would lose them.
    """
    params = [parameter for parameter in params if parameter.requires_grad]
    groups = _groups(params)
    options = {"lr": lr, "betas": tuple(settings.betas), "weight_decay": settings.weight_decay}
    if settings.name == "adamw_8bit":
        return _adamw8bit(groups, options)
    kept = sorted({str(parameter.dtype) for parameter in params if parameter.dtype != torch.float32})
    if kept:
        raise ValueError(
            f"adamw was given trained weights in {listing(kept)}, where small updates are rounded away. "
            "Keep trained weights in float32, or set optimizer.name to adamw_8bit."
        )
    return torch.optim.AdamW(groups, **options, fused=all(parameter.device.type in FUSED for parameter in params))


def set_learning_rate(optimiser: Optimizer, lr: float) -> None:
    """Sets the learning rate of every group."""
    for group in optimiser.param_groups:
        group["lr"] = lr


def _groups(params: list[nn.Parameter]) -> list[dict]:
    """Sharded weights apart from those that every process holds whole: one pass over both is refused."""
    groups = [[p for p in params if isinstance(p, DTensor)], [p for p in params if not isinstance(p, DTensor)]]
    return [{"params": group} for group in groups if group]


def _adamw8bit(groups: list[dict], options: dict) -> Optimizer:
    try:
        from torchao.optim import AdamW8bit
    except ImportError as error:
        raise RuntimeError(
            "optimizer.name is adamw_8bit, but torchao cannot be imported. Install it into the Python that trains "
            "(pip install torchao), or set optimizer.name to adamw."
        ) from error

    compiles = torch.utils._triton.has_triton() and all(
        parameter.is_cuda for group in groups for parameter in group["params"]
    )

    class Adjustable(AdamW8bit):
        """torchao's with a learning rate that may be a number, repeatable rounding, and no compiler on the CPU."""

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

    return Adjustable(groups, **options, bf16_stochastic_round=True)
