"""Videos come out as a player shows them, whatever their times, colours, fields, pixels and orientation."""

from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image
from small_clips import ORIENTATIONS, joined, levels, make_video, raw_frame, read, write_frames

from disca.training.data import videos
from disca.training.data.clips import Cut

ONE = Cut(64, 32, 1)
CORNERS = np.kron(np.array([[40, 90], [140, 190]]), np.ones((16, 32)))[..., None]  # the four quarters of a frame


@pytest.mark.parametrize(
    ("fps", "wanted"),
    [(24, [1, 2, 3, 4, 5]), (12, [1, 3, 5, 7, 9]), (0, [1, 2, 3, 4, 5]), (60, [1, 1, 2, 2, 3])],
)
def test_a_video_is_sampled_at_the_nearest_frames(tmp_path, fps, wanted):
    make_video(tmp_path / "a.mkv", range(10, 130, 10), codec="ffv1")  # whose times are rounded to milliseconds
    assert levels(read(tmp_path / "a.mkv", Cut(64, 32, 5, fps)).pixels) == wanted


def test_frames_of_uneven_length_are_taken_at_their_times(tmp_path):
    make_video(tmp_path / "a.mkv", (10, 20, 30, 40, 50), codec="ffv1", times=[0, 1, 6, 7, 8])
    assert levels(read(tmp_path / "a.mkv", Cut(64, 32, 9, 24)).pixels) == [1, 2, 2, 2, 3, 3, 3, 4, 5]


@pytest.mark.parametrize("fps", [8, 16, 23.976, 25, 60])
def test_frames_that_are_repeated_are_told_with_the_videos_own_rate(tmp_path, fps):
    make_video(
        tmp_path / "a.mkv", range(10, 250, 2), codec="ffv1", times=[round(1000 / fps * i) for i in range(120)], fps=1000
    )
    changes = read(tmp_path / "a.mkv", Cut(64, 32, 41, 24)).changes
    told = "frames repeated, for it has fewer than 24 a second"
    assert changes == ({told: f"about {fps}"} if fps < 23 else {})


def test_a_video_is_scaled_to_cover_and_cropped_around_its_middle(tmp_path):
    picture = np.zeros((100, 400, 3), np.uint8)
    picture[:, 100:300] = 200
    Image.fromarray(picture).save(tmp_path / "a.png")
    pixels = read(tmp_path / "a.png", Cut(64, 32, 9)).pixels
    assert pixels.shape == (1, 32, 64, 3)
    assert torch.allclose(pixels[:, :, 2:-2], torch.tensor(200 / 255), atol=0.01)


