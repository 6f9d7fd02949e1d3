"""Sampling while training, for previews and measurements: full steps, and steps that a feature cache answers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...meanflow import step
from ...messages import quoted
from ...methods.seam.method import FIRST, OUTPUT, Method, Span, Way, What
from ...methods.seam.when import FULL
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


def guided(network: Network, condition: Condition, null: Condition, scale: float, takes_r: bool = False) -> Velocity:
    """The velocity under classifier-free guidance, of a MeanFlow model if it `takes_r`.

    Scale 1 asks for the condition only.
    """

    def u(x_t: Tensor, t: Tensor, r: Tensor) -> Tensor:
        r = r if takes_r else None
        v = network.velocity(x_t, t, r, condition)
        return v if scale == 1.0 else torch.lerp(network.velocity(x_t, t, r, null), v, scale)

    return u


def mean_velocity(network: Network, condition: Condition) -> Velocity:
    """The mean velocity of a MeanFlow model."""
    return lambda x_t, t, r: network.velocity(x_t, t, r, condition)


def own_velocity(network: Network, condition: Condition) -> Velocity:
    """What one call of the network answers; it is told r if it is a MeanFlow model."""
    takes_r = network.module.params.meanflow
    return lambda x_t, t, r: network.velocity(x_t, t, r if takes_r else None, condition)


def answer_of(
    what: What, kept: Sequence[Tensor], compute: nn.Module | None, ages: Sequence[Span] = (), **context
) -> Answer:
    """What stands in for the blocks, made of what was kept; a Predictor needs neither ages nor step and sigmas."""
    return lambda tokens, arguments: what.answer(tokens, kept, ages, compute, context | {"arguments": arguments})


class CachedVelocity:
    """The velocity of one run, its steps in full or answered as a method plans; a MeanFlow model's is the mean one."""

    def __init__(
        self,
        network: Network,
        condition: Condition,
        method: Method,
        sigmas: Sequence[float],
        compute: nn.Module | None = None,
        takes_r: bool = True,
    ):
        """`compute` is the method's own network, if it has one; `takes_r`: it is a MeanFlow model."""
        self._network, self._condition, self._compute, self._takes_r = network, condition, compute, takes_r
        self._way, self._plan = _whole(method), method.when.plan(sigmas)
        if self._plan is None:
            raise ValueError(
                f"{quoted(method.name)} decides while it runs, but here steps have to be planned. Use a schedule."
            )
        self._sigmas, self._step = sigmas, 0
        self._kept: Sequence[Tensor] = []
        self._full: list[tuple[int, Tensor]] = []  # the full steps of which something is kept, latest first

    def __call__(self, x_t: Tensor, t: Tensor, r: Tensor | None) -> Tensor:
        r = r if self._takes_r else None
        if self._plan[self._step] == FULL:
            u, features = self._network.velocity_and_features(x_t, t, r, self._condition)
            self.keep([u] if self._way.where == OUTPUT else features, t)
        else:
            u = self.answered(x_t, t, r)
        return u

    def keep(self, made: Sequence[Tensor], t: Tensor) -> None:
        """Sees the features, or the output, of a step that ran in full."""
        self._kept = self._way.what.keep(made, made, self._kept, self._ages(t))
        self._full = [(self._step, t), *self._full][: self._way.what.tensors]
        self._step += 1

    def answered(self, x_t: Tensor, t: Tensor, r: Tensor | None) -> Tensor:
        """The velocity of a step that does not run in full."""
        what, context = self._way.what, {"step": self._step, "sigmas": self._sigmas, "t": t}
        answer = answer_of(what, self._kept, self._compute, self._ages(t), **context)
        self._step += 1
        if self._way.where == FIRST:
            return self._network.answered_velocity(answer, x_t, t, r, self._condition)
        made = answer([x_t], {})
        self._kept = what.renewed(made, self._kept) if what.renews else self._kept
        return made[0]

    def _ages(self, t: Tensor) -> list[Span]:
        return [Span(self._step - step, then - t) for step, then in self._full]


def _whole(method: Method) -> Way:
    """How it stands in for all blocks at once, or for the network; ValueError if the method looks elsewhere."""
    way, *more = method.ways
    if more or way.where not in (FIRST, OUTPUT) or way.what.reads_given:
        raise ValueError(
            f"{quoted(method.name)} looks into the network, but here it can only stand in for all of its blocks."
        )
    return way
