"""The progress of a training on its node: how far it is, its curves and previews, and interrupts."""

import logging
import time
from pathlib import Path
from typing import Any

import comfy.model_management
import comfy.utils
from PIL import Image

from ..host.running.progress import show
from ..messages import cause, quoted
from ..training.records.curves import draw_curves
from ..training.records.log import read_log, read_state
from ..training.records.run_folder import RunFolder
from .worker import Worker

LOOK_SECONDS, DRAW_SECONDS = 0.3, 5.0
DRAW_SHARE = 0.05  # of the time, at most, is spent on drawing
MOST_SIDE, MOST_PIXELS, MOST_STRETCH = 2**14, 2**26, 8  # of a preview: larger or longer ones are not ours

logger = logging.getLogger(__name__)


def show_progress(worker: Worker, run: RunFolder) -> None:
    """Shows how far the run is until it has ended; then raises the interrupt, if there was one."""
    bar, interrupts, pictures, shown = comfy.utils.ProgressBar(1), 0, Pictures(run), ""
    while not worker.ended():
        if comfy.model_management.processing_interrupted():
            comfy.model_management.interrupt_current_processing(False)
            interrupts += 1
        if interrupts:
            worker.ask_to_stop()
        if interrupts > 1:
            worker.kill()
        state = read_state(run)
        try:
            bar.update_absolute(state.get("iteration", 0), state.get("total"), pictures.newer())
        except comfy.model_management.InterruptProcessingException:  # it came since we looked
            interrupts += 1
            continue
        line = "Saving and stopping. Interrupt again to stop at once." if interrupts else _line(state, pictures.loss)
        if line != shown:
            show(line)
            shown = line
        time.sleep(LOOK_SECONDS)
    if interrupts and (interrupts > 1 or not worker.failure()):
        ending = _ending(read_state(run), interrupts)
        show(ending)
        logger.info(f"DisCa: interrupted. {cause(ending)}")
        raise comfy.model_management.InterruptProcessingException()


class Pictures:
    """The loss curves above the last previews, drawn anew when there is more to see; what is damaged is left out."""

    def __init__(self, run: RunFolder):
        self.loss = None
        self._run, self._next, self._lines = run, 0.0, 0
        self._refused: set[Path] = set()

    def newer(self) -> tuple[str, Image.Image, None] | None:
        """The picture as ComfyUI's progress takes it, or None if the last one still is right or none can be drawn."""
        started = time.monotonic()
        if started < self._next:
            return None
        try:
            lines = read_log(self._run)
            drawn = self._draw(lines) if len(lines) != self._lines else None
        except (OSError, ValueError) as error:  # a full disk, say: the training is worth more than its picture
            self._warn(self._run.path, error)
            drawn = None
        self._next = time.monotonic() + max(DRAW_SECONDS, (time.monotonic() - started) / DRAW_SHARE)
        return drawn

    def _draw(self, lines: list[dict[str, Any]]) -> tuple[str, Image.Image, None] | None:
        self._lines = len(lines)
        self.loss = next((loss for loss in lines[-1]["loss"].values() if loss is not None), None) if lines else None
        draw_curves(lines, self._run.worker.curves)
        images = list(filter(None, map(self._image, pictures(self._run, self._run.worker.curves))))
        return ("JPEG", _stacked(images), None) if images else None

    def _image(self, path: Path) -> Image.Image | None:
        try:
            return open_picture(path)
        except ValueError as error:
            self._warn(path, error)
            return None

    def _warn(self, path: Path, error: Exception) -> None:
        if path not in self._refused:
            logger.warning(f"DisCa: {quoted(path)} cannot be shown: {cause(error)}. The training goes on.")
        self._refused.add(path)


def open_picture(path: Path) -> Image.Image:
    """A PNG of a run; ValueError if it is none, or so large or long that it is not ours."""
    try:
        with Image.open(path, formats=("PNG",)) as image:  # by no other format: one starts a PostScript interpreter
            width, height = image.size
            if max(width, height) > MOST_SIDE or width * height > MOST_PIXELS or height > MOST_STRETCH * width:
                raise ValueError(f"{width:d} x {height:d} pixels are too many for a preview")
            return image.convert("RGB")
    except Exception as error:  # Pillow raises a dozen kinds on damaged files, SyntaxError among them
        raise ValueError(quoted(str(error))) from None


def pictures(run: RunFolder, curves: Path) -> list[Path]:
    """The curves and the last previews, as far as they are there."""
    return [path for path in (curves, run.last_preview()) if path and path.is_file()]


def _stacked(images: list[Image.Image]) -> Image.Image:
    width = images[0].width
    images = [image.resize((width, max(1, image.height * width // image.width))) for image in images]
    sheet = Image.new("RGB", (width, sum(image.height for image in images)))
    top = 0
    for image in images:
        sheet.paste(image, (0, top))
        top += image.height
    return sheet


def _line(state: dict[str, Any], loss: float | None) -> str:
    if not state:
        return "Loading the model"
    line = f"{cause(state['message'])}: {state['iteration']:d} of {state['total']:d}"
    line += f", loss {loss:.4g}" if loss is not None else ""
    seconds = state["seconds_left"]
    if not seconds or not 0 < seconds < 86400:
        return line
    return f"{line}, {cause(time.strftime('%H:%M:%S', time.gmtime(seconds)))} left"


def _ending(state: dict[str, Any], interrupts: int) -> str:
    """What an interrupt came to."""
    if interrupts > 1:
        return "Stopped at once. Queue again to go on from the last checkpoint."
    if not state:
        return "Stopped before the first iteration. Queue again to start."
    if state["iteration"] == state["total"]:
        return f"All {state['total']:d} iterations are done and saved. Queue again for the result."
    return f"Stopped at {state['iteration']:d} of {state['total']:d} and saved. Queue again to go on."
