"""A clip's pixels, cut to the sizes and the times that a dataset asks for."""

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ...messages import quoted
from .account import UnusableError
from .buckets import Size, nearest_bucket
from .folder import PICTURES, Clip
from .pictures import Note, Shot, animation, is_animated, still
from .videos import video
from .windows import MOST_FRAMES, Window, Windows

MOST_PIXELS = 2**30  # of a clip, 12 GiB as it is encoded: 1280x720 with 1001 frames
MOST_LENGTHS = 16
FEWER = 0.95  # a share of own frames below this is reported: 23.976 at 24 is none


@dataclass(frozen=True)
class Cut:
    """The sizes of clips, and where in a video they lie.

    A video is scaled to cover width x height and cropped around its middle; with `buckets`, to a size of at most that
    area that has about its shape. From its start on it is sampled at `fps`, each time the nearest frame, or frame by
    frame if fps is 0, and of these `windows` become clips, as long as the longest of `frames` that the video has. Of an
    animated picture each frame stays until its end. A still picture is a clip of one frame.
    """

    width: int = 848
    height: int = 480
    frames: int | tuple[int, ...] = 121
    fps: float = 24.0
    buckets: bool = False
    windows: Windows = Windows()

    def __post_init__(self):
        if self.width < 16 or self.height < 16 or self.width % 16 or self.height % 16:
            raise ValueError(f"Clips of {self.width:d}x{self.height:d} cannot be encoded: use multiples of 16.")
        if not 0 < len(self.lengths) <= MOST_LENGTHS:
            raise ValueError(
                f"Clips of {len(self.lengths):d} lengths were asked for: give 1 to {MOST_LENGTHS} numbers of frames."
            )
        for frames in self.lengths:
            _require_length(frames)
        if self.width * self.height * self.lengths[0] > MOST_PIXELS:
            raise ValueError(
                f"Clips of {self.width:d}x{self.height:d} with {self.lengths[0]:d} frames are more than fit into "
                "memory. Ask for smaller or shorter ones."
            )
        if not 0 <= self.fps <= 1000:
            raise ValueError(
                f"{quoted(self.fps)} frames per second cannot be: use 24, as the models do, or 0 for every frame."
            )

    def __str__(self) -> str:
        lengths = ",".join(map(str, self.lengths))
        others = [*["buckets"] * self.buckets, *[str(self.windows)] * (self.windows.kind != "first")]
        return " ".join([f"{self.width}x{self.height}x{lengths}@{self.fps:g}", *others])

    @property
    def lengths(self) -> list[int]:
        """The numbers of frames that clips may have, the longest first."""
        return sorted({self.frames} if isinstance(self.frames, int) else set(self.frames), reverse=True)

    def size_for(self, size: Size) -> Size:
        """The size to which pictures of this size are cut."""
        return nearest_bucket(size, self.width * self.height) if self.buckets else (self.width, self.height)


class Footage(NamedTuple):
    """What was read of a clip."""

    frames: Tensor  # [T, H, W, 3], bytes
    changes: dict[str, str]  # what was done to it -> how much

    @property
    def pixels(self) -> Tensor:
        """Its frames in [0, 1]: four times as large, made when they are asked for."""
        return self.frames.float().div_(255)


def find_windows(clip: Clip, cut: Cut) -> list[Window]:
    """What is cut from a video, and one window more than is taken if there are more; it decodes, but makes no pictures.

    UnusableError, a ValueError in a sentence, if the video is too short, or if one of these frames is damaged.
    """
    with _reading(clip):
        shots = _sampled(clip, cut, lambda change: None)
        if shots is None:
            return [Window(0, 1)]
        length = sum(1 for _ in islice(shots, cut.windows.reach(cut.lengths[0])))
    if length > MOST_FRAMES:
        raise UnusableError(quoted(clip.name), f"has more than {MOST_FRAMES:,} frames", "split it")
    fitting = [frames for frames in cut.lengths if frames <= length]
    if not fitting:
        raise _too_short(clip, cut, length)
    return [Window(start, fitting[0]) for start in cut.windows.of(length, fitting[0])]


