"""What every method saves of a run, in theory and measured, and what it holds: Table 7 at full size, random weights.

    COMFYUI_PATH=... python benchmarks/full_size.py [--family 1.0 1.5] [--methods FORA RFC] [--attention stock best]
    COMFYUI_PATH=... python benchmarks/full_size.py --small --rounds 3

Every method runs with the family's preset list of full steps, whatever its own rule is; a rule that looks at a step or
checks it does so all the same. The measured speed-up is that of a whole run by the list, made up of its calls: two in
full and two cached are timed, and each kind of call counts by its median; with `--whole` all of the run's are timed.
The plain model is timed in the same process. `s a call` is a full one of it, and a cached one of the methods. In theory
stands for the operations of such a run, as `disca/evaluation/costs/cost.py` has them. Extra memory is what the method
holds and the weights of its own network, computed; on a GPU also the peak beyond the plain model's, which does not see
what waits in main memory. A method for which there is no memory has a row that says so.

For a GPU, where `best` is the attention kernel that DisCa Attention would choose. `--small` is for a CPU: a network in
which products take most of the time, on one core, in CPU time. A product of matrices is timed before and after each
call, which is divided by how much slower than at first that was, and a full call counts by the median of all methods':
other load on the machine changes one by far more than what a method adds to it (`cache_overhead.py` has that).
"""

import argparse
import logging
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from listed_methods import CALLS, NAMES, PLAIN, SHORT, Calls, Entry, Job, attempt, entries, run, typical
from networks import FULL_SIZE, Size, dtype_and_device, random_model
from overhead import steady_allocator

from disca.evaluation.costs import cost  # isort: skip
from disca.evaluation.costs.published import TERA  # isort: skip
from disca.host import speed  # isort: skip
from disca.host.running.memory import bytes_held  # isort: skip
from disca.methods.seam.anchors import AtAnchors  # isort: skip
from disca.methods.seam.when import FULL  # isort: skip
from disca.schedule import PRESETS  # isort: skip

ATTENTION = {"stock": "comfy", "best": "auto"}


Runs = dict[str, list[Calls | str]]  # by the attention kernel, one for each round; or why there is none


def row(entry: Entry, job: Job, runs: Runs, plain: dict[str, list[Calls]], full: dict[str, float]) -> str:
    """What came of the method; `full` are seconds that a full call counts by, where not by this method's own."""
    steps, gpu = job.size.steps, torch.cuda.is_available()
    plan, timed = job.plan(entry.method, job.schedule, steps), job.plan(entry.method, job.timed, job.calls)
    counted = cost.run(job.shape, entry.method.at(AtAnchors(job.schedule)), job.sigmas(steps).tolist(), entry.compute)
    theory = steps * cost.full_step(job.shape).products / counted.products
    gigabytes = f"{extra(entry, job, runs) / 1e9:.2f}"
    cells = [entry.name, f"{plan.count(FULL):d} of {steps:d}", f"{theory:.2f}", gigabytes]
    for kernel, each in runs.items():
        if why := next((calls for calls in each if isinstance(calls, str)), ""):
            cells += [why, "", "", *[""] * gpu]
            continue
        calls, whole = typical(each, timed), typical(plain[kernel], PLAIN)[FULL]
        if kernel in full:
            calls[FULL] = whole = full[kernel]
        cached = statistics.mean(calls[way] for way in plan if way != FULL)
        measured = steps * whole / sum(calls[way] for way in plan)
        cells += [f"{measured:.2f}", f"{measured / theory - 1:+.1%}", f"{cached:.3g}"]
        cells += [f"{(each[0].peak - plain[kernel][0].peak) / 1e9:.2f}"] * gpu
    return f"| {' | '.join(cells)} |"


def extra(entry: Entry, job: Job, runs: Runs) -> int:
    """Bytes that the method holds, and those of its own network as it was in these runs."""
    (dtype, _), shape = dtype_and_device(), job.shape
    method, latent = entry.watched(job.schedule), torch.Size(shape.latent)
    held = bytes_held(method, shape.family, shape.network, latent, shape.text, dtype.itemsize)
    return held + max(
        (calls.weights for each in runs.values() for calls in each if isinstance(calls, Calls)), default=0
    )


