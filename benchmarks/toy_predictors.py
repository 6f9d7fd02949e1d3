"""What each part of the Predictor and of its training is worth on the toy world, over several seeds.

    COMFYUI_PATH=... python benchmarks/toy_predictors.py --seeds 0 1 2 [--shift 5]

Each variant is trained by the recipe of the Predictor that ships, on the shipped MeanFlow model, but for what its name
says. Printed are videos' errors by the published lists of 8, 11 and 13 of 20 steps in
full: squared distances to all 20 in full, relative to the squared video. What is trained already is only measured.
"""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch
import toy_world  # prepares ComfyUI

from disca.methods.scheduled.disca import disca
from disca.models.predictor import Ages, Predictor
from disca.training.choose import chosen
from disca.training.contract.method_settings import PairSettings
from disca.training.contract.settings import Settings
from disca.training.engine.loop import train
from disca.training.network.velocity import Network
from disca.training.toy_chain import stage_settings

STUDENT = toy_world.result_of(0, "meanflow")
SHIPPED, DISCRIMINATOR = "as it ships", "discriminator at the end"
UNDISTILLED = "without distillation, on the CFG-distilled model"


class Variant(NamedTuple):
    """Settings other than those that ship, and what its Predictor does otherwise."""

    settings: dict[str, Any] = {}
    otherwise: Callable[[], AbstractContextManager] = nullcontext
    student: Path = STUDENT


def ages_not_told() -> AbstractContextManager:
    """The numbers are zeros for every pair: what is learned from them is the same everywhere."""
    forward = Ages.forward
    return mock.patch.object(Ages, "forward", lambda self, times, vec: forward(self, torch.zeros_like(times), vec))


def change_not_added() -> AbstractContextManager:
    """No share of the last change goes on: the blocks alone make something of it."""
    return mock.patch.object(Predictor, "_answer", lambda self, x, cached, change, share: cached + x)


def change_not_seen() -> AbstractContextManager:
    """The features of the last full step alone, with their age."""
    second = Predictor._second
    return mock.patch.object(
        Predictor, "_second", lambda self, cached, vec, before, times: second(self, cached, vec, None, times)
    )


def r_not_told() -> AbstractContextManager:
    """The network is a plain one, which cannot be told where a step ends."""
    run = Network._run
    return mock.patch.object(
        Network, "_run", lambda self, call, x_t, t, r, *more, **options: run(self, call, x_t, t, None, *more, **options)
    )


VARIANTS = {
    SHIPPED: Variant(),
    DISCRIMINATOR: Variant({"mse_iterations": 60, "gan_iterations": 20, "gan_ramp": 10}),
    "ages not told": Variant(otherwise=ages_not_told),
    "change not added, only seen": Variant(otherwise=change_not_added),
    "no second feature": Variant(otherwise=change_not_seen),
    "neither ages nor second feature": Variant({"form": "residual"}),
    "pairs on lines": Variant({"pairs": PairSettings(line=1.0)}),
    "pairs on trajectories": Variant({"pairs": PairSettings(trajectory=1.0)}),
    UNDISTILLED: Variant(otherwise=r_not_told, student=toy_world.TEACHER),
}


def variant_settings(name: str, seed: int, student: Path | None = None) -> Settings:
    """The toy's Predictor training, on the variant's model or another, as the variant has it."""
    student = student or VARIANTS[name].student
    out = toy_world.runs_on(student) / f"{name}, {seed:d}"
    settings = stage_settings("predictor", seed, out, {"meanflow": student})
    return replace(
        settings,
        predictor=replace(settings.predictor, **VARIANTS[name].settings),
        preview=replace(settings.preview, every=0),
    )


def trained(name: str, seed: int, student: Path | None = None) -> Path:
    """The variant's Predictor; the one that ships is seed 0's."""
    if seed == 0 and name == SHIPPED and student in (None, STUDENT):
        return toy_world.result_of(0, "predictor")
    with VARIANTS[name].otherwise():
        return train(variant_settings(name, seed, student), chosen) / "predictor.safetensors"


def metrics_of(name: str, seed: int, shift: float) -> toy_world.Metrics:
    """What the variant gives with that seed."""
    predictor = trained(name, seed)
    with VARIANTS[name].otherwise():
        toy = toy_world.Toy(VARIANTS[name].student, predictor, shift)
        with torch.no_grad():
            uncached, videos = toy.students(20), {each.name: toy.cached(disca, each) for each in toy_world.SCHEDULES}
    return {name.split(", ")[-1]: toy_world.distance(video, uncached) for name, video in videos.items()}


if __name__ == "__main__":
    toy_world.compare(__doc__.splitlines()[0], VARIANTS, metrics_of)
