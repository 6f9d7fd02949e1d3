"""The discriminator of Algorithm 3: small heads on features of the frozen network, one logit a place.

The paper says only that it is multi-scale, judges features of the base model and has a hinge loss. Sizes and
normalisation here follow what open work on video distillation found to hold: normalised features, group norm, the time
as a modulation, AdamW without momentum. The printed signs would make it help the Predictor: the standard hinge is used.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, leaky_relu, relu

from ..network.velocity import timestep_embedding

TIME_WIDTH = 256


class Head(nn.Module):
    """Logits [B, positions] of features [B, frames, positions in a frame, h] at the time t."""

    def __init__(self, features: int, width: int):
        super().__init__()
        self.project = nn.Linear(features, width)
        self.norm = nn.GroupNorm(min(32, width // 4), width)
        self.time = nn.Linear(TIME_WIDTH, 2 * width)
        self.mix = nn.Linear(width, width)
        self.out = nn.Linear(width, 1)
        nn.init.zeros_(self.time.weight)
        nn.init.zeros_(self.time.bias)

    def forward(self, features: Tensor, t: Tensor) -> Tensor:
        x = self.project(layer_norm(features.float(), features.shape[-1:]))
        x = self.norm(x.flatten(0, 1).transpose(1, 2)).transpose(1, 2).view_as(x)
        scale, shift = self.time(timestep_embedding(t, TIME_WIDTH)).chunk(2, dim=-1)
        x = leaky_relu(x * (1.0 + scale[:, None, None]) + shift[:, None, None], 0.2)
        x = x + leaky_relu(self.mix(x), 0.2)
        return self.out(x).flatten(1)


class Discriminator(nn.Module):
    """One score per sample from the features after several blocks."""

    def __init__(self, features: int, taps: int, width: int = 256):
        super().__init__()
        self.heads = nn.ModuleList(Head(features, width) for _ in range(taps))

    def forward(self, taps: Sequence[Tensor], t: Tensor, frames: int) -> Tensor:
        """The mean logit [B] over heads and places of image tokens [B, L, h] of so many frames."""
        scores = [head(tap.unflatten(1, (frames, -1)), t).mean(1) for head, tap in zip(self.heads, taps, strict=True)]
        return torch.stack(scores).mean(0)


def discriminator_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """max(0, 1 + D(predicted)) + max(0, 1 - D(target)), each [B]: Algorithm 3, line 14, as the standard hinge."""
    return relu(1.0 + predicted) + relu(1.0 - target)


def adversarial_loss(predicted: Tensor) -> Tensor:
    """max(0, 1 - D(predicted)): Algorithm 3, line 12, second term."""
    return relu(1.0 - predicted)
