"""Schedules that were found by measuring, as small JSON files that can be shared."""

import json
import stat
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from .files import replacing
from .limits import require_folder_name, require_number, require_text
from .meanflow import NEAR, farthest
from .messages import cause, listing, quoted
from .schedule import Anchors, Schedule

KIND, FORMAT = "disca schedule", 1
ENDING = ".json"
MOST_BYTES = 2**18  # a schedule of a thousand steps takes a tenth
MOST_STEPS, MOST_SHIFT, MOST_SIZE, MOST_PROMPTS, MOST_SEED = 1000, 100.0, 2**20, 10_000, 2**64 - 1
MOST_NAME = 200  # characters of a family or method


@dataclass(frozen=True)
class MeasuredOn:
    """What a schedule was found on, and what was found; errors are squared and relative to the full run's result."""

    width: int  # of the network
    size: tuple[int, int, int]  # width, height, frames of the video
    prompts: int
    seed: int
    error: float  # of the schedule, in a run
    published: tuple[int, ...] = ()  # the anchors that it was compared with
    published_error: float | None = None  # of these, in a run
    estimated: tuple[float, ...] = ()  # error expected with at most 1, 2, ... anchors


@dataclass(frozen=True)
class Found(Anchors):
    """Anchors for runs of one family, number of steps and shift; written, it is its list of anchors."""

    family: str = field(kw_only=True)
    shift: float = field(kw_only=True)
    method: str = field(kw_only=True)
    measured: MeasuredOn = field(kw_only=True)


def require_fits(schedule: Schedule, family: str, sigmas: Sequence[float]) -> None:
    """ValueError if a schedule was found for another family, number of steps or shift; others fit by `of` alone."""
    schedule.of(len(sigmas) - 1)
    if not isinstance(schedule, Found):
        return
    if schedule.family != family:
        raise ValueError(
            f"The schedule {quoted(schedule.name)} was found for {quoted(schedule.family)}, but the model is "
            f"{quoted(family)}. Find one on this model with DisCa Find Schedule, or choose a preset."
        )
    step, expected, apart = farthest(sigmas, schedule.shift)
    if not apart <= NEAR:
        raise ValueError(
            f"The schedule {quoted(schedule.name)} was found at shift {schedule.shift:g}, where step {step:d} is at "
            f"sigma {expected:.3f}, but the run has {sigmas[step]:.3f} there. Set shift to {schedule.shift:g} "
            "and denoise to 1, or find a schedule for these times with DisCa Find Schedule."
        )


def other_method(schedule: object, method: str) -> str | None:
    """A warning if a schedule was found with another method, whose errors are others."""
    if not isinstance(schedule, Found) or schedule.method == method:
        return None
    return (
        f"The schedule {quoted(schedule.name)} was found with {quoted(schedule.method)}; its error there says nothing "
        f"of {quoted(method)}. DisCa Find Schedule finds one for it"
    )


def _lies_in(path: Path, folder: Path) -> bool:
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # links that lead in a circle
        return False


def schedule_path(folder: Path, name: str) -> Path:
    """Where a schedule of that name lies: in the folder or one inside of it; ValueError for any other place."""
    require_folder_name("name", name)
    path = folder / (name if name.endswith(ENDING) else name + ENDING)
    if not _lies_in(path, folder):
        raise ValueError(
            f"{quoted(name)} is a link out of the folder {quoted(folder)}. Put the schedule itself into the folder."
        )
    if path.exists() and not path.is_file():
        raise ValueError(f"{quoted(name)} is no file in {quoted(folder)}. Give another name.")
    if in_way := next((place for place in path.parents if place.exists() and not place.is_dir()), None):
        raise ValueError(
            f"{quoted(name)} would be in {quoted(in_way.name)}, which is a file, not a folder. Give another name."
        )
    return path


