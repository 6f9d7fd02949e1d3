"""Videos and pictures with their captions: what a dataset is built from, cut to size."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from ..messages import cause, listing, quoted

VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".gif")
PICTURES = (".png", ".jpg", ".jpeg", ".webp")
# FFmpeg looks at the content, not at the name: without these a playlist named .mp4 would fetch what it lists
ONLY_VIDEOS = {"format_whitelist": "mov,mp4,matroska,webm,avi,gif", "protocol_whitelist": "file"}


@dataclass(frozen=True)
class Cut:
    """The size of every clip.

    A video is scaled to cover width x height and cropped around its middle. From its start on it is sampled at `fps`,
    each time the nearest frame, or frame by frame if fps is 0; what comes after `frames` is left out. A picture is a
    clip of one frame.
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
        if not 0 <= self.fps <= 1000:
            raise ValueError(
                f"{quoted(self.fps)} frames per second cannot be: use 24, as the models do, or 0 for every frame."
            )

    def __str__(self) -> str:
        return f"{self.width}x{self.height}x{self.frames}@{self.fps:g}"


class Clip(NamedTuple):
    """A video or picture, and what it shows in words."""

    path: Path
    name: str  # its path within the folder
    caption: str


def find_clips(folder: str) -> list[Clip]:
    """The videos and pictures in the folder and its subfolders, by name, each with the text of its .txt file."""
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise ValueError(f"There is no folder {quoted(folder)}. Give the one that holds the videos and their captions.")
    paths = sorted(path for path in root.rglob("*") if path.suffix.lower() in VIDEOS + PICTURES and path.is_file())
    if not paths:
        raise ValueError(f"{quoted(folder)} holds no videos or pictures ({', '.join(VIDEOS + PICTURES)}).")
    bare = [path.name for path in paths if not path.with_suffix(".txt").is_file()]
    if bare:
        raise ValueError(
            f"{len(bare)} of {len(paths)} videos have no caption: {listing(bare, 5)}. "
            f"Write what each shows into a text file beside it, {quoted(Path(bare[0]).with_suffix('.txt').name)} and "
            "so on."
        )
    return [Clip(path, path.relative_to(root).as_posix(), _caption(path.with_suffix(".txt"))) for path in paths]


def read_clip(clip: Clip, cut: Cut) -> Tensor:
    """Pixels [T, H, W, 3] in [0, 1]; ValueError in a sentence if it cannot be read or is too short."""
    try:
        if clip.path.suffix.lower() in PICTURES:
            with Image.open(clip.path) as picture:
                images = [_fit(ImageOps.exif_transpose(picture), cut)]
        else:
            images = [_fit(frame.to_image().rotate(frame.rotation, expand=True), cut) for frame in _frames(clip, cut)]
    except (OSError, av.FFmpegError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{quoted(clip.name)} cannot be read ({cause(error)}). Make it anew, or take it away."
        ) from error
    if clip.path.suffix.lower() in VIDEOS and len(images) < cut.frames:
        raise ValueError(
            f"{quoted(clip.name)} is too short: {len(images)} frames at {cut.fps:g} per second, and {cut.frames:d} "
            "are needed. "
            "Ask for fewer frames, or take it away."
        )
    return torch.from_numpy(np.stack(images)).float() / 255.0


def _caption(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"The caption {quoted(path.name)} is not UTF-8 text ({quoted(error.reason)}). Save it as UTF-8."
        ) from error


def _fit(image: Image.Image, cut: Cut) -> np.ndarray:
    return np.asarray(ImageOps.fit(image.convert("RGB"), (cut.width, cut.height), Image.Resampling.LANCZOS))


def _frames(clip: Clip, cut: Cut) -> Iterator[av.VideoFrame]:
    with av.open(str(clip.path), options=ONLY_VIDEOS) as container:
        if not container.streams.video:
            raise ValueError(f"{quoted(clip.name)} has no picture in it. Take it away.")
        container.streams.video[0].thread_type = "AUTO"
        decoded = container.decode(video=0)
        yield from islice(_nearest(decoded, cut.fps, clip.name) if cut.fps else decoded, cut.frames)


def _nearest(frames: Iterator[av.VideoFrame], fps: float, name: str) -> Iterator[av.VideoFrame]:
    """For each time k / fps from the first frame on, the frame whose own time is nearest; ends with the last frame."""
    last, count, half = next(frames, None), 0, 0.0
    if last is None:
        return
    start = last.time
    for frame in frames:
        if start is None or frame.time is None:
            raise ValueError(f"{quoted(name)} does not say when its frames are shown. Take every frame with fps 0.")
        half = (frame.time - last.time) / 2
        while count / fps <= last.time - start + half:
            yield last
            count += 1
        last = frame
    while count / fps <= (last.time or 0.0) - (start or 0.0) + half:
        yield last
        count += 1
