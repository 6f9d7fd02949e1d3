"""Calibrations in ComfyUI's output folder, by the names that users give them."""

from pathlib import Path

from ..host.folders import output_folder
from ..limits import require_folder_name
from ..messages import listing, quoted
from ..methods.adaptive.calibration import Calibration, read, write

CALIBRATIONS, ENDING = "calibrations", ".json"


def names() -> list[str]:
    """The files that are there, to choose from."""
    folder = _folder()
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(path.name for path in found if path.name.endswith(ENDING) and _is_ours(path))


def is_name(name: object) -> bool:
    """Whether it is that of a file, not of a published calibration."""
    return isinstance(name, str) and name.endswith(ENDING)


def calibration_path(name: str) -> Path:
    """Where the calibration of that name goes; ValueError if it cannot be a file's name in the folder itself."""
    require_folder_name("name", name)
    path = _folder() / (name.removesuffix(ENDING) + ENDING)
    if path.parent != _folder() or "\\" in name:
        raise ValueError(f"'name' is {quoted(name)}, but must be a name without folders. Give one such as 'my_model'.")
    if path.exists() and not _is_ours(path):
        raise ValueError(
            f"{quoted(path.name)} in {quoted(path.parent)} is a link out of it, or no file. Take another name."
        )
    return path


def save(path: Path, calibration: Calibration) -> None:
    """Puts the calibration there, in place of an earlier one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, calibration)


def load(name: str) -> Calibration:
    """The calibration of that name; ValueError that lists those there are if it is none of them."""
    if name not in names():
        there = f"There are {listing(names())}." if names() else "There are none: DisCa Calibrate makes them."
        raise ValueError(f"There is no calibration {quoted(name)} in {quoted(_folder())}. {there}")
    return read(_folder() / name)


def _folder() -> Path:
    return output_folder(CALIBRATIONS)


def _is_ours(path: Path) -> bool:
    """Whether it is a file in the folder itself, of a name that can be shown."""
    try:
        require_folder_name("name", path.name)
        return path.is_file() and path.resolve().parent == _folder().resolve()
    except (ValueError, OSError, RuntimeError):  # a name that no message can hold; a link to itself
        return False
