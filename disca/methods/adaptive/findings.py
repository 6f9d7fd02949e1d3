"""What a calibration says: in words, and as lines and points to draw."""

from collections.abc import Sequence
from typing import NamedTuple

from .calibration import Calibration
from .magcache import MagCache, Magnitudes
from .measuring import Changing, Looking, Magnifying
from .teacache import InputChange, TeaCache

MEANT = {Changing: "TeaCache's polynomial", Magnifying: "MagCache's ratios"}
FINE = 200  # points of a drawn polynomial

Points = list[tuple[float, float]]


class Drawing(NamedTuple):
    """Lines by what they are, and points."""

    title: str
    across: str
    lines: dict[str, Points]
    dots: Points


def told(calibration: Calibration, rule: Looking) -> list[str]:
    """What was measured on what, and how many steps would run in full by it, a line each."""
    width, height, frames = calibration.size
    measured = "a video" if len(rule.record) == 1 else f"{len(rule.record):d} videos and conditions"
    lines = [
        f"{MEANT[type(rule)]} of {measured}, {width:d}x{height:d}, {frames:d} frames, "
        f"in {calibration.steps:d} steps at shift {calibration.shift:g}:",
        " ".join(f"{value:.5g}" for value in calibration.values),
    ]
    if isinstance(rule, Changing):
        return lines + _of_teacache(calibration, rule)
    return lines + _of_magcache(calibration)


def drawn(calibration: Calibration, rule: Looking) -> Drawing:
    """MagCache: the ratios over the steps. TeaCache: the polynomial among the changes that it was fitted to."""
    if isinstance(rule, Changing):
        pairs = rule.pairs(calibration.steps)
        least, most = (end(change for change, _ in pairs) for end in (min, max))
        estimated = InputChange(0.0, calibration.values).estimated
        changes = [least + (most - least) * i / FINE for i in range(FINE + 1)]
        curve = [(change, estimated(change)) for change in changes]
        return Drawing("change of the answer", "change of what the first block reads", {"fitted": curve}, pairs)
    dots = [point for series in rule.record for point in sorted(series.items())]
    return Drawing("ratio of residuals", "step", {"mean": list(enumerate(calibration.values))}, dots)


def _of_magcache(calibration: Calibration) -> list[str]:
    lines = []
    for settings in _settings(MagCache, "threshold", "most", "retention"):
        law = Magnitudes(calibration.values, **settings)
        full = law.full(calibration.steps)
        steps = " ".join(f"{step:d}" for step in full)
        named = f"threshold {law.threshold:g}, most {law.most:d}, retention {law.retention:g}"
        lines.append(f"{named}: {len(full):d} of {calibration.steps:d} steps in full: {steps}")
    return lines


def _of_teacache(calibration: Calibration, rule: Changing) -> list[str]:
    lines, rows = [], rule.complete(calibration.steps)
    for settings in _settings(TeaCache, "threshold"):
        law = InputChange(settings["threshold"], calibration.values)
        counts = [len(law.full([into for into, _ in row])) for row in rows]
        mean = sum(counts) / len(counts)
        lines.append(f"threshold {law.threshold:g}: about {mean:.3g} of {calibration.steps:d} steps in full")
    return lines


def _settings(cache: type[MagCache | TeaCache], *names: str) -> Sequence[dict[str, float]]:
    """Those of the presets, each once."""
    chosen = [{name: preset[name] for name in names} for preset in cache.presets.values()]
    return [one for i, one in enumerate(chosen) if one not in chosen[:i]]
