"""The log as TensorBoard event files, where its package is installed: it is not part of ComfyUI's environment."""

import logging
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


class Events:
    """One event file of a run; a resumed run writes another, which takes over from its first iteration."""

    def __init__(self, folder: Path, iteration: int):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            self._writer = None
            log.info("There will be no TensorBoard files: the package tensorboard is not installed.")
            return
        self._writer = SummaryWriter(folder, purge_step=iteration + 1)

    def add(self, line: dict[str, Any]) -> None:
        """Writes an iteration's line of the log."""
        self._write(_scalars(line), line["iteration"])

    def add_previews(self, iteration: int, distances: dict[str, float]) -> None:
        """Writes how far apart the rows of the previews were."""
        self._write({f"previews/{name}": value for name, value in distances.items()}, iteration)

    def close(self) -> None:
        """Closes the file."""
        if self._writer:
            self._writer.close()

    def _write(self, scalars: dict[str, float], step: int) -> None:
        if self._writer:
            for tag, value in scalars.items():
                self._writer.add_scalar(tag, value, step)
            self._writer.flush()


def _scalars(line: dict[str, Any]) -> dict[str, float]:
    bands = {
        f"loss by t/{name} {place / len(values):.2f}-{(place + 1) / len(values):.2f}": value
        for name, values in line["bands"].items()
        for place, value in enumerate(values)
    }
    groups = {"loss": line["loss"], "extra": line["extra"], "lr": line["lr"], "gradient norm": line["gradient_norm"]}
    named = {f"{group}/{name}": value for group, values in groups.items() for name, value in values.items()}
    return {tag: value for tag, value in (named | bands | {"seconds": line["seconds"]}).items() if value is not None}
