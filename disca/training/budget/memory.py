"""What a training needs: memory on a card by the settings that save it, and floating-point operations.

A unit is the activations of one width: tokens x width x 2 bytes. What a block saves for backward is measured in units
on ComfyUI's own blocks (`tests/training/test_memory.py` measures it anew); all else follows from shapes.
"""

from dataclasses import dataclass, replace
from itertools import product

from ..contract.costs import COSTS, Cost
from ..contract.method_settings import PairSettings, PredictorSettings
from ..contract.settings import MemorySettings, Settings
from ..contract.torch_names import uses_torchao
from .sizes import Sizes, sizes_of_run

GB = 1e9
CARDS = {24: 66e12, 48: 145e12, 80: 400e12, 141: 400e12}  # GB: 40 % of what an RTX 4090, L40S, H100, H200 do a second

TRAINED, ADAPTED, FROZEN = 29.0, 25.0, 15.0  # units that one block saves: all weights trained, adapters, none
BACKWARD = 1.5  # a block's backward on top of what it saved
FUSION = 4.0  # units that the Predictor's fusion saves
HEAD, TAPPED = 6.0, 2.0  # units for each block that the discriminator sees: saved by its head; features and gradient
RUNTIME = 2 * GB  # CUDA context, fragmentation

BF16, FP8, EMA = 2, 1, 4  # bytes per weight
ADAMW = {"adamw": 18, "adamw_8bit": 12}  # fp32 weight, gradient, moments, and the bf16 copy in use
ADAMW8BIT_BF16 = 6  # bf16 weight and gradient, two moments of one byte: all weights trained with adamw_8bit


@dataclass(frozen=True)
class Job:
    """What is trained, by settings that change the result."""

    algorithm: str
    rank: int = 0
    adversarial: bool = False
    depth: int = 2  # of the Predictor
    discriminator_blocks: int = 4
    ema: bool = True
    passes: float = 0.0  # of the network, where only its outputs are looked at
    experts: int = 0  # weights of what looks at them
    pairs: PairSettings = PredictorSettings().pairs
    features: int = PredictorSettings().features  # that the Predictor sees
    full_steps: int = PredictorSettings().full_steps  # pairs of a sample
    optimiser: str = "adamw"

    @property
    def cost(self) -> Cost:
        """What its training says of itself."""
        return COSTS[self.algorithm]

    @property
    def freezes(self) -> bool:
        """Whether the network itself stays as it is."""
        return self.cost.predictor or self.cost.outputs or self.rank > 0


@dataclass(frozen=True)
class Savings:
    """The settings that trade something else for memory, from the cheapest to the dearest."""

    recompute_blocks: bool = False  # the Predictor's blocks too; the network's always are
    adamw_8bit: bool = False
    fp8: bool = False
    offload: bool = False
    swap: int = 0
    gpus: int = 1

    def __str__(self) -> str:
        chosen = {
            "memory.recompute_blocks": self.recompute_blocks,
            "optimizer.name: adamw_8bit": self.adamw_8bit,
            "model.weight_dtype: fp8_e4m3fn": self.fp8,
            "memory.offload_activations": self.offload,
            f"memory.swap_blocks: {self.swap:d}": self.swap > 0,
        }
        return ", ".join(name for name, on in chosen.items() if on) or "nothing to be saved"


def peak(sizes: Sizes, job: Job, savings: Savings) -> dict[str, float]:
    """Bytes on each card at the worst moment of an iteration, by what they are for."""
    trained = _trained_weights(sizes, job)
    per_weight = ADAMW["adamw_8bit" if savings.adamw_8bit else "adamw"]
    if not job.freezes and savings.adamw_8bit:
        per_weight = ADAMW8BIT_BF16
    needs = {
        "frozen weights": _frozen_weights(sizes, job, savings) / savings.gpus,
        "trained weights": trained * (per_weight + EMA * job.ema) / savings.gpus,
        **_activations(sizes, job, savings),
        "runtime": RUNTIME,
    }
    if savings.gpus > 1:
        needs["gathered blocks"] = 4 * BF16 * sizes.block_weights / sizes.blocks  # two blocks of two networks
    return needs


