"""What the trainings are worth on the toy world: distances to the teacher's finest samples, over several seeds.

    COMFYUI_PATH=... python benchmarks/toy_world.py                     the weights that ship with the pack
    COMFYUI_PATH=... python benchmarks/toy_world.py --seeds 0 1 2       and of two more seeds, trained on their teacher
    COMFYUI_PATH=... python benchmarks/toy_world.py --shift 5           where steps are small while much is undecided

All distances are squared errors relative to the squared reference, on the same noise and prompts.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from disca.training.network.comfy import prepare_comfy

prepare_comfy("cpu")

import comfy.ops  # noqa: E402
import torch  # noqa: E402
from torch import Tensor  # noqa: E402

from disca.meanflow import shifted_sigmas  # noqa: E402
from disca.methods.scheduled.disca import disca  # noqa: E402
from disca.methods.scheduled.extrapolation import Extrapolation  # noqa: E402
from disca.methods.scheduled.reuse import PlainReuse  # noqa: E402
from disca.methods.seam.anchors import AtAnchors  # noqa: E402
from disca.methods.seam.method import Method  # noqa: E402
from disca.methods.seam.when import Rule  # noqa: E402
from disca.models.loading import build_predictor, load_network  # noqa: E402
from disca.schedule import PRESETS, Schedule  # noqa: E402
from disca.toy import WEIGHTS, world  # noqa: E402
from disca.toy.dataset import HELD_OUT  # noqa: E402
from disca.training.algorithms.pairs import Pairs  # noqa: E402
from disca.training.algorithms.previews import distance  # noqa: E402
from disca.training.algorithms.sampling import (  # noqa: E402
    CachedVelocity,
    guided,
    mean_velocity,
    sample,
)
from disca.training.contract.method_settings import PairSettings, PredictorSettings  # noqa: E402
from disca.training.contract.times import Draws  # noqa: E402
from disca.training.network.blocks import make_out_of_place  # noqa: E402
from disca.training.network.velocity import Network  # noqa: E402
from disca.training.records.run_folder import RunFolder  # noqa: E402
from disca.training.toy_chain import train_chain  # noqa: E402
from disca.training.toy_weights import sha256  # noqa: E402
from disca.weights.files import open_weights  # noqa: E402
from disca.weights.predictor_file import read_predictor  # noqa: E402

RUNS = Path(__file__).resolve().parents[1] / "runs" / "toy"
TEACHER = WEIGHTS / "cfg.safetensors"
GUIDANCE = 3.0
SHIFT = 1.0  # equal steps: larger ones where the trajectory bends, and so the harder test
SAMPLES, FIRST = 32, HELD_OUT
STEPS = (20, 10, 8, 4)
SCHEDULES = [preset for preset in PRESETS.values() if ", N=" in preset.name]

reuse = PlainReuse().method
extrapolation = Extrapolation(damping=1.0, along="sigma").method
METHODS = {"DisCa": disca, "reuse": reuse, "extrapolation": extrapolation}
Metrics = dict[str, float]
Make = Callable[[Rule], Method]  # `disca` is told how many features its Predictor sees


class Toy:
    """The trained chain of one seed, and the noise and prompts that everything is measured on."""

    def __init__(self, student: Path, predictor: Path | None = None, shift: float = SHIFT, first: int = FIRST):
        self.shift, self.first = shift, first
        self.teacher, self.student = _network(TEACHER), _network(student)
        self.predictor = _predictor(predictor) if predictor else None
        scenes = world.random_scenes(first, SAMPLES)
        self.x_0 = world.to_latents(world.pictures(scenes))
        self.condition = world.condition(scenes.attributes) | {"guidance": torch.full((SAMPLES,), GUIDANCE)}
        self.noise = torch.randn(self.x_0.shape, generator=torch.Generator().manual_seed(first))

    def sigmas(self, steps: int) -> Tensor:
        """The times of so many steps."""
        return shifted_sigmas(steps, self.shift)

    def teachers(self, steps: int) -> Tensor:
        """The teacher's Euler samples."""
        u = guided(self.teacher, self.condition, {}, 1.0)
        return sample(u, self.noise, self.sigmas(steps))

    def students(self, steps: int) -> Tensor:
        """R-MeanFlow's samples, every step in full."""
        return sample(mean_velocity(self.student, self.condition), self.noise, self.sigmas(steps))

    def velocity(self, make: Make, schedule: Schedule, steps: int = 20) -> CachedVelocity:
        """R-MeanFlow's velocity in a run with that method on all but the schedule's anchors."""
        make = partial(disca, features=self.predictor.features) if make is disca else make
        sigmas = self.sigmas(steps).tolist()
        return CachedVelocity(self.student, self.condition, make(AtAnchors(schedule)), sigmas, self.predictor)

    def cached(self, make: Make, schedule: Schedule, steps: int = 20) -> Tensor:
        """R-MeanFlow's samples with that method on all but the schedule's anchors."""
        return sample(self.velocity(make, schedule, steps), self.noise, self.sigmas(steps))


def meanflow_metrics(toy: Toy, reference: Tensor) -> Metrics:
    """R-MeanFlow and the teacher, each at few steps, against the teacher's finest samples."""
    metrics = {}
    for steps in STEPS:
        metrics[f"teacher, {steps} steps"] = distance(toy.teachers(steps), reference)
        metrics[f"R-MeanFlow, {steps} steps"] = distance(toy.students(steps), reference)
    return metrics


