"""One MODEL's runs from one noise and prompt, by one method or another: each with its latent and its report."""

from dataclasses import dataclass
from typing import NamedTuple

import comfy.utils
import torch
from comfy import model_management
from comfy.model_management import InterruptProcessingException
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..meanflow import shifted_sigmas
from ..report import Report
from . import attach, sampling

Interrupted = InterruptProcessingException  # what a user's interrupt raises


@dataclass(frozen=True)
class RunSettings:
    """Prompt, size, seed and times that all runs have in common."""

    positive: list
    latent: dict
    seed: int
    steps: int
    shift: float
    negative: list | None = None
    cfg: float = 1.0


class RunResult(NamedTuple):
    """The LATENT of a run, its samples in the network's latent space, where distances are taken, and its report."""

    latent: dict
    model_latent: Tensor
    report: Report


class Runs:
    """Runs of a MODEL, and a bar on the node for all that are expected; nothing stays on the MODEL."""

    def __init__(self, model: ModelPatcher, settings: RunSettings, expected: int):
        """`expected` are steps."""
        self.model, self.settings = model, settings
        self._expected, self._done = expected, 0
        self._bar = comfy.utils.ProgressBar(expected)

    def warm_up(self) -> None:
        """One step in full: what is loaded and compiled then is not counted to the first run."""
        self.run(attach.plain(self.model), 1)

    @torch.inference_mode()
    def run(self, model: ModelPatcher, steps: int) -> RunResult:
        """A run of what was made of the MODEL; ValueError if it ends in NaN."""
        given = self.settings
        guider = sampling.make_guider(model, given.positive, given.negative, given.cfg)
        sigmas, solver = shifted_sigmas(steps, given.shift), sampling.sampler_for(model)
        latent, report = sampling.run(model, guider, given.latent, given.seed, sigmas, solver, self._step)
        samples = latent["samples"]
        if not samples.isfinite().all():
            raise ValueError("The run ends in NaN or infinity. Look at the MODEL without DisCa.")
        return RunResult(latent, model.model.process_latent_in(samples), report)

    def skip_to(self, done: int) -> None:
        """So many of all steps are over, whether they were made or not."""
        self._done = done

    def free(self) -> None:
        """Gives back what a run that failed may have left."""
        model_management.soft_empty_cache()

    def _step(self, *_) -> None:
        model_management.throw_exception_if_processing_interrupted()
        self._done += 1
        self._bar.update_absolute(self._done, max(self._done, self._expected))