def as_ffmpeg_turns_it(path) -> np.ndarray:
    """The first frame, through the filters that FFmpeg's own command chooses by the display matrix."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    matrix = np.frombuffer(bytes(frame.side_data["DISPLAYMATRIX"]), np.int32)
    theta = round(-frame.rotation % 360)
    filters = {
        0: ["vflip"] * int(matrix[4] < 0),
        90: [("transpose", "cclock_flip" if matrix[3] > 0 else "clock")],
        180: ["hflip"] * int(matrix[0] < 0) + ["vflip"] * int(matrix[4] < 0),
        270: [("transpose", "clock_flip" if matrix[3] < 0 else "cclock")],
    }[theta]
    graph = av.filter.Graph()
    steps = [graph.add(*([step] if isinstance(step, str) else step)) for step in filters]
    source = graph.add_buffer(width=64, height=32, format=frame.format.name, time_base=frame.time_base)
    graph.link_nodes(source, *steps, graph.add("format", "rgb24"), graph.add("buffersink"))
    graph.configure()
    graph.push(frame)
    return graph.vpull().to_ndarray()


@pytest.mark.parametrize(("turn", "flip"), ORIENTATIONS[1:])
def test_a_turned_and_mirrored_video_is_shown_as_ffmpeg_shows_it(tmp_path, turn, flip):
    path = make_video(tmp_path / "a.mp4", [CORNERS] * 2, rotation=turn, flip=flip)
    upright = np.rot90(CORNERS[..., 0], turn // 90)  # against the clock, then mirrored
    upright = upright[:, ::-1] if flip else upright
    height, width = upright.shape
    pixels = (read(path, Cut(width, height, 1)).pixels[0] * 255).numpy()
    assert np.abs(pixels - as_ffmpeg_turns_it(path)).max() < 6
    assert np.abs(pixels[4::8, 4::8, 0] - upright[4::8, 4::8]).max() < 12


def test_a_video_at_a_slant_is_refused(tmp_path):
    make_video(tmp_path / "a.mp4", [90] * 2, rotation=30)
    with pytest.raises(ValueError, match="'a.mp4' cannot be read .*at a slant, and only quarter turns"):
        read(tmp_path / "a.mp4", ONE)


def disc(width: int, height: int) -> np.ndarray:
    y, x = np.mgrid[:32, :64]
    return (((x - 31.5) / width) ** 2 + ((y - 15.5) / height) ** 2 < 0.25)[..., None] * 255


def extent(picture) -> tuple[int, int]:
    """How wide and how high the white shape is."""
    white = np.asarray(picture).mean(-1) > 127
    return int(white.any(0).sum()), int(white.any(1).sum())


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi"])
@pytest.mark.parametrize(("aspect", "shape"), [((4, 3), (18, 24)), ((1, 2), (24, 12)), ((2, 1), (12, 24))])
def test_a_disc_of_pixels_that_are_not_square_comes_out_round(tmp_path, name, aspect, shape):
    path = make_video(tmp_path / name, [disc(*shape)] * 2, aspect=Fraction(*aspect))
    width, height = extent(read(path, Cut(128, 128, 1)).pixels[0] * 255)
    assert abs(width - height) <= 4 and width > 44


def test_a_turned_disc_of_pixels_that_are_not_square_comes_out_round(tmp_path):
    path = make_video(tmp_path / "a.mp4", [disc(18, 24)] * 2, aspect=Fraction(4, 3), rotation=90)
    width, height = extent(read(path, Cut(128, 128, 1)).pixels[0] * 255)
    assert abs(width - height) <= 4 and width > 40


def test_the_containers_shape_of_pixels_stands_where_the_frames_say_none(tmp_path):
    path = make_video(tmp_path / "a.mp4", [disc(18, 24)] * 2, codec="libvpx-vp9", aspect=Fraction(4, 3))
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.sample_aspect_ratio != Fraction(4, 3)
    width, height = extent(read(path, Cut(128, 128, 1)).pixels[0] * 255)
    assert abs(width - height) <= 4


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_pixels_that_change_their_shape_in_mid_video_stay_round(tmp_path, codec):
    for name, aspect, shape in (("wide", (4, 3), (18, 24)), ("high", (1, 2), (24, 12))):
        make_video(tmp_path / f"{name}.avi", [disc(*shape)] * 3, codec=codec, aspect=Fraction(*aspect))
    joined(tmp_path / "a.avi", codec, tmp_path / "wide.avi", tmp_path / "high.avi")
    for shot in (shots := list(videos.video(tmp_path / "a.avi", lambda what: None))):
        width, height = extent(shot.image())
        assert abs(width - height) <= 2
    assert len(shots) == 6


def test_frames_that_change_their_size_in_mid_video_fill_the_clip(tmp_path):
    make_video(tmp_path / "small.avi", [40] * 3)
    large = np.full((64, 128), 200, np.uint8), np.full((32, 64), 128, np.uint8), np.full((32, 64), 128, np.uint8)
    write_frames(tmp_path / "large.avi", [raw_frame(list(large), "yuv420p") for _ in range(3)], "mpeg4")
    joined(tmp_path / "a.avi", "mpeg4", tmp_path / "small.avi", tmp_path / "large.avi")
    pixels = read(tmp_path / "a.avi", Cut(64, 32, 5, 0)).pixels
    assert levels(pixels) == [4, 4, 4, 21, 21]


def fields(number: int, motion: int) -> av.VideoFrame:
    """A bar that has moved on between the two fields of a frame; the lower one is the earlier."""
    picture = np.full((32, 64), 40, np.uint8)
    for field in (0, 1):
        left = 4 + motion * number + (motion // 2) * (1 - field)
        picture[field::2, left : left + 8] = 200
    grey = np.full((16, 32), 128, np.uint8)
    return raw_frame([picture, grey, grey], "yuv420p")


def combs(pixels) -> float:
    """How much neighbouring lines differ."""
    return float((pixels[:, 1:] - pixels[:, :-1]).abs().mean())


def test_an_interlaced_video_comes_out_without_combs_at_its_times(tmp_path):
    moving = [fields(i, 8) for i in range(6)]
    write_frames(tmp_path / "a.mkv", moving, "libx264", {"x264-params": "bff=1", "qp": "1"})
    write_frames(tmp_path / "b.mkv", moving, "libx264", {"qp": "1"})  # the same, said to be progressive
    interlaced, plain = (read(tmp_path / name, Cut(64, 32, 5)) for name in ("a.mkv", "b.mkv"))
    assert interlaced.changes == {videos.DEINTERLACED: ""} and plain.changes == {}
    assert combs(interlaced.pixels[1:]) < 0.05 * combs(plain.pixels[1:])
    lefts = [int((frame[16, :, 0] > 0.5).nonzero()[0]) for frame in interlaced.pixels[1:]]
    assert [b - a for a, b in zip(lefts, lefts[1:], strict=False)] == [8, 8, 8]
    assert len(read(tmp_path / "a.mkv", Cut(64, 32, 5, 0)).pixels) == 5


def test_what_is_flagged_interlaced_and_stands_still_keeps_its_lines(tmp_path):
    lines = [raw_frame([np.tile([[40], [200]], (16, 64)).astype(np.uint8), *[np.full((16, 32), 128, np.uint8)] * 2],
                       "yuv420p") for _ in range(5)]  # fmt: skip
    write_frames(tmp_path / "a.mkv", lines, "libx264", {"x264-params": "bff=1", "qp": "1"})
    assert combs(read(tmp_path / "a.mkv", Cut(64, 32, 5)).pixels[1:-1]) > 0.5


PATCHES = np.array([[200, 40, 40], [40, 200, 40], [40, 40, 200], [230, 230, 230]]) / 255
BT601, BT709, BT2020 = (0.299, 0.114, 5), (0.2126, 0.0722, 1), (0.2627, 0.0593, 9)  # kr, kb, FFmpeg's number


def coded(rgb: np.ndarray, matrix: tuple, full: bool, bits: int = 8) -> list[np.ndarray]:
    """Patches side by side as Y, Cb and Cr, by the standards' formulas."""
    kr, kb, _ = matrix
    y = rgb @ np.array([kr, 1 - kr - kb, kb])
    cb, cr = (rgb[:, 2] - y) / (2 - 2 * kb), (rgb[:, 0] - y) / (2 - 2 * kr)
    scale = 2 ** (bits - 8)
    low, luma, chroma = (0, 255, 255) if full else (16 * scale, 219 * scale, 224 * scale)
    values = low + luma * y, 128 * scale + chroma * cb, 128 * scale + chroma * cr
    kind = np.uint8 if bits == 8 else np.uint16
    return [np.repeat(plane.round(), 64 // len(rgb))[None].repeat(32, 0).astype(kind) for plane in values]


def patches(pixels, count: int) -> np.ndarray:
    width = 64 // count
    return pixels[0, 16, width // 2 :: width].numpy()


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", [BT601, BT709, BT2020])
def test_colours_are_read_by_the_matrix_and_range_that_the_file_names(tmp_path, matrix, full):
    named = {"colorspace": matrix[2], "color_range": 2 if full else 1}
    frame = raw_frame(coded(PATCHES, matrix, full), "yuv444p", **named)
    path = write_frames(tmp_path / "a.mkv", [frame], **named)
    assert np.abs(patches(read(path, ONE).pixels, 4) - PATCHES).max() < 2.5 / 255


def pq(nits: np.ndarray) -> np.ndarray:
    y = (nits / 10000) ** 0.1593017578125
    return ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375


def hlg(nits: np.ndarray) -> np.ndarray:
    luminance = (nits @ np.array([0.2627, 0.678, 0.0593]))[:, None]
    scene = np.where(luminance > 0, (np.maximum(luminance, 1e-9) / 1000) ** (1 / 1.2 - 1), 0) * nits / 1000
    return np.where(
        scene <= 1 / 12, np.sqrt(3 * scene), 0.17883277 * np.log(np.maximum(12 * scene, 0.3) - 0.28466892) + 0.55991073
    )


TO_BT2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])


@pytest.mark.parametrize(("transfer", "number"), [(pq, 16), (hlg, 18)])
def test_hdr_comes_out_in_the_colours_of_sdr(tmp_path, transfer, number):
    shown = np.array(
        [[0.9, 0.2, 0.2], [0.2, 0.9, 0.2], [0.2, 0.2, 0.9], [0.9, 0.9, 0.9], [0.1] * 3, [0.0] * 3, [1.5] * 3]
    )
    shown = np.concatenate([shown, [[0.5] * 3]])
    light = shown**2.2 @ TO_BT2020.T * 203  # BT.2408: white of SDR is 203 nits
    named = {"colorspace": 9, "color_range": 1, "color_trc": number, "color_primaries": 9}
    frame = raw_frame(coded(transfer(light), BT2020, False, bits=10), "yuv444p10le", **named)
    footage = read(write_frames(tmp_path / "a.mkv", [frame], **named), ONE)
    assert footage.changes == {videos.TONE_MAPPED: ""}
    found = patches(footage.pixels, 8)
    hues = found[:3] / found[:3].max(1, keepdims=True)
    assert np.abs(hues - np.array([[1, 0.25, 0.25], [0.25, 1, 0.25], [0.25, 0.25, 1]])).max() < 0.25
    greys = found[[5, 4, 7, 3, 6]]
    assert (greys.max(1) - greys.min(1)).max() < 0.02  # without a tint
    assert (np.diff(greys[:, 0]) > 0.05).all() and greys[0].max() < 0.02  # black is black, highlights are above white
    assert 0.5 < greys[3, 0] < 0.95 and abs(greys[1, 0] - 0.1) < 0.06


def test_a_pyav_that_cannot_tone_map_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(videos, "TO_SDR", "no_such_option=1")
    frame = raw_frame(coded(PATCHES, BT2020, False, bits=10), "yuv444p10le", color_trc=16)
    footage = read(write_frames(tmp_path / "a.mkv", [frame], color_trc=16), ONE)
    assert footage.changes == {videos.NOT_TONE_MAPPED: ""}


@pytest.mark.parametrize(
    ("codec", "options"), [("libvpx-vp9", {"auto-alt-ref": "0"}), ("libvpx", {"auto-alt-ref": "0"}), ("ffv1", {})]
)
def test_transparent_pixels_of_a_video_are_put_on_white(tmp_path, codec, options):
    alpha = np.repeat(np.array([0, 255], np.uint8), 32)[None].repeat(32, 0)
    grey = np.full((16, 32), 128, np.uint8)
    frames = [raw_frame([np.full((32, 64), 60, np.uint8), grey, grey, alpha], "yuva420p") for _ in range(2)]
    footage = read(write_frames(tmp_path / "a.mkv", frames, codec, options), ONE)
    left, right = footage.pixels[0, :, :30].mean(), footage.pixels[0, :, 34:].mean()
    assert left > 0.97 and right < 0.3
    assert list(footage.changes) == ["transparent pixels put on white"]


def test_a_playlist_named_like_a_video_is_not_followed(tmp_path):
    make_video(tmp_path / "secret.avi", [90] * 5)
    (tmp_path / "secret.avi").rename(tmp_path / "secret")
    (tmp_path / "a.mp4").write_text("ffconcat version 1.0\nfile secret\n")
    with av.open(str(tmp_path / "a.mp4")) as container:  # FFmpeg on its own follows it
        assert next(container.decode(video=0)).width == 64
    with pytest.raises(ValueError, match="'a.mp4' cannot be read"):
        read(tmp_path / "a.mp4", ONE)


@pytest.mark.parametrize("side", [15000, 20000])
def test_a_video_of_too_many_pixels_is_refused_by_its_header(tmp_path, monkeypatch, side):
    path = write_frames(tmp_path / "a.avi", [fields(0, 0)], "rawvideo")
    path.write_bytes(path.read_bytes().replace(b"@\0\0\0 \0\0\0", np.array([side, side], "<i4").tobytes()))
    with pytest.raises(ValueError, match="'a.avi' cannot be read"):  # by FFmpeg, which says no more than that
        read(path, ONE)
    monkeypatch.delitem(videos.OPTIONS, "max_pixels")
    with pytest.raises(
        ValueError, match="Invalid data" if side == 20000 else "15000x15000 pixels, and 134,217,728 are"
    ):
        read(path, ONE)


def sound(path, cover: bool) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000, layout="mono")
        if cover:
            art = container.add_stream("mjpeg", rate=1)
            art.width, art.height, art.pix_fmt, art.disposition = 64, 32, "yuvj420p", av.stream.Disposition.attached_pic
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
        if cover:
            container.mux(art.encode(av.VideoFrame(64, 32, "yuvj420p")))
            container.mux(art.encode())


