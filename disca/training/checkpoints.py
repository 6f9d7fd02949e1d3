"""Checkpoints: written aside and renamed when whole, found again at the next start.

checkpoints/step-000500/
  state/      weights, optimisers and running average, by torch.distributed.checkpoint
  export/     what the inference nodes load
  meta.json   where the run stands, which settings made it, and the size of every file; written last
"""

import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.api import CheckpointException

from ..messages import quoted
from . import state
from .distributed import World
from .ema import Ema
from .parts import Part
from .settings import Settings

FORMAT = 1
PREFIX = "step-"
ASIDE = ".partial"

# What may differ between the runs before and after: it changes no number of the training, or only how far it goes.
FREE = {"out", "iterations", "device", "data.path", "data.cache", "data.batch", "data.accumulate"}
FREE_SECTIONS = {"memory", "save", "preview"}
FREE_PREDICTOR = {"predictor.gan_iterations"}
FILES = {"model.path", "model.teacher"}  # compared by name: a folder may be moved

SAMPLES = "data.batch x data.accumulate"


class SaveError(RuntimeError):
    """A checkpoint could not be written; the one before is whole."""


@dataclass
class Progress:
    """Where a run stands: with the seed it gives all random draws, which depend on nothing else."""

    iteration: int = 0  # done
    position: int = 0  # samples drawn
    bad_in_a_row: int = 0
    samples: int = 0  # of each iteration, from all processes


def fingerprint(settings: Settings, dataset: str) -> dict[str, Any]:
    """The settings that make the numbers of a run, by their keys."""
    found: dict[str, Any] = {"the dataset": dataset}
    for key, value in asdict(settings).items():
        if key in FREE_SECTIONS:
            continue
        entries = {f"{key}.{name}": entry for name, entry in value.items()} if isinstance(value, dict) else {key: value}
        found |= {name: entry for name, entry in entries.items() if name not in FREE | FREE_PREDICTOR}
    found |= {key: os.path.basename(found[key]) for key in FILES}
    found[SAMPLES] = settings.data.batch * settings.data.accumulate
    return json.loads(json.dumps(found))


def publish(export: Path, place: Path) -> None:
    """Copies the files of an export to a place that stays the same over the run; each appears whole or not at all."""
    place.mkdir(exist_ok=True)
    for file in export.iterdir():
        aside = place / f"{file.name}.partial"
        shutil.copyfile(file, aside)
        os.replace(aside, place / file.name)


def newest(folder: Path, say: Callable[[str], None]) -> Path | None:
    """The newest whole checkpoint in the folder, if there is one."""
    for found in reversed(_steps(folder)):
        if _is_whole(found):
            return found
        say(f"The checkpoint {quoted(found)} is not whole and is passed over.")
    return None


def load(folder: Path, parts: list[Part], ema: Ema | None, settings: dict[str, Any], world: World) -> Progress:
    """Restores what a checkpoint holds; ValueError if it is of another run or another format."""
    meta = json.loads((folder / "meta.json").read_text())
    if meta["format"] != FORMAT:
        raise ValueError(
            f"{quoted(folder)} has format {quoted(meta['format'])}, but this version of DisCa reads format {FORMAT}. "
            "Go on with the version that wrote it, or choose another 'out' folder to start anew."
        )
    as_many = settings[SAMPLES] * world.size == meta["progress"]["samples"]  # shared out in another way
    _require_same_run(folder, meta["settings"] | ({SAMPLES: settings[SAMPLES]} if as_many else {}), settings)
    reader = dcp.FileSystemReader(folder / "state")
    saved = set(reader.read_metadata().state_dict_metadata)
    state.make_room(parts, saved)
    tensors = state.collect(parts, ema)
    if missing := sorted(tensors.keys() - saved):
        raise ValueError(
            f"{quoted(folder)} lacks {quoted(missing[0])} and {len(missing) - 1} more. It is of another network."
        )
    with _one_process_is_fine():
        dcp.load(tensors, storage_reader=reader, no_dist=world.size == 1)
    state.put_back(parts, tensors)
    for part in parts:
        part.updates = meta["updates"][part.name]
    if ema is not None:
        ema.updates = meta["average_updates"]
    return Progress(**meta["progress"])


