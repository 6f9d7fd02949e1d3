"""Prompts on a MODEL whose steps run in full or are answered as asked: what schedules are measured with."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

import torch
from comfy.model_patcher import ModelPatcher
from comfy.samplers import KSAMPLER, CFGGuider, sampling_function
from torch import Tensor, nn

from ..methods.seam.method import FIRST, Span, What
from ..models.blocks import CALL, Args, Out, Place
from ..rehearsal import Anchor, Answer, Prompts
from .running import blocks, wrappers
from .running.run import KEY
from .sampling import with_r

Features = Mapping[Hashable, Sequence[Tensor]]  # condition -> what came out of the last block, for all of its videos
T = TypeVar("T")


def rehearse(
    model: ModelPatcher,
    what: What,
    positives: Sequence[list],
    negative: list | None,
    cfg: float,
    noise: Tensor,
    sigmas: Tensor,
    run: Callable[[Sequence[Prompts]], T],
) -> T:
    """What `run` makes of prompts on the MODEL, each conditioning by itself; nothing stays of it.

    `what` answers for all blocks, with the network that the MODEL's method has, if it has one.
    """
    guider = _Guider(_bare(model))
    conds = {f"{_Guider.ASKED} {i:d}": positive for i, positive in enumerate(positives)}
    guider.inner_set_conds(conds if negative is None else conds | {"negative": negative})
    guider.set_cfg(cfg)
    networks = model.get_additional_models_with_key(KEY)
    compute, found = networks[0].model if networks else None, []

    def sampler(model_k, x: Tensor, times: Tensor, extra_args=None, callback=None, disable=None) -> Tensor:
        asked = [_Prompts(guider, i, model_k, extra_args, x, times, what, compute) for i in range(len(positives))]
        found.append(run(asked))
        return x

    guider.sample(noise, torch.zeros_like(noise), KSAMPLER(sampler), sigmas, disable_pbar=True, seed=0)
    return found[0]


class _Guider(CFGGuider):
    """Guidance towards one of several prompts."""

    ASKED = "positive"
    asked = 0

    def predict_noise(self, x, timestep, model_options=None, seed=None):
        positive, negative = self.conds[f"{self.ASKED} {self.asked:d}"], self.conds.get("negative")
        options = {"model_options": model_options or {}, "seed": seed}
        return sampling_function(self.inner_model, x, timestep, negative, positive, self.cfg, **options)


class _Prompts:
    """One conditioning's videos."""

    def __init__(
        self, guider: _Guider, number: int, model_k, extra_args, x, times: Tensor, what: What, compute: nn.Module | None
    ):
        self.noise = x
        self._guider, self._number, self._model, self._extra_args = guider, number, model_k, extra_args
        self._times, self._sigmas = times, times.float().tolist()
        self._what, self._compute = what, compute

    def full(self, step: int, x: Tensor) -> tuple[Tensor, Features]:
        """u of a step in full, and the features of each condition on the host."""
        call = _Full()
        return self._velocity(call, step, x), call.features

    def answering(self, anchors: Sequence[Anchor]) -> Answer:
        """How the method answers behind these anchors."""
        steps, kept = [anchor.step for anchor in anchors], {}
        for number, anchor in enumerate(anchors):
            ages = self._ages(steps[:number], anchor.step)
            for condition, features in anchor.features.items():
                ours = [tensor.to(self.noise.device) for tensor in features]
                kept[condition] = list(self._what.keep((), ours, kept.get(condition, []), ages))

        def answer(step: int, y: Tensor) -> Tensor:
            context = {"step": step, "sigmas": self._sigmas}
            call = _Answered(self._what, kept, self._ages(steps, step), self._compute, context)
            return self._velocity(call, step, y)

        return answer

    def _velocity(self, call, step: int, x: Tensor) -> Tensor:
        t, r = self._times[step], self._times[step + 1]
        arguments = with_r(self._extra_args, t, r)
        options = arguments["model_options"]
        ours = {**options, "transformer_options": {**options["transformer_options"], CALL: call}}
        self._guider.asked = self._number
        x_0 = self._model(x, t * x.new_ones([len(x)]), **{**arguments, "model_options": ours})
        return (x - x_0) / t

    def _ages(self, steps: Sequence[int], now: int) -> list[Span]:
        return [Span(now - step, self._sigmas[step] - self._sigmas[now]) for step in reversed(steps)]


class _Full:
    """A call in full, of which the features are kept."""

    def __init__(self):
        self.features: dict[Hashable, list[Tensor]] = {}

    def through(self, place: Place, args: Args, block: Callable[[Args], Out]) -> Out:
        out = block(args)
        if place.ends:
            conditions = _conditions(args)
            made = [out[name].chunk(len(conditions)) for name in place.kind.streams]
            self.features = {condition: [parts[i].cpu() for parts in made] for i, condition in enumerate(conditions)}
        return out


class _Answered:
    """A call that the method answers."""

    def __init__(self, what: What, kept: Features, ages: Sequence[Span], compute: nn.Module | None, context: dict):
        self._what, self._kept, self._ages, self._compute, self._context = what, kept, ages, compute, context

    def through(self, place: Place, args: Args, block: Callable[[Args], Out]) -> Out:
        tokens = place.kind.tokens(args)
        if FIRST in place.answers:
            each = [self._kept[condition] for condition in _conditions(args)]
            kept = [torch.cat(parts) for parts in zip(*each, strict=True)]
            context = {**self._context, "arguments": place.context(args)}
            tokens = self._what.answer(tokens, kept, self._ages, self._compute, context)
        return place.kind.answer(tokens)


def _conditions(args: Args) -> list[Hashable]:
    options = args["transformer_options"]
    return list(zip(options["cond_or_uncond"], options["uuids"], strict=True))


def _bare(model: ModelPatcher) -> ModelPatcher:
    """The MODEL with our handlers on its blocks, and without a method."""
    model = model.clone()
    for level in wrappers.LEVELS:
        model.remove_wrappers_with_key(level, KEY)
    blocks.add_handlers(model)
    return model
