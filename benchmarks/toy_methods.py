"""Every feature cache on the toy world, with the weights that ship, through ComfyUI's sampler: error, cost, memory.

    COMFYUI_PATH=... python benchmarks/toy_methods.py                        all of them, three seeds
    COMFYUI_PATH=... python benchmarks/toy_methods.py --methods FORA SpeCa --seeds 0

Errors are squared distances to the video with every step in full, relative to its square, over 32 held-out prompts that
are sampled as one batch; a seed is other noise. Costs are counted: the floating-point operations of a run's products
and attentions in all of the network over those of a full step, in the first seed. `--steps` cuts the lists, to try.
"""

import argparse
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from toy_world import FIRST, GUIDANCE, SAMPLES, SHIFT, Toy, distance, mean_and_deviation

from comfy.model_patcher import ModelPatcher  # isort: skip
from toy_runs import Prompts, Ran, run  # isort: skip
from disca.host import attach  # isort: skip
from disca.meanflow import shifted_sigmas  # isort: skip
from disca.methods import METHODS  # isort: skip
from disca.methods.scheduled.disca import disca  # isort: skip
from disca.methods.seam.anchors import AtAnchors  # isort: skip
from disca.methods.seam.method import Method  # isort: skip
from disca.models.loading import load_meanflow_model, load_predictor  # isort: skip
from disca.schedule import Anchors  # isort: skip
from disca.toy import WEIGHTS  # isort: skip

STEPS = 20
LISTS = {"paper's list": (0, 1, 2, 5, 9, 13, 17, 19), "found list": (0, 1, 2, 3, 5, 8, 13, 18)}
OWN = "own rule"

# Measured on eight other prompts (scenes 910000 on, noise of seed 0), 20 steps in full: TeaCache's polynomial, the
# highest power first, and MagCache's ratios
POLYNOMIAL = (220.29, -134.75, 27.415, -1.3183, 0.027949)
RATIOS = (
    1.0, 0.93103, 0.95464, 0.94731, 0.95106, 0.952, 0.95325, 0.95125, 0.95897, 0.96397, 0.94825, 0.9526, 0.94589,
    0.95214, 0.96597, 0.96575, 0.96669, 0.97394, 0.97200, 0.96395,
)  # fmt: skip

Row = tuple[str, dict[str, Any]]  # a cache and its settings
ON_LISTS: dict[str, Row] = {
    "DisCa": ("DisCa", {}),
    "reuse": ("reuse", {}),
    "extrapolation, half, in steps": ("extrapolation", {}),
    "extrapolation, whole, in sigma": ("extrapolation", {"damping": 1.0, "along": "sigma"}),
    "TaylorSeer-Lite, order 0": ("TaylorSeer-Lite", {"order": 0}),
    "TaylorSeer-Lite, order 1": ("TaylorSeer-Lite", {"order": 1}),
    "TaylorSeer-Lite, order 2": ("TaylorSeer-Lite", {"order": 2}),
    "RFC-Lite": ("RFC-Lite", {}),
    "Spectrum": ("Spectrum", {}),
    "residual of all blocks": ("TeaCache", {}),
    "residual behind the first block": ("First-Block-Cache", {}),
    "residual of the output": ("EasyCache", {}),
    "FORA": ("FORA", {}),
    "TaylorSeer, order 0": ("TaylorSeer", {"order": 0}),
    "TaylorSeer, order 1": ("TaylorSeer", {"order": 1}),
    "TaylorSeer, order 2": ("TaylorSeer", {"order": 2}),
    "RFC": ("RFC", {}),
    "ToCa, ratio 0.1": ("ToCa", {"ratio": 0.1}),
    "DuCa, ratio 0.1": ("DuCa", {"ratio": 0.1}),
    "PAB": ("PAB", {}),
    "Delta-DiT": ("Delta-DiT", {}),
}
BY_OWN_RULE: dict[str, Row] = {  # thresholds chosen, on the prompts that are measured, for about 8 steps in full
    "TeaCache, the change itself": ("TeaCache", {"calibration": "none", "threshold": 0.25}),
    "TeaCache, fitted": ("TeaCache", {"coefficients": POLYNOMIAL, "threshold": 0.14}),
    "MagCache": ("MagCache", {"ratios": RATIOS, "threshold": 0.15, "most": 4, "retention": 0.1}),
    "AdaCache": ("AdaCache", {"codebook": "fast", "rate": 1.25}),
    "EasyCache": ("EasyCache", {"threshold": 0.155, "warmup": 2}),
    "First-Block-Cache": ("First-Block-Cache", {"threshold": 0.32}),
    "SpeCa, next step": ("SpeCa", {"threshold": 0.063, "fewest": 0, "floor": 0.01}),
    "SpeCa, this step": ("SpeCa", {"threshold": 0.2, "fewest": 0, "floor": 0.01, "error": "L2", "runs": "this step"}),
    "RFC": ("RFC", {"threshold": 0.35}),
    "RFC-Lite": ("RFC-Lite", {"threshold": 0.4}),
    "Spectrum": ("Spectrum", {}),
}
SAME = (("FORA", "TaylorSeer, order 0"), ("reuse", "TaylorSeer-Lite, order 0"))


class Figures(NamedTuple):
    """What a run came to."""

    error: float
    full: float  # steps in full a video
    cost: float  # in full steps
    kept: float  # MB a video