def save(
    folder: Path,
    progress: Progress,
    parts: list[Part],
    ema: Ema | None,
    settings: dict[str, Any],
    world: World,
    export: Callable[[Path], None],
    keep: int,
) -> Path:
    """Writes a checkpoint and removes those before the last `keep`; SaveError if it cannot be written whole."""
    target = folder / f"{PREFIX}{progress.iteration:06d}"
    aside = target.with_name(target.name + ASIDE)
    meta = {
        "format": FORMAT,
        "progress": asdict(progress),
        "seed": settings["seed"],
        "updates": {part.name: part.updates for part in parts},
        "average_updates": ema.updates if ema is not None else 0,
        "processes": world.size,
        "settings": settings,
    }
    tensors = state.collect(parts, ema)
    acts = [
        (lambda: _clear(folder), True),
        (lambda: _save_state(tensors, aside / "state", world), False),
        (lambda: export(aside / "export"), True),
        (lambda: _finish(aside, target, meta), True),
    ]
    for act, only_leader in acts:
        _together(act, only_leader, world, target)
    if world.leads:
        steps = _steps(folder)
        place = steps.index(target) + 1
        for other in steps[: max(0, place - keep)] + steps[place:]:  # a later one was passed over as not whole
            shutil.rmtree(other, ignore_errors=True)
    return target


def _together(act: Callable[[], None], only_leader: bool, world: World, target: Path) -> None:
    failure: Exception | None = None
    try:
        if world.leads or not only_leader:
            act()
    except (OSError, RuntimeError, CheckpointException) as error:
        failure = error
    if not world.most(int(failure is not None)):
        return
    aside = target.with_name(target.name + ASIDE)
    if world.leads:
        shutil.rmtree(aside, ignore_errors=True)
    raise SaveError(_explain(failure, target)) from failure


def _explain(failure: Exception | None, target: Path) -> str:
    if isinstance(failure, CheckpointException):
        failure = next(iter(failure.failures.values()))[0]
    reason = str(failure).strip().splitlines()[-1] if failure is not None else "the writing process says why"
    whole = newest(target.parent, lambda told: None)
    last = (
        f"The last whole one is {quoted(whole)}, and nothing is lost up to it" if whole else "There is none before it"
    )
    free = shutil.disk_usage(target.parent).free / 2**30
    return (
        f"The checkpoint {quoted(target.name)} could not be written to {quoted(target.parent)} ({quoted(reason)}; "
        f"{free:.1f} GiB are free). {last}. Make room and start the run again."
    )


def _save_state(tensors: dict[str, Any], folder: Path, world: World) -> None:
    writer = dcp.FileSystemWriter(folder, single_file_per_rank=True, sync_files=True)
    with _one_process_is_fine():
        dcp.save(tensors, storage_writer=writer, no_dist=world.size == 1)


@contextmanager
def _one_process_is_fine() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _clear(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for rest in folder.glob(f"{PREFIX}*{ASIDE}"):
        shutil.rmtree(rest)


def _finish(aside: Path, target: Path, meta: dict[str, Any]) -> None:
    files = {str(file.relative_to(aside)): file.stat().st_size for file in sorted(aside.rglob("*")) if file.is_file()}
    with open(aside / "meta.json", "w", encoding="utf-8") as out:
        json.dump(meta | {"files": files}, out, indent=1)
        out.flush()
        os.fsync(out.fileno())
    if target.exists():
        shutil.rmtree(target)
    os.replace(aside, target)


def _steps(folder: Path) -> list[Path]:
    found = [entry for entry in folder.glob(f"{PREFIX}*") if re.fullmatch(rf"{PREFIX}\d+", entry.name)]
    return sorted(found, key=lambda entry: int(entry.name.removeprefix(PREFIX)))


def _is_whole(folder: Path) -> bool:
    try:
        files = json.loads((folder / "meta.json").read_text())["files"]
        return all((folder / name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError, KeyError):
        return False


def _require_same_run(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    differing = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    if differing:
        told = "; ".join(
            f"{quoted(key)} was {quoted(before.get(key))} and is {quoted(now.get(key))}" for key in differing[:8]
        )
        raise ValueError(
            f"{quoted(folder)} is a checkpoint of another run: {told}. "
            "Set these back to go on with it, or choose another 'out' folder to start anew."
        )
