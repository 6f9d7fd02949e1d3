"""The training loop: from settings to an export, whatever is trained and however often it is interrupted."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from ...messages import cause, quoted
from ..contract.protocol import Samples, Training
from ..contract.settings import Settings
from ..contract.yaml_settings import write_settings
from ..records.curves import draw_curves
from ..records.lock import FolderInUseError, run_lock
from ..records.log import Records, read_log
from ..records.run_folder import RunFolder
from ..records.tensorboard import Events
from . import checkpoints
from .checkpoints import Progress
from .distributed import World, joined, shard, whole
from .ema import Ema
from .feed import Feed
from .iteration import Accumulator, Outcome
from .parts import Part

MOST_BAD_IN_A_ROW = 8
MOST_ACCUMULATED = 2**16  # batches of an iteration: a checkpoint may say anything

log = logging.getLogger(__name__)


Made = tuple[Training, Samples]


def train(
    settings: Settings, make: Callable[[Settings, torch.device], Made], stop: Callable[[], bool] = lambda: False
) -> Path:
    """Trains to the end, or until `stop` says so, from the newest checkpoint on; gives the folder of the last export.

    `make` gives the training and its samples.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError(
            "Training cannot run in inference mode, where there are no gradients. "
            "Run it in its own process: python -m disca.training run.yaml."
        )
    with joined(settings.device) as world, _held(Path(settings.out), world):
        torch.manual_seed(settings.seed)
        training, dataset = make(settings, world.device)
        run = Run(settings, training, dataset, world)
        try:
            return run.go(stop)
        finally:
            run.close()


@contextmanager
def _held(out: Path, world: World) -> Iterator[None]:
    """The run's folder, which the leading process holds for all; FolderInUseError in each if another run has it."""
    lock, failure = run_lock(out), None
    try:
        if world.leads:
            lock.acquire()
    except (FolderInUseError, OSError) as error:
        failure = error
    if world.most(int(failure is not None)):
        raise failure or FolderInUseError("The leading process could not take the run's folder, and says why.")
    try:
        yield
    finally:
        lock.release()