def write_schedule(path: Path, schedule: Found) -> None:
    """Writes the file, whole or not at all; ValueError if it could not be read again."""
    text = json.dumps({"kind": KIND, "format": FORMAT, **asdict(schedule)}, indent=1)
    _schedule(json.loads(text), path.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as aside:
        aside.write_text(text + "\n", encoding="utf-8")


def read_schedule(path: Path) -> Found:
    """The schedule that the file holds; ValueError in a sentence if it holds none, or not in every part."""
    return _schedule(_json(path), path.name)


def _json(path: Path) -> Any:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ValueError(f"{quoted(path.name)} is not a file. Choose a schedule's .json file.")
        with open(path, "rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ValueError(
            f"The schedule {quoted(path.name)} cannot be read: {cause(error.strerror)}. Choose one that is there."
        ) from None
    if len(content) > MOST_BYTES:
        raise ValueError(
            f"{quoted(path.name)} has more than {MOST_BYTES:,} bytes, which no schedule has. Choose a schedule's file."
        )
    try:
        return json.loads(content.decode("utf-8-sig"), object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{quoted(path.name)} is not a schedule of DisCa, or damaged ({quoted(str(error))}). Get the file again."
        ) from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def _schedule(found: Any, name: str) -> Found:
    """The schedule; ValueError that names the file and what is wrong in it."""
    if not isinstance(found, dict) or found.get("kind") != KIND:
        raise ValueError(f"{quoted(name)} is not a schedule of DisCa. Choose a file that DisCa Find Schedule saved.")
    if (version := found.get("format")) != FORMAT or isinstance(version, bool):
        raise ValueError(
            f"{quoted(name)} is a schedule of format {quoted(version)}, but this DisCa reads format {FORMAT}. "
            "Update DisCa, or find the schedule again."
        )
    try:
        _require_object(found, {"kind", "format"} | {one.name for one in fields(Found)}, "the schedule")
        _require_run(found)
        measured = _measured(found["measured"], found["steps"])
        anchors = _anchors("listed", found["listed"], found["steps"])
    except ValueError as error:
        raise ValueError(f"The schedule {quoted(name)} is damaged: {cause(error)} Get the file again.") from None
    texts = {key: found[key] for key in ("name", "family", "method")}
    return Found(anchors, found["steps"], shift=found["shift"], measured=measured, **texts)


def _require_run(found: dict[str, Any]) -> None:
    """ValueError unless what the schedule was found for is a run."""
    for key in ("name", "family", "method"):
        require_text(key, found[key])
        _require(0 < len(found[key]) <= MOST_NAME, f"{quoted(key)} is empty, or longer than {MOST_NAME} characters.")
    require_number("steps", found["steps"], True, 1, MOST_STEPS)
    require_number("shift", found["shift"], False, 0, MOST_SHIFT)
    _require(found["shift"] > 0, "'shift' is 0, but must be more.")


def _measured(found: Any, steps: int) -> MeasuredOn:
    _require_object(found, {one.name for one in fields(MeasuredOn)}, "'measured'")
    require_number("width", found["width"], True, 1, MOST_SIZE)
    require_number("prompts", found["prompts"], True, 1, MOST_PROMPTS)
    require_number("seed", found["seed"], True, 0, MOST_SEED)
    require_number("error", found["error"], False, 0)
    _require(isinstance(found["size"], list) and len(found["size"]) == 3, "'size' is not three numbers.")
    for length in found["size"]:
        require_number("size", length, True, 1, MOST_SIZE)
    _require(isinstance(found["estimated"], list), "'estimated' is not a list.")
    _require(len(found["estimated"]) in (0, steps), f"'estimated' has not one error for each of {steps:d} steps.")
    for error in found["estimated"]:
        require_number("estimated", error, False, 0)
    published = _anchors("published", found["published"], steps) if found["published"] != [] else ()
    _require(bool(published) == (found["published_error"] is not None), "'published' and its error are not both there.")
    if published:
        require_number("published_error", found["published_error"], False, 0)
    lists = {"size": tuple(found["size"]), "published": published, "estimated": tuple(found["estimated"])}
    return MeasuredOn(**found | lists)


def _anchors(key: str, found: Any, steps: int) -> tuple[int, ...]:
    """Ascending steps of the run, from 0 on."""
    _require(
        isinstance(found, list) and 0 < len(found) <= steps, f"{quoted(key)} is not a list of up to {steps:d} steps."
    )
    for step in found:
        require_number(key, step, True, 0, steps - 1)
    _require(found[0] == 0 and found == sorted(set(found)), f"{quoted(key)} does not ascend from step 0.")
    return tuple(found)


def _require_object(found: Any, keys: set[str], where: str) -> None:
    _require(isinstance(found, dict), f"{where} is not an object.")
    for lacking in sorted(keys - found.keys()):
        raise ValueError(f"{where} lacks the key {quoted(lacking)}.")
    _require(found.keys() == keys, f"{where} has keys that are none: {listing(sorted(found.keys() - keys))}.")


def _require(holds: bool, fault: str) -> None:
    if not holds:
        raise ValueError(cause(fault))
