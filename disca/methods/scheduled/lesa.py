"""LESA: three small experts, by the time, continue the network's last outputs, their own among them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ...meanflow import NEAR, farthest
from ...schedule import Interval
from ...settings.section import section
from ..seam.anchors import AtAnchors
from ..seam.cache import Cache
from ..seam.intervals import interval, listed, warmup
from ..seam.method import OUTPUT, Compute, Context, Method, Tokens, Way, What
from ..seam.when import Listing, Rule
from .kan import Kan

HISTORY = 8  # outputs that are kept; the first expert reads half of them
STAGES = (0.9, 0.5)  # the first expert is for times above the first of these, the last for the others
HIDDEN = 256


class LesaNetwork(nn.Module):
    """out = last + α · (Σ_j w_j · history_j + b), for runs of `steps` steps.

    w and b are an expert's `latent` layer, the same for every element; α is what its `timestep` network makes of the
    distances of t from all times of the run. Names and shapes are those of the published code. It starts as reuse.
    """

    def __init__(self, steps: int, hidden: int = HIDDEN, history: int = HISTORY):
        super().__init__()
        reads = (history // 2, history, history)
        self.latent = nn.ModuleList(nn.Linear(count, 1) for count in reads)
        self.timestep = nn.ModuleList(Kan((steps + 1, hidden, hidden, 1)) for _ in reads)
        for layer in self.latent:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, history: Sequence[Tensor], step: int, sigmas: Sequence[float]) -> Tensor:
        """The output of this step; `history` has the latest first, and where it is short, its oldest stands in."""
        times, t = self._times(sigmas), sigmas[step]
        expert = sum(t <= limit for limit in STAGES)
        latent = self.latent[expert]
        reads = [history[min(i, len(history) - 1)] for i in range(latent.in_features)]
        values = torch.stack(reads[::-1], dim=-1).to(latent.weight.dtype)  # the weights begin with the oldest
        alpha = self.timestep[expert](t - times)[0, 0]
        return (history[0] + alpha * latent(values)[..., 0]).to(history[0].dtype)

    def _times(self, sigmas: Sequence[float]) -> Tensor:
        weight = self.timestep[0].layers[0].base_weight
        require_steps(weight.shape[1] - 1, sigmas)
        return torch.tensor([[*sigmas]], dtype=weight.dtype, device=weight.device)


def require_steps(steps: int, sigmas: Sequence[float]) -> None:
    """ValueError unless a run at these times has as many steps."""
    if len(sigmas) - 1 != steps:
        raise ValueError(
            f"This LESA predictor was trained for {steps:d} steps, but the run has {len(sigmas) - 1:d}. "
            f"Set steps to {steps:d}, or use another method."
        )


@dataclass(frozen=True)
class InItsRuns(Rule):
    """A rule, in runs of so many steps at this shift; ValueError at the start of any other."""

    rule: Rule
    steps: int
    shift: float | None  # None: nobody knows, and any is taken

    def plan(self, sigmas: Sequence[float]) -> tuple[int, ...] | None:
        require_steps(self.steps, sigmas)
        if self.shift is not None:
            step, trained, apart = farthest(sigmas, self.shift)
            if apart > NEAR:
                raise ValueError(
                    f"This LESA predictor was trained at shift {self.shift:g}, where step {step:d} begins at sigma "
                    f"{trained:.3f}, but in this run it begins at {sigmas[step]:.3f}. Set the shift to "
                    f"{self.shift:g} with scheduler simple and denoise 1, or use another method."
                )
        return self.rule.plan(sigmas)

    def listing(self) -> Listing | None:
        return self.rule.listing()

    def at(self, full: Rule) -> "InItsRuns":
        return replace(self, rule=self.rule.at(full))


def in_its_runs(method: Method, steps: int, shift: float | None) -> Method:
    """The method, for the runs that its network was trained for."""
    return replace(method, when=InItsRuns(method.when, steps, shift))


class Lesa(What):
    """Keeps the last outputs, predicted ones too; `compute` is a LesaNetwork, and without one the last is reused."""

    computes = True
    renews = True
    tensors = HISTORY

    def answer(self, given: Tokens, kept: Tokens, ages, compute: Compute | None, context: Context) -> Tokens:
        return (compute(kept, context["step"], context["sigmas"]),) if compute else kept[:1]

    def renewed(self, made: Tokens, kept: Tokens) -> Sequence[Tensor]:
        return self.keep((), made, kept, ())


@dataclass(frozen=True)
class OneMore:
    """An interval's steps, and the one after its warm-up, from which nothing is counted anew."""

    interval: Interval

    def of(self, steps: int) -> frozenset[int]:
        """The steps that run in full, in a run of that many."""
        return self.interval.of(steps) | ({self.interval.warmup} & {*range(steps)})


@section
class LesaCache(Cache):
    """The network's output; the experts have to be trained, and no trained ones are published."""

    name = "LESA"
    title = "LESA"
    source = "arXiv 2602.20497"
    scheduled = True
    presets = {
        "paper, low speed": {"interval": 7, "warmup": 3},
        "paper, high speed": {"interval": 8, "warmup": 3},
    }

    interval: int = interval(7)
    warmup: int = warmup(3)

    def rule(self) -> AtAnchors:
        return AtAnchors(OneMore(listed(self.interval, self.warmup)))

    def ways(self) -> tuple[Way, ...]:
        return (Way(Lesa(), OUTPUT),)
