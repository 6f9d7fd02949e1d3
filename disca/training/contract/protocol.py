"""What the loop asks of a training, and what it gets back."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from .settings import ModelSettings, OptimiserSettings

BANDS = 4  # of t, in which losses are logged: [0, 1/4), ... [3/4, 1]

Sample = dict[str, Tensor]
Batch = dict[str, Tensor]  # with a leading batch dimension, and index [B]: each sample's position in the whole training


class Loss(NamedTuple):
    """One loss of a batch."""

    name: str  # the part it trains
    value: Tensor  # [B], each sample's loss, differentiable
    t: Tensor  # [B], its time, for the curves
    extra: dict[str, float] = {}  # never written to
    weight: Tensor | float = 1.0  # [B], of each sample beside the others; curves show the value without it


class Trainable(NamedTuple):
    """What is optimised, and how its weights move."""

    module: nn.Module
    optimiser: OptimiserSettings  # its learning rate is meant as it is: 0 is 0


def trainable(module: nn.Module, settings: OptimiserSettings, lr: float) -> Trainable:
    """The module with the learning rate of the settings, or this one where they leave it to the training."""
    return Trainable(module, replace(settings, lr=settings.lr or lr))


class Samples(Protocol):
    """The samples that are trained on, by index."""

    fingerprint: str
    null: Sample  # the text inputs of the empty caption

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> Sample: ...


class Made(NamedTuple):
    """A training, the samples it is trained on, and those that are held out for validation."""

    training: "Training"
    samples: Samples
    held_out: Samples | None = None


class Training(Protocol):
    """One algorithm on one model. All draws come from (seed, index of the sample)."""

    parts: dict[str, Trainable]  # the first is the product
    iterations: int  # of the whole run
    may_change: frozenset[str]  # settings that a run may go on with another value of, beside those of all trainings

    def losses(self, batch: Batch, iteration: int) -> Iterator[Loss]:
        """One loss at a time; backward runs before the next is asked for. Gradients reach only the part it names."""
        ...

    def probe(self, batch: Batch) -> list[str]:
        """Lines to print at the start, warnings among them."""
        ...

    def preview(self, path: Path | None) -> dict[str, float]:
        """Samples with fixed seeds; writes a picture at the path, which only the main process is given.

        Gives distances worth watching by name, such as that of the student's samples to the teacher's.
        """
        ...

    def export(self, folder: Path, weights: dict[str, Tensor] | None) -> None:
        """Writes what the inference nodes load, with these trained weights of the product in place of its own.

        None: not this process's to write; all processes ask, as it may take weights that are spread over them.
        """
        ...

    @staticmethod
    def load(model: ModelSettings, export: Path) -> Any:
        """What the graph takes of an export of a run on that model: a MODEL, or a LoadedPredictor."""
        ...

    def shards(self) -> list[nn.Module]:
        """The modules whose weights are spread over processes, inner ones first."""
        ...
