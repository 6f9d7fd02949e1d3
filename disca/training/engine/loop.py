"""The training loop: from settings to an export, whatever is trained and however often it is interrupted."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ...messages import quoted
from ..contract.protocol import Made
from ..contract.settings import Settings
from ..records.lock import FolderInUseError, run_lock
from ..records.run_folder import RunFolder
from . import checkpoints
from .distributed import Processes, process_group, shard
from .ema import Ema
from .feed import Feed
from .iteration import Accumulator, Outcome
from .parts import Part
from .reporter import Reporter
from .results import Results
from .validation import Validation

MOST_BAD_IN_A_ROW = 8
MOST_ACCUMULATED = 2**16  # batches of an iteration: a checkpoint may say anything


def train(
    settings: Settings,
    make: Callable[[Settings, Processes], tuple],
    stop: Callable[[], bool] = lambda: False,
    resume_from: int | None = None,
) -> Path:
    """Trains to the end, or until `stop` says so, from the newest checkpoint on, or from that of an iteration.

    Gives the folder of the last export. `make` gives what `Made` consists of; the run's folder is this run's by then.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "Training cannot run in inference mode, where there are no gradients. "
            "Run it in its own process: python -m disca.training run.yaml."
        )
    with process_group(settings.device) as processes, _locked(Path(settings.out), processes):
        torch.manual_seed(settings.seed)
        run = TrainingRun(settings, Made(*make(settings, processes)), processes, resume_from)
        try:
            return run.go(stop)
        finally:
            run.close()


@contextmanager
def _locked(out: Path, processes: Processes) -> Iterator[None]:
    """The run's folder, which the main process holds for all; FolderInUseError in each if another run has it."""
    lock = run_lock(out)
    processes.main_first(
        lock.acquire, FolderInUseError("The main process could not take the run's folder, and says why.")
    )
    try:
        yield
    finally:
        lock.release()


