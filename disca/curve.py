"""Lines and points as a picture."""

from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 960, 400
LEFT, RIGHT, TOP, BOTTOM = 80, 120, 44, 54
COLOURS = ("#222222", "#4477aa", "#ccbb44")
DOT, GRID = "#ee6677", "#dddddd"
RADIUS, MARKS = 2, 4

Points = Sequence[tuple[float, float]]


def curve(title: str, across: str, lines: Mapping[str, Points], dots: Points = ()) -> Image.Image:
    """Lines, named beside their ends, before points; `title` says what goes up, `across` what goes to the right."""
    picture = Image.new("RGB", (WIDTH, HEIGHT), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=13)
    points = [point for one in (*lines.values(), dots) for point in one]
    (left, right), (low, high) = (_range([point[axis] for point in points]) for axis in (0, 1))

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            LEFT + (WIDTH - LEFT - RIGHT) * (x - left) / (right - left),
            TOP + (HEIGHT - TOP - BOTTOM) * (high - y) / (high - low),
        )

    draw.text((LEFT, 12), title, fill=COLOURS[0], font=font)
    draw.text((WIDTH - RIGHT, HEIGHT - 20), across, fill=COLOURS[0], font=font, anchor="rs")
    for mark in range(MARKS + 1):
        x, y = left + (right - left) * mark / MARKS, low + (high - low) * mark / MARKS
        draw.line([place(left, y), place(right, y)], fill=GRID)
        draw.text((LEFT - 8, place(left, y)[1]), f"{y:.3g}", fill=COLOURS[0], font=font, anchor="rm")
        draw.text((place(x, low)[0], HEIGHT - BOTTOM + 8), f"{x:.3g}", fill=COLOURS[0], font=font, anchor="mt")
    for x, y in (place(*point) for point in dots):
        draw.ellipse([x - RADIUS, y - RADIUS, x + RADIUS, y + RADIUS], fill=DOT)
    for number, (name, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        draw.line([place(*point) for point in line], fill=colour, width=2)
        draw.text((WIDTH - RIGHT + 10, place(*line[-1])[1]), name, fill=colour, font=font, anchor="lm")
    return picture


def _range(values: Sequence[float]) -> tuple[float, float]:
    """From the least to the most, with room between where they are the same."""
    least, most = min(values), max(values)
    return (least, most) if most - least > 1e-6 * max(abs(least), abs(most)) else (least - 0.5, most + 0.5)
