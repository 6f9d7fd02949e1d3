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
        """A pair for each sample, of a kind of its own.

        As many passes are made whichever kinds were drawn: processes that share a network's weights stay in step.
        """
        shares, delta_max = self._settings.pairs, self._settings.delta_max
        kind = draws.uniform() * shares.total
        t, r = draws.restricted_times(delta_max)
        noise, delta = draws.noise(x_0), draws.uniform(0.0, delta_max)
        on_line, predicted = kind < shares.line, kind >= shares.line + shares.trajectory
        steps = 1 + (draws.uniform() * MOST_STEPS).long()
        length, x_t = delta / steps, at_time(x_0, noise, t)
        ends = torch.where(on_line, r, (t - length).clamp(min=0.0))
        u, cached = self._network.velocity_and_features(x_t, t, ends, condition)
        later = _State(x_t, t, ends, u)
        if shares.trajectory or shares.cached:
            later = self._along_path(later, length, torch.where(on_line, 0, steps), cached, predicted, condition)
        t_next, r_next = (t - delta).clamp(min=0.0), (r - delta).clamp(min=0.0)
        on_the_line = _State(at_time(x_0, noise, t_next), t_next, r_next, u)  # Algorithm 3, lines 3 to 7
        x_t, t, r, _ = on_the_line.where(on_line, later)
        return Pair(cached, x_t, t, r, self._network.velocity(x_t, t, r, condition))

    def _along_path(
        self,
        state: "_State",
        length: Tensor,
        steps: Tensor,
        cached: list[Tensor],
        predicted: Tensor,
        condition: Condition,
    ) -> "_State":
        """So many steps [B] further each, by the model's own u, or after the first of them by the Predictor's."""
        shares, answer = self._settings.pairs, by_predictor(self._predictor, cached)
        for remaining in reversed(range(MOST_STEPS)):
            moves = remaining < steps
            state = state.moved(length).where(moves, state)
            if not remaining:
                break
            at, u = (state.x, state.t, state.r, condition), state.u
            if shares.trajectory:
                u = torch.where(per_sample(predicted, u), u, self._network.velocity(*at))
            if shares.cached:
                u = torch.where(per_sample(predicted, u), self._network.answered_velocity(answer, *at), u)
            state = state._replace(u=u).where(moves, state)
        return state


class _State(NamedTuple):
    """Where samples are, when, where the step from there ends, and its u."""

    x: Tensor
    t: Tensor
    r: Tensor
    u: Tensor

    def moved(self, length: Tensor) -> "_State":
        """At the end of that step, before one of that length [B]; its u is still the last one's."""
        x = self.x - per_sample(self.t - self.r, self.x) * self.u
        return _State(x, self.r, (self.r - length).clamp(min=0.0), self.u)

    def where(self, chosen: Tensor, other: "_State") -> "_State":
        """The chosen [B] samples of this one, the rest of the other."""
        return _State(*(torch.where(per_sample(chosen, a), a, b) for a, b in zip(self, other, strict=True)))


def by_predictor(predictor: nn.Module, cached: Sequence[Tensor]) -> Answer:
    """P(C, x_t, t, r) in place of the blocks."""
    return answer_of(Learned(), cached, predictor)


def following(pair: Pair, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(x'', t'', r''): where the velocity u leads, and a step of the same length on (Algorithm 3, line 11).

    As printed, r'' is defined by itself; t'' = r' and r'' = max(0, r' - (t' - r')) is what it can mean.
    """
    x = pair.x_t - per_sample(pair.t - pair.r, pair.x_t) * u
    return x, pair.r, (2.0 * pair.r - pair.t).clamp(min=0.0)
