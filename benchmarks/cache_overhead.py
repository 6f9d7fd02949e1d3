"""What every cache costs beside its arithmetic: runs that it leaves in full, and its cached steps.

    COMFYUI_PATH=... python benchmarks/cache_overhead.py [--rounds 5] [--tables full cached] [--methods FORA RFC]

A network with random weights, wide enough that products take nearly all of the time, on one core of the CPU, in CPU
time, which other load on the machine disturbs least. In each round the plain model and every method run once, in
changing order, in one process. Two tables are printed.

Steps in full: their products are the plain model's, so what a method adds is found in all else that a step does: its
time less that of the products. Printed is how much more of that there is than in the same step of the plain model, as
a share of a whole step: the median over steps and rounds, with its quartiles. The counting makes all else slower, so
that this is rather too much than too little.

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
from contextlib import nullcontext
from typing import NamedTuple

import torch
from cpu_products import Products
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
    operations: int = 0  # of its products
    products: float = 0.0  # seconds that these took

    @property
    def rest(self) -> float:
        """Seconds of all else."""
        return self.seconds - self.products


Taken = Callable[[Sequence[Sequence[Step]]], float]  # by several runs of the same


class Models(NamedTuple):
    """The runs of a method."""

    full: ModelPatcher
    cached: ModelPatcher


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
def run(model: ModelPatcher, size: Size, counted: bool = False) -> list[Step]:
    """The steps of a run; their products are counted and timed if asked for, which takes time."""
    found: list[Step] = []

    def timed(apply_model, call):
        sampled = call["c"]["transformer_options"].get(KEY)
        before, started = sampled.report.predicted if sampled else 0, time.process_time()
        with Products() if counted else nullcontext() as products:
            out = apply_model(call["input"], call["timestep"], **call["c"])
        seconds = time.process_time() - started
        cached = sampled is not None and sampled.report.predicted > before
        found.append(Step(seconds, cached, *([products.operations, products.seconds] if counted else [])))
        return out

    model = model.clone()
    model.set_model_unet_function_wrapper(timed)
    empty = latent(size)["samples"]
    noise = torch.randn(empty.shape, generator=torch.Generator().manual_seed(0))
    guider = sampling.make_guider(model, conditioning(size), None, 1.0)
    guider.sample(noise, empty, sampling.sampler(), shifted_sigmas(STEPS, 5.0), disable_pbar=True, seed=0)
    return found


def rounds(
    runs: Mapping[str, ModelPatcher], size: Size, count: int, counted: bool = False
) -> dict[str, list[list[Step]]]:
    """Each run's steps in each of so many rounds, after one that warms up; each round has another order."""
    found, order = defaultdict(list), [*runs]
    for number in range(count + 1):
        random.Random(number).shuffle(order)
        for title in order:
            found[title].append(run(runs[title], size, counted))
    return {title: times[1:] for title, times in found.items()}


def of_steps(steps: Sequence[int]) -> Taken:
    """What these steps take, by the fastest time of each."""
    return lambda runs: sum(min(run[step].seconds for run in runs) for step in steps)


def ratios(ours: Sequence[Sequence[Step]], plain: Sequence[Sequence[Step]], taken: Taken) -> list[float]:
    """What is taken of what the plain model takes: by all runs, then the lowest and the highest of a round."""
    each = [taken([one]) / taken([other]) for one, other in zip(ours, plain, strict=True)]
    return [taken(ours) / taken(plain), min(each), max(each)]


def full_lines(runs: Mapping[str, Models], plain: ModelPatcher, size: Size, count: int) -> Iterator[str]:
    """How much more than the plain model's steps every method's steps in full do."""
    yield "| | added to a step in full (quartiles) |"
    found = rounds({"plain": plain, **{name: pair.full for name, pair in runs.items()}}, size, count, counted=True)
    theirs = [step for steps in found["plain"] for step in steps]
    whole = statistics.median(step.seconds for step in theirs)
    for name in runs:
        ours = [step for steps in found[name] for step in steps]
        if [step.operations for step in ours] != [step.operations for step in theirs]:
            raise RuntimeError(f"{name} makes other products in full steps than the plain model.")
        added = [100 * (our.rest - their.rest) / whole for our, their in zip(ours, theirs, strict=True)]
        low, middle, high = statistics.quantiles(added, n=4)
        yield f"| {name} | {middle:+.2f} % ({low:+.2f} to {high:+.2f}) |"


def cached_lines(runs: Mapping[str, Models], plain: ModelPatcher, size: Size, count: int) -> Iterator[str]:
    """What every method's cached steps take, and their arithmetic."""
    yield "| | products of a cached step, counted | timed | cached step, measured |"
    found = rounds({"plain": plain, **{name: pair.cached for name, pair in runs.items()}}, size, count)
    operations = run(plain, size, counted=True)[-1].operations
    for name, pair in runs.items():
        counted = [run(pair.cached, size, counted=True) for _ in range(TIMED)]
        steps = [number for number, step in enumerate(counted[0]) if step.cached]
        computed = sum(counted[0][step].operations for step in steps) / len(steps) / operations
        products = sum(min(each[step].products for each in counted) for step in steps)
        timed = products / of_steps(steps)(found["plain"])
        share, least, most = ratios(found[name], found["plain"], of_steps(steps))
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
    plain, predictor = random_model(size), random_predictor(size).patcher
    runs = {name: models(name, plain, predictor) for name in options.methods}
    print(f"{size.tokens:d} tokens of width {options.width:d}, {options.rounds:d} rounds")
    for table in options.tables:
        for line in TABLES[table](runs, plain, size, options.rounds):
            print(line, flush=True)


if __name__ == "__main__":
    steady_allocator()
    main()
