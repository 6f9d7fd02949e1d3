"""Training from the graph: datasets built in the server, runs trained in a process of their own and watched."""

import json
import logging
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import comfy.model_management
import comfy.utils
import folder_paths
from PIL import Image

from ..limits import require_folder_name
from ..messages import cause, listing, quoted
from ..toy.dataset import TOY
from ..training.cards import fitted
from ..training.curves import draw_curves
from ..training.memory import table
from ..training.records import read_log
from ..training.settings import Settings, write_settings
from . import compat
from .progress import show
from .worker import Worker

__all__ = ["build_dataset", "dataset_folder", "device", "fitted", "run_folder", "train"]

ROOT = "disca"  # in ComfyUI's output folder
RUNS, DATASETS = "runs", "datasets"
LOOK_SECONDS, DRAW_SECONDS = 0.3, 5.0
DRAW_SHARE = 0.05  # of the time, at most, is spent on drawing

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
    out = Path(settings.out)
    file = out / "worker" / "run.yaml"  # the run writes its own once it has seen that it may go on
    _make_folder(file.parent)
    (out / "state.json").unlink(missing_ok=True)
    write_settings(settings, file)
    plan = "" if settings.data.path == TOY else table(settings)
    logger.info(f"DisCa trains in {quoted(out)}. {plan}")
    comfy.model_management.unload_all_models()
    comfy.model_management.soft_empty_cache()
    with Worker(file, out) as worker:
        _watch(worker, out, settings.total)
        if told := worker.failure():
            raise RuntimeError(cause(told))
    from .trained import load_result

    export = out / "export"
    report = f"{cause(_state(out).get('message', 'Done'))}. The result is in {quoted(export)}.\n\n{plan}".strip()
    return Trained(load_result(settings, export), report, [_picture(path) for path in _pictures(out, "curves.png")])


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


def dataset_folder(name: str) -> str:
    """Where the dataset of this name is; ValueError that lists those there are if it is not."""
    if name == TOY:
        return TOY
    folder = _named(DATASETS, "dataset", name)
    if not folder.is_dir():
        found = sorted(path.name for path in folder.parent.iterdir()) if folder.parent.is_dir() else []
        told = f"There are {listing(found)}." if found else "There are none yet: DisCa Build Dataset makes one."
        raise ValueError(f"There is no dataset {quoted(name)} in {quoted(folder.parent)}. {told}")
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
    from ..training.clips import Cut
    from ..training.encoder import Encoder, model_without_weights

    encoder = Encoder(model_without_weights(family), vae, clip, clip_vision)
    bar = comfy.utils.ProgressBar(1)

    def progress(done: int, total: int) -> None:
        bar.update_absolute(done, total)
        show(f"{done:d} of {total} videos")
        comfy.model_management.throw_exception_if_processing_interrupted()

    folder = _below(Path(folder_paths.get_input_directory()), videos)
    out = _named(DATASETS, "dataset", name)
    built = build_dataset(str(folder), str(out), encoder, Cut(*cut), first_frame, prune, strict, progress)
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
    return _below(_output(kind), name.replace("\\", "/"))


def _watch(worker: Worker, out: Path, total: int) -> None:
    """Shows how far the run is until it has ended; raises the interrupt behind it."""
    bar, interrupts, pictures, shown = comfy.utils.ProgressBar(total), 0, Pictures(out), ""
    while not worker.ended():
        if comfy.model_management.processing_interrupted():
            comfy.model_management.interrupt_current_processing(False)
            interrupts += 1
        if interrupts:
            worker.ask_to_stop()
        if interrupts > 1:
            worker.kill()
        state = _state(out)
        bar.update_absolute(state.get("iteration", 0), total, pictures.newer())
        told = "Saving and stopping. Interrupt again to stop at once." if interrupts else _told(state, pictures.loss)
        if told != shown:
            show(told)
            shown = told
        time.sleep(LOOK_SECONDS)
    if interrupts and (interrupts > 1 or not worker.failure()):
        logger.info(
            f"DisCa: interrupted. {cause(_state(out).get('message', 'Nothing was saved'))}. Queue again to go on."
        )
        raise comfy.model_management.InterruptProcessingException()


class Pictures:
    """The loss curves above the last previews, drawn anew when there is more to see."""

    def __init__(self, out: Path):
        self.loss = None
        self._out, self._next, self._lines = out, 0.0, 0

    def newer(self) -> tuple[str, Image.Image, None] | None:
        """The picture as ComfyUI's progress takes it, or None if the last one still is right."""
        started = time.monotonic()
        if started < self._next:
            return None
        lines = read_log(self._out / "log.jsonl")
        drawn = self._draw(lines) if len(lines) != self._lines else None
        self._next = time.monotonic() + max(DRAW_SECONDS, (time.monotonic() - started) / DRAW_SHARE)
        return drawn

    def _draw(self, lines: list[dict[str, Any]]) -> tuple[str, Image.Image, None] | None:
        self._lines = len(lines)
        self.loss = next((loss for loss in lines[-1]["loss"].values() if loss is not None), None) if lines else None
        draw_curves(lines, self._out / "worker" / "curves.png")
        images = list(filter(None, map(_image, _pictures(self._out, "worker/curves.png"))))
        return ("JPEG", _stacked(images), None) if images else None


def _image(path: Path) -> Image.Image | None:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except OSError:  # still being written
        return None


def _stacked(images: list[Image.Image]) -> Image.Image:
    width = images[0].width
    images = [image.resize((width, max(1, image.height * width // image.width))) for image in images]
    sheet = Image.new("RGB", (width, sum(image.height for image in images)))
    top = 0
    for image in images:
        sheet.paste(image, (0, top))
        top += image.height
    return sheet


def _pictures(out: Path, curves: str) -> list[Path]:
    """The curves and the last previews, as far as they are there."""
    previews = sorted((out / "previews").glob("*.png"))
    return [path for path in (out / curves, *previews[-1:]) if path.exists()]


def _picture(path: Path) -> Picture:
    return Picture(path.name, path.parent.relative_to(folder_paths.get_output_directory()).as_posix())


def _state(out: Path) -> dict[str, Any]:
    try:
        return json.loads((out / "state.json").read_text(encoding="utf-8"))
    except OSError:  # not there yet, or on Windows just being replaced
        return {}


def _told(state: dict[str, Any], loss: float | None) -> str:
    if not state:
        return "Loading the model"
    told = f"{cause(state['message'])}: {quoted(state['iteration'])} of {quoted(state['total'])}"
    told += f", loss {loss:.4g}" if loss is not None else ""
    left = state["seconds_left"]
    return told + (f", {quoted(time.strftime('%H:%M:%S', time.gmtime(left)))} left" if left and left < 86400 else "")
