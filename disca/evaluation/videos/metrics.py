"""How far a video is from another of the same run, frame by frame: fidelity, structure, and what moves on its own.

Videos are [T, H, W, 3] in 0..1, as ComfyUI's IMAGE is. The first is the reference.
"""

import importlib
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import conv2d

from ...messages import listing

WINDOW, SIGMA = 11, 1.5  # of SSIM (Wang et al. 2004): a Gaussian
K1, K2 = 0.01, 0.03
SCALES_FROM = 161  # pixels that five scales of MS-SSIM need
RANGE = 1e-3  # that colours may leave 0..1 by, as rounding has them do
LEVELS = 255  # in which flicker is told


class Metric(NamedTuple):
    """A measure of two videos: a number for each frame, or for each two neighbours, and one for all."""

    name: str
    frames: list[float]
    overall: float
    higher_is_nearer: bool

    @property
    def line(self) -> str:
        """In words."""
        same = math.isinf(self.overall)
        worst = min(self.frames) if self.higher_is_nearer else max(self.frames)
        return f"{self.name}: " + ("the same in all frames" if same else f"{self.overall:.4f}, at worst {worst:.4f}")


class Missing(NamedTuple):
    """A measure that could not be taken."""

    name: str
    reason: str

    @property
    def line(self) -> str:
        """In words."""
        return f"{self.name}: not measured, {self.reason}"


def require_comparable(reference: Tensor, video: Tensor) -> None:
    """ValueError unless both are videos of as many frames, of one size, and of finite numbers in 0..1."""
    for name, one in (("first", reference), ("second", video)):
        if one.ndim != 4 or one.shape[-1] != 3 or 0 in one.shape:
            found = listing(one.shape, shown=str)
            raise ValueError(f"The {name} video has the shape {found}. Give one of [frames, height, width, 3].")
        low, high = (float(end) for end in torch.aminmax(one))  # NaN comes through
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(f"The {name} video has NaN or infinity in it. See where that came from first.")
        if low < -RANGE or high > 1.0 + RANGE:
            raise ValueError(f"The {name} video goes from {low:.3g} to {high:.3g}, but colours are 0 to 1. Scale it.")
    if len(reference) != len(video):
        raise ValueError(
            f"The first video has {len(reference):d} frames and the second {len(video):d}. Give as many of both, of "
            "one frame rate: what is compared are the frames, one by one."
        )
    if reference.shape != video.shape:
        sizes = [f"{one.shape[2]:d}x{one.shape[1]:d}" for one in (reference, video)]
        raise ValueError(f"The first video is {sizes[0]} and the second {sizes[1]}. Make both of one size before.")


def psnr(reference: Tensor, video: Tensor) -> Metric:
    """Peak signal to noise in dB; overall of the mean squared error of all frames, infinite if there is none."""
    pairs = zip(reference, video, strict=True)
    errors = [float((one - other).square().mean(dtype=torch.float64)) for one, other in pairs]
    return Metric("PSNR (dB)", [_decibels(error) for error in errors], _decibels(_mean(errors)), True)


def ssim(reference: Tensor, video: Tensor) -> Metric:
    """Structural similarity of each colour in Gaussian windows that lie within the picture."""
    size = min(WINDOW, *reference.shape[1:3])
    places = torch.arange(size) - (size - 1) / 2
    weights = torch.exp(-(places**2) / (2 * SIGMA**2))
    pairs = zip(reference.split(1), video.split(1), strict=True)  # one frame at a time: windows take memory
    frames = [float(similarity(*pair, weights / weights.sum())) for pair in pairs]
    return Metric("SSIM", frames, _mean(frames), True)


def similarity(
    reference: Tensor, video: Tensor, weights: Tensor, step: int = 1, c1: float = K1**2, c2: float = K2**2
) -> Tensor:
    """SSIM of each frame in separable windows of these weights, so many pixels apart."""
    window = (weights[:, None] * weights).expand(1, 1, -1, -1).to(reference)

    def seen(x: Tensor) -> Tensor:
        return conv2d(x.permute(0, 3, 1, 2).flatten(0, 1)[:, None], window, stride=step)

    x, y = seen(reference), seen(video)
    xx, yy, xy = seen(reference**2) - x**2, seen(video**2) - y**2, seen(reference * video) - x * y
    found = (2 * x * y + c1) * (2 * xy + c2) / ((x**2 + y**2 + c1) * (xx + yy + c2))
    return found.flatten(1).mean(1).unflatten(0, (-1, 3)).mean(1)


def ms_ssim(reference: Tensor, video: Tensor) -> Metric | Missing:
    """SSIM at five scales (Wang et al. 2003), by pytorch-msssim."""
    name, sides = "MS-SSIM", reference.shape[1:3]
    if min(sides) < SCALES_FROM:
        return Missing(name, f"its five scales need {SCALES_FROM:d} pixels and the video has {min(sides):d}")
    try:
        taken = importlib.import_module("pytorch_msssim").ms_ssim
    except ImportError:
        return Missing(name, "it needs a library: pip install pytorch-msssim")
    pairs = zip(reference, video, strict=True)
    frames = [float(taken(*(one.permute(2, 0, 1)[None] for one in pair), data_range=1.0)) for pair in pairs]
    return Metric(name, frames, _mean(frames), True)


def flicker(reference: Tensor, video: Tensor) -> Metric | Missing:
    """How much more neighbouring frames of the second differ than those of the first, in levels of 255; no warping."""
    name = "added flicker (of 255)"
    if len(video) < 2:
        return Missing(name, "one frame has no neighbour")
    ours, theirs = (LEVELS * one.diff(dim=0).abs().flatten(1).mean(1) for one in (video, reference))
    frames = (ours - theirs).tolist()
    return Metric(name, frames, _mean(frames), False)


def jitter(reference: Tensor, video: Tensor) -> Metric | Missing:
    """How far the changes from frame to frame are apart, in levels of 255: 0 where both move alike."""
    name = "difference of frame differences (of 255)"
    if len(video) < 2:
        return Missing(name, "one frame has no neighbour")
    frames = (LEVELS * (video.diff(dim=0) - reference.diff(dim=0)).abs().flatten(1).mean(1)).tolist()
    return Metric(name, frames, _mean(frames), False)


def _decibels(error: float) -> float:
    return -10.0 * math.log10(error) if error > 0.0 else math.inf


def decibels_of(frames: Sequence[float]) -> float:
    """Of all frames together: their errors are averaged, so that one frame without any does not stand for all."""
    return _decibels(_mean([10.0 ** (-frame / 10.0) for frame in frames]))


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
