"""Measures of two videos against closed forms, FFmpeg's own, and each other; what cannot be measured says why."""

import math
import sys

import pytest
import torch

from disca.evaluation.videos.comparison import MEASURES, compared
from disca.evaluation.videos.ffmpeg import by_ffmpeg
from disca.evaluation.videos.metrics import K1, K2, Metric, Missing, flicker, jitter, ms_ssim, psnr, similarity, ssim
from disca.evaluation.videos.vmaf import vmaf

T, H, W = 4, 48, 64


def constant(level):
    """A grey video."""
    return torch.full((T, H, W, 3), level)


@pytest.fixture
def pair():
    """A smooth random video and one with noise on it, in steps of 1/255 as FFmpeg sees them."""
    generator = torch.Generator().manual_seed(0)
    smooth = torch.nn.functional.avg_pool2d(torch.rand(T, 3, H, W, generator=generator), 5, 1, 2).permute(0, 2, 3, 1)
    noisy = (smooth + 0.05 * torch.randn(smooth.shape, generator=generator)).clamp(0.0, 1.0)
    return [(255 * video).round() / 255 for video in (smooth, noisy)]


def test_a_tenth_everywhere_is_20_db():
    found = psnr(constant(0.5), constant(0.6))
    assert found.frames == pytest.approx([20.0] * T) and found.overall == pytest.approx(20.0)


def test_psnr_of_a_whole_video_is_that_of_its_mean_error():
    video = constant(0.5)
    video[0] += 0.2
    assert psnr(constant(0.5), video).overall == pytest.approx(-10 * math.log10(0.04 / T))


def test_a_video_is_the_same_as_itself(pair):
    video, _ = pair
    assert psnr(video, video).line == "PSNR (dB): the same in all frames"
    assert ssim(video, video).overall == pytest.approx(1.0)
    assert (flicker(video, video).overall, jitter(video, video).overall) == (0.0, 0.0)


def test_ssim_of_flat_pictures_is_that_of_their_levels():
    expected = (2 * 0.3 * 0.6 + K1**2) / (0.3**2 + 0.6**2 + K1**2)
    assert ssim(constant(0.3), constant(0.6)).frames == pytest.approx([expected] * T, abs=1e-4)


def test_psnr_is_what_ffmpeg_says(pair):
    assert psnr(*pair).frames == pytest.approx(by_ffmpeg("psnr", *pair).frames, abs=0.006), "it gives two digits"


def test_ssim_in_ffmpegs_windows_is_what_ffmpeg_says(pair):
    """Of 8x8 pixels, every fourth; its first constant is a 64th of the paper's, its variance the unbiased one."""
    ours = similarity(*pair, torch.ones(8) / 8, step=4, c1=K1**2 / 64, c2=K2**2 * 63 / 64)
    assert ours.tolist() == pytest.approx(by_ffmpeg("ssim", *pair).frames, abs=1e-4)


def test_ssim_is_what_pytorch_msssim_says_and_ms_ssim_its_five_scales(pair):
    library = pytest.importorskip("pytorch_msssim")
    large = [torch.nn.functional.interpolate(one.permute(0, 3, 1, 2), size=(176, 192)) for one in pair]
    videos = [one.permute(0, 2, 3, 1) for one in large]
    assert ssim(*videos).overall == pytest.approx(float(library.ssim(*large, data_range=1.0)), abs=1e-4)
    assert ms_ssim(*videos).overall == pytest.approx(float(library.ms_ssim(*large, data_range=1.0)), abs=1e-5)


def test_every_second_frame_a_tenth_brighter_flickers_by_a_tenth():
    video = constant(0.5)
    video[1::2] += 0.1
    assert flicker(constant(0.5), video).frames == pytest.approx([25.5] * (T - 1), rel=1e-4)
    assert jitter(constant(0.5), video).frames == pytest.approx([25.5] * (T - 1), rel=1e-4)


def test_a_video_that_is_smoother_has_less_flicker_but_differs_all_the_same():
    reference = constant(0.5)
    reference[1::2] += 0.1
    assert flicker(reference, constant(0.5)).overall < 0 < jitter(reference, constant(0.5)).overall


