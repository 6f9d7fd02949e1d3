"""Sampling while training, for previews and measurements: full steps, and steps that a rule or the Predictor takes."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ...meanflow import step
from ..contract.times import per_sample
from ..network.velocity import Condition, Network

Velocity = Callable[[Tensor, Tensor, Tensor], Tensor]  # u(x_t, t, r)


@torch.no_grad()
def sample(u: Velocity, noise: Tensor, sigmas: Tensor) -> Tensor:
    """x_0 from noise, one step for each pair of neighbouring sigmas (decreasing, to 0)."""
    x = noise
    for t, r in zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True):
        times = torch.full((len(x),), t, device=x.device)
        x = step(x, u(x, times, torch.full_like(times, r)), t, r)
    return x


def guided(network: Network, condition: Condition, null: Condition, scale: float) -> Velocity:
    """The velocity of a model without MeanFlow under classifier-free guidance; scale 1 asks for the condition only."""

    def u(x_t: Tensor, t: Tensor, r: Tensor) -> Tensor:
        v = network.velocity(x_t, t, condition)
        return v if scale == 1.0 else torch.lerp(network.velocity(x_t, t, null), v, scale)

    return u


def mean_velocity(network: Network, condition: Condition) -> Velocity:
    """The mean velocity of a MeanFlow model."""
    return lambda x_t, t, r: network.velocity(x_t, t, condition, r)


class CachedVelocity:
    """The mean velocity with a rule in place of the blocks on all but the anchor steps of one run."""

    def __init__(self, network: Network, condition: Condition, anchors: Sequence[int], rule: "Rule"):
        self._network, self._condition, self._rule = network, condition, rule
        self._anchors = frozenset(anchors)
        self._step = 0

    def __call__(self, x_t: Tensor, t: Tensor, r: Tensor) -> Tensor:
        if self._step in self._anchors:
            u, features = self._network.velocity_and_features(x_t, t, self._condition, r)
            self._rule.keep(features, t)
        else:
            self._rule.begin(t)
            u = self._network.predicted_velocity(self._rule, self._rule.cached, x_t, t, self._condition, r)
        self._step += 1
        return u


class Rule(nn.Module):
    """Features of a step from those of earlier ones: here the last ones, unchanged."""

    def __init__(self):
        super().__init__()
        self.cached: list[Tensor] = []

    def keep(self, features: list[Tensor], t: Tensor) -> None:
        """Sees the features of an anchor step."""
        self.cached = features

    def begin(self, t: Tensor) -> None:
        """Sees the time of the step to predict."""

    def forward(self, *tokens_and_cached: Tensor, **context: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The features, for the tokens of this step (one stream: x, C; two: img, txt, C_img, C_txt)."""
        return self.cached[0] if len(self.cached) == 1 else tuple(self.cached)


class Extrapolation(Rule):
    """First-order: along the line through the features of the last two anchor steps."""

    def __init__(self):
        super().__init__()
        self._anchors: list[tuple[list[Tensor], Tensor]] = []
        self._now: Tensor | None = None

    def keep(self, features: list[Tensor], t: Tensor) -> None:
        """Sees the features of an anchor step."""
        super().keep(features, t)
        self._anchors = [*self._anchors[-1:], (features, t)]

    def begin(self, t: Tensor) -> None:
        """Sees the time of the step to predict."""
        self._now = t

    def forward(self, *tokens_and_cached: Tensor, **context: Tensor) -> Tensor | tuple[Tensor, ...]:
        """The features at that time; with one anchor step so far, its own."""
        if len(self._anchors) < 2:
            return super().forward()
        (earlier, before), (last, t) = self._anchors
        share = (self._now - t) / (t - before)
        features = [c + per_sample(share, c) * (c - e) for e, c in zip(earlier, last, strict=True)]
        return features[0] if len(features) == 1 else tuple(features)


class Predicted(Rule):
    """By a Predictor."""

    def __init__(self, predictor: nn.Module):
        super().__init__()
        self.predictor = predictor

    def forward(self, *tokens_and_cached: Tensor, **context: Tensor) -> Tensor | tuple[Tensor, ...]:
        """What the Predictor makes of tokens and cached features."""
        return self.predictor(*tokens_and_cached, **context)
