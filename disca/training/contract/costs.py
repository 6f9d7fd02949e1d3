"""The trainings by their names in a run's settings, and what an iteration of each takes.

Pure data: settings are read and a run is planned before there is a ComfyUI. `choose.py` has the class of each.
"""

from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator

from ...messages import listing, quoted
from ...settings.fields import Text


@dataclass(frozen=True)
class Cost:
    """What an iteration takes beside the forward and backward pass of what is trained."""

    passes: int = 0  # of the network without gradient; a Predictor's are those of its pairs
    teacher: bool = True  # a second network, where all weights of the first are trained
    predictor: bool = False  # a Predictor is trained, as the section of that name says, and the network stays frozen
    adapters: bool = False  # what is trained may be a LoRA
    outputs: bool = False  # what is trained is small and sees the frozen network's outputs only


COSTS = {
    "flow": Cost(teacher=False),
    "cfg": Cost(passes=2, adapters=True),
    "meanflow": Cost(passes=3, adapters=True),
    "predictor": Cost(predictor=True),
    "lesa": Cost(outputs=True),
}


def require_adapters(algorithm: str, rank: int) -> None:
    """ValueError unless the training may be of a LoRA."""
    if not COSTS[algorithm].adapters:
        takes = listing([name for name, cost in COSTS.items() if cost.adapters], len(COSTS))
        raise ValueError(
            f"lora.rank is {rank:d}, but algorithm: {quoted(algorithm)} trains no LoRA. Leave it out, or take {takes}."
        )


def _known(name: str) -> str:
    if name not in COSTS:
        raise ValueError(f"'algorithm' is {quoted(name)}, but must be one of {listing([*COSTS], len(COSTS))}.")
    return name


Algorithm = Annotated[Text, AfterValidator(_known)]
