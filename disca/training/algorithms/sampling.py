"""Sampling while training, for previews and measurements: full steps, and steps that a feature cache answers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...meanflow import step
from ...methods.method import FULL, Method, Now, Span, What
from ..contract.velocity import Velocity
from ..network.blocks import Answer
from ..network.velocity import Condition, Network


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
        v = network.velocity(x_t, t, None, condition)
        return v if scale == 1.0 else torch.lerp(network.velocity(x_t, t, None, null), v, scale)

    return u


def mean_velocity(network: Network, condition: Condition) -> Velocity:
    """The mean velocity of a MeanFlow model."""
    return lambda x_t, t, r: network.velocity(x_t, t, r, condition)


def answer_of(
    what: What, kept: Sequence[Tensor], compute: nn.Module | None, age: Span | None = None, gap: Span | None = None
) -> Answer:
    """What stands in for the blocks, made of what was kept; a Predictor needs no times."""
    return lambda tokens, context: what.answer(tokens, kept, age, gap, compute, context)


class CachedVelocity:
    """The mean velocity of one run, its steps in full or answered as a method decides."""

    def __init__(
        self,
        network: Network,
        condition: Condition,
        method: Method,
        sigmas: Sequence[float],
        compute: nn.Module | None = None,
    ):
        """`compute` is the method's own network, if it has one."""
        self._network, self._condition, self._method, self._compute = network, condition, method, compute
        self._decider = method.when.fresh(sigmas)
        self._step = 0
        self._kept: list[Tensor] = []
        self._full: list[tuple[int, Tensor]] = []  # the last two full steps and their times, latest first

    def __call__(self, x_t: Tensor, t: Tensor, r: Tensor) -> Tensor:
        way = self._decider.decide(Now(self._step))
        if way == FULL:
            u, features = self._network.velocity_and_features(x_t, t, r, self._condition)
            self.keep(features, t)
        else:
            u = self.answered(way, x_t, t, r)
        self._step += 1
        return u

    def keep(self, features: Sequence[Tensor], t: Tensor) -> None:
        """Sees the features of a full step."""
        self._kept = self._method.ways[0].what.keep(features, self._kept)
        self._full = [(self._step, t), *self._full[:1]]

    def answered(self, way: int, x_t: Tensor, t: Tensor, r: Tensor) -> Tensor:
        """The velocity of a step that is not run."""
        (last, t_last), *before = self._full
        age = Span(self._step - last, t_last - t)
        gap = Span(last - before[0][0], before[0][1] - t_last) if before else None
        answer = answer_of(self._method.ways[way].what, self._kept, self._compute, age, gap)
        return self._network.answered_velocity(answer, x_t, t, r, self._condition)
