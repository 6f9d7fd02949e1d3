"""A plain model of 4 steps on the toy world: R-MeanFlow, taught what its own 20 steps come to, five at a time.

    COMFYUI_PATH=... python benchmarks/toy_four_steps.py --seeds 0 1 2 [--variants "four times as long"]

The rival of DisCa with 4 steps in full: it costs less in use, and all weights are trained. States lie on runs of 20
equal steps from noise, at guidance scales of 1 to 5; the network learns the mean velocity of 5 steps by squared error.
Distances are squared errors to the teacher's 100 steps and to the 20 steps it learns from, relative to them.
"""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch
import toy_world  # prepares ComfyUI
from torch import Tensor

from disca.meanflow import shifted_sigmas, step
from disca.training.algorithms.losses import mse
from disca.training.algorithms.meanflow_distillation import MeanFlowDistillation
from disca.training.choose import open_samples
from disca.training.contract.protocol import Batch, Loss, Made
from disca.training.contract.settings import Settings
from disca.training.contract.times import Draws
from disca.training.engine.distributed import Processes
from disca.training.engine.loop import train
from disca.training.network.conditions import guided_condition, latents
from disca.training.network.velocity import Condition
from disca.training.toy_chain import stage_settings

STEPS, FINER = 4, 20
VARIANTS: dict[str, dict[str, Any]] = {  # an iteration costs 32 passes a sample, 20 of them to make what is learned
    "as long as the Predictor": {"iterations": 80},
    "four times as long": {"iterations": 320},
}
BATCH = 4


class FourSteps(MeanFlowDistillation):
    """Learns the mean velocity of each of 4 equal steps from the model that it starts as."""

    def losses(self, batch: Batch, iteration: int) -> Iterator[Loss]:
        """The squared error in each step, from the state that the 20 steps come through."""
        draws = Draws(self.settings.seed, batch["index"], self.device)
        condition = guided_condition(batch, self.network, draws, self.settings.cfg.guidance)
        states = self._states(draws.noise(latents(batch)), condition)
        times = shifted_sigmas(STEPS, toy_world.SHIFT).tolist()
        for x_t, x_r, t, r in zip(states, states[1:], times, times[1:], strict=False):
            begin = torch.full((len(x_t),), t)
            u = self.networks.student.velocity(x_t, begin, torch.full_like(begin, r), condition)
            yield Loss("network", mse(u, (x_t - x_r) / (t - r)), begin, weight=1.0 / STEPS)

    @torch.no_grad()
    def _states(self, noise: Tensor, condition: Condition) -> list[Tensor]:
        """The noise, and what it has become after each quarter of the finer steps."""
        states, x = [noise], noise
        times = shifted_sigmas(FINER, toy_world.SHIFT).tolist()
        for i, (t, r) in enumerate(zip(times[:-1], times[1:], strict=True), start=1):
            begin = torch.full((len(x),), t)
            x = step(x, self.networks.teaching.velocity(x, begin, torch.full_like(begin, r), condition), t, r)
            states += [x] if i % (FINER // STEPS) == 0 else []
        return states


def variant_settings(name: str, seed: int) -> Settings:
    """The training's settings, on the R-MeanFlow model of that seed."""
    student = toy_world.chain_of(seed, "meanflow")
    settings = stage_settings("meanflow", seed, toy_world.runs_on(student) / f"4 steps, {name}, {seed:d}", {})
    return replace(
        settings,
        model=replace(settings.model, path=str(student)),
        data=replace(settings.data, batch=BATCH),
        optimizer=replace(settings.optimizer, lr=3e-4),
        preview=replace(settings.preview, every=0),
        save=replace(settings.save, every=80),
        **VARIANTS[name],
    )


def made(settings: Settings, processes: Processes) -> Made:
    """The training with its samples."""
    dataset, held_out = open_samples(settings)
    return Made(FourSteps(settings, dataset, processes.device), dataset, held_out)


def trained(name: str, seed: int) -> Path:
    """The model that the variant gives."""
    return train(variant_settings(name, seed), made) / "model.safetensors"


def metrics_of(name: str, seed: int, shift: float) -> toy_world.Metrics:
    """What it gives in 4 steps, beside the model that it starts as."""
    found, before = (
        toy_world.Toy(path, shift=shift) for path in (trained(name, seed), toy_world.chain_of(seed, "meanflow"))
    )
    reference, finer = found.teachers(100), before.students(FINER)
    metrics = {}
    for title, toy in (("4 steps", found), ("before", before)):
        video = toy.students(STEPS)
        metrics[f"{title}, to the teacher"] = toy_world.distance(video, reference)
        metrics[f"{title}, to 20 steps"] = toy_world.distance(video, finer)
    return metrics


if __name__ == "__main__":
    toy_world.compare(__doc__.splitlines()[0], VARIANTS, metrics_of)
