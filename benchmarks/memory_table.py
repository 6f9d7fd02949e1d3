"""The README's tables of what trainings need: the cheapest settings for each size of card, computed from shapes.

python benchmarks/memory_table.py
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from disca.training.budget.memory import GB, Job, cheapest, peak
from disca.training.budget.plan import CARDS, total_operations
from disca.training.budget.sizes import PUBLISHED
from disca.training.contract.settings import DataSettings, Settings

ROWS = {
    "Predictor, squared error, 1.5": ("1.5", Job("predictor")),
    "Predictor with discriminator, 1.5": ("1.5", Job("predictor", adversarial=True)),
    "MeanFlow LoRA of rank 64, 1.5": ("1.5", Job("meanflow", rank=64)),
    "MeanFlow, all weights, 1.5": ("1.5", Job("meanflow")),
    "Predictor, squared error, 1.0": ("1.0", Job("predictor")),
    "Predictor with discriminator, 1.0": ("1.0", Job("predictor", adversarial=True)),
    "MeanFlow LoRA of rank 64, 1.0": ("1.0", Job("meanflow", rank=64)),
}


def main() -> None:
    """A line for each training and card, then the work of the default Predictor iterations."""
    for name, (family, job) in ROWS.items():
        for card in CARDS:
            sys.stdout.write(f"{name:36s} {card:4d} GB: {needed(family, job, card)}\n")
    for family, sizes in PUBLISHED.items():
        work = total_operations(sizes, Settings("predictor", out="", data=DataSettings(path="")))
        hours = ", ".join(f"{card} GB: {work / rate / 3600:.0f} h" for card, rate in CARDS.items())
        sys.stdout.write(f"200 + 100 Predictor iterations of one sample, {family}: at least {hours}\n")


def needed(family: str, job: Job, card: int) -> str:
    """Memory on one card, or on each of eight, and the settings that make it fit."""
    for gpus in (1, 8):
        savings = cheapest(PUBLISHED[family], job, card, gpus)
        if savings is not None:
            memory = sum(peak(PUBLISHED[family], job, savings).values()) / GB
            return f"{'8 cards: ' if gpus > 1 else ''}{memory:.1f} GB, {savings}"
    return "no"


if __name__ == "__main__":
    main()
