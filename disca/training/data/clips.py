"""A clip's pixels, cut to the size and the times that a dataset asks for."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ...messages import quoted
from .account import UnusableError
from .folder import PICTURES, Clip
from .pictures import Note, Shot, animation, is_animated, still
from .videos import video

MOST_PIXELS = 2**30  # of a clip, 12 GiB as it is encoded: 1280x720 with 1001 frames
FEWER = 0.95  # a share of own frames below this is reported: 23.976 at 24 is none


@dataclass(frozen=True)
class Cut:
    """The size of every clip.

    A video is scaled to cover width x height and cropped around its middle. From its start on it is sampled at `fps`,
    each time the nearest frame, or frame by frame if fps is 0; what comes after `frames` is left out. Of an animated
    picture each frame stays until its end. A still picture is a clip of one frame.
    """

    width: int = 848
    height: int = 480
    frames: int = 121
    fps: float = 24.0

    def __post_init__(self):
        if self.width < 16 or self.height < 16 or self.width % 16 or self.height % 16:
            raise ValueError(f"Clips of {self.width:d}x{self.height:d} cannot be encoded: use multiples of 16.")
        if self.frames < 1 or self.frames % 4 != 1:
            near = max(1, self.frames // 4 * 4 + 1)
            raise ValueError(
                f"Clips of {self.frames:d} frames cannot be encoded: use 4n + 1 frames, for example {near:d}."
            )
        if self.width * self.height * self.frames > MOST_PIXELS:
            raise ValueError(
                f"Clips of {self.width:d}x{self.height:d} with {self.frames:d} frames are more than fit into memory. "
                "Ask for smaller or shorter ones."
            )
        if not 0 <= self.fps <= 1000:
            raise ValueError(
                f"{quoted(self.fps)} frames per second cannot be: use 24, as the models do, or 0 for every frame."
            )

    def __str__(self) -> str:
        return f"{self.width}x{self.height}x{self.frames}@{self.fps:g}"


class Footage(NamedTuple):
    """What was read of a clip."""

    pixels: Tensor  # [T, H, W, 3] in [0, 1]
    changes: dict[str, str]  # what was done to it -> how much


def read_clip(clip: Clip, cut: Cut) -> Footage:
    """The clip at the size that is asked for; UnusableError, a ValueError in a sentence, if it cannot be had."""
    changes = {}
    try:
        images = _images(clip, cut, changes)
    except UnusableError:
        raise
    except Exception as error:  # decoders raise anything on damaged files
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UnusableError(quoted(clip.name), "cannot be read", quoted(reason)) from error
    return Footage(torch.from_numpy(np.stack(images)).float().div_(255), changes)


def _images(clip: Clip, cut: Cut, changes: dict[str, str]) -> list[np.ndarray]:
    def note(what: str) -> None:
        changes[what] = ""

    shots, held = _shots(clip, cut, note)
    if shots is None:
        return [_fit(still(clip.path, note), cut)]
    images, times, last = [], [], None
    for shot in islice(_nearest(shots, cut.fps, held, clip.name) if cut.fps else shots, cut.frames):
        if shot is not last:
            times.append(shot.time)
        images.append(images[-1] if shot is last else _fit(shot.image(), cut))
        last = shot
    if len(images) < cut.frames:
        at = f" at {cut.fps:g} per second" if cut.fps else ""
        raise UnusableError(
            quoted(clip.name), "is too short", f"{len(images)} frames{at}, and {cut.frames:d} are needed"
        )
    if len(times) < FEWER * len(images):
        changes[f"frames repeated, for it has fewer than {cut.fps:g} a second"] = _rate(times)
    return images


def _shots(clip: Clip, cut: Cut, note: Note) -> tuple[Iterator[Shot] | None, bool]:
    """The clip's frames, none for a still, and whether each stays until its end."""
    if clip.path.suffix.lower() not in PICTURES:
        return video(clip.path, note), False
    return (animation(clip.path, cut.fps, note), True) if is_animated(clip.path) else (None, False)


def _rate(times: list[float]) -> str:
    span = times[-1] - times[0]
    return f"about {(len(times) - 1) / span:.3g}" if span > 0 else "one frame"


def _fit(image: Image.Image, cut: Cut) -> np.ndarray:
    return np.asarray(ImageOps.fit(image, (cut.width, cut.height), Image.Resampling.LANCZOS))


def _nearest(shots: Iterator[Shot], fps: float, held: bool, name: str) -> Iterator[Shot]:
    """For each time k / fps from the first shot on, the nearest shot; ends with the last one.

    If they are held, one that begins more than half a step later is not taken in advance.
    """
    last, count, half = next(shots, None), 0, 0.0
    if last is None:
        return
    start = last.time
    for shot in shots:
        if start is None or shot.time is None:
            raise UnusableError(quoted(name), "does not say when its frames are shown", "take every frame with fps 0")
        half = (shot.time - last.time) / 2
        turn = last.time - start + half
        turn = max(turn, shot.time - start - 0.5 / fps) if held else turn
        while count / fps <= turn:
            yield last
            count += 1
        last = shot
    end = (last.time or 0.0) - (start or 0.0) + half if last.until is None else last.until - start - 1e-6
    while count / fps <= end:
        yield last
        count += 1
