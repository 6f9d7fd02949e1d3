"""The folders of Predictors and schedules, and files in folders by the names that workflows have for them."""

import logging
import os
from pathlib import Path

import folder_paths

from ..messages import quoted
from ..schedule_file import ENDING, schedule_path

PREDICTORS = "disca"
OURS = "disca"  # in ComfyUI's output folder
SCHEDULES = "schedules"

logger = logging.getLogger(__name__)


def register_predictor_folder() -> None:
    """Gives `models/disca` to ComfyUI, beside the folders that extra_model_paths.yaml already named for it."""
    folder_paths.add_model_folder_path(PREDICTORS, os.path.join(folder_paths.models_dir, PREDICTORS))
    paths, extensions = folder_paths.folder_names_and_paths[PREDICTORS]
    folder_paths.folder_names_and_paths[PREDICTORS] = (paths, set(extensions) | {".safetensors"})


def make_predictor_folder() -> None:
    """Makes `models/disca`, so that a newcomer finds where Predictors go; without it where nothing may be written."""
    try:
        os.makedirs(os.path.join(folder_paths.models_dir, PREDICTORS), exist_ok=True)
    except OSError as error:  # a read-only disk, or a file of that name: the pack works without the folder
        logger.info("DisCa: models/%s could not be made (%s).", PREDICTORS, quoted(error.strerror))


def predictor_folders() -> list[Path]:
    """Where Predictors lie, and other weights that a user gives the pack: `models/disca`, and what was named for it."""
    named, _ = folder_paths.folder_names_and_paths.get(PREDICTORS, ([], set()))
    return [Path(path) for path in dict.fromkeys([*named, os.path.join(folder_paths.models_dir, PREDICTORS)])]


def known_name(folder: str, name: object) -> bool | str:
    """True if the folder has a file of that name, written with either slash; else a sentence for the interface."""
    return True if name is None or _listed(folder, name) else _unknown(folder, name)  # None: comes by a link


def file_path(folder: str, name: object) -> str:
    """Where the file of that name is, written with either slash; ValueError if there is none."""
    listed = _listed(folder, name)
    path = listed and folder_paths.get_full_path(folder, listed)
    if not path:
        raise ValueError(_unknown(folder, name))
    return path


def output_folder(kind: str) -> Path:
    """Where all of a kind are that the pack makes, there or not."""
    return Path(folder_paths.get_output_directory()) / OURS / kind


def schedule_names() -> list[str]:
    """The schedules that were saved, by their names with either slash."""
    folder = output_folder(SCHEDULES)
    found = (path.relative_to(folder) for path in folder.rglob(f"*{ENDING}") if path.is_file())
    return sorted(path.as_posix() for path in found)


def schedule_file(name: str) -> Path:
    """Where the schedule of that name is or goes; ValueError for a name that leads out of the folder."""
    return schedule_path(output_folder(SCHEDULES), _slashed(name))


def _listed(folder: str, name: object) -> str | None:
    """The name as this system lists it: a workflow made on Windows has backslashes."""
    names = folder_paths.get_filename_list(folder)
    if name in names or not isinstance(name, str):
        return name if name in names else None
    return next((known for known in names if _slashed(known) == _slashed(name)), None)


def _slashed(name: str) -> str:
    return name.replace("\\", "/")


def _unknown(folder: str, name: object) -> str:
    return f"There is no file {quoted(name)} in models/{folder}. Choose one that is there, or put it there and press R."
