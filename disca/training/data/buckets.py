"""Sizes of about one area for clips of every shape."""

from fractions import Fraction

STEP = 16  # pixels along a token's side, of both families: the VAE's 8 by a patch of 2, or its 16
LONGEST = 2  # times its height may a bucket be wide, and its width high

Size = tuple[int, int]  # width, height


def buckets(area: int) -> list[Size]:
    """The sizes of at most this area that could be no wider and no higher, from 1:2 to 2:1, the narrowest first."""
    found = []
    for width in reversed(range(STEP, area // STEP + 1, STEP)):
        height = min(area // width, LONGEST * width) // STEP * STEP
        if width <= LONGEST * height and (not found or height > found[-1][1]):
            found.append((width, height))
    return found[::-1]


def nearest_bucket(size: Size, area: int) -> Size:
    """The bucket whose shape is nearest to that of a picture; of two that are equally near, the wider."""
    width, height = size

    def apart(bucket: Size) -> Fraction:
        sides = width * bucket[1], height * bucket[0]
        return Fraction(max(sides), min(sides))

    return min(reversed(buckets(area)), key=apart)
