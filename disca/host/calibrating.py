"""Runs in full on a MODEL while a calibration looks on, and whether a calibration was made for a MODEL."""

from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..meanflow import shifted_sigmas
from ..methods.adaptive.calibration import Calibration
from ..methods.adaptive.measuring import MEASURED, Looking, looking
from ..models.checks import family_of_model
from .attach import attach
from .sampling import make_guider, prepared, sampler_for


class Measurement(NamedTuple):
    """A calibration, and what it was made of."""

    calibration: Calibration
    rule: Looking


def calibrate(
    model: ModelPatcher,
    method: str,
    positives: Sequence[list],
    negative: list | None,
    cfg: float,
    latent: dict,
    seed: int,
    steps: int,
    shift: float,
) -> Measurement:
    """What the method goes by, of full runs from noise of the latent's size with each of the conditionings.

    The MODEL's own method has no part in it.
    """
    family, network = family_of_model(model), model.model.diffusion_model
    rule = MEASURED[method]([])
    watched, sigmas = attach(model, looking(rule)), shifted_sigmas(steps, shift)
    _, noise = prepared(model, latent, seed)
    solver = sampler_for(model)
    bar, done = comfy.utils.ProgressBar(steps * len(positives)), count(1)
    for positive in positives:
        guider = make_guider(watched, positive, negative, cfg)
        guider.sample(
            noise,
            torch.zeros_like(noise),
            solver,
            sigmas,
            callback=lambda *_: bar.update_absolute(next(done)),
            disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
            seed=seed,
        )
    width, _ = family.widths(network)
    size, values = _size(model, noise), rule.values(steps)
    return Measurement(Calibration(method, family.name, width, steps, shift, size, values), rule)


def require_made_for(model: ModelPatcher, calibration: Calibration, method: str) -> None:
    """ValueError unless the calibration was made for the method on a model like this one."""
    family = family_of_model(model)
    calibration.require(method, family.name, family.widths(model.model.diffusion_model)[0])


def _size(model: ModelPatcher, latent: Tensor) -> tuple[int, int, int]:
    """Width, height and frames of the video."""
    form = model.get_model_object("latent_format")
    *_, frames, height, width = latent.shape
    spatial, temporal = form.spacial_downscale_ratio, form.temporal_downscale_ratio
    return width * spatial, height * spatial, (frames - 1) * temporal + 1