class Run:
    """One run of the loop in one process: made at its start, closed at its end."""

    def __init__(self, settings: Settings, training: Training, dataset: Samples, world: World):
        self.settings, self.training, self.world = settings, training, world
        self.folder = RunFolder(settings.out)
        shard(training.shards(), [part.module for part in training.parts.values()], world, settings.model.dtype)
        self.parts = [Part(name, part, training.iterations) for name, part in training.parts.items()]
        self.product = self.parts[0]
        self.ema = Ema(self.product.weights, settings.optimiser.ema) if settings.optimiser.ema else None
        self.fingerprint = checkpoints.fingerprint(settings, dataset.fingerprint, training.may_change)
        self.progress, self.saved = self._resume()
        self.feed = Feed(dataset, settings.seed, world, settings.data.batch, self._accumulate())
        self.progress.samples = self.progress.samples or self.feed.samples
        self.accumulator = Accumulator(training, self.parts, world, settings.seed)
        self.records, self.events = self._open_records() if world.leads else (None, None)

    def go(self, stop: Callable[[], bool]) -> Path:
        """Iterates to the end or until it is to stop, saving on the way."""
        if self.progress.iteration < self.training.iterations:
            self._begin()
        with tqdm(
            total=self.training.iterations, initial=self.progress.iteration, disable=not self.world.leads, unit="it"
        ) as bar:
            while self.progress.iteration < self.training.iterations:
                self._iterate(bar)
                stopped = bool(self.world.most(int(stop() or self.folder.asked_to_stop())))
                if stopped or self._due(self.settings.save.every):
                    self._save()
                if self._due(self.settings.preview.every):
                    self._preview()
                if stopped:
                    break
        self._end()
        return self.folder.export

    def close(self) -> None:
        """Stops the threads and closes the files."""
        self.feed.close()
        if self.events:
            self.events.close()

    def _resume(self) -> tuple[Progress, Path | None]:
        found = checkpoints.newest(self.folder.checkpoints, self._say)
        self.world.barrier()
        if found is None:
            return Progress(), None
        progress = checkpoints.load(found, self.parts, self.ema, self.fingerprint, self.world)
        self._say(f"Going on from {quoted(found)}, iteration {progress.iteration:d} of {self.training.iterations:d}.")
        return progress, found

    def _accumulate(self) -> int:
        """As many micro-batches that an iteration has the samples it had when the run began, with other processes."""
        at_once = self.settings.data.batch * self.world.size
        if not self.progress.samples:
            return self.settings.data.accumulate
        accumulate = max(1, round(self.progress.samples / at_once))
        if accumulate > MOST_ACCUMULATED:
            raise ValueError(
                f"An iteration of this run had {self.progress.samples:d} samples, which {self.world.size:d} processes "
                f"with {self.settings.data.batch:d} each would need {accumulate:d} batches for. "
                f"At most {MOST_ACCUMULATED:d} are taken: go on with more processes, or choose another 'out' folder."
            )
        if accumulate * at_once != self.progress.samples:
            self._say(
                f"An iteration had {self.progress.samples:d} samples; {self.world.size:d} processes with "
                f"{self.settings.data.batch:d} each cannot share them evenly, and take {accumulate * at_once:d}."
            )
        return accumulate

    def _open_records(self) -> tuple[Records, Events]:
        self.folder.path.mkdir(parents=True, exist_ok=True)
        self.folder.forget_stop()
        write_settings(self.settings, self.folder.settings)
        records = Records(self.folder, self.training.iterations, self.progress.iteration)
        return records, Events(self.folder.tensorboard, self.progress.iteration)

    def _begin(self) -> None:
        self._tell("Checking the first batch")
        batch = self.feed.take(self.progress.position)[0][0]
        for line in self.training.probe({name: tensor.to(self.world.device) for name, tensor in batch.items()}):
            self._say(line)
        if self.progress.iteration == 0 and self.settings.preview.every:
            self._preview()
        self._tell("Training")

    def _iterate(self, bar: tqdm) -> None:
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
        self._record(outcome, rates, time.monotonic() - started, bar)
        self._watch(outcome.bad, positions)

    def _record(self, outcome: Outcome, rates: dict[str, float], seconds: float, bar: tqdm) -> None:
        if not self.world.leads:
            return
        line: dict[str, Any] = {"iteration": self.progress.iteration, **outcome.figures.means(), "lr": rates}
        line |= {"gradient_norm": outcome.norms, "seconds": round(seconds, 4)}
        line["skipped"] = [self.feed.index(position) for position in sorted(outcome.bad)]
        self.records.add(line)
        self.events.add(line)
        bar.update()
        told = {name: f"{loss:.4g}" for name, loss in line["loss"].items() if loss is not None}
        bar.set_postfix(told, refresh=False)
        self._tell("Training", now=False)

    def _watch(self, bad: set[int], positions: range) -> None:
        """Names the samples that were left out; RuntimeError if too many came in a row."""
        for position in positions:
            self.progress.bad_in_a_row = self.progress.bad_in_a_row + 1 if position in bad else 0
            if position in bad:
                self._say(f"Skipped {self.feed.name(position)}: its data, loss or gradient is not finite.")
            if self.progress.bad_in_a_row > MOST_BAD_IN_A_ROW:
                kept = (
                    f"The last checkpoint is kept: {quoted(self.saved)}"
                    if self.saved
                    else "No checkpoint was written yet"
                )
                raise RuntimeError(
                    f"{self.progress.bad_in_a_row:d} samples in a row gave NaN or infinity, the last one "
                    f"{self.feed.name(position)}: the training stops at iteration {self.progress.iteration:d}. {kept}. "
                    "Check these samples; if they are sound, set a lower learning rate or dtype: fp32."
                )

    def _due(self, every: int) -> bool:
        return bool(every) and (
            self.progress.iteration % every == 0 or self.progress.iteration == self.training.iterations
        )

    def _save(self) -> None:
        self._tell("Saving")
        weights = self._product_weights()

        def export(folder: Path) -> None:
            folder.mkdir(parents=True)
            self.training.export(folder, weights)

        self.saved = checkpoints.save(
            self.folder.checkpoints, self.progress, self.parts, self.ema, self.fingerprint, self.world, export,
            self.settings.save.keep,
        )  # fmt: skip
        if self.world.leads:
            checkpoints.publish(self.saved / "export", self.folder.export)
            self._draw_curves()
        self._tell("Training")

    def _draw_curves(self) -> None:
        try:
            draw_curves(read_log(self.folder), self.folder.curves)
        except OSError as error:  # the checkpoint is what matters
            self._say(f"The curves could not be drawn ({cause(error.strerror)}).")

    def _product_weights(self) -> dict[str, Tensor]:
        """The running average of the product's trained weights, or the weights; whole, in the leading process only."""
        averages = self.ema.average if self.ema is not None else {}
        found = {}
        for key, weight in self.product.weights.items():
            tensor = whole(averages.get(key, weight), self.world)
            if tensor is not None:
                found[key] = tensor.to(weight.dtype)
        return found

    def _preview(self) -> None:
        self._tell("Sampling previews")
        path = self.folder.preview(self.progress.iteration)
        if self.world.leads:
            with suppress(OSError):  # then the picture cannot be written either, which is said
                path.parent.mkdir(exist_ok=True)
        distances = {}
        with self.ema.in_place() if self.ema is not None else nullcontext(), torch.no_grad():
            try:
                distances = self.training.preview(path if self.world.leads else None)
            except OSError as error:  # the leading process writes once all have sampled
                self._say(f"The previews could not be written ({cause(error.strerror)}). The training goes on.")
        if distances and self.events:
            self.events.add_previews(self.progress.iteration, distances)
            told = ", ".join(f"{name} {value:.4g}" for name, value in distances.items())
            self._say(f"Previews of iteration {self.progress.iteration:d}: {told}.")
        self._tell("Training")

    def _end(self) -> None:
        if self.world.leads:
            self.folder.forget_stop()
        done = self.progress.iteration == self.training.iterations
        message = "Done" if done else f"Stopped at iteration {self.progress.iteration:d}; start again to go on"
        self._say(f"{message}. The result is in {quoted(self.folder.export)}.")
        self._tell(message)

    def _say(self, told: str) -> None:
        if self.world.leads:
            log.info(told)

    def _tell(self, message: str, now: bool = True) -> None:
        if self.records:
            self.records.set_state(self.progress.iteration, message, now)
