"""What a run gives: its checkpoints, the export of its product, curves and previews."""

from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...messages import cause, quoted
from ..contract.protocol import Training
from ..records.curves import draw_curves
from ..records.log import read_log
from ..records.run_folder import RunFolder
from . import checkpoints
from .distributed import Processes, full_tensor
from .ema import Ema
from .meta import Progress
from .parts import Part
from .reporter import Reporter


@dataclass
class Results:
    """Writes them into the run's folder, and finds there where to go on."""

    folder: RunFolder
    training: Training
    parts: list[Part]  # the first is the product
    ema: Ema | None  # of the product
    fingerprint: dict[str, Any]
    processes: Processes
    reporter: Reporter
    keep: int  # checkpoints
    saved: Path | None = None  # the last checkpoint

    def resume(self, iteration: int | None = None) -> Progress:
        """Restores the newest checkpoint, if there is one; or that of an iteration, where later ones end to count."""
        if iteration is None:
            self.saved = checkpoints.newest(self.folder.checkpoints, self.reporter.say)
        else:
            self.saved = checkpoints.at(self.folder.checkpoints, iteration)
        self.processes.barrier()
        if self.saved is None:
            return Progress()
        progress = checkpoints.load(self.saved, self.parts, self.ema, self.fingerprint, self.processes)
        done, of = progress.iteration, self.training.iterations
        self.reporter.say(f"Going on from {quoted(self.saved)}, iteration {done:d} of {of:d}.")
        if done >= of and self.processes.is_main:  # nothing is left to do but this, which a kill may have prevented
            checkpoints.publish(self.saved / checkpoints.EXPORT, self.folder.export)
        return progress

    def save(self, progress: Progress) -> None:
        """Writes a checkpoint with an export, which then is the run's."""
        weights = self._product_weights()

        def export(folder: Path) -> None:
            if self.processes.is_main:
                folder.mkdir(parents=True)
            self.training.export(folder, weights)

        self.saved = checkpoints.save(
            self.folder.checkpoints, progress, self.parts, self.ema, self.fingerprint, self.processes, export, self.keep
        )
        if self.processes.is_main:
            checkpoints.publish(self.saved / checkpoints.EXPORT, self.folder.export)
            self._draw_curves()

    def preview(self, iteration: int) -> None:
        """Samples previews with the running average; only the main process writes them, once all have sampled."""
        path = self.folder.preview(iteration)
        if self.processes.is_main:
            with suppress(OSError):  # then the picture cannot be written either, which is said
                path.parent.mkdir(exist_ok=True)
        with self.ema.in_place() if self.ema is not None else nullcontext(), torch.no_grad():
            try:
                distances = self.training.preview(path if self.processes.is_main else None)
            except OSError as error:
                self.reporter.say(f"The previews could not be written ({cause(error.strerror)}). The training goes on.")
                return
        self.reporter.add_previews(distances)

    def _draw_curves(self) -> None:
        try:
            draw_curves(read_log(self.folder), self.folder.curves)
        except OSError as error:  # the checkpoint is what matters
            self.reporter.say(f"The curves could not be drawn ({cause(error.strerror)}).")

    def _product_weights(self) -> dict[str, Tensor] | None:
        """The running average of the product's trained weights, or the weights; None but in the main process."""
        averages = self.ema.average if self.ema is not None else {}
        found = {}
        for key, weight in self.parts[0].weights.items():
            tensor = full_tensor(averages.get(key, weight), self.processes)
            if tensor is not None:
                found[key] = tensor.to(weight.dtype)
        return found if self.processes.is_main else None
