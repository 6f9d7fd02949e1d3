"""Every method by one list of full steps, and the calls of such runs, timed."""

import gc
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import NamedTuple

import torch
from networks import Size, conditioning, latent, random_experts, random_predictor
from torch import Tensor

import comfy.model_management  # isort: skip
from comfy.model_patcher import ModelPatcher  # isort: skip
from disca.evaluation.costs import cost, cost_table  # isort: skip
from disca.host import attach, sampling  # isort: skip
from disca.host.running.run import KEY  # isort: skip
from disca.meanflow import shifted_sigmas  # isort: skip
from disca.methods import METHODS  # isort: skip
from disca.methods.seam.anchors import AtAnchors  # isort: skip
from disca.methods.seam.method import Method  # isort: skip
from disca.methods.seam.when import FULL, Decider, Now, Rule  # isort: skip
from disca.schedule import EVERY_STEP, Anchors, Schedule  # isort: skip

SHORT, CALLS = Anchors((0, 1)), 4  # a run of so many calls, these in full
PLAIN = (FULL,) * CALLS
LESA = "LESA"
NAMES = [*cost_table.COMPUTE, *METHODS]
NO_MEMORY = (comfy.model_management.OOM_EXCEPTION, MemoryError, ValueError)  # the last: refused before the run

Factors = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Following(Rule):
    """Full in the steps of a list; the method's own rule looks, keeps and checks as ever, but is not heeded."""

    own: Rule
    full: AtAnchors

    looks = property(lambda self: self.own.looks)
    sees = property(lambda self: self.own.sees)
    tensors = property(lambda self: self.own.tensors)
    latents = property(lambda self: self.own.latents)
    checks = property(lambda self: self.own.checks)

    def fresh(self, sigmas: Sequence[float]) -> Decider:
        return _Follower(self.own.fresh(sigmas), self.full.plan(sigmas))


class _Follower(Decider):
    def __init__(self, own: Decider, plan: Sequence[int]):
        self._own, self._plan = own, plan

    def decide(self, now: Now) -> int:
        self._own.decide(now)
        return self._plan[now.step]

    def saw(self, now: Now) -> None:
        self._own.saw(now)

    def checked(self, now: Now, drafted: Tensor, exact: Tensor) -> bool:
        self._own.checked(now, drafted, exact)
        return True

    def held(self) -> Iterable[Tensor]:
        return self._own.held()


@dataclass(frozen=True)
class Job:
    """What a family is measured on: its size, its list of full steps, and the calls that are timed."""

    size: Size
    schedule: Schedule
    timed: Schedule
    calls: int

    @cached_property
    def shape(self) -> cost.Shape:
        """The network and the latent, for what is counted."""
        size = self.size
        channels = size.row.latent_format().latent_channels
        return cost.Shape(size.row, (1, channels, *size.latent), size.text_tokens, tuple(size.changes.items()))

    def sigmas(self, count: int) -> torch.Tensor:
        """The times of a run of so many steps."""
        return shifted_sigmas(count, self.size.shift)

    def plan(self, method: Method, schedule: Schedule, count: int) -> Sequence[int]:
        """What the method does in each step of a run, by that list."""
        return method.at(AtAnchors(schedule)).when.plan(self.sigmas(count).tolist())


class Entry(NamedTuple):
    """A method, and what its own network or its rule's check takes of a cached step."""

    name: str
    method: Method
    compute: cost.Cost

    def watched(self, schedule: Schedule) -> Method:
        """The method as it is run: by the list, with what its own rule looks at and checks."""
        own = METHODS[self.name]().rule() if self.name in METHODS else self.method.when
        full = AtAnchors(schedule)
        idle = not (own.looks or own.sees or own.checks)
        return self.method.at(full) if idle else replace(self.method, when=Following(own, full))

    def network(self, job: Job) -> ModelPatcher | None:
        """The method's own network with random weights, if it has one."""
        if self.name == LESA:
            return random_experts(job.calls)
        return random_predictor(job.size, cost_table.COMPUTE[self.name]).patcher if self.method.computes else None


class Calls(NamedTuple):
    """The seconds of a run's calls, its peak of memory on the GPU, and the bytes of the method's own network."""

    seconds: list[float]
    peak: int
    weights: int = 0


def entries(shape: cost.Shape) -> list[Entry]:
    """Every method. What LESA's experts take is too little to count."""
    experts = METHODS[LESA]().method(AtAnchors(EVERY_STEP))
    return [*(Entry(*each) for each in cost_table.methods(shape)), Entry(LESA, experts, cost.NOTHING)]


def now() -> float:
    """Seconds: once the GPU has done what was asked of it; without one, those of the process on the CPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        return time.perf_counter()
    return time.process_time()


def slowness() -> float:
    """How much longer a product takes now than it did at first: on a CPU, what other load does to all that runs."""
    if torch.cuda.is_available():
        return 1.0
    factors, usual = _yardstick()
    return _product(factors) / usual


@cache
def _yardstick() -> tuple[Factors, float]:
    factors = torch.randn(1024, 2048), torch.randn(2048, 4096)
    return factors, min(_product(factors) for _ in range(5))


def _product(factors: Factors) -> float:
    started = now()
    torch.mm(*factors)
    return now() - started


@torch.inference_mode()
def run(model: ModelPatcher, job: Job, plan: Sequence[int]) -> Calls:
    """A run of as many steps; RuntimeError if others than planned ran in full."""
    seconds, cached = [], []

    def timed(apply_model, call):
        sampled = call["c"]["transformer_options"].get(KEY)
        before, slow = sampled.report.predicted if sampled else 0, slowness()
        started = now()
        out = apply_model(call["input"], call["timestep"], **call["c"])
        taken = now() - started
        seconds.append(2 * taken / (slow + slowness()))
        cached.append(sampled is not None and sampled.report.predicted > before)
        return out

    model, empty = model.clone(), latent(job.size)["samples"]
    model.set_model_unet_function_wrapper(timed)
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    noise = torch.randn(empty.shape, generator=torch.Generator().manual_seed(0))
    guider = sampling.make_guider(model, conditioning(job.size), None, 1.0)
    guider.sample(noise, empty, sampling.sampler(), job.sigmas(len(plan)), disable_pbar=True, seed=0)
    if cached != [way != FULL for way in plan]:
        raise RuntimeError(f"{sum(cached):d} of {len(cached):d} calls were cached, and not those that were planned.")
    return Calls(seconds, torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0)


def attempt(model: ModelPatcher, entry: Entry | None, job: Job) -> Calls | str:
    """A run of the method, or of the model as it is, with what was left behind gone; why not, if the method's fails."""
    gc.collect()
    comfy.model_management.cleanup_models()
    comfy.model_management.soft_empty_cache()
    if entry is None:
        return run(model, job, PLAIN)
    try:
        network = entry.network(job)
        attached = attach.attach(model, entry.watched(job.timed), compute=network)
        calls = run(attached, job, job.plan(entry.method, job.timed, job.calls))
        return calls._replace(weights=network.model_size() if network else 0)
    except NO_MEMORY as error:
        return str(error).split(". ")[0].splitlines()[0]


def typical(runs: Sequence[Calls], plan: Sequence[int]) -> dict[int, float]:
    """Seconds of each kind of call in runs of that plan, by the median."""
    kinds = defaultdict(list)
    for calls in runs:
        for way, taken in zip(plan, calls.seconds, strict=True):
            kinds[way].append(taken)
    return {way: statistics.median(taken) for way, taken in kinds.items()}
