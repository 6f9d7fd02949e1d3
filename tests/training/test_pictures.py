"""Pictures come out as a viewer shows them, and animations as clips."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image
from small_clips import levels, read

from disca.training.data.clips import Cut
from disca.training.data.pictures import GROUND, TRANSPARENT

ONE = Cut(64, 32, 1)
GREYS = [Image.new("RGB", (64, 32), (value,) * 3) for value in range(10, 130, 10)]


def animate(path, durations, pictures=GREYS, **options):
    options = {"lossless": True} if path.suffix == ".webp" else options
    first, *others = pictures[: len(durations)]
    first.save(path, save_all=True, append_images=others, duration=durations, **options)
    return path


def colours(pixels) -> list[list[int]]:
    """The colours of the four quarters of the first frame, in tens."""
    frame = (pixels[0] * 255).numpy()
    height, width = frame.shape[0] // 4, frame.shape[1] // 4
    return [np.round(frame[y, x] / 10).astype(int).tolist() for y in (height, -height) for x in (width, -width)]


@pytest.mark.parametrize("kind", ["webp", "png", "gif"])
def test_an_animated_picture_is_a_clip_by_its_frames_times(tmp_path, kind):
    path = animate(tmp_path / f"a.{kind}", [100, 300, 100, 500])
    assert levels(read(path, Cut(64, 32, 9, 10)).pixels) == [1, 2, 2, 2, 3, 4, 4, 4, 4]
    assert levels(read(path, Cut(64, 32, 1, 0)).pixels) == [1]


@pytest.mark.parametrize("kind", ["webp", "png", "gif"])
def test_a_picture_of_one_frame_is_a_still_of_any_kind(tmp_path, kind):
    GREYS[8].save(tmp_path / f"a.{kind}")
    footage = read(tmp_path / f"a.{kind}", Cut(64, 32, 121))
    assert levels(footage.pixels) == [9] and not footage.changes


def test_an_animation_of_comfyui_gives_back_its_frames(tmp_path):
    path = animate(tmp_path / "a.webp", [int(1000 / 24)] * 9)  # as SaveAnimatedWEBP writes it, in whole milliseconds
    assert levels(read(path, Cut(64, 32, 9, 24)).pixels) == [1, 2, 3, 4, 5, 6, 7, 8, 9]


def test_too_short_an_animation_is_refused_with_its_frames(tmp_path):
    with pytest.raises(ValueError, match="'a.webp' is too short .4 frames at 10 per second, and 5 are needed"):
        read(animate(tmp_path / "a.webp", [100] * 4), Cut(64, 32, 5, 10))


def test_an_animation_that_gives_no_times_runs_at_a_browsers_pace(tmp_path):
    path = animate(tmp_path / "a.gif", [0] * 5)
    assert levels(read(path, Cut(64, 32, 5, 10)).pixels) == [1, 2, 3, 4, 5]


def test_the_still_for_viewers_without_animation_is_no_frame_of_it(tmp_path):
    path = animate(tmp_path / "a.png", [100] * 5, default_image=True, pictures=GREYS[4:] + GREYS[:1])
    assert levels(read(path, Cut(64, 32, 1, 10)).pixels) == [6]


def test_the_second_picture_in_a_telephones_jpeg_makes_no_clip_of_it(tmp_path):
    GREYS[8].save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[GREYS[2]])
    with Image.open(tmp_path / "a.jpg") as picture:
        assert picture.n_frames == 2
    assert levels(read(tmp_path / "a.jpg", Cut(64, 32, 5)).pixels) == [9]


def test_a_frame_of_an_animation_that_covers_a_part_is_shown_on_the_ones_before(tmp_path):
    patch = Image.new("RGBA", (64, 32), (0, 0, 0, 0))
    patch.paste((200, 0, 0, 255), (0, 0, 32, 32))
    pictures = [Image.new("RGBA", (64, 32), (0, 200, 0, 255)), patch]
    path = animate(tmp_path / "a.png", [100, 100], pictures, blend=1, disposal=0)
    pixels = read(path, Cut(64, 32, 1, 0)).pixels
    assert colours(pixels) == [[0, 20, 0]] * 4
    from disca.training.data.pictures import animation

    _, second = animation(path, 10, lambda what: None)
    assert colours(torch.from_numpy(np.asarray(second.image())[None] / 255.0)) == [[20, 0, 0], [0, 20, 0]] * 2


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
def test_a_picture_is_turned_as_its_exif_asks(tmp_path, kind, orientation):
    upright = np.zeros((64, 64, 3), np.uint8)
    upright[:32, :32], upright[:32, 32:], upright[32:, :32] = (200, 0, 0), (0, 200, 0), (0, 0, 200)
    undo = {  # EXIF: what is at the top, and what at the left, of the stored picture
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.transpose(1, 0, 2),
        6: np.rot90(upright), 7: upright[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(upright, -1),
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"quality": 100, "subsampling": 0} if kind == "jpg" else {"lossless": True} if kind == "webp" else {}
    Image.fromarray(undo[orientation].copy()).save(tmp_path / f"a.{kind}", exif=exif, **options)
    quarters = colours(read(tmp_path / f"a.{kind}", Cut(64, 64, 1)).pixels)
    assert quarters == [[20, 0, 0], [0, 20, 0], [0, 0, 20], [0, 0, 0]]


def grey_16(path):
    Image.fromarray(np.full((32, 64), 0x8080, np.uint16)).save(path)


def grey_16_clear(path):
    Image.fromarray(np.full((32, 64), 0x8080, np.uint16)).save(path, transparency=0x8080)


def palette(path):
    Image.new("RGB", (64, 32), (200, 100, 50)).quantize(4).save(path)


def palette_clear(path):
    image = Image.new("P", (64, 32), 1)
    image.putpalette([0, 0, 0, 200, 100, 50])
    image.save(path, transparency=1)


def cmyk(path):
    Image.new("CMYK", (64, 32), (0, 255, 255, 0)).save(path, quality=100)


def grey_alpha(path):
    Image.new("LA", (64, 32), (50, 0)).save(path)


def half(path):
    Image.new("RGBA", (64, 32), (201, 101, 1, 128)).save(path, **{"lossless": True} if path.suffix == ".webp" else {})


def two_levels(path):
    Image.new("1", (64, 32), 1).save(path)


@pytest.mark.parametrize(
    ("make", "kind", "colour", "changes"),
    [
        (grey_16, "png", (128, 128, 128), []),
        (grey_16_clear, "png", GROUND, [TRANSPARENT]),
        (palette, "png", (200, 100, 50), []),
        (palette_clear, "png", GROUND, [TRANSPARENT]),
        (palette_clear, "gif", GROUND, [TRANSPARENT]),
        (cmyk, "jpg", (255, 0, 0), []),
        (grey_alpha, "png", GROUND, [TRANSPARENT]),
        (half, "png", (228, 178, 128), [TRANSPARENT]),
        (half, "webp", (228, 178, 128), [TRANSPARENT]),
        (two_levels, "png", (255, 255, 255), []),
    ],
)
def test_every_mode_comes_out_in_the_colours_that_are_shown(tmp_path, make, kind, colour, changes):
    make(tmp_path / f"a.{kind}")
    footage = read(tmp_path / f"a.{kind}", ONE)
    assert (footage.pixels.mean((0, 1, 2)) * 255).tolist() == pytest.approx(colour, abs=2.5)
    assert list(footage.changes) == changes


def test_opaque_alpha_is_nothing_to_tell(tmp_path):
    Image.new("RGBA", (64, 32), (200, 100, 0, 255)).save(tmp_path / "a.png")
    assert not read(tmp_path / "a.png", ONE).changes


def test_postscript_named_like_a_picture_starts_nothing(tmp_path, monkeypatch):
    if os.name == "nt":
        pytest.skip("the stand-in for Ghostscript is a shell script")
    ran = tmp_path / "ran"
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gs").write_text(f"#!/bin/sh\necho >> '{ran}'\n")
    (tmp_path / "bin" / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 32\n%%EndComments\nshowpage\n")
    with pytest.raises(ValueError, match="'a.jpg' cannot be read .*cannot identify image file"):
        read(tmp_path / "a.jpg", ONE)
    assert not ran.exists()
    with pytest.raises(OSError), Image.open(tmp_path / "a.jpg") as picture:  # Pillow on its own does
        picture.load()
    assert ran.exists()


def png(width: int, height: int) -> bytes:
    """A PNG that says it is of this size, and holds nothing."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("limit", [Image.MAX_IMAGE_PIXELS, None])  # other packs take Pillow's away
def test_a_picture_of_20000_x_20000_is_refused_by_its_header(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("asked for memory"))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda *_: pytest.fail("asked for memory"))
    (tmp_path / "a.png").write_bytes(png(20000, 20000))
    with pytest.raises(ValueError, match="'a.png' cannot be read .*(20000x20000 pixels, and|exceeds limit of)"):
        read(tmp_path / "a.png", ONE)


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "gif"])
def test_damaged_pictures_are_refused_by_name_whatever_is_cut_or_changed(tmp_path, kind):
    noise = np.random.default_rng(0).integers(0, 256, (32, 64, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, format={"jpg": "JPEG"}.get(kind, kind))
    whole, path = buffer.getvalue(), tmp_path / f"a.{kind}"
    for size in (0, 1, 12, len(whole) // 3, len(whole) // 2):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match=f"^'a.{kind}' cannot be read"):
            read(path, ONE)
    for place in range(0, len(whole), max(1, len(whole) // 60)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            assert read(path, ONE).pixels.shape == (1, 32, 64, 3)  # what changed may be a colour
        except ValueError as error:
            assert str(error).startswith(f"'a.{kind}' ")