class TrainingRun:
    """One run of the loop in one process: made at its start, closed at its end."""

    def __init__(self, settings: Settings, made: Made, processes: Processes, resume_from: int | None = None):
        training, dataset, held_out = made
        self.settings, self.training, self.processes = settings, training, processes
        self.folder = RunFolder(settings.out)
        self.reporter = Reporter(self.folder, training.iterations, processes)
        shard(training.shards(), [part.module for part in training.parts.values()], processes, settings.model.dtype)
        self.parts = [Part(name, part, training.iterations) for name, part in training.parts.items()]
        self.product = self.parts[0]
        self.ema = Ema(self.product.weights, settings.optimizer.ema) if settings.optimizer.ema else None
        fingerprint = checkpoints.fingerprint(settings, dataset.fingerprint, training.may_change)
        self.results = Results(
            self.folder, training, self.parts, self.ema, fingerprint, processes, self.reporter, settings.save.keep
        )
        self.progress = self.results.resume(resume_from)
        data = settings.data
        self.feed = Feed(dataset, settings.seed, processes, data.batch, self._accumulate(), data.caption_dropout)
        self.validation = Validation(training, held_out, settings, self.ema, processes) if held_out else None
        self.progress.samples = self.progress.samples or self.feed.samples
        self.accumulator = Accumulator(training, self.parts, processes, settings.seed)
        self.reporter.open(settings, self.progress)

    def go(self, stop: Callable[[], bool]) -> Path:
        """Iterates to the end or until it is to stop, saving on the way."""
        if not self._is_done():
            self._begin()
        self.reporter.open_bar()
        stopped = False

        def asked() -> bool:
            return self.processes.any(stop() or self.folder.asked_to_stop())

        while not stopped and not self._is_done():
            self._iterate(asked)
            stopped = asked()
            if stopped or self._due(self.settings.save.every):
                self.reporter.set_state("Saving")
                self.results.save(self.progress)
                self.reporter.set_state("Training")
            if self._due(self.settings.preview.every):
                self._preview()
        self.reporter.close_bar()
        self._end()
        return self.folder.export

    def close(self) -> None:
        """Stops the threads and closes the files."""
        self.feed.close()
        self.reporter.close()

    def _is_done(self) -> bool:
        return self.progress.iteration >= self.training.iterations

    def _accumulate(self) -> int:
        """How many batches give an iteration as many samples as when the run began, with other processes perhaps."""
        at_once = self.settings.data.batch * self.processes.size
        if not self.progress.samples:
            return self.settings.data.accumulate
        accumulate = max(1, round(self.progress.samples / at_once))
        if accumulate > MOST_ACCUMULATED:
            raise ValueError(
                f"An iteration of this run had {self.progress.samples:d} samples, which {self.processes.size:d} "
                f"processes with {self.settings.data.batch:d} each would need {accumulate:d} batches for. "
                f"At most {MOST_ACCUMULATED:d} are taken: go on with more processes, or choose another 'out' folder."
            )
        if accumulate * at_once != self.progress.samples:
            self.reporter.say(
                f"An iteration had {self.progress.samples:d} samples; {self.processes.size:d} processes with "
                f"{self.settings.data.batch:d} each cannot share them evenly, and take {accumulate * at_once:d}."
            )
        return accumulate

    def _begin(self) -> None:
        self.reporter.set_state("Checking the first batch")
        batch = self.feed.take(self.progress.position)[0][0]
        for line in self.training.probe({name: tensor.to(self.processes.device) for name, tensor in batch.items()}):
            self.reporter.say(line)
        if self.progress.iteration == 0 and self.settings.preview.every:
            self._preview()
        self.reporter.set_state("Training")

    def _iterate(self, asked_to_stop: Callable[[], bool]) -> None:
        started = time.monotonic()
        first, samples = self.progress.position, self.feed.samples
        positions = range(first, first + samples)
        outcome = self.accumulator.run(self.progress.iteration, self.feed.take(first), samples, positions)
        rates = {part.name: part.lr for part in self.parts if part.name in outcome.norms}
        for part in self.parts:
            if part.name in outcome.norms:
                part.update(outcome.norms[part.name])
            part.zero_grad()
        if self.ema is not None and self.product.name in outcome.norms:
            self.ema.update()
        self.progress.iteration += 1
        self.progress.position += samples
        line = self._line(outcome, rates, time.monotonic() - started)
        if self.validation and self._due(self.settings.validation.every):
            self._validate(line, asked_to_stop)
        self.reporter.add_iteration(line)
        self._check(outcome.bad, positions)

    def _validate(self, line: dict[str, Any], asked_to_stop: Callable[[], bool]) -> None:
        self.reporter.set_state("Validating")
        loss = self.validation.loss(asked_to_stop)
        if loss is not None:
            line["extra"]["validation"] = loss
        self.reporter.set_state("Training")

    def _line(self, outcome: Outcome, rates: dict[str, float], seconds: float) -> dict[str, Any]:
        """What the log says of an iteration."""
        return {
            "iteration": self.progress.iteration,
            **outcome.sums.means(),
            "lr": rates,
            "gradient_norm": outcome.norms,
            "seconds": round(seconds, 4),
            "skipped": [self.feed.index(position) for position in sorted(outcome.bad)],
        }

    def _check(self, bad: set[int], positions: range) -> None:
        """Names the samples that were left out; RuntimeError if too many came in a row."""
        for position in positions:
            self.progress.bad_in_a_row = self.progress.bad_in_a_row + 1 if position in bad else 0
            if position in bad:
                self.reporter.say(f"Skipped {self.feed.name(position)}: its data, loss or gradient is not finite.")
            if self.progress.bad_in_a_row > MOST_BAD_IN_A_ROW:
                saved = self.results.saved
                kept = f"The last checkpoint is kept: {quoted(saved)}" if saved else "No checkpoint was written yet"
                raise RuntimeError(
                    f"{self.progress.bad_in_a_row:d} samples in a row gave NaN or infinity, the last one "
                    f"{self.feed.name(position)}: the training stops at iteration {self.progress.iteration:d}. {kept}. "
                    "Check these samples; if they are sound, set a lower learning rate or dtype: fp32."
                )

    def _due(self, every: int) -> bool:
        return bool(every) and (self.progress.iteration % every == 0 or self._is_done())

    def _preview(self) -> None:
        self.reporter.set_state("Sampling previews")
        self.results.preview(self.progress.iteration)
        self.reporter.set_state("Training")

    def _end(self) -> None:
        if self.processes.is_main:
            self.folder.forget_stop()
        stopped = f"Stopped at iteration {self.progress.iteration:d}; start again to go on"
        message = "Done" if self._is_done() else stopped
        self.reporter.say(f"{message}. The result is in {quoted(self.folder.export)}.")
        self.reporter.set_state(message)