def operations(sizes: Sizes, job: Job) -> float:
    """Floating-point operations of one iteration."""
    linear, attention = sizes.forward()
    once, with_gradient = linear + attention, 2 * (linear + attention) + 2.5 * attention  # forward, recompute, backward
    if job.cost.outputs:
        return job.passes * once
    if not job.cost.predictor:
        return job.cost.passes * once + with_gradient + (1 if job.rank else 2) * linear
    predictor, (drawn, led) = sizes.predictor(job.depth, job.features), job.pairs.passes(job.full_steps, job.features)
    total = drawn * once + (4 * job.full_steps + led) * predictor
    return total + job.full_steps * (once + with_gradient + linear) if job.adversarial else total


def total_operations(sizes: Sizes, settings: Settings) -> float:
    """Floating-point operations of the whole run on one process."""
    return settings.data.accumulate * sum(count * operations(sizes, job) for count, job in _phases(settings))


def _phases(settings: Settings) -> list[tuple[int, Job]]:
    """How many iterations do what: a Predictor's have two phases."""
    job, predictor = job_of_run(settings), settings.predictor
    if job.cost.outputs:
        return [(settings.lesa.iterations, job)]
    if not job.cost.predictor:
        return [(settings.iterations, job)]
    plain, adversarial = replace(job, adversarial=False), replace(job, adversarial=True)
    return [(predictor.mse_iterations, plain), (predictor.gan_iterations, adversarial)]


def cheapest(sizes: Sizes, job: Job, card: float, gpus: int = 1) -> Savings | None:
    """The savings that cost least and fit on a card of so many GB; None if none do."""
    swaps = range(sizes.blocks + 1) if job.freezes and gpus == 1 else range(1)
    checkpoints = (False, True) if job.cost.predictor else (False,)
    eight_bits = (False, True) if job.optimiser == "adamw" else (uses_torchao(job.optimiser),)
    switches = list(product((False, True), (False, True), eight_bits, checkpoints))
    choices = [(0, *chosen) for chosen in switches] + [(count, *chosen) for chosen in switches for count in swaps]
    for count, offload, fp8, adamw_8bit, recompute_blocks in choices:
        savings = Savings(recompute_blocks, adamw_8bit, fp8, offload, count, gpus)
        if sum(peak(sizes, job, savings).values()) <= card * GB:
            return savings
    return None


def fitted(settings: Settings, card: float) -> Settings:
    """The run with the savings that cost least on a card of so many GB; ValueError if none suffice."""
    savings = cheapest(sizes_of_run(settings), job := job_of_run(settings), card)
    if savings is None:
        raise ValueError(
            f"This run does not fit on a card of {card:.0f} GB, whatever is saved. Build the dataset of shorter or "
            "smaller clips, train a LoRA instead of all weights, or set the memory yourself to try all the same.\n"
            + table(settings)
        )
    name = "adamw_8bit" if savings.adamw_8bit and job.optimiser == "adamw" else job.optimiser
    return replace(
        settings,
        model=replace(settings.model, weight_dtype="fp8_e4m3fn" if savings.fp8 else settings.model.weight_dtype),
        optimizer=replace(settings.optimizer, name=name),
        memory=MemorySettings(True, savings.offload, savings.swap),
    )


def table(settings: Settings) -> str:
    """What the run of these settings needs, and what would make it fit on each size of card."""
    sizes, job = sizes_of_run(settings), job_of_run(settings)
    needs = peak(sizes, job, _savings(settings))
    parts = ", ".join(f"{name} {need / GB:.1f}" for name, need in needs.items())
    work, samples = total_operations(sizes, settings), sizes.batch * settings.data.accumulate
    iterations = sum(count for count, _ in _phases(settings))
    lines = [
        f"{settings.algorithm} on a network of {sizes.weights / 1e9:.3g} billion weights, "
        f"{sizes.tokens:,} tokens, batch {sizes.batch:d}",
        f"memory with these settings: {sum(needs.values()) / GB:.1f} GB ({parts})",
        f"work: {work / 1e15:,.3f} PFLOP on each card for {iterations:d} iterations of {samples:d} samples",
        "",
        "card     needed    at least   settings",
    ]
    return "\n".join(lines + [_row(sizes, job, card, work / rate) for card, rate in CARDS.items()])


