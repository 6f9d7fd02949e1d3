"""What every cache costs beside its arithmetic: runs that it leaves in full, and its cached steps.

    COMFYUI_PATH=... python benchmarks/cache_overhead.py [--rounds 5] [--tables full cached] [--methods FORA RFC]

A network with random weights, wide enough that products take nearly all of the time, on one core of the CPU, in CPU
time, which other load on the machine disturbs least. In each round the plain model and every method run once, in
changing order, in one process. Two tables are printed.

Steps in full: what a method adds is too little to be seen in the whole. It is the functions of PyTorch that are called
more often than in the plain model's step, as each was timed, and the code around them: how much longer a step takes on
a network so narrow that it takes nearly no time itself, the median over pairs of steps. Both are printed as shares of
the plain model's step.

Cached steps: what they take of full ones, by the fastest times, in brackets the lowest and highest of a single round.
Beside it stands its arithmetic: the products and attentions that it makes, as their operations are counted, and as they
were timed one by one, since those of a single token (embedders, modulations) wait for their weights and take longer
than counted.
"""

import argparse
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from cpu_products import Calls, Products
from networks import Size, conditioning, latent, random_model, random_predictor
from overhead import steady_allocator

from comfy.model_patcher import ModelPatcher  # isort: skip
from disca.host import attach, sampling  # isort: skip
from disca.host.running.run import KEY  # isort: skip
from disca.meanflow import shifted_sigmas  # isort: skip
from disca.methods import METHODS  # isort: skip
from disca.methods.scheduled.disca import disca  # isort: skip
from disca.methods.seam.anchors import AtAnchors  # isort: skip
from disca.methods.seam.method import Method  # isort: skip
from disca.schedule import Anchors  # isort: skip

STEPS, WARMUP = 4, (0, 1)  # with these in full, the others cached
NARROW, PAIRS = 128, 10  # the width of a network that takes nearly no time; its runs in a round
TIMED = 2  # runs in which each product is timed; the fastest time counts
NAMES = ["DisCa", *(name for name in METHODS if name != "LESA")]
OWN = {  # rules of their own: settings for every step in full, and for as few of them as there can be
    "TeaCache": ({"threshold": 0.0}, {"threshold": 100.0}),
    "MagCache": ({"threshold": 0.0}, {"threshold": 100.0, "retention": 0.0}),
    "AdaCache": ({"rate": 0.0}, {"rate": 10.0, "final": 0}),
    "EasyCache": ({"threshold": 0.0, "warmup": 2}, {"threshold": 100.0, "warmup": 2}),
    "First-Block-Cache": ({"threshold": 0.0}, {"threshold": 100.0}),
    "SpeCa": ({"most": 0}, {"threshold": 100.0, "floor": 100.0}),
}


class Step(NamedTuple):
    """What a network call took."""

    seconds: float
    cached: bool
    watched: Any  # what watched it


class Models(NamedTuple):
    """The runs of a method."""

    full: ModelPatcher
    cached: ModelPatcher


class Both(NamedTuple):
    """A model, and what every method makes of it."""

    plain: ModelPatcher
    methods: dict[str, Models]


def models(name: str, plain: ModelPatcher, predictor: ModelPatcher) -> Models:
    """The plain model with a method that leaves every step in full, and with one that caches."""
    if name in OWN:
        methods = [METHODS[name](**settings).method() for settings in OWN[name]]
    else:
        rules = [AtAnchors(Anchors(tuple(steps))) for steps in (range(STEPS), WARMUP)]
        methods = [disca(rule) if name == "DisCa" else METHODS[name]().method(rule) for rule in rules]
    return Models(*(_attached(plain, method, predictor) for method in methods))


def _attached(plain: ModelPatcher, method: Method, predictor: ModelPatcher) -> ModelPatcher:
    return attach.attach(plain, method, compute=predictor if method.computes else None)


@torch.inference_mode()
def run(model: ModelPatcher, size: Size, watch: Callable[[], AbstractContextManager] = nullcontext) -> list[Step]:
    """The steps of a run, each under what `watch` makes, which takes time."""
    found: list[Step] = []

    def timed(apply_model, call):
        sampled = call["c"]["transformer_options"].get(KEY)
        before, started = sampled.report.predicted if sampled else 0, time.process_time()
        with watch() as watched:
            out = apply_model(call["input"], call["timestep"], **call["c"])
        seconds = time.process_time() - started
        found.append(Step(seconds, sampled is not None and sampled.report.predicted > before, watched))
        return out

    model = model.clone()
    model.set_model_unet_function_wrapper(timed)
    empty = latent(size)["samples"]
    noise = torch.randn(empty.shape, generator=torch.Generator().manual_seed(0))
    guider = sampling.make_guider(model, conditioning(size), None, 1.0)
    guider.sample(noise, empty, sampling.sampler(), shifted_sigmas(STEPS, 5.0), disable_pbar=True, seed=0)
    return found


