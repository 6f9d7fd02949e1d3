"""Seconds, peak memory and matrix rate of one iteration of each training at full size, with random weights.

    COMFYUI_PATH=... python benchmarks/training_steps.py [--tiny]

HunyuanVideo 1.5 at 848x480, 121 frames: CFG distillation and Restricted MeanFlow as LoRAs, the Predictor with its
discriminator; 1.0 at 704x704, 129 frames: the Predictor. For a GPU; `--tiny` runs the same code on any machine.
"""

import argparse
import time

import torch
from networks import FULL_SIZE, Size, dtype_and_device, random_model, tiny

import comfy.model_management  # isort: skip
from disca.training.network.lora import add_lora  # isort: skip
from disca.training.algorithms.cfg_distillation import CfgDistillation  # isort: skip
from disca.training.algorithms.meanflow_distillation import MeanFlowDistillation  # isort: skip
from disca.training.budget.memory import Job, operations, peak, Savings  # isort: skip
from disca.training.budget.sizes import sizes_of  # isort: skip
from disca.training.network.velocity import Network  # isort: skip
from disca.training.network.roles import Distillation, add_embedder  # isort: skip
from disca.training.engine.optimiser import make_optimiser  # isort: skip
from disca.training.algorithms.predictor_training import PredictorTraining  # isort: skip
from disca.training.contract.method_settings import PredictorSettings  # isort: skip
from disca.training.contract.settings import (  # isort: skip
    DataSettings,
    LoraSettings,
    ModelSettings,
    OptimiserSettings,
    Settings,
)

RANK = 64
ITERATIONS = 3  # the first warms up
JOBS = [("1.5", "cfg"), ("1.5", "meanflow"), ("1.5", "predictor"), ("1.0", "predictor")]


class Prompts:
    """A dataset's unconditional prompt."""

    def __init__(self, size: Size):
        self.null = {"context": torch.zeros(size.text_tokens, 3584)}


def main() -> None:
    """Prints one line for each training."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true")
    chosen = parser.parse_args()
    comfy.model_management.in_training = True
    rate = matrix_rate()
    print(f"torch {torch.__version__}, matrices at {rate / 1e12:.3g} TFLOP/s", flush=True)
    for family, algorithm in JOBS:
        size = tiny(FULL_SIZE[family]) if chosen.tiny else FULL_SIZE[family]
        print(measure(size, algorithm, rate), flush=True)


def measure(size: Size, algorithm: str, rate: float) -> str:
    """One training's iteration."""
    _, device = dtype_and_device()
    settings, training = made(size, algorithm, device)
    optimisers = {
        name: make_optimiser(part.optimiser, part.module.parameters(), 1e-5) for name, part in training.parts.items()
    }
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    *_, seconds = (iterate(training, optimisers, random_batch(size, device), device) for _ in range(ITERATIONS))
    network = training.network if algorithm == "predictor" else training.networks.student
    weights = {name: tuple(w.shape) for name, w in network.module.named_parameters() if ".adapter." not in name}
    sizes = sizes_of(weights, size.tokens)
    job = Job(algorithm, settings.lora.rank, adversarial=True, ema=False)
    share = operations(sizes, job) / seconds / rate
    found = torch.cuda.max_memory_allocated() / 1e9 if device.type == "cuda" else 0.0
    budget = sum(peak(sizes, job, Savings(recompute_blocks=True)).values()) / 1e9
    return (
        f"{size.row.title} {algorithm}: {seconds:.3g} s an iteration, {share:.0%} of the matrix rate, "
        f"peak {found:.1f} GB (computed {budget:.1f} GB)"
    )


def made(size: Size, algorithm: str, device: torch.device):
    """The settings and the training on a random network."""
    dtype, _ = dtype_and_device()
    settings = Settings(
        algorithm=algorithm,
        out="",
        data=DataSettings(""),
        model=ModelSettings(dtype="bf16" if dtype == torch.bfloat16 else "fp32"),
        optimizer=OptimiserSettings(ema=0.0),
        lora=LoraSettings(rank=0 if algorithm == "predictor" else RANK),
        predictor=PredictorSettings(mse_iterations=0),
    )
    network = Network(random_model(size).model.diffusion_model.requires_grad_(False), dtype=dtype)
    if algorithm == "predictor":
        return settings, PredictorTraining(settings, Prompts(size), device, network)
    add_embedder(network.module, "guidance_in" if algorithm == "cfg" else "time_r_in")
    lora = add_lora(network.module, RANK)
    kind = CfgDistillation if algorithm == "cfg" else MeanFlowDistillation
    return settings, kind(settings, Prompts(size), device, Distillation(network, lora, network, lora))


def iterate(training, optimisers: dict, batch: dict, device: torch.device) -> float:
    """Seconds of one iteration."""
    _wait(device)
    started = time.perf_counter()
    for loss in training.losses(batch, iteration=1000):
        loss.value.mean().backward()
    for optimiser in optimisers.values():
        optimiser.step()
        optimiser.zero_grad()
    _wait(device)
    return time.perf_counter() - started


def random_batch(size: Size, device: torch.device) -> dict:
    """One sample of that size."""
    config = size.row.config
    channels, pooled = config["out_channels"], config["vec_in_dim"]
    batch = {"latent": torch.randn(1, channels, *size.latent), "context": torch.randn(1, size.text_tokens, 3584)}
    if pooled:
        batch["y"] = torch.randn(1, pooled)
    if beside := config["in_channels"] - channels:
        batch["concat"] = torch.zeros(1, beside, *size.latent)
    return {name: value.to(device) for name, value in batch.items()} | {"index": torch.tensor([0])}


def matrix_rate() -> float:
    """Floating-point operations a second of a large matrix product."""
    dtype, device = dtype_and_device()
    n = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(n, n, dtype=dtype, device=device) for _ in range(2))
    best = min(_timed(lambda: a @ b, device) for _ in range(8))
    return 2 * n**3 / best


def _timed(run, device: torch.device) -> float:
    _wait(device)
    started = time.perf_counter()
    run()
    _wait(device)
    return time.perf_counter() - started


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
