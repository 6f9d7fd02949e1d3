"""What a training needs: memory on a card by the settings that save it, and floating-point operations.

A unit is the activations of one width: tokens x width, of 2 bytes each in bf16. What a block saves for backward is
measured in units on ComfyUI's own blocks (`tests/training/test_memory.py` measures it anew); all else follows from
shapes.
"""

from dataclasses import dataclass
from itertools import product

from ..contract.costs import COSTS, Cost
from ..contract.method_settings import PairSettings, PredictorSettings
from ..contract.settings import Settings
from ..contract.torch_names import uses_torchao
from .sizes import Sizes

GB = 1e9

TRAINED, ADAPTED, FROZEN = 29.0, 25.0, 15.0  # units that one block saves: all weights trained, adapters, none
BACKWARD = 1.1  # a block's backward: what it saved, and gradients on their way
FUSION = 4.0  # units that the Predictor's fusion saves
TAPPED = 2.0  # units for each block that the discriminator sees: its features, and their gradient
HEAD_WIDTH, HEAD_KEEPS = 256, 6  # of a head of the discriminator, in fp32: its width, and how many of it are saved
GATHERED = 3  # blocks that several processes have whole: one at work, as it came and as it is used, and the next
RUNTIME = 2 * GB  # CUDA context, fragmentation

FP8, EMA = 1, 4  # bytes per weight
ADAMW = {"adamw": 16, "adamw_8bit": 10}  # fp32 weight, gradient, moments
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

    recompute_blocks: bool = False  # of what is trained: for a network the usual, for a Predictor to save memory
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
    if job.cost.predictor and not savings.recompute_blocks and sizes.number == 2:
        per_weight += 2  # the bf16 copies of fp32 weights in use, which wait for the backward pass
    return {
        "frozen weights": _frozen_weights(sizes, job, savings) / savings.gpus,
        "trained weights": trained * (per_weight + EMA * job.ema) / (1 if job.freezes else savings.gpus),
        "positions": sizes.positions,
        **_activations(sizes, job, savings),
        "runtime": RUNTIME,
    }


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


def cheapest(sizes: Sizes, job: Job, card: float, gpus: int = 1) -> Savings | None:
    """The savings that cost least and fit on a card of so many GB; None if none do."""
    swaps = range(sizes.blocks + 1) if job.freezes and gpus == 1 else range(1)
    checkpoints = (False, True) if job.cost.predictor else (True,)
    eight_bits = (False, True) if job.optimiser == "adamw" else (uses_torchao(job.optimiser),)
    switches = list(product((False, True), (False, True), eight_bits, checkpoints))
    choices = [(0, *chosen) for chosen in switches] + [(count, *chosen) for chosen in switches for count in swaps]
    for count, offload, fp8, adamw_8bit, recompute_blocks in choices:
        savings = Savings(recompute_blocks, adamw_8bit, fp8, offload, count, gpus)
        if sum(peak(sizes, job, savings).values()) <= card * GB:
            return savings
    return None


def _trained_weights(sizes: Sizes, job: Job) -> float:
    if job.cost.predictor:
        heads = job.discriminator_blocks * HEAD_WIDTH * (sizes.width + 3 * HEAD_WIDTH) if job.adversarial else 0
        return job.depth * sizes.last_block_weights + sizes.fusion_weights(job.features) + heads
    if job.cost.outputs:
        return job.experts
    if not job.rank:
        return sizes.weights
    return job.rank * sum(count * kind.size.adapted for kind, count in sizes.kinds) * sizes.width


def _frozen_weights(sizes: Sizes, job: Job, savings: Savings) -> float:
    per_weight = FP8 if savings.fp8 else sizes.number
    waiting = max(0, savings.swap - 2) / sizes.blocks  # one at work, one on its way
    if not job.cost.teacher and not job.rank:
        return 0.0
    return sizes.number * (sizes.weights - sizes.block_weights) + per_weight * sizes.block_weights * (1 - waiting)


def _activations(sizes: Sizes, job: Job, savings: Savings) -> dict[str, float]:
    if job.cost.outputs:
        return {"one block": FROZEN * sizes.unit, "tokens": 2 * sizes.unit}
    inputs = 0.0 if savings.offload else sizes.blocks * sizes.unit
    largest = sizes.number * sizes.largest_block_weights if savings.gpus > 1 else 0.0
    gathered = GATHERED * largest
    if not job.cost.predictor:
        saved = (ADAPTED if job.rank else TRAINED) * sizes.unit
        if not savings.recompute_blocks:
            return {"all blocks": sizes.blocks * saved + gathered, "tokens": 2 * sizes.unit}
        block = BACKWARD * saved
        return {"block inputs": inputs, "one block": block + gathered, "tokens": 2 * sizes.unit}
    units = FUSION + job.depth * (1.0 if savings.recompute_blocks else TRAINED)
    own = {"Predictor": units * sizes.unit, "features": (1 + job.features) * sizes.unit}
    recomputed = TRAINED * sizes.unit if savings.recompute_blocks else 0.0
    if not job.adversarial:
        return own | {"one block": max(recomputed, gathered)}
    # the heads let go of what they saved before the first block is recomputed, and all blocks before the Predictor is
    tapped, heads = TAPPED * job.discriminator_blocks * sizes.unit, job.discriminator_blocks * _head(sizes)
    at_work = FROZEN * BACKWARD * sizes.unit + gathered - largest  # which comes last going back: there is no next
    judged = tapped + max(heads, at_work)
    return own | {"adversarial term": max(inputs + judged, recomputed)}


def _head(sizes: Sizes) -> float:
    """Bytes that a head saves: what it normalises and the result in fp32, then what it makes of that."""
    copies = 1 if sizes.number == 4 else 2
    return 4.0 * sizes.tokens * sizes.batch * (copies * sizes.width + HEAD_KEEPS * HEAD_WIDTH)


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


def savings_of_run(settings: Settings) -> Savings:
    """What the settings save."""
    return Savings(
        settings.memory.recompute_blocks,
        uses_torchao(settings.optimizer.name),
        settings.model.weight_dtype == "fp8_e4m3fn",
        settings.memory.offload_activations,
        settings.memory.swap_blocks,
    )
