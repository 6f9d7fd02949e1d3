"""What a run says on its way: on the console, in its log and state, and for those who draw curves."""

import logging
from typing import Any

from tqdm import tqdm

from ..contract.settings import Settings
from ..contract.yaml_settings import write_settings
from ..records.log import Records
from ..records.run_folder import RunFolder
from ..records.scalars import scalars_of
from ..records.tensorboard import Events
from ..records.wandb_run import WandbRun
from .distributed import Processes
from .meta import Progress

log = logging.getLogger(__name__)


class Reporter:
    """Speaks for all processes in the main one, and is silent in the others."""

    def __init__(self, folder: RunFolder, iterations: int, processes: Processes):
        self._folder, self._iterations, self._is_main = folder, iterations, processes.is_main
        self._progress = Progress()
        self._records: Records | None = None
        self._shown_by: list[Events | WandbRun] = []
        self._bar: tqdm | None = None

    def open(self, settings: Settings, progress: Progress) -> None:
        """Makes the run's folder, and begins its records after the iterations that are done."""
        self._progress = progress
        if not self._is_main:
            return
        self._folder.path.mkdir(parents=True, exist_ok=True)
        self._folder.forget_stop()
        write_settings(settings, self._folder.settings)
        self._records = Records(self._folder, self._iterations, progress.iteration)
        self._shown_by = [Events(self._folder.tensorboard, progress.iteration)]
        if settings.log.wandb:
            self._shown_by.append(WandbRun(settings, self._folder.path))

    def say(self, line: str) -> None:
        """Prints a line."""
        if self._is_main:
            log.info(line)

    def set_state(self, message: str, now: bool = True) -> None:
        """Says what the run is at to those who watch its folder."""
        if self._records:
            self._records.set_state(self._progress.iteration, message, now)

    def open_bar(self) -> None:
        """Shows how far the run is, until `close_bar`."""
        done = self._progress.iteration
        self._bar = tqdm(total=self._iterations, initial=done, disable=not self._is_main, unit="it")

    def close_bar(self) -> None:
        """Leaves the bar as it is; what is printed next stands below it."""
        if self._bar is not None:
            self._bar.close()

    def add_iteration(self, line: dict[str, Any]) -> None:
        """Writes an iteration's line of the log."""
        if not self._is_main:
            return
        self._records.add(line)
        self._show(scalars_of(line))
        self._bar.update()
        losses = {name: f"{loss:.4g}" for name, loss in line["loss"].items() if loss is not None}
        self._bar.set_postfix(losses, refresh=False)
        if (validation := line["extra"].get("validation")) is not None:
            self.say(f"Validation of iteration {line['iteration']:d}: {validation:.4g}.")
        self.set_state("Training", now=False)

    def add_previews(self, distances: dict[str, float]) -> None:
        """Says how far apart the rows of the previews are."""
        if not distances or not self._is_main:
            return
        self._show({f"previews/{name}": value for name, value in distances.items()})
        listed = ", ".join(f"{name} {value:.4g}" for name, value in distances.items())
        self.say(f"Previews of iteration {self._progress.iteration:d}: {listed}.")

    def close(self) -> None:
        """Closes bar and files."""
        self.close_bar()
        for shown_by in self._shown_by:
            shown_by.close()

    def _show(self, scalars: dict[str, float]) -> None:
        for shown_by in self._shown_by:
            shown_by.write(scalars, self._progress.iteration)
