"""Two videos compared by every measure, and what a user sees of it: lines, a strip, the difference, a plot."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from PIL import Image
from torch import Tensor

from ...curve import curve
from .ffmpeg import by_ffmpeg
from .lpips import lpips
from .metrics import Metric, Missing, flicker, jitter, ms_ssim, psnr, require_comparable, ssim
from .vmaf import vmaf

Measure = Callable[[Tensor, Tensor], Metric | Missing]

MEASURES: dict[str, Measure] = {
    "PSNR": psnr,
    "SSIM": ssim,
    "MS-SSIM": ms_ssim,
    "flicker": flicker,
    "jitter": jitter,
    "FFmpeg's SSIM": partial(by_ffmpeg, "ssim"),
    "FFmpeg's XPSNR": partial(by_ffmpeg, "xpsnr"),
    "VMAF": vmaf,
    "LPIPS": lpips,
}
MOST_DECIBELS = 100.0  # in a plot
GAIN = 4.0  # of the difference: what the eye would not see


@dataclass(frozen=True)
class VideoComparison:
    """What was measured of a video against the reference, both [T, H, W, 3] in 0..1."""

    reference: Tensor
    video: Tensor
    found: Sequence[Metric | Missing]

    @property
    def text(self) -> str:
        """A line for each measure."""
        return "\n".join(one.line for one in self.found)

    @property
    def difference(self) -> Tensor:
        """How far each colour is apart, four times as bright."""
        return (GAIN * (self.video - self.reference).abs()).clamp(0.0, 1.0)

    @property
    def strip(self) -> Tensor:
        """The reference, the video and their difference beside each other, frame by frame."""
        return torch.cat([self.reference, self.video, self.difference], dim=2)

    def plot(self) -> Image.Image:
        """PSNR over the frames; one without an error stands at 100 dB."""
        measured = next(one for one in self.found if isinstance(one, Metric))
        points = [(float(frame), min(value, MOST_DECIBELS)) for frame, value in enumerate(measured.frames)]
        return curve(measured.name, "frame", {"PSNR": points})


def compared(reference: Tensor, video: Tensor) -> VideoComparison:
    """By every measure there is, those that cannot be taken with the reason; ValueError if the two do not match."""
    require_comparable(reference, video)
    reference, video = (one.float().clamp(0.0, 1.0) for one in (reference, video))
    return VideoComparison(reference, video, [measure(reference, video) for measure in MEASURES.values()])
