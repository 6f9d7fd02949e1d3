"""What the patch itself costs on anchor steps: handlers, bookkeeping and the clone of the features.

    COMFYUI_PATH=... python benchmarks/overhead.py [--pairs 60]

Prints the ratio of a one-step run, the step an anchor, to the same run of the plain model, in CPU time, on a tiny model
at 4,000 tokens: pairs interleaved in one process, in changing order, the median over the pairs. What a run costs once
(its state, its report) is in it.
"""

import argparse
import statistics
import time
from dataclasses import replace

import torch
from toys import FULL_SIZE, conditioning, latent, random_model, random_predictor, tiny

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
            ratios = [measure(plain, patched, size, first=pair % 2) for pair in range(pairs + 1)][1:]
        low, _, high = statistics.quantiles(ratios, n=4)
        share = 100 * (statistics.median(ratios) - 1)
        print(f"HunyuanVideo {family}, {pairs} pairs: patch {share:+.2f} % of a step (quartiles {low:.4f}, {high:.4f})")


def measure(plain, patched, size, first: int) -> float:
    """Patched over plain, one pair."""
    order = (plain, patched) if first else (patched, plain)
    times = {id(model): seconds(model, size) for model in order}
    return times[id(patched)] / times[id(plain)]


if __name__ == "__main__":
    main()
