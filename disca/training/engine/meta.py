"""meta.json of a checkpoint: where the run stood, what made it, and which files belong to it."""

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from ...messages import cause, listing, quoted

FILE = "meta.json"
FORMAT = 2
MOST_BYTES = 64 * 2**20
MOST = 2**48  # of a count


@dataclass
class Progress:
    """Where a run stands: with the seed it gives all random draws, which depend on nothing else."""

    iteration: int = 0  # done
    position: int = 0  # samples drawn
    bad_in_a_row: int = 0
    samples: int = 0  # of each iteration, from all processes


@dataclass(frozen=True)
class Meta:
    """What meta.json says."""

    progress: Progress
    updates: dict[str, int]  # of each part
    average_updates: int
    settings: dict[str, Any]
    files: dict[str, int]  # name -> size
    seed: int = 0
    processes: int = 1
    format: int = FORMAT


@dataclass(frozen=True)
class OtherFormat:
    """What can be said of a checkpoint that another version of DisCa wrote."""

    format: int
    files: dict[str, int]


def write_meta(folder: Path, meta: Meta) -> None:
    """Writes the file, lastingly."""
    with open(folder / FILE, "w", encoding="utf-8") as out:
        json.dump(asdict(meta), out, indent=1)
        out.flush()
        os.fsync(out.fileno())


def read_meta(folder: Path) -> Meta | OtherFormat:
    """What the file says; ValueError in a few words if that makes no sense, or is not true of the files it lists."""
    found = _json(folder / FILE)
    _require(isinstance(found, dict), "is no object")
    _require_counts(found, "files")
    for name, size in found["files"].items():
        _require(_size(folder / name) == size, f"{quoted(name)} is not there with {size:d} bytes")
    _require(_is_count(found.get("format")), "'format' is no number")
    if found["format"] != FORMAT:
        return OtherFormat(found["format"], found["files"])
    _require_counts(found, "updates")
    _require_counts(found, "progress")
    names = {field.name for field in fields(Progress)}
    _require(found["progress"].keys() == names, f"'progress' has other keys than {listing(sorted(names))}")
    _require(_is_count(found.get("average_updates")), "'average_updates' is no count")
    _require(isinstance(found.get("settings"), dict), "'settings' is no object")
    known = {field.name: found[field.name] for field in fields(Meta) if field.name in found}
    return Meta(**known | {"progress": Progress(**found["progress"])})


def _json(path: Path) -> Any:
    try:
        _require(path.stat().st_size <= MOST_BYTES, "is too large")
        return json.loads(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{FILE}: {cause(error.strerror)}") from None
    except RecursionError:
        raise ValueError(f"{FILE} is nested too deeply") from None


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except (OSError, ValueError):  # not there, or no name for a file
        return None


def _require(holds: bool, fault: str) -> None:
    if not holds:
        raise ValueError(f"{FILE}: {cause(fault)}")


def _require_counts(found: dict[str, Any], key: str) -> None:
    counts = found.get(key)
    _require(isinstance(counts, dict) and all(map(_is_count, counts.values())), f"'{key}' is not names with counts")


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < MOST
