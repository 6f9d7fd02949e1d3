"""DisCa: a small network, the Predictor, brings the features of the last full step up to date (section 3.3)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ...schedule import MAX_CACHE_AGE, first_steps, oldest_features
from ..seam.anchors import planned_in_full
from ..seam.method import Compute, Context, Method, Span, Tokens, Way, What
from ..seam.when import Rule


@dataclass(frozen=True)
class Learned(What):
    """Keeps the last features C, and answers with P(C, x_t, t, r); of two features, those before too."""

    tensors: int = 1
    computes = True

    def answer(self, given: Tokens, kept: Tokens, ages: Sequence[Span], compute: Compute, context: Context) -> Tokens:
        last, before = kept[: len(given)], kept[len(given) :]
        told = {} if self.tensors == 1 else {"before": before, "times": _times(given[0], ages, context["t"])}
        predicted = compute(*given, *last, **told, **context["arguments"])
        return (predicted,) if isinstance(predicted, Tensor) else predicted


def disca(when: Rule, features: int = 1) -> Method:
    """The Predictor, of so many features, on the steps that the rule leaves out."""
    return Method("DisCa", when, (Way(Learned(features)),), partial(_warning, features))


def _times(like: Tensor, ages: Sequence[Span], t: Tensor | float) -> Tensor:
    """(t, age, distance of the last two full steps) [B, 3], in sigma; distance 0 if there was one."""
    age = ages[0].sigma
    numbers = (t, age, ages[1].sigma - age if len(ages) > 1 else 0.0)
    exact = {"dtype": torch.float32, "device": like.device}
    return torch.stack([torch.as_tensor(number, **exact).expand(len(like)) for number in numbers], dim=1)


def _warning(features: int, when: Rule, sigmas: Sequence[float], family: str) -> str | None:
    anchors = planned_in_full(when, sigmas)
    if anchors is None:
        return None
    return _alone(anchors, first_steps(sigmas).values()) if features > 1 else _aged(anchors, sigmas)


def _aged(anchors: frozenset[int], sigmas: Sequence[float]) -> str | None:
    step, age = oldest_features(anchors, sigmas)
    if age <= MAX_CACHE_AGE:
        return None
    return (
        f"step {step:d} predicts from features {age:.2f} older in sigma, predictors are trained for "
        f"{MAX_CACHE_AGE}; put an anchor before it"
    )


def _alone(anchors: frozenset[int], steps: Iterable[int]) -> str | None:
    first, *more = sorted(anchors)
    alone = min((step for step in steps if first < step and not (more and more[0] <= step)), default=None)
    if alone is None:
        return None
    return (
        f"This Predictor sees the features of two full steps, but before step {alone:d} only one step is full: "
        "there it goes by one. Let two steps run in full before the first predicted one."
    )
