"""What a run tells: one line for each iteration, and where it stands now."""

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

STATE_SECONDS = 0.5  # the state is rewritten no more often


class Records:
    """The files log.jsonl and state.json of a run."""

    def __init__(self, out: Path, total: int, done: int):
        self.log = out / "log.jsonl"
        self._state, self._total = out / "state.json", total
        self._started, self._done, self._told = time.monotonic(), done, 0.0
        _cut(self.log, done)

    def add(self, line: dict[str, Any]) -> None:
        """Appends an iteration's figures to the log."""
        with open(self.log, "a", encoding="utf-8") as out:
            out.write(json.dumps(line) + "\n")

    def tell(self, iteration: int, message: str, now: bool = False) -> None:
        """Says where the run stands; never half-written, so that others may read it at any time."""
        if not now and time.monotonic() - self._told < STATE_SECONDS:
            return
        self._told = time.monotonic()
        state = {
            "iteration": iteration,
            "total": self._total,
            "seconds_left": self.seconds_left(iteration),
            "message": message,
        }
        aside = self._state.with_suffix(".partial")
        aside.write_text(json.dumps(state), encoding="utf-8")
        with suppress(PermissionError):  # Windows, while it is being read: what is told next takes its place
            os.replace(aside, self._state)

    def seconds_left(self, iteration: int) -> float | None:
        """An estimate from the iterations since the start."""
        if iteration <= self._done:
            return None
        return (time.monotonic() - self._started) / (iteration - self._done) * (self._total - iteration)


def read_log(log: Path) -> list[dict[str, Any]]:
    """The lines of a log; a last one that was cut short is left out."""
    if not log.exists():
        return []
    lines = []
    for text in log.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            break
    return lines


def _cut(log: Path, done: int) -> None:
    """Takes out what came after the checkpoint that the run goes on from."""
    kept = [line for line in read_log(log) if line["iteration"] <= done]
    aside = log.with_suffix(".partial")
    aside.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
    os.replace(aside, log)