@pytest.mark.parametrize("name", MEASURES)
def test_every_measure_puts_the_noisier_video_further_away(name, pair):
    video, noisy = (one.repeat(1, 4, 3, 1) for one in pair)
    noisier = (video + 3.0 * (noisy - video)).clamp(0.0, 1.0)
    near, far = (MEASURES[name](video, one) for one in (noisy, noisier))
    if isinstance(near, Missing):
        assert "pip install " in near.reason or "it needs weights in models/disca: " in near.reason
    else:
        assert isinstance(near, Metric) and len(near.frames) in (T, T - 1)
        assert (near.overall > far.overall) == near.higher_is_nearer


def test_one_frame_has_no_neighbours(pair):
    video, noisy = (one[:1] for one in pair)
    lines = compared(video, noisy).text.splitlines()
    assert sum("not measured, one frame has no neighbour" in line for line in lines) == 2


def test_what_is_missing_is_said_in_a_line_each(pair, monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_msssim", None)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    large = [one.repeat(1, 4, 3, 1) for one in pair]
    assert ms_ssim(*large).line == "MS-SSIM: not measured, it needs a library: pip install pytorch-msssim"
    assert vmaf(*pair).line == "VMAF: not measured, it needs an FFmpeg with libvmaf: pip install imageio-ffmpeg"


BAD = {
    "fewer frames": (lambda video: video[:-1], "4 frames and the second 3"),
    "another size": (lambda video: video[:, :-8], "64x48 and the second 64x40"),
    "no colours": (lambda video: video[..., :1], "shape 4, 48, 64, 1"),
    "one picture": (lambda video: video[0], "shape 48, 64, 3"),
    "no frames": (lambda video: video[:0], "shape 0, 48, 64, 3"),
    "levels of 255": (lambda video: 255 * video, "goes from .* to .*, but colours are 0 to 1"),
    "-1 to 1": (lambda video: 2 * video - 1, "goes from -.* to"),
    "NaN": (lambda video: video.clone().fill_(math.nan), "NaN or infinity"),
}


@pytest.mark.parametrize("case", BAD)
def test_videos_that_do_not_match_are_refused_with_what_was_found(case, pair):
    change, said = BAD[case]
    reference, video = pair
    with pytest.raises(ValueError, match=said):
        compared(reference, change(video))


def test_the_strip_has_reference_video_and_four_times_their_difference():
    found = compared(constant(0.5), constant(0.6))
    strip = found.strip
    assert strip.shape == (T, H, 3 * W, 3)
    levels = [float(strip[0, 0, place, 0]) for place in (0, W, 2 * W)]
    assert levels == pytest.approx([0.5, 0.6, 0.4], abs=1e-6)


def test_a_video_on_which_xpsnr_would_end_the_process_is_not_measured_by_it():
    """Its blocks have no size below 2025 pixels, and it divides by that."""
    small, least = (torch.rand(2, side, 45, 3, generator=torch.Generator().manual_seed(0)) for side in (44, 45))
    assert by_ffmpeg("xpsnr", small, small.flip(0)).line.endswith(
        "not measured, it needs 2025 pixels and the video has 1980"
    )
    assert by_ffmpeg("xpsnr", least, least.flip(0)).overall > 0.0


def test_one_frame_without_an_error_does_not_stand_for_all():
    reference = torch.rand(4, 64, 64, 3, generator=torch.Generator().manual_seed(0))
    video = reference.clone()
    video[1:] = (video[1:] + 0.05).clamp(0.0, 1.0)
    for name, measured in (("psnr", psnr(reference, video)), ("xpsnr", None)):
        found = by_ffmpeg(name, reference, video)
        assert math.isinf(found.frames[0]) and math.isfinite(found.overall) and "the same" not in found.line
        assert measured is None or found.overall == pytest.approx(measured.overall, abs=0.1)


@pytest.mark.parametrize("sides", [(7, 64), (3000, 1), (4, 4)])
def test_a_video_too_thin_for_windows_is_not_measured_by_them(sides):
    video = torch.rand(2, *sides, 3, generator=torch.Generator().manual_seed(0))
    for found in (by_ffmpeg("ssim", video, video), by_ffmpeg("xpsnr", video, video), vmaf(video, video)):
        assert "it needs 8 pixels on each side" in found.line
