"""Which Predictor training is best on the toy world: pairs, form, start and discriminator, over several seeds.

    COMFYUI_PATH=... python benchmarks/toy_predictors.py --seeds 0 1 2

Every variant is trained for as long on the shipped MeanFlow model, without the discriminator but for one. Distances are
squared errors relative to the squared reference. A variant that is trained already is only measured.
"""

import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch
import toy_world  # prepares ComfyUI

from disca.methods.scheduled.disca import disca
from disca.training.choose import chosen
from disca.training.contract.method_settings import PairSettings
from disca.training.contract.settings import Settings
from disca.training.engine.loop import train
from disca.training.toy_chain import stage_settings

STUDENT = toy_world.result_of(0, "meanflow")
PAIRS = {
    "lines": PairSettings(line=1.0),
    "trajectories": PairSettings(trajectory=1.0),
    "cached": PairSettings(cached=1.0),
    "lines and cached": PairSettings(line=1.0, cached=1.0),
}
VARIANTS = {f"residual, {name}": {"pairs": pairs} for name, pairs in PAIRS.items()}
VARIANTS |= {
    "authors' form from the identity, lines": {"form": "authors", "pairs": PAIRS["lines"]},
    "authors' form from random weights, lines": {"form": "authors", "start": "random", "pairs": PAIRS["lines"]},
    "residual, cached, all samples weigh the same": {"pairs": PAIRS["cached"], "adaptive": 0.0},
    "residual, cached, then discriminator": {"pairs": PAIRS["cached"], "gan_iterations": 100},
}


def variant_settings(name: str, seed: int) -> Settings:
    """The toy's Predictor training on the shipped MeanFlow model, as the variant has it."""
    out = toy_world.runs_on(STUDENT) / f"{name}, {seed}"
    settings = stage_settings("predictor", seed, out, {"meanflow": STUDENT})
    chosen = {"gan_iterations": 0, "form": "residual"} | VARIANTS[name]
    return replace(
        settings, predictor=replace(settings.predictor, **chosen), preview=replace(settings.preview, every=0)
    )


@torch.no_grad()
def measure(toy: toy_world.Toy) -> toy_world.Metrics:
    """The Predictor's error at the predicted steps of a run, and what it does to the videos."""
    uncached = toy.students(20)
    metrics = {"steps of a run": toy_world.path_metrics(toy)["Predictor, steps of a run"]}
    for preset in toy_world.SCHEDULES:
        video = toy.cached(disca, preset)
        metrics[preset.name.split(", ")[-1].removesuffix(" (ours)")] = toy_world.distance(video, uncached)
    return metrics


def metrics_of(name: str, seed: int, shift: float) -> toy_world.Metrics:
    """What the variant gives with that seed."""
    return measure(toy_world.Toy(STUDENT, train(variant_settings(name, seed), chosen) / "predictor.safetensors", shift))


if __name__ == "__main__":
    toy_world.compare(__doc__.splitlines()[0], VARIANTS, metrics_of)
