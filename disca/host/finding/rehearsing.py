"""Prompts on a MODEL whose steps run in full or are answered as asked: what schedules are measured with."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from comfy.model_patcher import ModelPatcher
from comfy.samplers import KSAMPLER, CFGGuider, sampling_function
from torch import Tensor, nn

from ...methods.seam.method import OUTPUT, Span, Way
from ...models.blocks import CALL, Args, Out, Place
from ...rehearsal import Anchor, Answer, Prompts
from ..attach import without_method
from ..running.run import KEY
from ..sampling import with_r

ALL = "all conditions"  # whose velocity they are guided to
PART_OF_THE_RUN = (
    "A condition is active in a part of the run only, so that there is nothing to answer it from at other times. Take "
    "prompts that hold from the start to the end."
)
IN_PIECES = (
    "A condition is evaluated in several pieces (areas, context windows), which cannot be measured. Find the schedule "
    "without them: it can be used with them."
)
T = TypeVar("T")


class Seen(NamedTuple):
    """Of a full step, for all videos of a condition, in main memory."""

    given: list[Tensor]  # what went into the place, if the method looks at that
    made: list[Tensor]  # what came out


Features = dict[Hashable, Seen]  # of each condition


@dataclass(frozen=True)
class Scenes:
    """What is to be shown: prompts, each sampled by itself from the same noise, and what guides away from another."""

    positives: Sequence[list]
    negative: list | None
    cfg: float
    noise: Tensor  # [B, C, T, H, W]


def rehearse(model: ModelPatcher, way: Way, scenes: Scenes, sigmas: Tensor, run: Callable[[Sequence[Prompts]], T]) -> T:
    """What `run` makes of prompts on the MODEL, each conditioning by itself; nothing stays of it.

    Steps are answered by `way`, which is none inside blocks, with the network that the MODEL's method has, if it has
    one.
    """
    guider = _Guider(without_method(model))
    conds = {f"{_Guider.ASKED} {i:d}": positive for i, positive in enumerate(scenes.positives)}
    guider.inner_set_conds(conds if scenes.negative is None else conds | {"negative": scenes.negative})
    guider.set_cfg(scenes.cfg)
    networks = model.get_additional_models_with_key(KEY)
    compute, found = networks[0].model if networks else None, []

    def sampler(model_k, x: Tensor, times: Tensor, extra_args=None, callback=None, disable=None) -> Tensor:
        seams = _Seams(guider, model_k, extra_args, times, way, compute)
        found.append(run([_Prompts(seams, i, x) for i in range(len(scenes.positives))]))
        return x

    guider.sample(scenes.noise, torch.zeros_like(scenes.noise), KSAMPLER(sampler), sigmas, disable_pbar=True, seed=0)
    return found[0]


class _Guider(CFGGuider):
    """Guidance towards one of several prompts."""

    ASKED = "positive"
    asked = 0

    def predict_noise(self, x, timestep, model_options=None, seed=None):
        positive, negative = self.conds[f"{self.ASKED} {self.asked:d}"], self.conds.get("negative")
        options = {"model_options": model_options or {}, "seed": seed}
        return sampling_function(self.inner_model, x, timestep, negative, positive, self.cfg, **options)


@dataclass(frozen=True)
class _Seams:
    """How prompts come to the network, and the method into it."""

    guider: _Guider
    model_k: Callable[..., Tensor]  # as k-diffusion's samplers call it
    extra_args: dict
    times: Tensor
    way: Way
    compute: nn.Module | None


class _Prompts:
    """One conditioning's videos."""

    def __init__(self, seams: _Seams, number: int, noise: Tensor):
        self.noise = noise
        self._seams, self._way, self._number = seams, seams.way, number
        self._sigmas = seams.times.float().tolist()
        self._conditions: set[Hashable] | None = None  # those that are active, which must be so in every step

    def full(self, step: int, x: Tensor) -> tuple[Tensor, Features]:
        """u of a step in full, and the features of each condition in main memory."""
        call = _Full(self._way)
        u = self._velocity(call, step, x)
        self._conditions = self._conditions or {*call.features}
        if call.features.keys() != self._conditions:
            raise ValueError(PART_OF_THE_RUN)
        return u, {ALL: Seen([_kept(x)], [_kept(u)])} if self._way.where == OUTPUT else call.features

    def answering(self, anchors: Sequence[Anchor]) -> Answer:
        """How the method answers behind these anchors."""
        what, compute = self._way.what, self._seams.compute
        steps, kept = [anchor.step for anchor in anchors], self._keep(anchors)

        def answer(step: int, y: Tensor) -> Tensor:
            ages = self._ages(steps, step)
            context = {"step": step, "sigmas": self._sigmas, "t": self._sigmas[step]}
            if self._way.where == OUTPUT:  # guidance adds outputs in shares of sum 1, and so do such methods
                return what.answer([y], kept[ALL], ages, compute, context)[0]
            return self._velocity(_Answered(self._way, kept, ages, compute, context), step, y)

        return answer

    def _keep(self, anchors: Sequence[Anchor]) -> dict[Hashable, list[Tensor]]:
        kept = {}
        for number, anchor in enumerate(anchors):
            ages = self._ages([anchor.step for anchor in anchors[:number]], anchor.step)
            for condition, seen in anchor.features.items():
                given, made = ([tensor.to(self.noise.device) for tensor in tensors] for tensors in seen)
                kept[condition] = list(self._way.what.keep(given, made, kept.get(condition, []), ages))
        return kept

    def _velocity(self, call: "_Full | _Answered", step: int, x: Tensor) -> Tensor:
        t, r = self._seams.times[step], self._seams.times[step + 1]
        arguments = with_r(self._seams.extra_args, t, r)
        options = arguments["model_options"]
        ours = {**options, "transformer_options": {**options["transformer_options"], CALL: call}}
        self._seams.guider.asked = self._number
        x_0 = self._seams.model_k(x, t * x.new_ones([len(x)]), **{**arguments, "model_options": ours})
        return (x - x_0) / t

    def _ages(self, steps: Sequence[int], now: int) -> list[Span]:
        return [Span(now - step, self._sigmas[step] - self._sigmas[now]) for step in reversed(steps)]