class Shipped:
    """The models that ship, and the prompts and noise of `toy_world.py` for them."""

    def __init__(self, steps: int):
        self.model = load_meanflow_model(str(WEIGHTS / "meanflow.safetensors"))
        self.predictor = load_predictor(str(WEIGHTS / "predictor.safetensors"))
        self.toy = Toy(WEIGHTS / "meanflow.safetensors", WEIGHTS / "predictor.safetensors")
        self.prompts, self.steps = Prompts(FIRST, SAMPLES, GUIDANCE), steps

    def noise(self, seed: int) -> Tensor:
        """That of a seed; 0: `toy_world.py`'s."""
        return self.prompts.noise(seed)

    def attached(self, method: Method) -> ModelPatcher:
        """The MODEL with a method."""
        compute = self.predictor.patcher if method.computes else None
        return attach.attach(self.model, method, compute=compute)

    def listed(self, anchors: Sequence[int]) -> AtAnchors:
        """Full in these steps, as far as the run goes."""
        return AtAnchors(Anchors(tuple(step for step in anchors if step < self.steps)))

    def run(self, model: ModelPatcher, noise: Tensor, counted: bool) -> Ran:
        """The prompts from that noise, their operations counted if asked for."""
        return run(model, self.prompts, noise, shifted_sigmas(self.steps, SHIFT), counted)


def variants(world: Shipped, names: Sequence[str]) -> Iterator[tuple[str, str, Method]]:
    """Row, column and method of everything that is to run, for caches of these names."""
    for title, (name, settings) in ON_LISTS.items():
        for column, anchors in LISTS.items() if name in names else ():
            rule = world.listed(anchors)
            seen = world.predictor.spec.features
            yield title, column, disca(rule, seen) if name == "DisCa" else METHODS[name](**settings).method(rule)
    for title, (name, settings) in BY_OWN_RULE.items():
        if name in names:
            yield title, OWN, METHODS[name](**settings).method()


def measure(
    world: Shipped, seed: int, names: Sequence[str], counted: bool
) -> Iterator[tuple[str, str, Figures, Tensor]]:
    """Row, column, figures and videos of each variant, from the noise of a seed; its cost is 0 unless counted."""
    noise = world.noise(seed)
    plain = world.run(world.model, noise, counted)
    for title, column, method in variants(world, names):
        ran = world.run(world.attached(method), noise, counted)
        full = statistics.mean(full for _, full in ran.report.rows.values())
        cost = world.steps * ran.operations / max(plain.operations, 1)
        kept = ran.report.bytes_held / SAMPLES / 1e6
        yield title, column, Figures(distance(ran.videos, plain.videos), full, cost, kept), ran.videos


def equalities(world: Shipped, videos: Mapping[tuple[str, str], Tensor]) -> Iterator[str]:
    """What has to be the same, and whether it is; the videos of one seed by row and column."""
    for one, other in SAME:
        for column in LISTS:
            if {(one, column), (other, column)} <= videos.keys():
                same = torch.equal(videos[one, column], videos[other, column])
                yield f"{one} is {other} on the {column}: {'bit for bit' if same else 'NO'}"
    uncached = world.toy.students(STEPS)
    for column, anchors in LISTS.items():
        cached = world.toy.cached(disca, Anchors(anchors))
        yield f"DisCa on the {column}, by toy_world.py: {distance(cached, uncached):.5f}"


def tables(found: Mapping[tuple[str, str], Sequence[Figures]]) -> Iterator[str]:
    """The rows of both tables, the figures of all seeds in each."""
    yield f"| on a list | {' | '.join(LISTS)} | cost in full steps | MB kept |"
    for title in ON_LISTS:
        columns = [found[title, column] for column in LISTS if (title, column) in found]
        if columns:
            errors = [mean_and_deviation([seed.error for seed in seeds]) for seeds in columns]
            first = columns[0][0]
            yield f"| {title} | {' | '.join(errors)} | {first.cost:.1f} | {first.kept:.2f} |"
    yield "| by its own rule | error | steps in full | cost in full steps | MB kept |"
    for title in BY_OWN_RULE:
        if seeds := found.get((title, OWN)):
            full = statistics.mean(figures.full for figures in seeds)
            error = mean_and_deviation([seed.error for seed in seeds])
            yield f"| {title} | {error} | {full:.1f} | {seeds[0].cost:.1f} | {seeds[0].kept:.2f} |"


def say(line: str) -> None:
    """Prints a line at once: the next one takes a while."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = list(dict.fromkeys(name for name, _ in (*ON_LISTS.values(), *BY_OWN_RULE.values())))
    parser.add_argument("--methods", nargs="+", choices=names, default=names)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    say("error, steps in full, cost in full steps, MB kept")
    world, found, videos = Shipped(options.steps), defaultdict(list), {}
    for seed in options.seeds:
        for title, column, figures, made in measure(world, seed, options.methods, seed == options.seeds[0]):
            found[title, column].append(figures)
            if seed == 0:
                videos[title, column] = made
            numbers = f"{figures.error:.5f} {figures.full:6.2f} {figures.cost:6.2f} {figures.kept:6.3f}"
            say(f"seed {seed:d}  {title:32s} {column:13s} {numbers}")
    for line in tables(found):
        say(line)
    if options.steps == STEPS and videos:
        with torch.no_grad():
            for line in equalities(world, videos):
                say(line)


if __name__ == "__main__":
    main()
