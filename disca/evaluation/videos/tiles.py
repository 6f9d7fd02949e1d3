"""Videos beside one another as one, each under its name."""

from collections.abc import Sequence
from math import ceil, sqrt

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ...messages import quoted

FONT, LINE, MARGIN = 14, 18, 6  # pixels: of letters, of a line of them, around a video
LINES = 3  # of a name at most
MOST_PIXELS = 2**28  # three gigabytes


def tiled(videos: Sequence[Tensor], names: Sequence[str], columns: int = 0) -> Tensor:
    """One video [T, H, W, 3] of many of one size and length; 0 columns: as nearly square as it can be."""
    require_alike(videos, names)
    frames, height, width, _ = videos[0].shape
    columns = min(columns or ceil(sqrt(len(videos) * height / width)), len(videos))
    lines = [_lines(name, width) for name in names]
    tall, wide = height + LINE * max(map(len, lines)) + MARGIN, width + MARGIN
    rows = ceil(len(videos) / columns)
    if frames * rows * tall * columns * wide > MOST_PIXELS:
        raise ValueError(f"{len(videos):d} videos of {frames:d} frames do not fit into memory. Make them smaller.")
    out = torch.zeros(frames, rows * tall, columns * wide, 3)
    for number, (video, said) in enumerate(zip(videos, lines, strict=True)):
        top, left = number // columns * tall, number % columns * wide
        head = _written(said, width, tall - height - MARGIN)
        out[:, top : top + head.shape[0], left : left + width] = head
        out[:, top + head.shape[0] :, left:][:, :height, :width] = video.float().cpu()
    return out


def require_alike(videos: Sequence[Tensor], names: Sequence[str]) -> None:
    """ValueError unless all are [T, H, W, 3] of one size and length, and each has a name."""
    if len(videos) != len(names):
        raise ValueError(f"There are {len(videos):d} videos and {len(names):d} names. Give each video one.")
    if not videos:
        raise ValueError("There are no videos. Give one at least.")
    first = videos[0].shape
    for name, video in zip(names, videos, strict=True):
        if video.ndim != 4 or video.shape[-1] != 3 or 0 in video.shape:
            found = quoted(list(video.shape))
            raise ValueError(f"{quoted(name)} has the shape {found}. Give [frames, height, width, 3].")
        if video.shape != first:
            sizes = [f"{len(one):d} frames of {one.shape[2]:d}x{one.shape[1]:d}" for one in (video, videos[0])]
            raise ValueError(f"{quoted(name)} has {sizes[0]}, and the first video {sizes[1]}. Make them alike before.")


def _lines(name: str, width: int) -> list[str]:
    """The name in as few lines as it takes, cut where there is no room."""
    font, lines = ImageFont.load_default(size=FONT), [""]
    for word in name.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width - 2 * MARGIN:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines if len(lines) <= LINES else [*lines[: LINES - 1], f"{lines[LINES - 1]} ..."]


def _written(lines: Sequence[str], width: int, height: int) -> Tensor:
    picture = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(size=FONT)
    for number, line in enumerate(lines):
        draw.text((MARGIN, LINE * number + LINE // 2), line, fill="#222222", font=font, anchor="lm")
    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255.0)