def pair_metrics(toy: Toy) -> Metrics:
    """The error of u on held-out pairs: by the Predictor, and by the features as they are."""
    metrics = {}
    for kind in ("line", "trajectory"):
        settings = PredictorSettings(pairs=PairSettings(**{kind: 1.0}))
        draws = Draws(toy.first, torch.arange(SAMPLES), toy.x_0.device)
        pairs = Pairs(settings, toy.student, toy.predictor, toy.predictor.features)
        *_, pair = pairs.draw(toy.x_0, draws, toy.condition)
        for name, make in (("Predictor", disca), ("reuse", reuse)):
            velocity = toy.velocity(make, SCHEDULES[0])
            for t, features in pair.kept.full_steps:
                velocity.keep(features, t)
            u = velocity.answered(pair.x_t, pair.t, pair.r)
            metrics[f"{name}, pairs on a {kind}"] = distance(u, pair.u_target)
    return metrics


def path_metrics(toy: Toy) -> Metrics:
    """The error of u at the predicted steps of a 20-step run that stays on the uncached path, N = 4."""
    anchors, sigmas = SCHEDULES[0].of(20), toy.sigmas(20)
    methods = {"Predictor": disca, "reuse": reuse, "extrapolation": extrapolation}
    velocities = {name: toy.velocity(make, SCHEDULES[0]) for name, make in methods.items()}
    errors = {name: [] for name in velocities}
    x = toy.noise
    for i, (t, r) in enumerate(zip(sigmas[:-1].tolist(), sigmas[1:].tolist(), strict=True)):
        times, ends = torch.full((SAMPLES,), t), torch.full((SAMPLES,), r)
        u, features = toy.student.velocity_and_features(x, times, ends, toy.condition)
        for name, velocity in velocities.items():
            if i in anchors:
                velocity.keep(features, times)
                continue
            errors[name].append(distance(velocity.answered(x, times, ends), u))
        x = x - (t - r) * u
    return {f"{name}, steps of a run": statistics.mean(found) for name, found in errors.items()}


def schedule_metrics(toy: Toy, reference: Tensor) -> Metrics:
    """Videos at the paper's schedules, against the teacher's finest and against the same run without a cache."""
    uncached, finer = toy.students(20), toy.students(40)
    metrics = {"between 20 and 40 uncached steps": distance(uncached, finer)}
    for preset in SCHEDULES:
        anchors, name = preset.of(20), preset.name.split(", ")[-1]
        for method, make in METHODS.items():
            video = toy.cached(make, preset)
            metrics[f"{method}, {name}, to 20 uncached steps"] = distance(video, uncached)
            metrics[f"{method}, {name}, to the teacher"] = distance(video, reference)
        fewer = toy.students(len(anchors))
        metrics[f"R-MeanFlow in {len(anchors)} steps ({name}), to 20 uncached steps"] = distance(fewer, uncached)
        metrics[f"R-MeanFlow in {len(anchors)} steps ({name}), to the teacher"] = distance(fewer, reference)
    return metrics


@torch.no_grad()
def measure(toy: Toy) -> Metrics:
    """All figures of one seed."""
    reference = toy.teachers(100)
    return meanflow_metrics(toy, reference) | pair_metrics(toy) | path_metrics(toy) | schedule_metrics(toy, reference)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--shift", type=float, default=SHIFT)
    parser.add_argument("--first", type=int, default=FIRST, help=f"the first of the {SAMPLES} scenes")
    options = parser.parse_args()
    found = []
    for seed in options.seeds:
        trained = chain_of(seed, "meanflow"), chain_of(seed, "predictor")
        found.append(measure(Toy(*trained, options.shift, options.first)))
    for name in found[0]:
        sys.stdout.write(f"{name:60s} {mean_and_deviation([metrics[name] for metrics in found])}\n")


def chain_of(seed: int, stage: str) -> Path:
    """What that stage gives with that seed, trained if it is not yet."""
    if seed:
        stages = ("meanflow", "predictor")[: 2 if stage == "predictor" else 1]
        train_chain(seed, runs_on(TEACHER) / f"seed-{seed}", stages, {"cfg": TEACHER})
    return result_of(seed, stage)


def result_of(seed: int, stage: str) -> Path:
    """What that stage gave with that seed; that of seed 0 ships with the pack."""
    if seed == 0:
        return WEIGHTS / f"{stage}.safetensors"
    return next(RunFolder(runs_on(TEACHER) / f"seed-{seed}" / stage).export.glob("*.safetensors"))


def runs_on(weights: Path) -> Path:
    """The folder of runs that begin with these weights: after others are shipped, none is taken for one of theirs."""
    return RUNS / sha256(weights)[:8]


def compare(description: str, variants: Iterable[str], metrics_of: Callable[[str, int, float], Metrics]) -> None:
    """The command of a comparison: a line for each variant that is asked for, its figures over the seeds."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--variants", nargs="+", choices=[*variants], default=[*variants])
    parser.add_argument("--shift", type=float, default=SHIFT)
    options = parser.parse_args()
    found = {name: [metrics_of(name, seed, options.shift) for seed in options.seeds] for name in options.variants}
    for name, seeds in found.items():
        metrics = "  ".join(f"{key}: {mean_and_deviation([metrics[key] for metrics in seeds])}" for key in seeds[0])
        sys.stdout.write(f"{name:42s} {metrics}\n")


def mean_and_deviation(values: list[float]) -> str:
    """Mean and standard deviation."""
    return f"{statistics.mean(values):.4f} +- {statistics.stdev(values) if len(values) > 1 else 0.0:.4f}"


def _network(path: Path) -> Network:
    return Network(load_network(str(path), torch.float32).requires_grad_(False))


def _predictor(path: Path) -> torch.nn.Module:
    spec, state = read_predictor(open_weights(str(path)))
    predictor = build_predictor(spec, dtype=torch.float32, operations=comfy.ops.manual_cast)
    predictor.load_state_dict(state)
    make_out_of_place(predictor.blocks)
    return predictor


if __name__ == "__main__":
    main()
