"""Buckets: every shape of clip finds a size of about one area that loses little of it."""

from itertools import product

import pytest

from disca.training.data.buckets import buckets, nearest_bucket

AREAS = [16 * 16, 48 * 16, 64 * 32, 256 * 144, 848 * 480, 1280 * 720]


def allowed(area: int) -> set[tuple[int, int]]:
    """All sizes in steps of 16 from 1:2 to 2:1 that are no larger."""
    sides = range(16, int((2 * area) ** 0.5) + 16, 16)
    return {(w, h) for w, h in product(sides, sides) if w * h <= area and w <= 2 * h and h <= 2 * w}


@pytest.mark.parametrize("area", AREAS)
def test_buckets_are_the_sizes_that_could_be_no_wider_and_no_higher(area):
    sizes = allowed(area)
    largest = [(w, h) for w, h in sizes if not any((W, H) != (w, h) and W >= w and H >= h for W, H in sizes)]
    assert buckets(area) == sorted(largest)


@pytest.mark.parametrize("area", AREAS)
def test_buckets_lie_on_their_side_as_they_stand(area):
    assert sorted((height, width) for width, height in buckets(area)) == buckets(area)


@pytest.mark.parametrize("size", [(848, 480), (480, 848), (704, 704), (1280, 720), (32, 16), (16, 16)])
def test_a_clip_of_the_size_that_is_asked_for_keeps_it(size):
    assert nearest_bucket(size, size[0] * size[1]) == size


def test_no_area_is_without_a_bucket():
    assert all(buckets(16 * 16 * number) for number in range(1, 300))


@pytest.mark.parametrize("size", [(4000, 3000), (1080, 1920), (720, 1000), (500, 480), (1000, 501)])
def test_at_480p_no_more_than_a_thirtieth_of_a_clip_is_cropped(size):
    width, height = nearest_bucket(size, 848 * 480)
    scale = max(width / size[0], height / size[1])
    assert width * height / (scale**2 * size[0] * size[1]) > 29 / 30
    assert width * height > 0.95 * 848 * 480


@pytest.mark.parametrize(("size", "bucket"), [((10000, 1), (896, 448)), ((1, 10000), (448, 896)), ((7, 7), (640, 624))])
def test_what_is_longer_than_all_buckets_gets_the_longest_and_a_square_the_wider_of_two(size, bucket):
    assert nearest_bucket(size, 848 * 480) == bucket
