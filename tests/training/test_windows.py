"""Windows: which frames of a video become clips, in numbers alone."""

import pytest

from disca.training.data.windows import MOST_CLIPS, MOST_FRAMES, Windows

ALL = [Windows(), Windows("chunks"), Windows("slide", stride=3), Windows("uniform", count=5)]


@pytest.mark.parametrize(
    ("windows", "starts"),
    [
        (Windows(), [0]),
        (Windows("chunks"), [0, 5, 10]),
        (Windows("slide", stride=4), [0, 4, 8, 12]),
        (Windows("slide", stride=100), [0]),
        (Windows("uniform", count=1), [6]),
        (Windows("uniform", count=3), [0, 6, 12]),
        (Windows("uniform", count=200), list(range(13))),
    ],
)
def test_of_17_frames_clips_of_5_begin_at(windows, starts):
    assert list(windows.of(17, 5)) == starts


@pytest.mark.parametrize("windows", ALL, ids=str)
def test_every_clip_lies_within_the_video_and_begins_after_the_last_one(windows):
    for length in range(5, 60):
        starts = list(windows.of(length, 5))
        assert starts and starts == sorted(set(starts))
        assert 0 <= starts[0] and starts[-1] + 5 <= length


@pytest.mark.parametrize("windows", ALL, ids=str)
def test_a_video_of_one_clips_length_gives_that_clip(windows):
    assert list(windows.of(5, 5)) == [0]


@pytest.mark.parametrize("windows", ALL[:3], ids=str)
def test_what_is_counted_is_enough_for_all_clips_that_are_taken_and_tells_whether_there_are_more(windows):
    reach = windows.reach(5)
    found, all = windows.of(reach, 5), windows.of(10 * reach, 5)
    assert list(found[:MOST_CLIPS]) == list(all[:MOST_CLIPS])
    assert (len(found) > MOST_CLIPS) == (len(all) > MOST_CLIPS)
    assert len(found) <= MOST_CLIPS + 1


@pytest.mark.parametrize("windows", [*ALL, Windows("slide", stride=MOST_FRAMES)], ids=str)
def test_no_more_frames_are_counted_than_a_video_may_have(windows):
    assert windows.reach(5) <= MOST_FRAMES + 1


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"kind": "random"}, "'clips' is 'random', but must be one of 'first', 'chunks', 'slide', 'uniform'"),
        ({"kind": None}, "'clips' is None, but must be one of"),
        ({"stride": 0}, "'stride' is 0, but must be at least 1"),
        ({"stride": 2**40}, "'stride' is 1099511627776, but must be at most 1048576"),
        ({"stride": 2.5}, "'stride' is 2.5, but must be a whole number"),
        ({"count": 0}, "'count' is 0, but must be at least 1"),
        ({"count": 257}, "'count' is 257, but must be at most 256"),
    ],
)
def test_what_is_no_choice_of_windows_is_refused(settings, told):
    with pytest.raises(ValueError, match=told):
        Windows(**settings)
