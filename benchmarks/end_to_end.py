"""The whole way at full size: seconds, speed-up and memory of each setting, with stock attention and with the best.

    COMFYUI_PATH=... python benchmarks/end_to_end.py [--family 1.0 1.5] [--tiny] [--attention auto] [--compile]

Networks have random weights, which changes no time. DisCa rows are run as they are; longer ones are their number of
calls times the measured full call, and marked so. For a GPU; `--tiny` runs the same code small on any machine.
"""

import argparse
import statistics

import torch
from networks import FULL_SIZE, Size, conditioning, dtype_and_device, latent, random_model, random_predictor, tiny

from disca.host import attach, sampling, speed  # isort: skip
from disca.meanflow import shifted_sigmas  # isort: skip
from disca.schedule import PRESETS, Interval  # isort: skip
from disca.training.budget.sizes import Sizes  # isort: skip

FULL_THEN_PREDICTED = Interval(2, warmup=1, last_step=False)


def main() -> None:
    """Prints a table for each family and attention."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--family", nargs="+", default=list(FULL_SIZE), choices=list(FULL_SIZE))
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--attention", default="auto", choices=["auto", "cudnn"])
    parser.add_argument("--compile", action="store_true")
    chosen = parser.parse_args()
    _, device = dtype_and_device()
    print(f"torch {torch.__version__}, {torch.cuda.get_device_name() if device.type == 'cuda' else 'CPU'}")
    for family in chosen.family:
        size = tiny(FULL_SIZE[family]) if chosen.tiny else FULL_SIZE[family]
        table(size, chosen.attention, chosen.compile)


@torch.inference_mode()
def table(size: Size, attention: str, compiled: bool) -> None:
    """The rows of one family; speed-ups are over 50 steps with guidance in stock attention."""
    model, predictor = random_model(size), random_predictor(size)
    print(f"\n{size.row.title}, latent {size.latent}, {size.tokens:,} tokens, width {size.width}")
    print(f"{'setting':58} {'seconds':>9} {'speed-up':>9} {'theory':>7} {'peak GB':>8}")
    reference = None
    for label, kernel, compile_blocks in (("stock", "comfy", False), ("best", attention, compiled)):
        fast = speed.speed_up(model, kernel, compile_blocks)
        report, memory = run(fast, fast, size, 4)
        warm_up = attach.attach_predictor(fast, predictor, FULL_THEN_PREDICTED)
        full = statistics.median(report.seconds_full)
        reference = reference or 100 * full
        rows = [("original 50 steps with CFG", 100), ("CFG-distilled 50 steps", 50)]
        rows.append((f"R-MeanFlow {size.steps} steps", size.steps))
        for name, calls in rows:
            show(f"{name}, {label} (extrapolated)", calls * full, reference, reference / (calls * full), memory)
        for name in filter(lambda preset: preset.startswith(size.row.title), PRESETS):
            cached = attach.attach_predictor(fast, predictor, PRESETS[name])
            report, memory = run(cached, warm_up, size, PRESETS[name].steps)
            seconds = sum(report.seconds_full) + sum(report.seconds_predicted)
            theory = reference / (full * (report.full + report.predicted * predicted_share(size)))
            show(f"DisCa {name}, {label}", seconds, reference, theory, memory)


def run(model, warm_up, size: Size, steps: int):
    """The report of a run after two steps of another MODEL to warm up with, and its peak memory on the GPU."""
    for target, count in ((warm_up, 2), (model, steps)):
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        sigmas = shifted_sigmas(count, size.shift)
        _, report = sampling.sample(target, conditioning(size), None, 1.0, latent(size), seed=0, sigmas=sigmas)
    return report, torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0


def show(name: str, seconds: float, reference: float, theory: float, memory: int) -> None:
    """One row."""
    print(f"{name:58} {seconds:9.2f} {reference / seconds:9.2f} {theory:7.2f} {memory / 1e9:8.2f}", flush=True)


def predicted_share(size: Size) -> float:
    """Operations of a predicted step over those of a full one."""
    shape = Sizes(size.row, size.width, size.blocks, 0, 0, size.tokens)
    return shape.predictor(depth=2, features=1) / sum(shape.forward())


if __name__ == "__main__":
    main()
