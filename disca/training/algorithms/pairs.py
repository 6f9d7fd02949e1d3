"""Pairs to train the Predictor on: features of full steps, and a later state with the velocity to predict there.

The paper draws both states on one straight line from data to noise. While sampling, they lie on the model's own path by
the times of some run, any number of steps apart; a share of the pairs can come from there, or from a run in which the
Predictor leads. Each full step of a run is what the ones before it are to predict, and gives features to the next.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ...meanflow import shifted
from ...methods.scheduled.disca import Learned
from ...methods.seam.method import Span
from ..contract.method_settings import MOST_STEPS, PredictorSettings
from ..contract.times import Draws, at_time, per_sample
from ..network.blocks import Answer
from ..network.velocity import Condition, Network
from .sampling import answer_of


class Kept(NamedTuple):
    """What a method keeps of full steps: their features, the last step's first, and their times [B]."""

    features: list[Tensor]
    times: list[Tensor]

    @property
    def full_steps(self) -> list[tuple[Tensor, list[Tensor]]]:
        """The time and the features of each of these steps, the earliest first."""
        count = len(self.features) // len(self.times)
        return [(t, self.features[count * i : count * (i + 1)]) for i, t in enumerate(self.times)][::-1]

    def then(self, features: list[Tensor], t: Tensor) -> "Kept":
        """As many steps, the last of them a new one."""
        return Kept([*features, *self.features][: len(self.features)], [t, *self.times][: len(self.times)])

    def where(self, chosen: Tensor, other: "Kept") -> "Kept":
        """That of the chosen [B] samples, of the rest the other's."""
        both = zip(self, other, strict=True)
        return Kept(*([_where(chosen, a, b) for a, b in zip(*each, strict=True)] for each in both))


class State(NamedTuple):
    """Where samples are, when, and where the step from there ends."""

    x: Tensor
    t: Tensor
    r: Tensor

    def where(self, chosen: Tensor, other: "State") -> "State":
        """That of the chosen [B] samples, of the rest the other's."""
        return State(*(_where(chosen, a, b) for a, b in zip(self, other, strict=True)))


class Pair(NamedTuple):
    """What is kept, and what to predict from it."""

    kept: Kept
    x_t: Tensor
    t: Tensor
    r: Tensor
    u_target: Tensor


class Pairs:
    """Draws pairs of the kinds that the settings ask for, for a Predictor that sees so many features."""

    def __init__(self, settings: PredictorSettings, network: Network, predictor: nn.Module, features: int = 1):
        self._settings, self._network, self._predictor, self._features = settings, network, predictor, features

    @torch.no_grad()
    def draw(self, x_0: Tensor, draws: Draws, condition: Condition) -> Iterator[Pair]:
        """`full_steps` pairs for each sample, which is of one kind.

        As many passes are made whichever kinds were drawn: processes that share a network's weights stay in step.
        """
        shares, noise = self._settings.pairs, draws.noise(x_0)
        kind = draws.uniform() * shares.total
        on_line, led = kind < shares.line, kind >= shares.line + shares.trajectory
        run = Run.drawn(draws, self._settings)
        if not shares.has_runs:  # Algorithm 3, lines 3 to 7
            for _ in run.lengths:
                seen, state = self._on_line(x_0, noise, draws, condition)
                yield Pair(seen, *state, self._network.velocity(*state, condition))
            return
        step = torch.zeros_like(run.lengths[0])
        state = State(noise, *run.times(step))
        u, features = self._network.velocity_and_features(*state, condition)
        kept = Kept(features * self._features, [state.t] * self._features)  # so far of one full step only
        for length in run.lengths:
            for gone in range(MOST_STEPS):
                moves = gone < length
                step = step + moves.long()
                state = State(_moved(state, u), *run.times(step)).where(moves, state)
                if gone + 1 < MOST_STEPS:
                    u = self._between(state, u, kept, led, condition)
            seen = kept
            if shares.line:
                theirs, later = self._on_line(x_0, noise, draws, condition)
                seen, state = theirs.where(on_line, kept), later.where(on_line, state)
            u, features = self._network.velocity_and_features(*state, condition)
            yield Pair(seen, *state, u)
            kept = kept.then(features, state.t)

    def _between(self, state: State, u: Tensor, kept: Kept, led: Tensor, condition: Condition) -> Tensor:
        """The velocity between two full steps: the model's own, or for the samples that are `led` the Predictor's."""
        if self._settings.pairs.trajectory:
            u = _where(led, u, self._network.velocity(*state, condition))
        if self._settings.pairs.cached:
            answer = by_predictor(self._predictor, kept, state.t)
            u = _where(led, self._network.answered_velocity(answer, *state, condition), u)
        return u

    def _on_line(self, x_0: Tensor, noise: Tensor, draws: Draws, condition: Condition) -> tuple[Kept, State]:
        """What is kept of full steps on the line from data to noise, and a later state there."""
        delta_max = self._settings.delta_max
        t, r = draws.restricted_times(delta_max)
        distances = [-draws.uniform(0.0, delta_max) for _ in range(self._features - 1)]
        distances += [torch.zeros_like(t), draws.uniform(0.0, delta_max)]
        times = [((t - by).clamp(0.0, 1.0), (r - by).clamp(0.0, 1.0)) for by in distances]
        *full, later = (State(at_time(x_0, noise, t), t, r) for t, r in times)
        features: list[Tensor] = []
        for state in full:
            features = [*self._network.velocity_and_features(*state, condition)[1], *features]
        return Kept(features, [state.t for state in reversed(full)]), later


class Run(NamedTuple):
    """The times of a sampling run for each sample [B], and how many steps it is from each full one to the next."""

    shift: Tensor
    lengths: list[Tensor]

    @classmethod
    def drawn(cls, draws: Draws, settings: PredictorSettings) -> "Run":
        """A run of any shift in the settings' range; some have full steps everywhere, some few."""
        flat, steep = settings.shift
        shift = flat * (steep / flat) ** draws.uniform()
        most = 2 + (draws.uniform() * (MOST_STEPS - 1)).long()
        return cls(shift, [1 + (draws.uniform() * most).long() for _ in range(settings.full_steps)])

    def times(self, step: Tensor) -> tuple[Tensor, Tensor]:
        """(t, r) of a step."""
        steps = 1 + sum(self.lengths)
        t, r = (shifted(1.0 - at / steps, self.shift) for at in (step, step + 1))
        return t, r


def by_predictor(predictor: nn.Module, kept: Kept, t: Tensor) -> Answer:
    """P(C, x_t, t, r) in place of the blocks."""
    ages = [Span(0.0, then - t) for then in kept.times]  # how many steps it was, the Predictor is not told
    return answer_of(Learned(len(kept.times)), kept.features, predictor, ages, t=t)


def following(pair: Pair, u: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(x'', t'', r''): where the velocity u leads, and a step of the same length on (Algorithm 3, line 11).

    As printed, r'' is defined by itself; t'' = r' and r'' = max(0, r' - (t' - r')) is what it can mean.
    """
    return _moved(State(pair.x_t, pair.t, pair.r), u), pair.r, (2.0 * pair.r - pair.t).clamp(min=0.0)


def _moved(state: State, u: Tensor) -> Tensor:
    return state.x - per_sample(state.t - state.r, state.x) * u


def _where(chosen: Tensor, one: Tensor, other: Tensor) -> Tensor:
    return torch.where(per_sample(chosen, one), one, other)
