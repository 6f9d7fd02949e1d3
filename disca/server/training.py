"""Training from the graph: runs trained in processes of their own and shown on nodes."""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import comfy.model_management
import folder_paths

from ..host import compat
from ..messages import cause, quoted
from ..models.source import file_of_model as file_of_model
from ..models.source import file_of_predictor as file_of_predictor
from ..toy.dataset import TOY
from ..training.budget.plan import table
from ..training.contract.settings import Settings
from ..training.contract.yaml_settings import write_settings
from ..training.records.lock import RUN, FolderLock, run_lock
from ..training.records.log import read_state
from ..training.records.run_folder import RunFolder
from .progress import pictures, show_progress
from .worker import Worker, clear

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


def _picture(path: Path) -> Picture:
    return Picture(path.name, path.parent.relative_to(folder_paths.get_output_directory()).as_posix())