def rounds(runs: Mapping[str, ModelPatcher], size: Size, count: int) -> dict[str, list[list[Step]]]:
    """Each run's steps in each of so many rounds, after one that warms up; each round has another order."""
    found, order = defaultdict(list), [*runs]
    for number in range(count + 1):
        random.Random(number).shuffle(order)
        for title in order:
            found[title].append(run(runs[title], size))
    return {title: times[1:] for title, times in found.items()}


def fastest(runs: Sequence[Sequence[Step]], steps: Sequence[int]) -> float:
    """Seconds of these steps, each by its fastest time of several runs."""
    return sum(min(run[step].seconds for run in runs) for step in steps)


def ratios(ours: Sequence[Sequence[Step]], plain: Sequence[Sequence[Step]], steps: Sequence[int]) -> list[float]:
    """What these steps take of the plain model's: by all runs, then the lowest and the highest of a round."""
    each = [fastest([one], steps) / fastest([other], steps) for one, other in zip(ours, plain, strict=True)]
    return [fastest(ours, steps) / fastest(plain, steps), min(each), max(each)]


def full_lines(models_of: Callable[[Size], Both], size: Size, count: int) -> Iterator[str]:
    """What every method adds to the plain model's steps."""
    yield "| | functions added to a step in full | code around them | together |"
    plain, runs = models_of(size)
    theirs = run(plain, size, Calls)
    whole = statistics.median(step.seconds for step in run(plain, size))
    code = around(models_of, replace(size, width=NARROW, latent=(4, 8, 8)), count)
    for name, pair in runs.items():
        ours = run(pair.full, size, Calls)
        called = statistics.mean(our.watched.beyond(their.watched) for our, their in zip(ours, theirs, strict=True))
        parts = [100 * seconds / whole for seconds in (called, code[name], called + code[name])]
        yield f"| {name} | " + " | ".join(f"{part:.2f} %" for part in parts) + " |"


def around(models_of: Callable[[Size], Both], size: Size, count: int) -> dict[str, float]:
    """Seconds by which each method's steps in full are longer on a network that takes nearly none."""
    plain, runs = models_of(size)
    found = rounds({"plain": plain, **{name: pair.full for name, pair in runs.items()}}, size, PAIRS * count)
    theirs = [step.seconds for steps in found.pop("plain") for step in steps]
    ours = {name: [step.seconds for steps in each for step in steps] for name, each in found.items()}
    return {
        name: statistics.median(our - their for our, their in zip(each, theirs, strict=True))
        for name, each in ours.items()
    }


def cached_lines(models_of: Callable[[Size], Both], size: Size, count: int) -> Iterator[str]:
    """What every method's cached steps take, and their arithmetic."""
    yield "| | products of a cached step, counted | timed | cached step, measured |"
    plain, runs = models_of(size)
    found = rounds({"plain": plain, **{name: pair.cached for name, pair in runs.items()}}, size, count)
    operations = run(plain, size, Products)[-1].watched.operations
    for name, pair in runs.items():
        counted = [run(pair.cached, size, Products) for _ in range(TIMED)]
        steps = [number for number, step in enumerate(counted[0]) if step.cached]
        computed = sum(counted[0][step].watched.operations for step in steps) / len(steps) / operations
        products = sum(min(each[step].watched.seconds for each in counted) for step in steps)
        timed = products / fastest(found["plain"], steps)
        share, least, most = ratios(found[name], found["plain"], steps)
        yield (
            f"| {name} | {100 * computed:.2f} % | {100 * timed:.2f} % | "
            f"{100 * share:.2f} % ({100 * least:.2f} to {100 * most:.2f}) |"
        )


TABLES = {"full": full_lines, "cached": cached_lines}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--side", type=int, default=32, help="of the latent's 4 frames; a token has 2 x 2 of it")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    parser.add_argument("--methods", nargs="+", choices=NAMES, default=NAMES)
    options = parser.parse_args()
    torch.set_num_threads(1)
    shape = (4, options.side, options.side)
    size = Size("1.0", options.width, (1, 2), (1, 2), shape, text_tokens=64, steps=STEPS, shift=5.0)

    def models_of(size: Size) -> Both:
        plain, predictor = random_model(size), random_predictor(size).patcher
        return Both(plain, {name: models(name, plain, predictor) for name in options.methods})

    print(f"{size.tokens:d} tokens of width {options.width:d}, {options.rounds:d} rounds")
    for table in options.tables:
        for line in TABLES[table](models_of, size, options.rounds):
            print(line, flush=True)


if __name__ == "__main__":
    steady_allocator()
    main()
