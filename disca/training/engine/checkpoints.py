"""Checkpoints: written aside and renamed when whole, found again at the next start.

checkpoints/step-000500/
  state/      weights, optimisers and running average, in safetensors files of each process
  export/     what the inference nodes load
  meta.json   where the run stands, which settings made it, and the size of every file; written last
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Set
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from ...files import ASIDE, remove, replacing
from ...messages import cause, listing, quoted
from ..contract.settings import DataSettings, Settings
from . import state, tensor_files
from .distributed import Processes
from .ema import Ema
from .meta import FORMAT, Meta, OtherFormat, Progress, read_meta, write_meta
from .parts import Part
from .tensor_files import SavedTensors

PREFIX = "step-"
STATE, EXPORT = "state", "export"
FILE = rf"{STATE}/[\w-]+\.safetensors"  # of the state, as meta.json lists it

# What may differ between the runs before and after: it changes no number of the training, or only how far it goes.
MAY_CHANGE = {"out", "iterations", "device", "data.path", "data.cache", "data.batch", "data.accumulate"}
MAY_CHANGE |= {"data.repeats", "data.more", "validation.every", "validation.draws"}  # the dataset's hash tells of them
SECTIONS_THAT_MAY_CHANGE = {"memory", "save", "preview", "log"}
FILES = {"model.path", "model.teacher", "lora.path"}  # compared by name: a folder may be moved

SAMPLES = "data.batch x data.accumulate"


class SaveError(RuntimeError):
    """A checkpoint could not be written; the one before is whole."""


def fingerprint(settings: Settings, dataset: str, may_change: Set[str]) -> dict[str, Any]:
    """The settings that make the numbers of a run, by their keys: all but those that may change when it goes on."""
    found: dict[str, Any] = {"the dataset": dataset}
    for key, value in asdict(settings).items():
        if key in SECTIONS_THAT_MAY_CHANGE:
            continue
        entries = {f"{key}.{name}": entry for name, entry in value.items()} if isinstance(value, dict) else {key: value}
        found |= {name: entry for name, entry in entries.items() if name not in MAY_CHANGE | may_change}
    found |= {key: os.path.basename(found[key]) for key in FILES}
    found[SAMPLES] = settings.data.batch * settings.data.accumulate
    return json.loads(json.dumps(found))


def publish(export: Path, place: Path) -> None:
    """Copies the files of an export to a place that stays the same over the run; each appears whole or not at all."""
    place.mkdir(exist_ok=True)
    for file in export.iterdir():
        with replacing(place / file.name) as aside:
            shutil.copyfile(file, aside)


def newest(folder: Path, say: Callable[[str], None]) -> Path | None:
    """The newest whole checkpoint in the folder, if there is one."""
    for found in reversed(_steps(folder)):
        try:
            meta = read_meta(found)
            if isinstance(meta, Meta):
                _saved_tensors(found, meta).close()
            return found
        except ValueError as error:
            say(f"The checkpoint {quoted(found)} is not whole and is passed over: {cause(error)}.")
    return None


def at(folder: Path, iteration: int) -> Path:
    """The checkpoint of that iteration; ValueError that names those there are if it is not there, or not whole."""
    there = {_iteration(found): found for found in _steps(folder)}
    if iteration in there:
        try:
            read_meta(there[iteration])
        except ValueError as error:
            raise ValueError(
                f"The checkpoint {quoted(there[iteration])} is not whole ({cause(error)}). There are those of "
                f"{listing([*there], 20)}: choose another, or leave it out to go on from the newest whole one."
            ) from None
        return there[iteration]
    if not there:
        raise ValueError(f"There is no checkpoint in {quoted(folder)} yet. Leave out the iteration to go on from.")
    raise ValueError(
        f"There is no checkpoint of iteration {iteration:d} in {quoted(folder)}. There are those of "
        f"{listing([*there], 20)}: choose one of them. save.keep says how many are kept."
    )


def load(folder: Path, parts: list[Part], ema: Ema | None, settings: dict[str, Any], processes: Processes) -> Progress:
    """Restores what a checkpoint holds; ValueError if it is of another run or another format."""
    meta = read_meta(folder)
    if isinstance(meta, OtherFormat):
        raise ValueError(_of_another_version(folder, meta))
    as_many = settings[SAMPLES] * processes.size == meta.progress.samples  # shared out in another way
    _require_same_run(folder, meta.settings | ({SAMPLES: settings[SAMPLES]} if as_many else {}), settings)
    with _saved_tensors(folder, meta) as saved:
        state.make_room(parts, saved.names)
        tensors = state.collect(parts, ema)
        lacking = saved.lacks(tensors) + sorted({part.name for part in parts} - meta.updates.keys())
        if lacking:
            raise ValueError(
                f"{quoted(folder)} lacks {quoted(lacking[0])} and {len(lacking) - 1} more. It is of another network."
            )
        for name, tensor in tensors.items():
            saved.read_into(name, tensor)
    for part in parts:
        part.updates = meta.updates[part.name]
    if ema is not None:
        ema.updates = meta.average_updates
    return meta.progress


def save(
    folder: Path,
    progress: Progress,
    parts: list[Part],
    ema: Ema | None,
    settings: dict[str, Any],
    processes: Processes,
    export: Callable[[Path], None],
    keep: int,
) -> Path:
    """Writes a checkpoint and removes those before the last `keep`; SaveError if it cannot be written whole."""
    target = folder / f"{PREFIX}{progress.iteration:06d}"
    aside = target.with_name(target.name + ASIDE)
    meta = Meta(
        progress,
        updates={part.name: part.updates for part in parts},
        average_updates=ema.updates if ema is not None else 0,
        settings=settings,
        files={},
        seed=settings["seed"],
        processes=processes.size,
    )
    tensors = state.collect(parts, ema)
    acts = [
        (lambda: _clear(folder), True),
        (lambda: tensor_files.write(tensors, aside / STATE, processes), False),
        (lambda: export(aside / EXPORT), False),
        (lambda: _finish(aside, target, meta), True),
    ]
    for act, only_main in acts:
        _together(act, only_main, processes, target)
    if processes.is_main:
        steps = _steps(folder)
        place = steps.index(target) + 1
        for other in steps[: max(0, place - keep)] + steps[place:]:  # a later one was passed over as not whole
            shutil.rmtree(other, ignore_errors=True)
    return target


def _together(act: Callable[[], None], only_main: bool, processes: Processes, target: Path) -> None:
    failure: Exception | None = None
    try:
        if processes.is_main or not only_main:
            act()
    except (OSError, RuntimeError, SafetensorError) as error:
        failure = error
    if not processes.any(failure is not None):
        return
    aside = target.with_name(target.name + ASIDE)
    if processes.is_main:
        shutil.rmtree(aside, ignore_errors=True)
    raise SaveError(_explain(failure, target)) from failure


def _explain(failure: Exception | None, target: Path) -> str:
    failure = failure and (failure.__cause__ or failure)
    lines = str(failure).strip().splitlines() or [type(failure).__name__]
    reason = lines[-1] if failure is not None else "the writing process says why"
    whole = newest(target.parent, lambda line: None)
    last = (
        f"The last whole one is {quoted(whole)}, and nothing is lost up to it" if whole else "There is none before it"
    )
    free = shutil.disk_usage(target.parent).free / 2**30
    return (
        f"The checkpoint {quoted(target.name)} could not be written to {quoted(target.parent)} "
        f"({cause(reason)}; {free:.1f} GiB are free). {last}. Make room and start the run again."
    )


def _clear(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for rest in folder.glob(f"{PREFIX}*{ASIDE}"):
        remove(rest)


def _finish(aside: Path, target: Path, meta: Meta) -> None:
    files = {
        file.relative_to(aside).as_posix(): file.stat().st_size for file in sorted(aside.rglob("*")) if file.is_file()
    }
    write_meta(aside, replace(meta, files=files))
    remove(target)
    os.replace(aside, target)


def _steps(folder: Path) -> list[Path]:
    found = [entry for entry in folder.glob(f"{PREFIX}*") if re.fullmatch(rf"{PREFIX}\d+", entry.name)]
    return sorted(found, key=_iteration)


def _iteration(checkpoint: Path) -> int:
    return int(checkpoint.name.removeprefix(PREFIX))


def _saved_tensors(folder: Path, meta: Meta) -> SavedTensors:
    names = sorted(name for name in meta.files if re.fullmatch(FILE, name))
    if not names:
        raise ValueError("it holds no state")
    return SavedTensors([folder / name for name in names])


def _of_another_version(folder: Path, meta: OtherFormat) -> str:
    message = f"{quoted(folder)} has format {meta.format:d}, but this version of DisCa reads format {FORMAT}. "
    if meta.format == 1:
        message += "Reading format 1 can run code that somebody put into it. What is in its export folder stays good. "
    return message + "Go on with the version that wrote it, or choose another 'out' folder to start anew."


def _require_same_run(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    defaults = fingerprint(Settings(now["algorithm"], "out", DataSettings("data")), "", set())
    before = {key: value for key, value in defaults.items() if key in now} | before  # there may be new settings
    differing = [key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)]
    if differing:
        changes = "; ".join(
            f"{quoted(key)} was {quoted(before.get(key))} and is {quoted(now.get(key))}" for key in differing[:8]
        )
        if "the dataset" in differing:  # known by its hash
            changes += " (what is in it by data.path, data.repeats, data.more and validation.samples)"
        raise ValueError(
            f"{quoted(folder)} is a checkpoint of another run: {changes}. "
            "Set these back to go on with it, or choose another 'out' folder to start anew."
        )