def _row(sizes: Sizes, job: Job, card: int, seconds: float) -> str:
    for gpus in (1, 8):
        savings = cheapest(sizes, job, card, gpus)
        if savings is not None:
            need = sum(peak(sizes, job, savings).values()) / GB
            cards = f"{card} GB" if gpus == 1 else f"{gpus} x {card}"
            return f"{cards:8} {need:5.1f} GB {seconds / 3600:7.1f} h   {savings}"
    most = Savings(True, True, True, True, sizes.blocks * job.freezes)
    return (
        f"{card:3} GB   {sum(peak(sizes, job, most).values()) / GB:5.1f} GB does not fit: take shorter or smaller clips"
    )


def _trained_weights(sizes: Sizes, job: Job) -> float:
    if job.cost.predictor:
        return job.depth * sizes.last_block_weights + sizes.fusion_weights(job.features)
    if job.cost.outputs:
        return job.experts
    if not job.rank:
        return sizes.weights
    return job.rank * sum(count * kind.size.adapted for kind, count in sizes.kinds) * sizes.width


def _frozen_weights(sizes: Sizes, job: Job, savings: Savings) -> float:
    per_weight = FP8 if savings.fp8 else BF16
    waiting = max(0, savings.swap - 2) / sizes.blocks  # one at work, one on its way
    if not job.cost.teacher and not job.rank:
        return 0.0
    return BF16 * (sizes.weights - sizes.block_weights) + per_weight * sizes.block_weights * (1 - waiting)


def _activations(sizes: Sizes, job: Job, savings: Savings) -> dict[str, float]:
    if job.cost.outputs:
        return {"one block": FROZEN * sizes.unit, "tokens": 2 * sizes.unit}
    inputs = 0.0 if savings.offload else sizes.blocks * sizes.unit
    if not job.cost.predictor:
        block = (ADAPTED if job.rank else TRAINED) * BACKWARD * sizes.unit
        return {"block inputs": inputs, "one block": block, "tokens": 2 * sizes.unit}
    units = FUSION + job.depth * (1.0 if savings.recompute_blocks else TRAINED)
    own = {"Predictor": units * sizes.unit, "features": (1 + job.features) * sizes.unit}
    recomputed = TRAINED * sizes.unit if savings.recompute_blocks else 0.0
    if not job.adversarial:
        return own | {"one block": recomputed}
    # the heads let go of what they saved before the first block is recomputed, and all blocks before the Predictor is
    judged = max(HEAD * job.discriminator_blocks, FROZEN * BACKWARD + TAPPED * job.discriminator_blocks) * sizes.unit
    return own | {"adversarial term": max(inputs + judged, recomputed)}


def job_of_run(settings: Settings) -> Job:
    """What the settings train."""
    predictor = settings.predictor
    return Job(
        settings.algorithm,
        rank=settings.lora.rank,
        adversarial=COSTS[settings.algorithm].predictor and predictor.gan_iterations > 0,
        depth=predictor.depth,
        discriminator_blocks=predictor.discriminator_blocks,
        ema=settings.optimizer.ema > 0,
        passes=settings.lesa.passes,
        experts=settings.lesa.weights,
        pairs=predictor.pairs,
        features=predictor.features,
        full_steps=predictor.full_steps,
        optimiser=settings.optimizer.name,
    )


def _savings(settings: Settings) -> Savings:
    return Savings(
        settings.memory.recompute_blocks,
        uses_torchao(settings.optimizer.name),
        settings.model.weight_dtype == "fp8_e4m3fn",
        settings.memory.offload_activations,
        settings.memory.swap_blocks,
    )
