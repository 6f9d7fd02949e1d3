"""Thumbnails of the example workflows: results where there are, else a bar for each step, as high as it costs."""

from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

SIZE = 640
FINE = 2  # drawn so many times larger, then reduced, for smooth edges
PREDICTED_COST = 0.035  # of a full step
MARGIN = 48
TOP, BOTTOM = (26, 31, 46), (13, 16, 24)
INK, QUIET, FULL, PREDICTED = (243, 244, 248), (150, 158, 178), (255, 171, 74), (70, 214, 186)


class Thumbnail(NamedTuple):
    """What a thumbnail says."""

    model: str
    task: str
    method: str
    size: str
    steps: int = 0
    full: frozenset[int] = frozenset()


def draw_thumbnail(thumbnail: Thumbnail, path: Path, results: dict[str, Image.Image] | None = None) -> None:
    """Writes the picture as a square JPEG; of the results side by side under their names, if there are any."""
    image = _background()
    pen = ImageDraw.Draw(image)
    _text(pen, MARGIN, 44, thumbnail.model, 56, INK)
    _text(pen, MARGIN, 114, f"{thumbnail.task}, {thumbnail.method}", 36, QUIET)
    if results:
        _results(image, pen, results, top=186, bottom=536)
    else:
        _bars(pen, thumbnail, top=206, bottom=452)
        _legend(pen, thumbnail, 484)
    _text(pen, MARGIN, 556, thumbnail.size, 28, QUIET)
    image.resize((SIZE, SIZE), Image.Resampling.LANCZOS).save(path, quality=90, optimize=True)


def _background() -> Image.Image:
    column = Image.new("RGB", (1, SIZE * FINE))
    for y in range(SIZE * FINE):
        share = y / (SIZE * FINE - 1)
        column.putpixel((0, y), tuple(round(a + (b - a) * share) for a, b in zip(TOP, BOTTOM, strict=True)))
    return column.resize((SIZE * FINE, SIZE * FINE))


def _bars(pen: ImageDraw.ImageDraw, thumbnail: Thumbnail, top: float, bottom: float) -> None:
    pitch = (SIZE - 2 * MARGIN + 8) / thumbnail.steps
    for step in range(thumbnail.steps):
        full = step in thumbnail.full
        height = (bottom - top) * (1.0 if full else PREDICTED_COST)
        left = MARGIN + step * pitch
        box = [FINE * value for value in (left, bottom - height, left + pitch - 8, bottom)]
        pen.rounded_rectangle(box, radius=4 * FINE, fill=FULL if full else PREDICTED)


def _results(
    image: Image.Image, pen: ImageDraw.ImageDraw, results: dict[str, Image.Image], top: int, bottom: int
) -> None:
    pitch = (SIZE - 2 * MARGIN + 16) / len(results)
    for number, (name, result) in enumerate(results.items()):
        x, room = MARGIN + number * pitch, bottom - top - 32
        scale = FINE * min((pitch - 16) / result.width, room / result.height)
        size = round(result.width * scale), round(result.height * scale)
        image.paste(result.convert("RGB").resize(size, Image.Resampling.LANCZOS), (round(FINE * x), FINE * (top + 32)))
        _text(pen, x, top, name, 18, INK)


def _legend(pen: ImageDraw.ImageDraw, thumbnail: Thumbnail, y: float) -> None:
    full, x = len(thumbnail.full), MARGIN
    for color, text in ((FULL, f"{full} full steps"), (PREDICTED, f"{thumbnail.steps - full} predicted")):
        if not text.startswith("0 "):
            pen.rounded_rectangle([FINE * v for v in (x, y + 8, x + 22, y + 30)], radius=4 * FINE, fill=color)
            _text(pen, x + 34, y, text, 32, INK)
            x += 250


def _text(pen: ImageDraw.ImageDraw, x: float, y: float, text: str, size: int, color: tuple[int, int, int]) -> None:
    pen.text((FINE * x, FINE * y), text, fill=color, font=ImageFont.load_default(size * FINE))
