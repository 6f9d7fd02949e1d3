"""What a run writes down: one line for each iteration, and where it stands now."""

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...files import replacing
from ...messages import cause, quoted
from ..contract.protocol import BANDS
from .run_folder import RunFolder

STATE_SECONDS = 0.5  # the state is rewritten no more often
MOST_BYTES = 2**20  # of a line, or of the state; longer ones are not ours
MOST_PARTS = 8  # that are trained at once
MOST_TEXT = 500

log = logging.getLogger(__name__)


class Records:
    """The files log.jsonl and state.json of a run. Where they cannot be written the run goes on, and says so once."""

    def __init__(self, folder: RunFolder, total: int, done: int):
        self._log, self._state, self._total = folder.log, folder.state, total
        self._started, self._done, self._written = time.monotonic(), done, 0.0
        self._failed: set[Path] = set()
        try:
            _cut(self._log, done)
        except OSError as error:
            self._warn(self._log, error)

    def add(self, line: dict[str, Any]) -> None:
        """Appends an iteration's figures to the log."""
        try:
            with open(self._log, "a", encoding="utf-8") as out:
                out.write(json.dumps(line) + "\n")
        except OSError as error:
            self._warn(self._log, error)

    def set_state(self, iteration: int, message: str, now: bool = False) -> None:
        """Says where the run stands; never half-written, so that others may read it at any time."""
        if not now and time.monotonic() - self._written < STATE_SECONDS:
            return
        self._written = time.monotonic()
        state = {
            "iteration": iteration,
            "total": self._total,
            "seconds_left": self.seconds_left(iteration),
            "message": message,
        }
        try:
            with replacing(self._state) as aside:
                aside.write_text(json.dumps(state), encoding="utf-8")
        except PermissionError:  # Windows, while it is being read: the next state takes its place
            pass
        except OSError as error:
            self._warn(self._state, error)

    def seconds_left(self, iteration: int) -> float | None:
        """An estimate from the iterations since the start."""
        if iteration <= self._done:
            return None
        return (time.monotonic() - self._started) / (iteration - self._done) * (self._total - iteration)

    def _warn(self, path: Path, error: OSError) -> None:
        if path not in self._failed:
            log.warning(f"{quoted(path)} could not be written ({cause(error.strerror)}). The training goes on.")
        self._failed.add(path)


def read_log(folder: RunFolder) -> list[dict[str, Any]]:
    """The lines of a run's log; damaged ones, and a last one that was cut short, are left out."""
    return [line for line in _lines(folder.log) if line is not None]


def read_state(folder: RunFolder) -> dict[str, Any]:
    """What state.json says; nothing while it is not there, or if it is damaged."""
    try:
        with open(folder.state, "rb") as file:
            state = json.loads(file.read(MOST_BYTES))
    except (OSError, ValueError, RecursionError):  # on Windows it may just be being replaced
        return {}
    sound = isinstance(state, dict) and all(holds(state.get(key)) for key, holds in STATE_KEYS.items())
    return state if sound else {}


def _cut(path: Path, done: int) -> None:
    """Takes out what came after the checkpoint that the run goes on from, and what is damaged."""
    lines = list(_lines(path))
    if damaged := lines.count(None):
        log.warning(f"{damaged:d} damaged lines of {quoted(path)} are left out.")
    kept = [line for line in lines if line is not None and line["iteration"] <= done]
    with replacing(path) as aside:
        aside.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")


def _lines(path: Path) -> Iterator[dict[str, Any] | None]:
    """Each line, or None where it is none of ours."""
    if not path.exists():
        return
    with open(path, "rb") as file:
        while text := file.readline(MOST_BYTES):
            try:
                line = json.loads(text)
            except (ValueError, RecursionError):
                line = None
            yield line if _is_line(line) else None


def _is_line(line: Any) -> bool:
    """Whether what is drawn and shown of a line is there, and is what it should be."""
    if not (isinstance(line, dict) and _is_count(line.get("iteration"))):
        return False
    losses, bands = line.get("loss"), line.get("bands")
    if not (isinstance(losses, dict) and isinstance(bands, dict) and losses.keys() == bands.keys()):
        return False
    extra = line.get("extra", {})
    if not (isinstance(extra, dict) and all(map(_is_figure, extra.values()))):
        return False
    named = len(losses) <= MOST_PARTS and all(map(_is_text, losses))
    banded = all(isinstance(values, list) and len(values) == BANDS for values in bands.values())
    return named and banded and all(map(_is_figure, [*losses.values(), *sum(bands.values(), [])]))


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**48


def _is_figure(value: object) -> bool:
    return value is None or (type(value) in (int, float) and abs(value) < 1e300)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) < MOST_TEXT and value.isprintable()


STATE_KEYS = {"iteration": _is_count, "total": _is_count, "seconds_left": _is_figure, "message": _is_text}
