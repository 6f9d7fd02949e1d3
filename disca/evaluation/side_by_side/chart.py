"""Speed against distance as a picture: a numbered dot for each method, a line through the best, a legend."""

import math
from collections.abc import Callable, Sequence

from PIL import Image, ImageDraw, ImageFont

from .rows import Row, pareto_front
from .table import error_of

WIDTH, PLOT, LINE = 960, 560, 30  # pixels; the height of the plot, and of a line of the legend
LEFT, RIGHT, TOP, BOTTOM = 96, 40, 52, 64
TEXT, GRID, BEST, OTHER = "#222222", "#dddddd", "#228833", "#4477aa"
RADIUS, MARKS = 15, 5
DECADES = 8  # below the largest error: what is smaller is rounding
COLUMNS = (690, 830, 930)  # right ends of speed-up, operations and error
LETTERS = 58  # of a method's name

Place = Callable[[float, float], tuple[float, float]]


def chart(rows: Sequence[Row]) -> Image.Image:
    """A picture of the rows that came, by the numbers that they have in the table."""
    came = [(number, row) for number, row in enumerate(rows) if row.came]
    best = pareto_front(rows)
    picture = Image.new("RGB", (WIDTH, PLOT + LINE * (len(rows) + 2)), "white")
    draw = ImageDraw.Draw(picture)
    place = _axes(draw, [row for _, row in came])
    draw.line([place(row.measured, row.error) for row in best], fill=BEST, width=3)
    for number, row in came:
        _dot(draw, place(row.measured, row.error), number, row in best)
    _legend(draw, rows, best)
    return picture


def _axes(draw: ImageDraw.ImageDraw, rows: Sequence[Row]) -> Place:
    """Draws the grid; gives where a speed-up and an error lie. The lowest line is for no error at all."""
    fastest = max([1.0, *(row.measured for row in rows)]) * 1.05
    slowest = min([1.0, *(row.measured for row in rows)]) * 0.95
    logs = [math.log10(row.error) for row in rows if row.error > 0.0] or [0.0]
    top = math.ceil(max(logs) + 1e-9)
    bottom = max(math.floor(min(logs)), top - DECADES) - 1

    def place(speed: float, error: float) -> tuple[float, float]:
        height = max(math.log10(error), bottom) if error > 0.0 else bottom
        return (
            LEFT + (WIDTH - LEFT - RIGHT) * (speed - slowest) / (fastest - slowest),
            TOP + (PLOT - TOP - BOTTOM) * (top - height) / (top - bottom),
        )

    font = ImageFont.load_default(size=18)
    for level in range(bottom, top + 1):
        y = TOP + (PLOT - TOP - BOTTOM) * (top - level) / (top - bottom)
        draw.line([(LEFT, y), (WIDTH - RIGHT, y)], fill=GRID)
        draw.text((LEFT - 10, y), "0" if level == bottom else f"1e{level:d}", fill=TEXT, font=font, anchor="rm")
    for mark in range(MARKS + 1):
        speed = slowest + (fastest - slowest) * mark / MARKS
        x, _ = place(speed, 1.0)
        draw.text((x, PLOT - BOTTOM + 10), f"{speed:.1f}x", fill=TEXT, font=font, anchor="mt")
    draw.text((LEFT, 14), "error against speed-up: lower is nearer, right is faster", fill=TEXT, font=font)
    return place


def _dot(draw: ImageDraw.ImageDraw, at: tuple[float, float], number: int, best: bool) -> None:
    x, y = at
    draw.ellipse((x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS), fill=BEST if best else OTHER, outline="white")
    draw.text(at, f"{number:d}", fill="white", font=ImageFont.load_default(size=18), anchor="mm")


def _legend(draw: ImageDraw.ImageDraw, rows: Sequence[Row], best: Sequence[Row]) -> None:
    font, y = ImageFont.load_default(size=18), PLOT + LINE // 2
    for right, head in zip(COLUMNS, ("speed-up", "by operations", "error"), strict=True):
        draw.text((right, y), head, fill=TEXT, font=font, anchor="rm")
    for number, row in enumerate(rows):
        y, name = PLOT + LINE * (number + 1) + LINE // 2, row.text
        name = name if len(name) <= LETTERS else f"{name[: LETTERS - 4]} ..."
        _dot(draw, (30, y), number, row in best)
        draw.text((56, y), name, fill=TEXT, font=font, anchor="lm")
        said = (f"{row.measured:.2f}x", f"{row.theory:.2f}x", error_of(row)) if row.came else ("", "", "failed")
        for right, text in zip(COLUMNS, said, strict=True):
            draw.text((right, y), text, fill=TEXT, font=font, anchor="rm")
