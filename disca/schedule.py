"""Which steps of a run are anchors, where the whole transformer runs; the Predictor does the others."""

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from .messages import quoted

MAX_CACHE_AGE = 0.2  # predictors are trained on features at most this much older, in sigma (Δmax, supplement 8.1)

MOST_LETTERS = 10_000  # of an anchor list: a thousand steps, each by itself, take half of it
WRITE = "Write step numbers and ranges, such as '0 1 2 5 9 13 17 19' or '0-2, 5, 9'."


@dataclass(frozen=True)
class Anchors:
    """A list of anchor steps, written for runs of `steps` steps, or for any that are long enough."""

    listed: tuple[int, ...]
    steps: int | None = None
    name: str = "anchors"

    def of(self, steps: int) -> frozenset[int]:
        """The anchors of a run of that many steps; ValueError if the list does not fit it."""
        if self.steps is not None and self.steps != steps:
            raise ValueError(
                f"The schedule {quoted(self.name)} is written for {self.steps:d} steps, but the run has {steps:d}. "
                f"Set steps to {self.steps:d}, or choose the interval or anchors plan in DisCa Cache Schedule."
            )
        if self.listed[-1] >= steps:
            raise ValueError(
                f"The schedule asks for step {self.listed[-1]:d} in full, but the run has {steps:d} steps, "
                f"0 to {steps - 1}. "
                f"Remove the anchors above {steps - 1}, or run at least {self.listed[-1] + 1:d} steps."
            )
        return frozenset(self.listed)

    def __str__(self) -> str:
        return " ".join(f"{step:d}" for step in self.listed)


@dataclass(frozen=True)
class Interval:
    """The first `warmup` steps in full, then every `interval`-th, and the last one if `last_step`."""

    interval: int
    warmup: int = 3
    last_step: bool = True
    name: str = "interval"

    def of(self, steps: int) -> frozenset[int]:
        """The anchors of a run of that many steps; all of them at interval 1."""
        warmup = min(self.warmup, steps)
        anchors = {*range(warmup), *range(warmup - 1, steps, self.interval)}
        return frozenset(anchors | {steps - 1} if self.last_step else anchors)

    def __str__(self) -> str:
        first = f"0 to {self.warmup - 1:d}" if self.warmup > 1 else "0"
        return f"{first}, then one step in {self.interval:d}" + (", and the last" if self.last_step else "")


Schedule = Anchors | Interval
EVERY_STEP = Interval(1, warmup=1)

PRESETS = {
    preset.name: preset
    for preset in (
        Anchors((0, 1, 2, 5, 9, 13, 17, 19), 20, "HunyuanVideo 1.0, 20 steps, N=4"),
        Anchors((0, 1, 2, 5, 8, 11, 13, 15, 17, 18, 19), 20, "HunyuanVideo 1.0, 20 steps, N=3 (ours)"),
        Anchors((0, 1, 2, 4, 6, 8, 10, 12, 14, 16, 17, 18, 19), 20, "HunyuanVideo 1.0, 20 steps, N=2 (ours)"),
        Anchors((0, 1, 2, 5, 9, 11, 13, 15, 17, 19), 20, "HunyuanVideo 1.0, 20 steps, 10 anchors"),
        Anchors((0, 2, 4, 7), 8, "HunyuanVideo 1.5, 8 steps"),
        Anchors((0, 2, 4, 7, 9, 11), 12, "HunyuanVideo 1.5, 12 steps (ours)"),
    )
}


def parse_anchors(text: str) -> Anchors:
    """Anchors from a list such as '0 1 2 5 9' or '0-2, 5, 9': ascending, with step 0 among them; else ValueError."""
    text = text.strip(" \t\r\n,;")
    if not text:
        raise ValueError(f"The anchor list is empty. {WRITE}")
    if len(text) > MOST_LETTERS:
        raise ValueError(f"The anchor list has {len(text)} characters, but may have {MOST_LETTERS}. {WRITE}")
    listed: list[int] = []
    for part in re.split(r"[,;\s]+", re.sub(r"\s*-\s*", "-", text)):
        first, last = _range(part, text)
        if listed and first <= listed[-1]:
            raise ValueError(
                f"The anchor list {quoted(text)} is not ascending: {first:d} comes after {listed[-1]:d}. "
                "Write each step once, smallest first."
            )
        listed += range(first, last + 1)
    if listed[0] != 0:
        raise ValueError(
            f"The anchor list {quoted(text)} starts at step {listed[0]:d}, but step 0 must be an anchor: "
            "there are no features to predict from before it. Put 0 in front."
        )
    return Anchors(tuple(listed))


def _range(part: str, text: str) -> tuple[int, int]:
    """The first and the last step of a part of an anchor list."""
    match = re.fullmatch(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", part)
    if match is None and re.fullmatch(r"[0-9]+(?:-[0-9]+)?", part):
        raise ValueError(
            f"{quoted(part)} in the anchor list {quoted(text)} is too large: no run has 100000 steps. Remove it."
        )
    if match is None:
        raise ValueError(f"Cannot read {quoted(part)} in the anchor list {quoted(text)}. {WRITE}")
    first, last = int(match[1]), int(match[2] or match[1])
    if last < first:
        raise ValueError(
            f"The range {quoted(part)} in the anchor list {quoted(text)} runs backwards. Write '{last:d}-{first:d}'."
        )
    return first, last


def oldest_features(anchors: frozenset[int], sigmas: Sequence[float]) -> tuple[int, float]:
    """The predicted step whose features are oldest, and their age sigma_anchor - sigma_step; (0, 0.0) without one."""
    ordered = sorted(anchors)
    ages = {
        step: sigmas[ordered[bisect_right(ordered, step) - 1]] - sigmas[step]
        for step in range(len(sigmas) - 1)
        if step not in anchors
    }
    return max(ages.items(), key=lambda item: item[1], default=(0, 0.0))


def first_steps(sigmas: Sequence[float]) -> dict[float, int]:
    """The step of each time; a repeated time is its first step."""
    return {sigma: step for step, sigma in reversed(list(enumerate(sigmas[:-1])))}