@pytest.mark.parametrize("cover", [False, True])
def test_sound_alone_is_no_video_even_with_a_cover(tmp_path, cover):
    sound(tmp_path / "a.mp4", cover)
    with pytest.raises(ValueError, match="'a.mp4' cannot be read .*there is no video in it"):
        read(tmp_path / "a.mp4", ONE)


def test_a_video_of_one_frame_is_too_short_for_a_clip_of_more(tmp_path):
    make_video(tmp_path / "a.mp4", [90])
    assert levels(read(tmp_path / "a.mp4", ONE).pixels) == [9]
    with pytest.raises(ValueError, match="'a.mp4' is too short .1 frames at 24 per second, and 5 are needed"):
        read(tmp_path / "a.mp4", Cut(64, 32, 5))


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.webm"])
def test_damaged_videos_are_refused_by_name_whatever_is_cut_or_changed(tmp_path, name):
    codec = "libvpx" if name == "a.webm" else "mpeg4"
    path = make_video(tmp_path / name, np.random.default_rng(0).integers(0, 256, (5, 32, 64, 3)), codec=codec)
    whole = path.read_bytes()
    for size in (0, 1, 30, 300, len(whole) // 2):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=f"^'{name}' (cannot be read|is too short)"):
            read(path, Cut(64, 32, 5))
    for place in range(0, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            assert read(path, Cut(64, 32, 5)).pixels.shape == (5, 32, 64, 3)  # what changed may be a colour
        except ValueError as error:
            assert str(error).startswith(f"'{name}' ")
