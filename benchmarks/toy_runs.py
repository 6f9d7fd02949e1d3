"""Runs on the toy world through ComfyUI's sampler, with what they cost in counted operations."""

from contextlib import nullcontext
from typing import NamedTuple

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from disca.host import sampling
from disca.host.counting import ATTENTION
from disca.host.running.run import KEY, ON_REPORT
from disca.report import Report
from disca.toy import world


class Ran(NamedTuple):
    """A run of all prompts."""

    videos: Tensor
    report: Report | None
    operations: int


class Prompts:
    """Held-out scenes, as ComfyUI's samplers are told them, and noise for their videos."""

    def __init__(self, first: int, count: int, guidance: float):
        self.first, self.count = first, count
        self.attributes = world.random_scenes(first, count).attributes
        said, nothing = world.condition(self.attributes), world.no_condition()
        self.positive = [[said["context"], {"pooled_output": said["y"], "guidance": guidance}]]
        self.negative = [[nothing["context"], {"pooled_output": nothing["y"]}]]

    def noise(self, seed: int) -> Tensor:
        """That of a seed."""
        shape = (self.count, world.CHANNELS, world.FRAMES, world.SIZE // 2, world.SIZE // 2)
        return torch.randn(shape, generator=torch.Generator().manual_seed(self.first + seed))


@torch.inference_mode()
def run(
    model: ModelPatcher, prompts: Prompts, noise: Tensor, sigmas: Tensor, counted: bool = False, scale: float = 1.0
) -> Ran:
    """The prompts from that noise, under classifier-free guidance if `scale` is not 1.

    Their operations are counted if asked for, which takes half as long again.
    """
    reports: list[Report] = []
    model = model.clone()
    model.add_callback_with_key(ON_REPORT, KEY, reports.append)
    guider = sampling.make_guider(model, prompts.positive, prompts.negative if scale != 1.0 else None, scale)
    counter = FlopCounterMode(display=False, custom_mapping=ATTENTION)
    with counter if counted else nullcontext():
        samples = guider.sample(
            noise, torch.zeros_like(noise), sampling.sampler_for(model), sigmas, disable_pbar=True, seed=0
        )
    return Ran(samples, next(iter(reports), None), counter.get_total_flops())
