"""Pairs to train the Predictor on: features of an anchor step, and a later state with the velocity to predict there.

The paper draws both states on one straight line from data to noise. While sampling, the later one lies on the model's
own path, one or more steps further; a share of the pairs can come from there, and from states where the Predictor led.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...methods.scheduled.disca import Learned
from ..contract.method_settings import MOST_STEPS, PredictorSettings
from ..contract.times import Draws, at_time, per_sample
from ..network.blocks import Answer
from ..network.velocity import Condition, Network
from .sampling import answer_of


class Pair(NamedTuple):
    """C, and what to predict from it."""

    cached: list[Tensor]
    x_t: Tensor
    t: Tensor
    r: Tensor
    u_target: Tensor


class Pairs:
    """Draws pairs of the kinds that the settings ask for."""

    def __init__(self, settings: PredictorSettings, network: Network, predictor: nn.Module):
        self._settings, self._network, self._predictor = settings, network, predictor

    @torch.no_grad()
    def draw(self, x_0: Tensor, draws: Draws, condition: Condition) -> Pair:
        """A pair for each sample; all samples of a batch are of one kind."""
        shares = self._settings.pairs
        kind = draws.uniform()[0].item() * shares.total
        t, r = draws.restricted_times(self._settings.delta_max)
        noise, delta = draws.noise(x_0), draws.uniform(0.0, self._settings.delta_max)
        if kind <= shares.line:
            return self._on_line(x_0, noise, t, r, delta, condition)
        steps = 1 + int(draws.uniform()[0].item() * MOST_STEPS)
        return self._on_path(at_time(x_0, noise, t), t, delta, steps, kind > shares.line + shares.trajectory, condition)

    def _on_line(self, x_0: Tensor, noise: Tensor, t: Tensor, r: Tensor, delta: Tensor, condition: Condition) -> Pair:
        """Algorithm 3, lines 3 to 7: both states on the line through x_0 and the noise."""
        _, cached = self._network.velocity_and_features(at_time(x_0, noise, t), t, r, condition)
        t_next, r_next = (t - delta).clamp(min=0.0), (r - delta).clamp(min=0.0)
        x_next = at_time(x_0, noise, t_next)
        return Pair(cached, x_next, t_next, r_next, self._network.velocity(x_next, t_next, r_next, condition))

    def _on_path(
        self, x_t: Tensor, t: Tensor, delta: Tensor, steps: int, predicted: bool, condition: Condition
    ) -> Pair:
        """The later state is reached by steps of the model, or after the anchor of the Predictor."""
        length = delta / steps
        r = (t - length).clamp(min=0.0)
        u, cached = self._network.velocity_and_features(x_t, t, r, condition)
        for remaining in reversed(range(steps)):
            x_t = x_t - per_sample(t - r, x_t) * u
            t, r = r, (r - length).clamp(min=0.0)
            if remaining and predicted:
                u = self._network.answered_velocity(by_predictor(self._predictor, cached), x_t, t, r, condition)
            else:
                u = self._network.velocity(x_t, t, r, condition)
        return Pair(cached, x_t, t, r, u)


def by_predictor(predictor: nn.Module, cached: Sequence[Tensor]) -> Answer:
    """P(C, x_t, t, r) in place of the blocks."""
    return answer_of(Learned(), cached, predictor)


def following(pair: Pair, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(x'', t'', r''): where the velocity u leads, and a step of the same length on (Algorithm 3, line 11).

    As printed, r'' is defined by itself; t'' = r' and r'' = max(0, r' - (t' - r')) is what it can mean.
    """
    x = pair.x_t - per_sample(pair.t - pair.r, pair.x_t) * u
    return x, pair.r, (2.0 * pair.r - pair.t).clamp(min=0.0)
