"""Still and animated pictures, as a viewer shows them."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

# Pillow looks at the content, not at the name: without these a .jpg that holds PostScript would start Ghostscript
FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
PIXELS = 2**27  # of one picture or frame; the largest cameras have a hundred million
GROUND = (255, 255, 255)  # what is seen through transparent pixels
TRANSPARENT = "transparent pixels put on white"

Note = Callable[[str], object]  # takes what was done to a clip


class Shot(NamedTuple):
    """One picture of a clip."""

    time: float | None  # in seconds from the start; None where the file has none
    image: Callable[[], Image.Image]  # made when it is asked for: RGB, upright, square pixels, on an opaque ground
    until: float | None = None  # when it ends, where the file says so


def require_size(width: int, height: int) -> None:
    """ValueError if pictures of this size are more than memory should be asked for."""
    if width * height > PIXELS:
        raise ValueError(f"{width:d}x{height:d} pixels, and {PIXELS:,} are the most")


def is_animated(path: Path) -> bool:
    """Whether the file is a sequence in time: a telephone's second picture in a .jpg is none."""
    with _opened(path) as picture:
        return picture.format != "MPO" and getattr(picture, "is_animated", False)


def still(path: Path, note: Note) -> Image.Image:
    """The one picture in the file."""
    with _opened(path) as picture:
        return on_ground(ImageOps.exif_transpose(picture), note)


def animation(path: Path, fps: float, note: Note) -> Iterator[Shot]:
    """The pictures of an animation at their times; what was meant as 1 / fps is that, not whole milliseconds."""
    with _opened(path) as picture:
        number, time = int(picture.info.get("default_image", False)), 0.0  # one for viewers that know no animation
        while _sought(picture, number):
            image = ImageOps.exif_transpose(picture)  # loads it, and with it the duration
            until = time + _shown_for(picture.info.get("duration", 0), fps)
            yield Shot(time, partial(on_ground, image, note), until)
            number, time = number + 1, until


def on_ground(image: Image.Image, note: Note) -> Image.Image:
    """The picture in RGB, 16 bits of grey scaled to 8, and transparent pixels mixed with the ground."""
    if image.mode.startswith("I"):
        image = _from_16_bits(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    if image.getextrema()[3][0] == 255:
        return image.convert("RGB")
    note(TRANSPARENT)
    return Image.alpha_composite(Image.new("RGBA", image.size, (*GROUND, 255)), image).convert("RGB")


def _opened(path: Path) -> Image.Image:
    picture = Image.open(path, formats=FORMATS)
    try:
        require_size(picture.width, picture.height)  # others in ComfyUI's process take Pillow's own limit away
    except ValueError:
        picture.close()
        raise
    return picture


def _sought(picture: Image.Image, number: int) -> bool:
    try:
        picture.seek(number)
    except EOFError:
        return False
    return True


def _shown_for(duration: float, fps: float) -> float:
    milliseconds = duration if duration > 10 else 100  # as browsers show them
    return 1 / fps if fps and abs(milliseconds - 1000 / fps) < 1 else milliseconds / 1000


def _from_16_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    grey = Image.fromarray((values.clip(0, 65535) / 257).round().astype(np.uint8))
    clear = image.info.get("transparency")
    if clear is not None:
        grey.putalpha(Image.fromarray(np.where(values == clear, 0, 255).astype(np.uint8)))
    return grey