def read_windows(clip: Clip, cut: Cut, windows: Sequence[Window]) -> Iterator[Footage]:
    """What `find_windows` found, or some of it, one after another; frames are held until their last window is given.

    UnusableError if it cannot be read.
    """
    changes = {}

    def note(what: str) -> None:
        changes[what] = ""

    with _reading(clip):
        shots = _sampled(clip, cut, note)
        if shots is None:
            picture = still(clip.path, note)
            yield Footage(torch.from_numpy(np.stack([_fit(picture, cut.size_for(picture.size))])), changes)
            return
        for frames, times in _taken(clip, cut, shots, windows):
            if len(times) < FEWER * len(frames):
                changes.setdefault(f"frames repeated, for it has fewer than {cut.fps:g} a second", _rate(times))
            yield Footage(torch.from_numpy(frames), dict(changes))


def _taken(
    clip: Clip, cut: Cut, shots: Iterator[Shot], windows: Sequence[Window]
) -> Iterator[tuple[np.ndarray, list[float]]]:
    """The frames of each window, and the times of those that are not repeated."""
    held, last, size, numbered = deque(), None, None, enumerate(shots)
    for window, following in zip_longest(windows, windows[1:]):
        end = window.start + window.frames
        for number, shot in numbered:
            size = size or cut.size_for(shot.image().size)  # the first frame's, whichever windows are wanted
            if number >= window.start:
                held.append(held[-1] if held and shot is last else (shot.time, _fit(shot.image(), size)))
                last = shot
            if number + 1 == end:
                break
        if len(held) < window.frames:
            raise _too_short(clip, cut, window.start + len(held))
        frames, own = np.stack([picture for _, picture in held]), {id(one): one[0] for one in held}
        while held and (following is None or len(held) > end - following.start):
            held.popleft()
        yield frames, list(own.values())


def _too_short(clip: Clip, cut: Cut, length: int) -> UnusableError:
    at = f" at {cut.fps:g} per second" if cut.fps else ""
    needed = cut.lengths[-1]
    return UnusableError(quoted(clip.name), "is too short", f"{length:d} frames{at}, and {needed:d} are needed")


def _require_length(frames: int) -> None:
    if frames < 1 or frames % 4 != 1:
        near = max(1, frames // 4 * 4 + 1)
        raise ValueError(f"Clips of {frames:d} frames cannot be encoded: use 4n + 1 frames, for example {near:d}.")


@contextmanager
def _reading(clip: Clip) -> Iterator[None]:
    try:
        yield
    except UnusableError:
        raise
    except Exception as error:  # decoders raise anything on damaged files
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UnusableError(quoted(clip.name), "cannot be read", quoted(reason)) from error


def _sampled(clip: Clip, cut: Cut, note: Note) -> Iterator[Shot] | None:
    """The frames at the times that are asked for; none for a still."""
    shots, held = _shots(clip, cut, note)
    return _nearest(shots, cut.fps, held, clip.name) if shots is not None and cut.fps else shots


def _shots(clip: Clip, cut: Cut, note: Note) -> tuple[Iterator[Shot] | None, bool]:
    """The clip's frames, none for a still, and whether each stays until its end."""
    if clip.path.suffix.lower() not in PICTURES:
        return video(clip.path, note), False
    return (animation(clip.path, cut.fps, note), True) if is_animated(clip.path) else (None, False)


def _rate(times: list[float]) -> str:
    span = times[-1] - times[0]
    return f"about {(len(times) - 1) / span:.3g}" if span > 0 else "one frame"


def _fit(image: Image.Image, size: Size) -> np.ndarray:
    return np.asarray(ImageOps.fit(image, size, Image.Resampling.LANCZOS))


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
