"""Seconds of a full and of a predicted step, and peak memory, of the full-size networks with random weights.

    COMFYUI_PATH=... python benchmarks/step_times.py [--family 1.0 1.5] [--tiny]

For a GPU; `--tiny` runs the same code with a small network on any machine.
"""

import argparse
import statistics

import torch
from networks import FULL_SIZE, Size, conditioning, dtype_and_device, latent, random_model, random_predictor, tiny

from disca.host import attach, sampling  # isort: skip
from disca.meanflow import shifted_sigmas  # isort: skip
from disca.schedule import parse_anchors  # isort: skip

STEPS, ANCHORS = 8, "0 2 4 7"


def main() -> None:
    """Prints one line for each family."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", nargs="+", default=list(FULL_SIZE), choices=list(FULL_SIZE))
    parser.add_argument("--tiny", action="store_true")
    chosen = parser.parse_args()
    _, device = dtype_and_device()
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name() if device.type == 'cuda' else 'CPU'}")
    for family in chosen.family:
        print(measure(tiny(FULL_SIZE[family]) if chosen.tiny else FULL_SIZE[family]), flush=True)


@torch.inference_mode()
def measure(size: Size) -> str:
    """Step times and memory, without and with the Predictor."""
    model = random_model(size)
    plain, plain_bytes = run(model, size)
    predictor = random_predictor(size)
    cached, cached_bytes = run(attach.attach_predictor(model, predictor, parse_anchors(ANCHORS)), size)
    full, predicted = statistics.median(plain.seconds_full), statistics.median(cached.seconds_predicted)
    anchor = statistics.median(cached.seconds_full)
    return (
        f"{size.row.title} {size}: full step {full:.4g} s (as an anchor {anchor:.4g} s), "
        f"predicted {predicted:.4g} s = {100 * predicted / full:.2f} %, run {cached.speedup:.2f} times as fast; "
        f"peak {plain_bytes / 1e9:.2f} GB, with Predictor {cached_bytes / 1e9:.2f} GB "
        f"(its weights {predictor.patcher.model_size() / 1e9:.2f} GB, features {cached.bytes_held / 1e9:.2f} GB)"
    )


def run(model, size: Size):
    """The report of one run after a warm-up run, and its peak memory on the GPU."""
    for _ in range(2):
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        sigmas = shifted_sigmas(STEPS, 7.0)
        _, report = sampling.sample(model, conditioning(size), None, 1.0, latent(size), seed=0, sigmas=sigmas)
    return report, torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0


if __name__ == "__main__":
    main()
