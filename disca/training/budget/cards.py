"""Settings that fit on a card, from the budget of `memory`."""

from dataclasses import replace

from ..contract.settings import MemorySettings, Settings
from . import memory


def fitted(settings: Settings, card: float) -> Settings:
    """The run with the savings that cost least on a card of so many GB; ValueError if none suffice."""
    sizes, job = memory.sizes_of_run(settings), memory.job_of_run(settings)
    savings = memory.cheapest(sizes, job, card)
    if savings is None:
        raise ValueError(
            f"This run does not fit on a card of {card:.0f} GB, whatever is saved. Build the dataset of shorter or "
            "smaller clips, train a LoRA instead of all weights, or set the memory yourself to try all the same.\n"
            + memory.table(settings)
        )
    return replace(
        settings,
        model=replace(settings.model, weight_dtype="fp8_e4m3fn" if savings.fp8 else settings.model.weight_dtype),
        optimizer=replace(settings.optimizer, name="adamw_8bit" if savings.adamw_8bit else settings.optimizer.name),
        memory=MemorySettings(True, savings.offload, savings.swap),
    )
