"""What a schedule is asked for, and that it can be measured: refused at once, not once the runs are made."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

import comfy.sample
import psutil
from comfy.model_patcher import ModelPatcher
from comfy.sampler_helpers import convert_cond

from ...finding import Goal
from ...methods.seam.method import Method, Way
from ...methods.seam.whats import Reuse
from ...methods.seam.when import Rule
from ...models.checks import (
    family_of_model,
    require_channels,
    require_conditioning,
    require_no_foreign_cache,
    require_video,
)
from .. import sampling
from ..running.memory import bytes_held
from .rehearsing import Scenes


@dataclass(frozen=True)
class Asked:
    """The runs that a schedule is for, what it is found on, and how."""

    positives: Sequence[list]
    latent: dict  # only its size counts
    seed: int
    steps: int
    shift: float
    goal: Goal
    negative: list | None = None
    cfg: float = 1.0
    cheap: bool = False  # costs by the answers on the path alone
    thorough: bool = False  # further lists by runs of them
    name: str = ""


def require_measurable(model: ModelPatcher, asked: Asked) -> None:
    """ValueError for what would end the runs at the end, once all is measured."""
    require_no_foreign_cache(model.model_options["transformer_options"])
    conds = {f"{i:d}": convert_cond(one) for i, one in enumerate((*asked.positives, asked.negative or []))}
    require_conditioning(model, conds)
    if any(condition.get("control") for condition in chain.from_iterable(conds.values())):
        raise ValueError(
            "A condition has a ControlNet, beside which steps run in full. Find the schedule without it, and leave it "
            "out where the schedule is used."
        )


def scenes_of(model: ModelPatcher, asked: Asked) -> Scenes:
    """The prompts and the noise that they start from; ValueError for a latent that is none of the model's videos."""
    if asked.negative is None:
        sampling.require_no_cfg(asked.cfg)
    latent = asked.latent
    require_video(model, latent["samples"])
    samples = comfy.sample.fix_empty_latent_channels(
        model, latent["samples"], latent.get("downscale_ratio_spacial"), latent.get("downscale_ratio_temporal")
    )
    require_channels(model, samples)
    noise = comfy.sample.prepare_noise(samples, asked.seed, latent.get("batch_index"))
    return Scenes(asked.positives, asked.negative, asked.cfg, noise)


def require_room(model: ModelPatcher, method: Method, way: Way, scenes: Scenes, steps: int) -> None:
    """ValueError if what is kept of all steps of one prompt does not fit into main memory."""
    family, network = family_of_model(model), model.model.diffusion_model
    once = replace(method, when=Rule(), ways=(Way(Reuse(), way.where),))
    size, guided = model.model.get_dtype_inference().itemsize, scenes.negative is not None and scenes.cfg != 1.0

    def held(conditions: list) -> int:
        texts = [entry[0].shape[1] for entry in conditions]
        return sum(bytes_held(once, family, network, scenes.noise.shape, text, size) for text in texts)

    most = max(map(held, scenes.positives)) + (held(scenes.negative) if guided else 0)
    most *= steps * (2 if way.what.reads_given else 1)
    if most > (room := psutil.virtual_memory().available):
        raise ValueError(
            f"Measuring keeps {most / 1e9:.2f} GB in main memory, what comes out of the blocks in each step, but "
            f"{room / 1e9:.2f} GB are free. Find the schedule on a smaller or shorter video, or with fewer in a batch."
        )
