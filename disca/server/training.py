"""Training from the graph: datasets built in the server, runs trained in processes of their own and shown on nodes."""

import logging
import os
from functools import reduce
from pathlib import Path
from typing import Any, NamedTuple
from unicodedata import normalize

import comfy.model_management
import comfy.utils
import folder_paths

from ..host import compat
from ..host.folders import known_name
from ..host.progress import show
from ..limits import require_folder_name
from ..messages import cause, listing, quoted
from ..toy.dataset import TOY
from ..training.budget.memory import fitted, table
from ..training.contract.settings import Settings
from ..training.contract.yaml_settings import write_settings
from ..training.records.lock import RUN, FolderLock, run_lock
from ..training.records.log import read_state
from ..training.records.run_folder import SETTINGS, RunFolder
from .progress import pictures, show_progress
from .worker import Worker, clear

__all__ = [
    "build_dataset",
    "dataset_folder",
    "device",
    "fitted",
    "new_dataset_folder",
    "known_sources",
    "run_folder",
    "train",
]

ROOT = "disca"  # in ComfyUI's output folder
RUNS, DATASETS = "runs", "datasets"
OURS = (".lock", SETTINGS, "index.json")  # by which the folder of a run or a dataset is known

logger = logging.getLogger(__name__)


class Picture(NamedTuple):
    """A file in ComfyUI's output folder."""

    name: str
    subfolder: str


class Trained(NamedTuple):
    """What a run gave."""

    result: Any  # a LoadedPredictor, or a MODEL
    report: str
    pictures: list[Picture]  # the curves and the last previews


def train(settings: Settings) -> Trained:
    """Trains in a process of its own to the end; an interrupt lets it save first, a second one does not."""
    compat.require("loading")  # the result is loaded when all is done
    run = RunFolder(settings.out)
    _make_folder(run.worker.path)
    plan = "" if settings.data.path == TOY else table(settings)
    with FolderLock(run.worker.path, *RUN):
        with run_lock(run.path):  # for now; the worker takes it next
            clear(run)
        write_settings(settings, run.worker.settings)  # the run writes its own once it has seen that it may go on
        logger.info(f"DisCa trains in {quoted(run.path)}. {plan}")
        comfy.model_management.unload_all_models()
        comfy.model_management.soft_empty_cache()
        with Worker(run.worker) as worker:
            show_progress(worker, run)
            if failure := worker.failure():
                raise RuntimeError(cause(failure))
    from ..training.choose import TRAININGS

    result = TRAININGS[settings.algorithm].load(settings.model, run.export)
    message = read_state(run).get("message", "Done")
    report = f"{cause(message)}. The result is in {quoted(run.export)}.\n\n{plan}".strip()
    return Trained(result, report, [_picture(path) for path in pictures(run, run.curves)])


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"The folder {quoted(folder)} cannot be made ({cause(error)}). "
            "Take away what is in its place, or give the run another name."
        ) from None


def device() -> tuple[str, float]:
    """What a run is trained on, "cpu" or "cuda", and the GB of its memory."""
    chosen = comfy.model_management.get_torch_device()
    return "cpu" if chosen.type == "cpu" else "cuda", comfy.model_management.get_total_memory(chosen) / 1e9


def run_folder(name: str) -> str:
    """Where the run of this name is."""
    return str(_named(RUNS, "run", name))


def known_sources(model: str | None, dataset: str | None, run: str | None) -> bool | str:
    """True if the file and the dataset are there and the run may be; a sentence or ValueError else. None: by a link."""
    if dataset is not None:
        dataset_folder(dataset)
    if run is not None:
        run_folder(run)
    return known_name("diffusion_models", model)


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


def build_dataset(
    videos: str,
    name: str,
    family: str,
    vae,
    clip,
    clip_vision,
    cut: tuple[int, int, int, float],
    first_frame: bool,
    prune: bool,
    strict: bool,
) -> str:
    """Encodes a folder of ComfyUI's input folder into the dataset of this name; says what was done."""
    from ..training.build import build_dataset
    from ..training.data.clips import Cut
    from ..training.network.encoder import Encoder, model_without_weights

    encoder = Encoder(model_without_weights(family), vae, clip, clip_vision)
    bar = comfy.utils.ProgressBar(1)

    def progress(done: int, total: int) -> None:
        bar.update_absolute(done, total)
        show(f"{done:d} of {total} videos")
        comfy.model_management.throw_exception_if_processing_interrupted()

    folder = _below(Path(folder_paths.get_input_directory()), videos)
    out = new_dataset_folder(name)
    built = build_dataset(str(folder), out, encoder, Cut(*cut), first_frame, prune, strict, progress)
    lines = [f"{quoted(out)} holds {built.samples:d} samples, {built.encoded:d} of them new."]
    return "\n".join(lines + built.account.lines())


def _output(kind: str) -> Path:
    return Path(folder_paths.get_output_directory()) / ROOT / kind


def _below(root: Path, name: str) -> Path:
    folder = Path(os.path.normpath(root / name))  # links may lead to another disk
    if root not in folder.parents:
        raise ValueError(f"{quoted(name)} is no name of a folder in {quoted(root)}. Give one such as 'my_cats'.")
    return folder


def _named(kind: str, what: str, name: str) -> Path:
    """The folder of that name in ours for runs or datasets; ValueError if it cannot be on every system."""
    require_folder_name(what, name)
    root = _output(kind)
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


def _picture(path: Path) -> Picture:
    return Picture(path.name, path.parent.relative_to(folder_paths.get_output_directory()).as_posix())
