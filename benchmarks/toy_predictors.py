"""What each part of the Predictor and of its training is worth on the toy world, over several seeds.

    COMFYUI_PATH=... python benchmarks/toy_predictors.py --seeds 0 1 2 [--shift 5]

Each variant is trained on the shipped MeanFlow model by the recipe of the Predictor that ships, but for what its name
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
from disca.training.toy_chain import stage_settings

STUDENT = toy_world.result_of(0, "meanflow")
SHIPPED = "as it ships"


class Variant(NamedTuple):
    """Settings other than those that ship, and what its Predictor does otherwise."""

    settings: dict[str, Any] = {}
    otherwise: Callable[[], AbstractContextManager] = nullcontext


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


VARIANTS = {
    SHIPPED: Variant(),
    "discriminator at the end": Variant({"mse_iterations": 60, "gan_iterations": 20, "gan_ramp": 10}),
    "ages not told": Variant(otherwise=ages_not_told),
    "change not added, only seen": Variant(otherwise=change_not_added),
    "no second feature": Variant(otherwise=change_not_seen),
    "neither ages nor second feature": Variant({"form": "residual"}),
    "pairs on lines": Variant({"pairs": PairSettings(line=1.0)}),
    "pairs on trajectories": Variant({"pairs": PairSettings(trajectory=1.0)}),
}


def variant_settings(name: str, seed: int) -> Settings:
    """The toy's Predictor training on the shipped MeanFlow model, as the variant has it."""
    out = toy_world.runs_on(STUDENT) / f"{name}, {seed:d}"
    settings = stage_settings("predictor", seed, out, {"meanflow": STUDENT})
    return replace(
        settings,
        predictor=replace(settings.predictor, **VARIANTS[name].settings),
        preview=replace(settings.preview, every=0),
    )


def trained(name: str, seed: int) -> Path:
    """The variant's Predictor; the one that ships is seed 0's."""
    if seed == 0 and name == SHIPPED:
        return toy_world.result_of(0, "predictor")
    return train(variant_settings(name, seed), chosen) / "predictor.safetensors"


def metrics_of(name: str, seed: int, shift: float) -> toy_world.Metrics:
    """What the variant gives with that seed."""
    with VARIANTS[name].otherwise():
        toy = toy_world.Toy(STUDENT, trained(name, seed), shift)
        with torch.no_grad():
            uncached, videos = toy.students(20), {each.name: toy.cached(disca, each) for each in toy_world.SCHEDULES}
    return {name.split(", ")[-1]: toy_world.distance(video, uncached) for name, video in videos.items()}


if __name__ == "__main__":
    toy_world.compare(__doc__.splitlines()[0], VARIANTS, metrics_of)
