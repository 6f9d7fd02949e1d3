"""The plan of a run before it starts: what it needs, how long it takes, and what makes it fit on a card."""

from dataclasses import replace

from ..contract.settings import MemorySettings, Settings
from .memory import GB, Job, Savings, cheapest, job_of_run, operations, peak, savings_of_run
from .sizes import Sizes, sizes_of_run

CARDS = {24: 66e12, 48: 145e12, 80: 400e12, 141: 400e12}  # GB: 40 % of what an RTX 4090, L40S, H100, H200 do a second


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
    needs = peak(sizes, job, savings_of_run(settings))
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
