"""Which frames of a video become clips."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ...limits import require_choice, require_number

KINDS = ("first", "chunks", "slide", "uniform")
MOST_CLIPS = 256  # of one video: 20 minutes of it in chunks of 121 frames at 24 a second
MOST_FRAMES = 2**20  # of one video that are counted: 12 hours at 24 a second


class Window(NamedTuple):
    """Frames of a video that follow each other, numbered at the rate at which they are taken."""

    start: int
    frames: int


@dataclass(frozen=True)
class Windows:
    """Where the clips of a video begin.

    first: one, with the video. chunks: one where the last one ends. slide: one every `stride` frames. uniform: `count`,
    evenly from the video's start to its end; one alone lies in the middle.
    """

    kind: str = "first"
    stride: int = 24
    count: int = 4

    def __post_init__(self):
        require_choice("clips", self.kind, KINDS)
        require_number("stride", self.stride, True, 1, MOST_FRAMES)
        require_number("count", self.count, True, 1, MOST_CLIPS)

    def __str__(self) -> str:
        return {"slide": f"slide {self.stride:d}", "uniform": f"uniform {self.count:d}"}.get(self.kind, self.kind)

    def of(self, length: int, frames: int) -> Sequence[int]:
        """Where clips of so many frames begin in a video that has enough for one."""
        last = length - frames
        if self.kind == "first":
            return [0]
        if self.kind != "uniform":
            return range(0, last + 1, self._step(frames))
        if self.count == 1:
            return [last // 2]
        return sorted({last * i // (self.count - 1) for i in range(self.count)})

    def reach(self, frames: int) -> int:
        """How many of a video's frames have to be counted for all clips that are taken, and to know of one more."""
        if self.kind == "uniform":
            return MOST_FRAMES + 1
        return min(frames + MOST_CLIPS * self._step(frames), MOST_FRAMES + 1)

    def _step(self, frames: int) -> int:
        return {"first": 0, "chunks": frames, "slide": self.stride}[self.kind]
