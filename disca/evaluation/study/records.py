"""The folder of a study: a line for each run that is done, its latent and its video; what stopped goes on there."""

import json
import math
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
NUMBERS = ("full_calls", "cached_calls", "seconds", "measured", "theory", "error")
TEXTS = ("text", "problem")


@dataclass(frozen=True)
class Case:
    """One method on one prompt and seed."""

    prompt: str
    scene: str  # a hash of what the network is given for the prompt
    seed: int
    method: str
    predictor: str = ""  # a hash of the file that the method answers with, if it does with one


@dataclass(frozen=True)
class Filmed:
    """What was measured of a case's video against that with every step in full."""

    key: str = ""  # of how it was decoded; "": not yet
    metrics: Mapping[str, float] = field(default_factory=dict)  # by the measure's name
    missing: tuple[str, ...] = ()  # a line for each measure that was not taken, or why there is no video


@dataclass(frozen=True)
class Record:
    """What is written down of a case."""

    case: Case
    row: Row
    filmed: Filmed = Filmed()


class Records:
    """What a study has done. What is of other settings (`key`), and what is damaged, is passed over and stays."""

    def __init__(self, folder: Path, key: str, film_key: str):
        """`key` is of how runs are made, `film_key` of how latents become videos."""
        self._folder, self._key, self.film_key = folder, key, film_key
        self._file = folder / "rows.jsonl"
        (folder / "latents").mkdir(parents=True, exist_ok=True)
        (folder / "videos").mkdir(exist_ok=True)
        self._end_line()
        self.of = {record.case: record for record in self._read()}

    def add(self, record: Record) -> None:
        """Writes it, and it is on the disk when this returns; it takes the place of an earlier one of its case."""
        text = json.dumps({"key": self._key, **asdict(record)})
        with open(self._file, "a", encoding="utf-8") as out:
            out.write(text + "\n")
            out.flush()
            os.fsync(out.fileno())
        self.of[record.case] = record

    def keep(self, case: Case, latent: Tensor) -> None:
        """Keeps a latent [B, C, T, H, W] of the network's latent space."""
        write_tensors(self.latent_file(case), {LATENT: latent})

    def latent(self, case: Case) -> Tensor | None:
        """The latent that was kept; None if it is not there, or damaged."""
        try:
            with safe_open(self.latent_file(case), framework="pt") as file:
                found = file.get_tensor(LATENT).clone()
        except (OSError, SafetensorError):
            return None
        return found if torch.isfinite(found).all() else None

    def latent_file(self, case: Case) -> Path:
        """Where its latent is, if it is."""
        return self._folder / "latents" / f"{self._name(case, self._key)}.safetensors"

    def video_file(self, case: Case) -> Path:
        """Where its video is, if it is."""
        return self._folder / "videos" / f"{self._name(case, self._key + self.film_key)}.mp4"

    def is_done(self, case: Case) -> bool:
        """Whether it came and its latent is there; one that failed is to be tried again."""
        record = self.of.get(case)
        return record is not None and record.row.came and self.latent(case) is not None

    def is_filmed(self, case: Case) -> bool:
        """Whether its video is there and measured."""
        record = self.of.get(case)
        filmed = record is not None and record.filmed.key == self.film_key
        return filmed and self.video_file(case).is_file() and self.video_file(case).stat().st_size > 0

    def _name(self, case: Case, key: str) -> str:
        content = "\n".join([key, case.scene, case.method, case.predictor])
        return f"{case.scene[:8]}-{case.seed:d}-{sha256(content.encode()).hexdigest()[:12]}"

    def _end_line(self) -> None:
        """Ends a line that was cut short, so that the next one is not lost with it."""
        if self._file.exists() and self._file.stat().st_size:
            with open(self._file, "rb+") as file:
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")

    def _read(self) -> Iterator[Record]:
        if not self._file.exists():
            return
        with open(self._file, "rb") as file:
            while text := file.readline(MOST_BYTES):
                try:
                    found = json.loads(text)
                    if found["key"] == self._key:
                        yield Record(_case(found["case"]), _as_row(found["row"]), _filmed(found["filmed"]))
                except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
                    continue  # none of ours, or damaged


def _case(found: dict[str, Any]) -> Case:
    prompt, scene, method, predictor = (cause(str(found[name])) for name in ("prompt", "scene", "method", "predictor"))
    return Case(prompt, scene, int(found["seed"]), method, predictor)


def _as_row(found: dict[str, Any]) -> Row:
    """A row; ValueError or TypeError if it is none."""
    numbers = {name: float(found[name]) for name in NUMBERS} | {"bytes_held": int(float(found["bytes_held"]))}
    if not all(0.0 <= number < math.inf for number in numbers.values()):
        raise ValueError("a row has other numbers")
    texts = {name: cause(str(found[name])) for name in TEXTS}
    return Row(**(numbers | texts), notes=tuple(cause(str(note)) for note in found["notes"]))


def _filmed(found: dict[str, Any]) -> Filmed:
    metrics = {cause(str(name)): float(value) for name, value in found["metrics"].items()}
    return Filmed(str(found["key"]), metrics, tuple(cause(str(line)) for line in found["missing"]))
