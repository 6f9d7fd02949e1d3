"""Where the error of a Restricted MeanFlow distillation comes from: variants of one run on the toy world.

    COMFYUI_PATH=... python benchmarks/toy_meanflow.py --seeds 0 1 2

Distances are squared errors to the teacher's samples in 100 steps, relative to them. "drift" is that of the student's
100 steps at r = t, where it should be its teacher. A variant that is trained already is only measured; toy_world.py
trains the shipped settings with other seeds.
"""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch
import toy_world  # prepares ComfyUI

from disca.training.algorithms.sampling import sample
from disca.training.choose import chosen
from disca.training.contract.settings import Settings
from disca.training.engine.loop import train
from disca.training.toy_chain import stage_settings

WIDER, FREE = "R = 0.4", "R = 1, as MeanFlow without restriction"
VARIANTS: dict[str, dict[str, Any]] = {  # settings that differ from training/toy/meanflow.yaml, by section
    "as shipped": {},
    "no samples with r = t, as in the paper": {"meanflow": {"share_r_equals_t": 0.0}},
    "a quarter with r = t": {"meanflow": {"share_r_equals_t": 0.25}},
    "lr x 4": {"optimizer": {"lr": 2.4e-3}},
    "lr x 0.25": {"optimizer": {"lr": 1.5e-4}},
    "constant lr": {"optimizer": {"decay": "none"}},
    "h = 0.002": {"meanflow": {"h": 0.002}},
    "h = 0.05": {"meanflow": {"h": 0.05}},
    "no average of weights": {"optimizer": {"ema": 0.0}},
    "no cap": {"meanflow": {"cap": 0.0}},
    "twice as long": {"iterations": 3000},
    "no adaptive weights": {"meanflow": {"adaptive": 0.0}},
    WIDER: {"meanflow": {"R": 0.4}},
    FREE: {"meanflow": {"R": 1.0}},
}


def variant_settings(name: str, seed: int) -> Settings:
    """The toy's MeanFlow distillation as the variant has it."""
    out = toy_world.runs_on(toy_world.TEACHER) / f"{name}, {seed}"
    settings = stage_settings("meanflow", seed, out, {"cfg": toy_world.TEACHER})
    changed = {
        key: replace(getattr(settings, key), **value) if isinstance(value, dict) else value
        for key, value in VARIANTS[name].items()
    }
    return replace(settings, preview=replace(settings.preview, every=0), **changed)


@torch.no_grad()
def measure(toy: toy_world.Toy) -> toy_world.Metrics:
    """Distances to the teacher's finest samples."""
    reference = toy.teachers(100)
    metrics = {f"{steps} steps": toy_world.distance(toy.students(steps), reference) for steps in toy_world.STEPS}
    instant = sample(lambda x_t, t, r: toy.student.velocity(x_t, t, t, toy.condition), toy.noise, toy.sigmas(100))
    return metrics | {"drift": toy_world.distance(instant, reference)}


def trained(name: str, seed: int) -> Path:
    """The variant's model."""
    if VARIANTS[name]:
        return train(variant_settings(name, seed), chosen) / "model.safetensors"
    return toy_world.result_of(seed, "meanflow")


def metrics_of(name: str, seed: int, shift: float) -> toy_world.Metrics:
    """What the variant gives with that seed."""
    return measure(toy_world.Toy(trained(name, seed), shift=shift))


if __name__ == "__main__":
    toy_world.compare(__doc__.splitlines()[0], VARIANTS, metrics_of)
