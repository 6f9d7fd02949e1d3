"""What the patch itself costs on anchor steps: handlers, bookkeeping and the clone of the features.

    COMFYUI_PATH=... python benchmarks/overhead.py [--pairs 60]

Prints the ratio of a one-step run, the step an anchor, to the same run of the plain model, in CPU time, on a tiny model
at 4,000 tokens: pairs interleaved in one process, in changing order. The median over the pairs, and the ratio of the
fastest runs, which other load on the machine disturbs least. What a run costs once (its state, its report) is in it.
"""

import argparse
import os
import statistics
import sys
import time
from dataclasses import replace

import torch
from networks import FULL_SIZE, conditioning, latent, random_model, random_predictor, tiny

from disca.host import attach, sampling  # isort: skip
from disca.meanflow import shifted_sigmas  # isort: skip
from disca.schedule import EVERY_STEP  # isort: skip


def seconds(model, size) -> float:
    """CPU seconds of a one-step run."""
    started = time.process_time()
    guider = sampling.make_guider(model, conditioning(size), None, 1.0)
    noise = torch.randn(latent(size)["samples"].shape)
    guider.sample(noise, latent(size)["samples"], sampling.sampler(), shifted_sigmas(1, 5.0), disable_pbar=True)
    return time.process_time() - started


def main() -> None:
    """Prints the ratio for both families."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=60)
    pairs = parser.parse_args().pairs
    torch.set_num_threads(1)
    for family, frames in (("1.0", (10, 40, 40)), ("1.5", (10, 20, 20))):
        size = replace(tiny(FULL_SIZE[family]), latent=frames)
        plain = random_model(size)
        patched = attach.attach_predictor(plain, random_predictor(size), EVERY_STEP)
        with torch.inference_mode():
            times = [measure(plain, patched, size, first=pair % 2) for pair in range(pairs + 1)][1:]
        ratios = [ours / theirs for ours, theirs in times]
        low, middle, high = statistics.quantiles(ratios, n=4)
        fastest = min(ours for ours, _ in times) / min(theirs for _, theirs in times)
        print(
            f"HunyuanVideo {family}, {pairs} pairs: patch {100 * (middle - 1):+.2f} % of a step "
            f"(quartiles {100 * (low - 1):+.2f} to {100 * (high - 1):+.2f}), fastest runs {100 * (fastest - 1):+.2f} %",
            flush=True,
        )


def measure(plain, patched, size, first: int) -> tuple[float, float]:
    """Seconds of the patched and of the plain model."""
    order = (plain, patched) if first else (patched, plain)
    times = {id(model): seconds(model, size) for model in order}
    return times[id(patched)], times[id(plain)]


def steady_allocator() -> None:
    """Starts again with an allocator that keeps its memory: what the system hands out anew is most of the noise."""
    settings = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**32)}
    if not settings.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **settings})


if __name__ == "__main__":
    steady_allocator()
    main()
