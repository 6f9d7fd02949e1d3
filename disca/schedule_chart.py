"""The error expected of schedules as a picture, over their number of full steps, on a log scale."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 960, 480
LEFT, RIGHT, TOP, BOTTOM = 90, 30, 76, 56
LINE, TEXT, GRID = "#4477aa", "#222222", "#dddddd"
MOST_LABELS = 20  # below, and anchors in a mark's text
LETTERS = 90  # of a line
DECADES = 8  # below the largest value: what is smaller is rounding


class Mark(NamedTuple):
    """A list that was run."""

    name: str
    full_steps: int
    error: float
    colour: str


def draw_chart(expected: Sequence[float], marks: Sequence[Mark], title: str) -> Image.Image:
    """A picture of the errors with at most 1, 2, ... full steps, and of lists that were run, each with its name."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=15)
    levels = _levels([*expected, *(mark.error for mark in marks)])

    def place(full_steps: float, error: float) -> tuple[float, float]:
        across = (full_steps - 1) / max(len(expected) - 1, 1)
        down = (levels[-1] - _log(error, levels[0])) / (levels[-1] - levels[0])
        return LEFT + (WIDTH - LEFT - RIGHT) * across, TOP + (HEIGHT - TOP - BOTTOM) * down

    _grid(draw, font, place, levels, len(expected))
    points = [place(count, error) for count, error in enumerate(expected, start=1) if error > 0.0]
    draw.line(points, fill=LINE, width=2)
    for x, y in points:
        draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=LINE)
    draw.text((LEFT, 10), title, fill=LINE, font=font)
    for row, mark in enumerate(marks):
        x, y = place(mark.full_steps, mark.error)
        draw.ellipse((x - 7, y - 7, x + 7, y + 7), outline=mark.colour, width=3)
        line = 30 + 20 * row
        draw.ellipse((LEFT, line + 3, LEFT + 10, line + 13), outline=mark.colour, width=3)
        draw.text((LEFT + 20, line), _short(mark.name), fill=mark.colour, font=font)
    return picture


def _grid(draw: ImageDraw.ImageDraw, font, place, levels: range, steps: int) -> None:
    for level in levels:
        left, right = place(1, 10.0**level), place(steps, 10.0**level)
        draw.line([left, right], fill=GRID)
        draw.text((LEFT - 12, left[1]), f"1e{level:d}", fill=TEXT, font=font, anchor="rm")
    every = math.ceil(steps / MOST_LABELS)
    for count in range(1, steps + 1, every):
        draw.text((place(count, 1.0)[0], HEIGHT - BOTTOM + 12), f"{count:d}", fill=TEXT, font=font, anchor="mt")
    draw.text(((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8), "steps in full", fill=TEXT, font=font, anchor="mb")


def _levels(errors: Sequence[float]) -> range:
    """Whole powers of ten that hold all errors but those of nothing left out."""
    logs = [math.log10(error) for error in errors if error > 0.0] or [0.0]
    top = math.ceil(max(logs) + 1e-9)
    return range(max(math.floor(min(logs)), top - DECADES), top + 1)


def _log(error: float, least: int) -> float:
    return max(math.log10(error), least) if error > 0.0 else least


def _short(text: str) -> str:
    return text if len(text) <= LETTERS else text[: LETTERS - 4] + " ..."
