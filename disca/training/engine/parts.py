"""A part of what is trained: its weights and the optimiser that moves them."""

import torch
from torch import Tensor, nn

from ...messages import quoted
from ..contract.protocol import Trainable
from .distributed import Processes, average_gradients, local, norm
from .learning_rate import LearningRate
from .optimiser import make_optimiser, set_learning_rate


class Part:
    """One trained part, with one optimiser, its own warm-up and its own gradient clipping."""

    def __init__(self, name: str, trainable: Trainable, iterations: int):
        self.name = name
        self.module, self._settings = trainable
        self.weights = {key: weight for key, weight in self.module.named_parameters() if weight.requires_grad}
        if not self.weights:
            raise ValueError(f"The part {quoted(name)} has no weights to train.")
        self.buffers = persistent_buffers(self.module)
        self.updates = 0
        self._rate = LearningRate(self._settings, iterations)
        self.optimiser = make_optimiser(self._settings, list(self.weights.values()), self._settings.lr)

    @property
    def lr(self) -> float:
        """The learning rate of the next update."""
        return self._rate.of(self.updates)

    def gradient_norm(self, processes: Processes) -> float:
        """The norm of the whole gradient, averaged over processes; NaN or infinite if an entry is."""
        average_gradients(self.weights.values(), processes)
        return norm(self._gradients(), processes)

    def update(self, gradient_norm: float) -> None:
        """One step of the optimiser along the gradient, clipped."""
        clip = self._settings.clip
        if clip and gradient_norm > clip:
            torch._foreach_mul_([local(gradient) for gradient in self._gradients()], clip / gradient_norm)
        set_learning_rate(self.optimiser, self.lr)
        self.optimiser.step()
        self.updates += 1

    def has_gradient(self) -> bool:
        """Whether a loss of this part was there since the last zero_grad."""
        return any(weight.grad is not None for weight in self.weights.values())

    def zero_grad(self) -> None:
        """Forgets the gradient."""
        for weight in self.weights.values():
            weight.grad = None

    def _gradients(self) -> list[Tensor]:
        return [weight.grad for weight in self.weights.values() if weight.grad is not None]


def persistent_buffers(module: nn.Module) -> dict[str, Tensor]:
    """The buffers that a state_dict holds."""
    saved = module.state_dict(keep_vars=True)
    return {key: buffer for key, buffer in module.named_buffers() if key in saved}
