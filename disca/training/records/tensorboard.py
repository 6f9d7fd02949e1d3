"""The log as TensorBoard event files, where its package is installed: it is not part of ComfyUI's environment."""

import logging
from pathlib import Path

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

    def write(self, scalars: dict[str, float], step: int) -> None:
        """Writes figures of an iteration."""
        if self._writer:
            for tag, value in scalars.items():
                self._writer.add_scalar(tag, value, step)
            self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        if self._writer:
            self._writer.close()
