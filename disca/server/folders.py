"""The folders of runs and datasets in ComfyUI's output folder, by the names that users give them."""

import os
from functools import reduce
from pathlib import Path
from unicodedata import normalize

import folder_paths

from ..host.folders import known_name, output_folder
from ..limits import require_folder_name
from ..messages import listing, quoted
from ..toy.dataset import TOY
from ..training.records.run_folder import SETTINGS

RUNS, DATASETS = "runs", "datasets"
OURS = (".lock", SETTINGS, "index.json")  # by which the folder of a run or a dataset is known


def run_folder(name: str) -> str:
    """Where the run of this name is."""
    return str(_named(RUNS, "run", name))


def new_dataset_folder(name: str) -> str:
    """Where the dataset of this name goes, which may be there or not."""
    return str(_named(DATASETS, "dataset", name))


def dataset_folder(name: str) -> str:
    """Where the dataset of this name is; ValueError that lists those there are if it is not."""
    if name == TOY:
        return TOY
    folder = _named(DATASETS, "dataset", name)
    if not folder.is_dir():
        found = sorted(path.name for path in folder.parent.iterdir()) if folder.parent.is_dir() else []
        existing = f"There are {listing(found)}." if found else "There are none yet: DisCa Build Dataset makes one."
        raise ValueError(f"There is no dataset {quoted(name)} in {quoted(folder.parent)}. {existing}")
    return str(folder)


def videos_folder(name: str) -> str:
    """Where the folder of that name in ComfyUI's input folder is."""
    return str(_below(Path(folder_paths.get_input_directory()), name))


def known_sources(model: str | None, dataset: str | None, run: str | None) -> bool | str:
    """True if the file and the dataset are there and the run may be; a sentence or ValueError else. None: by a link."""
    if dataset is not None:
        dataset_folder(dataset)
    if run is not None:
        run_folder(run)
    return known_name("diffusion_models", model)


def _below(root: Path, name: str) -> Path:
    folder = Path(os.path.normpath(root / name))  # links may lead to another disk
    if root not in folder.parents:
        raise ValueError(f"{quoted(name)} is no name of a folder in {quoted(root)}. Give one such as 'my_cats'.")
    return folder


def _named(kind: str, what: str, name: str) -> Path:
    """The folder of that name in ours for runs or datasets; ValueError if it cannot be on every system."""
    require_folder_name(what, name)
    root = output_folder(kind)
    folder = _below(root, name.replace("\\", "/"))
    folder = reduce(_entry, folder.relative_to(root).parts, root)
    for place in folder.parents[: len(folder.relative_to(root).parts) - 1]:
        if any((place / file).exists() for file in OURS):
            raise ValueError(
                f"{quoted(name)} lies in {quoted(place)}, which is a {what} itself and clears up in its folder. "
                "Choose a name of its own."
            )
    return folder


def _entry(folder: Path, name: str) -> Path:
    """The folder's entry of that name, in whichever Unicode form it is there; in the composed one if it is not."""
    name = normalize("NFC", name)
    found = (path for path in folder.iterdir() if normalize("NFC", path.name) == name) if folder.is_dir() else iter(())
    return next(found, folder / name)