def table(job: Job, names: Sequence[str], kernels: Sequence[str], rounds: int) -> Iterator[str]:
    """The rows of a family: on a GPU each as soon as its last round is done."""
    plain, gpu = random_model(job.size), torch.cuda.is_available()
    models = {kernel: speed.speed_up(plain, ATTENTION[kernel], False) for kernel in kernels}
    for model in models.values():
        run(model, job, [FULL])  # chooses kernels
    chosen = {"": None, **{entry.name: entry for entry in entries(job.shape) if entry.name in names}}
    found: dict[str, Runs] = {name: {kernel: [] for kernel in kernels} for name in chosen}

    def said(name: str, full: dict[str, float]) -> str:
        return row(chosen[name], job, found[name], found[""], full) if name else steps_in_full(found[""], full)

    yield from heading(job, kernels)
    for last in [*[False] * (rounds - 1), True]:
        for name, entry in chosen.items():
            for kernel, model in models.items():
                found[name][kernel].append(attempt(model, entry, job))
            if last and gpu:
                yield said(name, {})
    full = {
        kernel: everybodys(job, [(chosen[name], runs[kernel]) for name, runs in found.items()]) for kernel in kernels
    }
    yield from [] if gpu else (said(name, full) for name in chosen)


def everybodys(job: Job, found: Sequence[tuple[Entry | None, Sequence[Calls | str]]]) -> float:
    """Seconds of a full call by the median of all that were timed, whatever was kept of them."""
    taken = []
    for entry, runs in found:
        plan = job.plan(entry.method, job.timed, job.calls) if entry else PLAIN
        done = (calls.seconds for calls in runs if isinstance(calls, Calls))
        taken += [each for seconds in done for way, each in zip(plan, seconds, strict=True) if way == FULL]
    return statistics.median(taken)


def heading(job: Job, kernels: Sequence[str]) -> Iterator[str]:
    """What was measured on what, and what the columns are."""
    size, gpu, full = job.size, torch.cuda.is_available(), cost.full_step(job.shape).products / TERA
    blocks = " + ".join(map(str, size.blocks))
    yield f"{size.row.title}, {size.tokens:,} tokens, width {size.width:,}, {blocks} blocks; a full step {full:,.2f} T"
    yield f"{size.steps:d} steps, of them in full {job.schedule}"
    columns = ["", "in full", "in theory", "extra GB"]
    for kernel in kernels:
        columns += [f"measured, {kernel}", "over theory", "s a call", *["peak GB more"] * gpu]
    yield f"| {' | '.join(columns)} |"
    yield f"|{' --- |' * len(columns)}"


def steps_in_full(runs: dict[str, list[Calls]], full: dict[str, float]) -> str:
    """What the plain model takes."""
    cells = ["all in full", "all", "1.00", "0.00"]
    for kernel, each in runs.items():
        cells += ["1.00", "", f"{full.get(kernel) or typical(each, PLAIN)[FULL]:.3g}"]
        cells += [f"of {each[0].peak / 1e9:.2f}"] * torch.cuda.is_available()
    return f"| {' | '.join(cells)} |"


def small(size: Size) -> Size:
    """A network of the same kinds of blocks in which products take nearly all of the time of one core."""
    blocks = (1, 2) if size.few[1] else (2, 0)
    side = 16 * size.row.config["patch_size"][2]
    return replace(size, width=2048, blocks=blocks, latent=(4, side, side), text_tokens=64)


def main() -> None:
    """Prints a table for each family."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", nargs="+", default=list(FULL_SIZE), choices=list(FULL_SIZE))
    parser.add_argument("--methods", nargs="+", default=NAMES, choices=NAMES)
    parser.add_argument("--attention", nargs="+", choices=ATTENTION, help="by default both on a GPU, else stock")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--small", action="store_true")
    parser.add_argument("--whole", action="store_true")
    options = parser.parse_args()
    logging.getLogger("disca").setLevel(logging.ERROR)  # what it says of the short runs does not hold for whole ones
    _, device = dtype_and_device()
    gpu = device.type == "cuda"
    torch.set_num_threads(torch.get_num_threads() if gpu else 1)
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name() if gpu else 'CPU'}, {options.rounds:d} rounds")
    for family in options.family:
        size = small(FULL_SIZE[family]) if options.small else FULL_SIZE[family]
        schedule = next(each for each in PRESETS.values() if each.name.startswith(f"{size.row.title}, {size.steps:d} "))
        job = Job(size, schedule, *((schedule, size.steps) if options.whole else (SHORT, CALLS)))
        for line in table(job, options.methods, options.attention or list(ATTENTION)[: 1 + gpu], options.rounds):
            print(line, flush=True)


if __name__ == "__main__":
    steady_allocator()
    main()
