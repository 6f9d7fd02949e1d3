"""The losses of a run as a picture: one panel for each part, one line for each band of t."""

import math
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from ...files import replacing

WIDTH, HEIGHT = 960, 320
LEFT, RIGHT, TOP, BOTTOM = 80, 150, 34, 34
COLOURS = ("#4477aa", "#66a5cc", "#ccbb44", "#ee6677")  # from data to noise
WHOLE, HELD_OUT = "#222222", "#aa3377"
VALIDATION = "validation"  # among the further figures of a line
GRID = "#dddddd"
SMOOTHING = 0.02  # share of the run that a point is the mean of

Points = list[tuple[int, float]]


def draw_curves(lines: list[dict[str, Any]], path: Path) -> None:
    """Draws the losses of a log; nothing is drawn for an empty one."""
    panels = curves(lines)
    if not panels:
        return
    picture = Image.new("RGB", (WIDTH, HEIGHT * len(panels)), "white")
    for place, (name, series) in enumerate(panels.items()):
        _panel(ImageDraw.Draw(picture), place * HEIGHT, name, series)
    with replacing(path) as aside:
        picture.save(aside, "PNG")


def curves(lines: list[dict[str, Any]]) -> dict[str, dict[str, Points]]:
    """Part -> line -> smoothed points; the lines are "all", the bands of t, and the product's validation as it is."""
    names = list(dict.fromkeys(name for line in lines for name in line["loss"]))
    panels = {}
    for name in names:
        found = [(line["iteration"], line["loss"][name], line["bands"][name]) for line in lines if name in line["loss"]]
        count = len(found[0][2])
        series = {
            f"t {band / count:.2f}-{(band + 1) / count:.2f}": [(x, bands[band]) for x, _, bands in found]
            for band in range(count)
        }
        series["all"] = [(x, loss) for x, loss, _ in found]
        held_out = [(line["iteration"], line.get("extra", {}).get(VALIDATION)) for line in lines] if not panels else []
        smooth = {key: _smoothed([(x, y) for x, y in points if y is not None]) for key, points in series.items()}
        smooth[VALIDATION] = [(x, y) for x, y in held_out if y is not None]
        panels[name] = {key: points for key, points in smooth.items() if points}
    return {name: series for name, series in panels.items() if series}


def _smoothed(points: Points) -> Points:
    share = 1 / max(1.0, SMOOTHING * len(points))
    mean, found = 0.0, []
    for seen, (x, y) in enumerate(points):
        mean += (y - mean) * max(share, 1 / (seen + 1))
        found.append((x, mean))
    return found


def _panel(draw: ImageDraw.ImageDraw, top: int, name: str, series: dict[str, Points]) -> None:
    font = ImageFont.load_default(size=13)
    values = [_log(y) for points in series.values() for _, y in points]
    low, high = min(values), max(values)
    if high - low < 0.1:
        low, high = low - 0.05, high + 0.05
    last = max(points[-1][0] for points in series.values())

    def place(x: float, level: float) -> tuple[float, float]:
        across = (WIDTH - LEFT - RIGHT) * x / max(last, 1)
        return LEFT + across, top + TOP + (HEIGHT - TOP - BOTTOM) * (high - level) / (high - low)

    draw.text((LEFT, top + 10), f"loss of the {name}", fill=WHOLE, font=font)
    for step in range(5):
        level = low + (high - low) * step / 4
        draw.line([place(0, level), place(last, level)], fill=GRID)
        draw.text((8, place(0, level)[1] - 8), f"{10**level:.3g}", fill=WHOLE, font=font)
        draw.text(
            (place(last * step / 4, low)[0] - 10, top + HEIGHT - BOTTOM + 8),
            f"{last * step // 4}",
            fill=WHOLE,
            font=font,
        )
    for row, (key, points) in enumerate(series.items()):
        colour = {"all": WHOLE, VALIDATION: HELD_OUT}.get(key, COLOURS[row % len(COLOURS)])
        draw.line([place(x, _log(y)) for x, y in points], fill=colour, width=3 if key == "all" else 2)
        draw.text((WIDTH - RIGHT + 14, top + TOP + 20 * row), f"{key}  {points[-1][1]:.3g}", fill=colour, font=font)


def _log(value: float) -> float:
    return math.log10(max(value, 1e-12))