class _Full:
    """A call in full, of which the features are kept."""

    def __init__(self, way: Way):
        self.features: Features = {}
        self._way, self._given = way, []

    def through(self, place: Place, args: Args, block: Callable[[Args], Out]) -> Out:
        if self._way.where in place.starts:
            self._given = place.copied(args) if self._way.what.reads_given else []
        out = block(args)
        if place.ends:
            self._keep(_conditions(args), [out[name] for name in place.kind.streams])
        return out

    def _keep(self, conditions: Sequence[Hashable], made: Sequence[Tensor]) -> None:
        given, made = ([tensor.chunk(len(conditions)) for tensor in tensors] for tensors in (self._given, made))
        for i, condition in enumerate(conditions):
            if condition in self.features:
                raise ValueError(IN_PIECES)
            self.features[condition] = Seen([_kept(part[i]) for part in given], [_kept(part[i]) for part in made])


class _Answered:
    """A call that the method answers."""

    def __init__(
        self,
        way: Way,
        kept: Mapping[Hashable, Sequence[Tensor]],
        ages: Sequence[Span],
        compute: nn.Module | None,
        context: dict,
    ):
        self._way, self._kept, self._ages, self._compute, self._context = way, kept, ages, compute, context

    def through(self, place: Place, args: Args, block: Callable[[Args], Out]) -> Out:
        if self._way.where not in place.inside:
            return block(args)
        tokens = place.kind.tokens(args)
        if self._way.where in place.answers:
            context = {**self._context, "arguments": place.context(args)}
            tokens = self._way.what.answer(tokens, self._kept_of(args), self._ages, self._compute, context)
        return place.kind.answer(tokens)

    def _kept_of(self, args: Args) -> list[Tensor]:
        conditions = _conditions(args)
        if any(condition not in self._kept for condition in conditions):
            raise ValueError(PART_OF_THE_RUN)
        return [torch.cat(parts) for parts in zip(*(self._kept[condition] for condition in conditions), strict=True)]


def _conditions(args: Args) -> list[Hashable]:
    options = args["transformer_options"]
    return list(zip(options["cond_or_uncond"], options["uuids"], strict=True))


def _kept(tensor: Tensor) -> Tensor:
    return tensor.to("cpu", copy=True)
