"""All tensors that a run goes on from, under flat names: weights, optimisers, running average.

PyTorch's get_optimizer_state_dict gives the same tensors of the optimisers, but lets one that has not begun take a
step, which changes what comes of it, and its setter gives state to weights that had none, or fails over them.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from .ema import Ema
from .optimiser import set_learning_rate
from .parts import Part


def collect(parts: Iterable[Part], ema: Ema | None) -> dict[str, Tensor]:
    """Name -> tensor, sharing memory with what is trained, so that reading into them restores it."""
    found: dict[str, Tensor] = {}
    for part in parts:
        found |= {f"weights/{part.name}/{key}": weight.detach() for key, weight in part.weights.items()}
        found |= {f"buffers/{part.name}/{key}": buffer for key, buffer in part.buffers.items()}
        for key, weight in part.weights.items():
            for entry, value in part.optimiser.state.get(weight, {}).items():
                found[f"optimiser/{part.name}/{key}/{entry}"] = value
    if ema is not None:
        found |= {f"average/{key}": tensor for key, tensor in ema.average.items()}
    return found


def make_room(parts: Iterable[Part], saved: set[str]) -> None:
    """Gives each optimiser the state that was saved of it, with values to be overwritten."""
    for part in parts:
        if not any(key.startswith(f"optimiser/{part.name}/") for key in saved):
            continue
        _step_of_nothing(part)
        for key, weight in part.weights.items():
            if not any(
                f"optimiser/{part.name}/{key}/{entry}" in saved for entry in part.optimiser.state.get(weight, {})
            ):
                part.optimiser.state.pop(weight, None)


def _step_of_nothing(part: Part) -> None:
    for weight in part.weights.values():
        weight.grad = torch.zeros_like(weight)
    set_learning_rate(part.optimiser, 0.0)
    part.optimiser.step()
    part.zero_grad()
