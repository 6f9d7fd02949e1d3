"""FFmpeg's own measures of two videos, by the filters that PyAV carries: PSNR, SSIM in its windows, XPSNR."""

import re
import tempfile
from pathlib import Path

import av
import av.filter
import numpy as np
import torch
from torch import Tensor

from .metrics import Metric, Missing, decibels_of

LEAST_SIDE = 8  # of a window
XPSNR_FROM = 2025  # pixels; with fewer its blocks have no size, and it ends the process
DECIBELS = ("psnr", "xpsnr")
RATE = 24  # the filters go by frames; any rate will do
LOG = {  # filter -> the numbers in a line of its log that are a frame's; of one for each plane, the worst counts
    "psnr": r"psnr_avg:(\S+)",
    "ssim": r"All:(\S+)",
    "xpsnr": r"XPSNR y: *(\S+) +XPSNR u: *(\S+) +XPSNR v: *(\S+)",
}
FORMATS = {"psnr": "gbrp", "ssim": "gbrp", "xpsnr": "yuv444p"}


def by_ffmpeg(name: str, reference: Tensor, video: Tensor) -> Metric | Missing:
    """What FFmpeg's filter of that name says of videos [T, H, W, 3] in 0..1, which it sees in 8 bits."""
    if name not in av.filter.filters_available:
        return Missing(f"FFmpeg's {name}", "the FFmpeg in PyAV is without that filter")
    if (side := min(reference.shape[1:3])) < LEAST_SIDE:
        return Missing(f"FFmpeg's {name}", f"it needs {LEAST_SIDE:d} pixels on each side and the video has {side:d}")
    if name == "xpsnr" and (pixels := reference[0, ..., 0].numel()) < XPSNR_FROM:
        return Missing(f"FFmpeg's {name}", f"it needs {XPSNR_FROM:d} pixels and the video has {pixels:d}")
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        _run(name, log, reference, video)
        found = [re.search(LOG[name], line) for line in log.read_text(encoding="utf-8").splitlines()]
    frames = [min(float(number) for number in match.groups()) for match in found if match][: len(video)]
    overall = decibels_of(frames) if name in DECIBELS else sum(frames) / len(frames)
    return Metric(f"FFmpeg's {name}", frames, overall, True)


def _run(name: str, log: Path, reference: Tensor, video: Tensor) -> None:
    height, width = video.shape[1:3]
    graph, sources = av.filter.Graph(), []
    measure = graph.add(name, f"stats_file={escaped(log)}")
    for pad, kind in enumerate(("main", "reference")):
        source = graph.add_buffer(width=width, height=height, format="rgb24", time_base=f"1/{RATE:d}", name=kind)
        planes = graph.add("format", FORMATS[name])
        source.link_to(planes)
        planes.link_to(measure, 0, pad)
        sources.append(source)
    sink = graph.add("buffersink")
    measure.link_to(sink)
    graph.configure()
    for number, pair in enumerate(zip(video, reference, strict=True)):
        for source, pixels in zip(sources, pair, strict=True):
            frame = av.VideoFrame.from_ndarray(eight_bits(pixels), format="rgb24")
            frame.pts = number
            source.push(frame)
        sink.pull()
    for source in sources:
        source.push(None)


def eight_bits(pixels: Tensor) -> np.ndarray:
    """Colours in 0..1 as bytes."""
    return (pixels.float().clamp(0.0, 1.0) * 255.0).round().to(torch.uint8).contiguous().numpy()


def escaped(path: Path) -> str:
    """A path as an option of a filter."""
    return re.sub(r"([\\:,;'\[\]=])", r"\\\1", str(path))
