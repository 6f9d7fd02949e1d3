"""The folder of a study: a line for each run that is done, its latent and its video; what stopped goes on there."""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...messages import cause
from ...training.data.tensors import write_tensors
from ..side_by_side.rows import Row

MOST_BYTES = 2**20  # of a line; a longer one is not ours
LATENT = "latent"
NUMBERS = ("full", "answered", "seconds", "measured", "theory", "held", "error")
TEXTS = ("text", "problem")


@dataclass(frozen=True)
class Case:
    """One method on one prompt and seed."""

    prompt: str
    number: int  # of the prompt
    seed: int
    method: str

    @property
    def name(self) -> str:
        """Of its files: the prompt's number and the seed, and what tells the method and text from others."""
        digest = sha256(f"{self.method}\n{self.prompt}".encode(errors="surrogatepass")).hexdigest()
        return f"{self.number:03d}-{self.seed:d}-{digest[:12]}"


@dataclass(frozen=True)
class Line:
    """What is written down of a case."""

    case: Case
    row: Row
    metrics: Mapping[str, float] = field(default_factory=dict)  # of its video, by the measure's name


class Records:
    """What a study has done. Lines of other settings (`key`), and what is damaged, are passed over and stay."""

    def __init__(self, folder: Path, key: str):
        self._folder, self._key = folder, key
        self._file = folder / "rows.jsonl"
        (folder / "latents").mkdir(parents=True, exist_ok=True)
        (folder / "videos").mkdir(exist_ok=True)
        self._mend_end()
        self.lines = {line.case: line for line in self._read()}

    def add(self, line: Line) -> None:
        """Writes a line, which is on the disk when this returns; it takes the place of an earlier one of its case."""
        text = json.dumps({"key": self._key, **asdict(line)})
        with open(self._file, "a", encoding="utf-8") as out:
            out.write(text + "\n")
            out.flush()
            os.fsync(out.fileno())
        self.lines[line.case] = line

    def keep(self, case: Case, latent: Tensor) -> None:
        """Keeps a latent [B, C, T, H, W] of the network's latent space."""
        write_tensors(self.latent_file(case), {LATENT: latent}, {"key": self._key})

    def latent(self, case: Case) -> Tensor | None:
        """The latent that was kept; None if it is not there, damaged, or of other settings."""
        try:
            with safe_open(self.latent_file(case), framework="pt") as file:
                found = file.get_tensor(LATENT).clone()
                ours = (file.metadata() or {}).get("key") == self._key
        except (OSError, SafetensorError):
            return None
        return found if ours and torch.isfinite(found).all() else None

    def latent_file(self, case: Case) -> Path:
        """Where its latent is, if it is."""
        return self._folder / "latents" / f"{case.name}.safetensors"

    def video_file(self, case: Case) -> Path:
        """Where its video is, if it is."""
        return self._folder / "videos" / f"{case.name}.mp4"

    def done(self, case: Case) -> bool:
        """Whether it came, and all that is needed of it is there; one that failed is to be tried again."""
        line = self.lines.get(case)
        return line is not None and line.row.came and self.latent(case) is not None

    def _mend_end(self) -> None:
        """Ends a line that was cut short, so that the next one is not lost with it."""
        if self._file.exists() and self._file.stat().st_size:
            with open(self._file, "rb+") as file:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")

    def _read(self) -> Iterator[Line]:
        if not self._file.exists():
            return
        with open(self._file, "rb") as file:
            while text := file.readline(MOST_BYTES):
                try:
                    found = json.loads(text)
                    if found["key"] == self._key:
                        yield Line(Case(**found["case"]), _as_row(found["row"]), _metrics(found["metrics"]))
                except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                    continue


def _as_row(found: dict[str, Any]) -> Row:
    """A row; ValueError or TypeError if it is none."""
    numbers = {name: float(found[name]) for name in NUMBERS}
    whole = {name: int(numbers[name]) for name in ("full", "answered", "held")}
    texts = {name: cause(str(found[name])) for name in TEXTS}
    return Row(**(numbers | whole | texts), notes=tuple(cause(str(note)) for note in found["notes"]))


def _metrics(found: dict[str, Any]) -> dict[str, float]:
    return {cause(str(name)): float(value) for name, value in found.items()}
