"""VBench's Semantic, Quality and Total (Huang et al. 2024) from the result files that its own program wrote.

Ranges, weights and the ratio are those that its leaderboard is made with. A dimension that was not measured counts
nothing there; here there is no score without it.
"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ...messages import listing, quoted

ENDING = "_eval_results.json"
ROUNDING = 1e-6  # that a mean of similarities may be above 1 by


class Dimension(NamedTuple):
    """The range that counts as 0 to 1, and the weight in the score of its group."""

    low: float = 0.0
    high: float = 1.0
    weight: float = 1.0


QUALITY = {
    "subject_consistency": Dimension(0.1462),
    "background_consistency": Dimension(0.2615),
    "temporal_flickering": Dimension(0.6293),
    "motion_smoothness": Dimension(0.706, 0.9975),
    "dynamic_degree": Dimension(weight=0.5),
    "aesthetic_quality": Dimension(),
    "imaging_quality": Dimension(),
}
SEMANTIC = {
    "object_class": Dimension(),
    "multiple_objects": Dimension(),
    "human_action": Dimension(),
    "color": Dimension(),
    "spatial_relationship": Dimension(),
    "scene": Dimension(high=0.8222),
    "appearance_style": Dimension(0.0009, 0.2855),
    "temporal_style": Dimension(high=0.364),
    "overall_consistency": Dimension(high=0.364),
}
DIMENSIONS = QUALITY | SEMANTIC
RATIO = {"Semantic": 1.0, "Quality": 4.0}  # in the Total


@dataclass(frozen=True)
class Scores:
    """What was measured, 0 to 1 for each dimension, and the names in the files that are none of VBench's sixteen."""

    measured: Mapping[str, float]
    others: tuple[str, ...] = ()

    @property
    def semantic(self) -> float | None:
        """How far the videos show what the prompts say."""
        return self._of(SEMANTIC)

    @property
    def quality(self) -> float | None:
        """How good they look, whatever the prompts say."""
        return self._of(QUALITY)

    @property
    def total(self) -> float | None:
        """Both, 1 : 4."""
        if self.semantic is None or self.quality is None:
            return None
        return total(self.semantic, self.quality)

    def normalised(self, name: str) -> float:
        """A dimension in its range."""
        low, high, _ = DIMENSIONS[name]
        return (self.measured[name] - low) / (high - low)

    def lacks(self, group: Mapping[str, Dimension]) -> list[str]:
        """The dimensions of a group that were not measured."""
        return [name for name in group if name not in self.measured]

    def lines(self) -> Iterator[str]:
        """A line for each dimension that was measured, then the three scores, or what keeps them from being made."""
        yield " " * 24 + "measured  in its range"
        for name in DIMENSIONS:
            if name in self.measured:
                yield name.ljust(24) + f"{self.measured[name]:8.2%}  {self.normalised(name):12.2%}"
        for title, value, group in (
            ("Semantic", self.semantic, SEMANTIC),
            ("Quality", self.quality, QUALITY),
            ("Total", self.total, DIMENSIONS),
        ):
            lacking = self.lacks(group)
            yield title.ljust(24) + (f"{value:8.2%}" if not lacking else f"none without {listing(lacking, 16)}")
        if self.others:
            yield f"not counted, none of VBench's {len(DIMENSIONS):d} dimensions: {listing(self.others)}"

    def _of(self, group: Mapping[str, Dimension]) -> float | None:
        if self.lacks(group):
            return None
        weighed = sum(one.weight * self.normalised(name) for name, one in group.items())
        return weighed / sum(one.weight for one in group.values())


def total(semantic: float, quality: float) -> float:
    """The two scores, 1 : 4."""
    return (RATIO["Semantic"] * semantic + RATIO["Quality"] * quality) / sum(RATIO.values())


def read_scores(results: Path) -> Scores:
    """Of a result file, or of all in a folder and below; ValueError if there is none or one is damaged."""
    found: dict[str, tuple[float, Path]] = {}
    others = []
    for path in _files(results):
        for key, value in _entries(path):
            name, score = key.replace(" ", "_"), _score(path, key, value)
            if name not in DIMENSIONS:
                others.append(key)
            elif name in found and found[name][0] != score:
                _refuse_two(name, found[name], (score, path))
            else:
                found[name] = (score, path)
    return Scores({name: score for name, (score, _) in found.items()}, tuple(dict.fromkeys(others)))


def read_text(path: Path) -> str:
    """A text file; ValueError if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ValueError(f"{quoted(path)} cannot be read ({quoted(error.strerror)}).") from None
    except UnicodeDecodeError:
        raise ValueError(f"{quoted(path)} is no text in UTF-8. Save it as UTF-8.") from None


def read_json(path: Path) -> dict[str, object]:
    """The object in a JSON file; ValueError if there is none."""
    text = read_text(path)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        where = f" at line {error.lineno:d}" if isinstance(error, json.JSONDecodeError) else ""
        raise ValueError(
            f"{quoted(path)} is not complete JSON: it breaks off or is damaged{where}. Create it again."
        ) from None
    if not isinstance(value, dict):
        raise ValueError(f"{quoted(path)} holds {quoted(type(value).__name__)}, where names with values are needed.")
    return value


def _files(results: Path) -> list[Path]:
    if os.path.isfile(results):
        return [results]
    if not os.path.isdir(results):
        raise ValueError(f"There is no file or folder {quoted(results)}. Give VBench's --output_path.")
    if not (found := sorted(path for path in results.rglob(f"*{ENDING}") if path.is_file())):
        raise ValueError(
            f"{quoted(results)} has no file *{ENDING} in it. Run VBench's evaluate.py, and give its --output_path."
        )
    return found


def _entries(path: Path) -> list[tuple[str, object]]:
    if not (entries := list(read_json(path).items())):
        raise ValueError(f"{quoted(path)} has no results in it. Delete it, or run VBench again.")
    return entries


def _score(path: Path, key: str, value: object) -> float:
    """VBench writes [score, a list of videos]."""
    score = value[0] if isinstance(value, list) and value else None
    if isinstance(score, bool) or not isinstance(score, int | float):
        raise ValueError(
            f"{quoted(path)}: {quoted(key)} is {quoted(value)}, where VBench writes a list that begins with the score."
        )
    if not 0.0 <= score <= 1.0 + ROUNDING:
        raise ValueError(
            f"{quoted(path)}: {quoted(key)} is {quoted(score)}, but VBench's scores are 0 to 1. "
            "Divide percentages by 100; if it is NaN, the videos were not found: run VBench again."
        )
    return float(score)


def _refuse_two(name: str, first: tuple[float, Path], second: tuple[float, Path]) -> None:
    raise ValueError(
        f"{quoted(name)} is {first[0]:.4f} in {quoted(first[1])} and {second[0]:.4f} in {quoted(second[1])}. "
        "Give the folder of one run, or move away the file that is not to count."
    )
