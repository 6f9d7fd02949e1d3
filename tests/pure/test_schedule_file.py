"""Schedules that were found, as files: read as they were written, refused where they are damaged or do not fit."""

import json
import math
import os
from dataclasses import replace

import pytest

from disca.meanflow import shifted_sigmas
from disca.schedule import Anchors, Interval
from disca.schedule_file import (
    MOST_BYTES,
    Found,
    MeasuredOn,
    other_method,
    read_schedule,
    require_fits,
    schedule_path,
    write_schedule,
)

FAMILY = "HunyuanVideo 1.0"
MEASURED = MeasuredOn(
    width=3072,
    size=(704, 704, 129),
    prompts=4,
    seed=7,
    error=0.002,
    published=(0, 2, 4),
    published_error=0.006,
    estimated=(0.5, 0.1, 0.02, 0.01, 0.0),
)
FOUND = Found((0, 1, 3), 5, "cats", family=FAMILY, shift=5.0, method="DisCa", measured=MEASURED)
SIGMAS = shifted_sigmas(5, 5.0).tolist()


@pytest.fixture
def file(tmp_path):
    write_schedule(tmp_path / "cats.json", FOUND)
    return tmp_path / "cats.json"


def damaged(file, *keys, **values):
    """The file with values put into the object under the keys."""
    found = json.loads(file.read_text())
    place = found
    for key in keys:
        place = place[key]
    place.update(values)
    file.write_text(json.dumps(found))
    return file


def told_of(file) -> str:
    with pytest.raises(ValueError) as error:
        read_schedule(file)
    assert "cats.json" in str(error.value)
    return str(error.value)


def test_a_schedule_reads_as_it_was_written(file):
    assert read_schedule(file) == FOUND
    assert file.stat().st_size < 1000


def test_one_that_was_compared_with_nothing_too(tmp_path):
    alone = replace(FOUND, measured=replace(MEASURED, published=(), published_error=None, estimated=()))
    write_schedule(tmp_path / "cats.json", alone)
    assert read_schedule(tmp_path / "cats.json") == alone


def test_it_prints_as_its_anchors():
    assert str(FOUND) == "0 1 3"


def test_it_is_a_list_of_anchors_for_its_number_of_steps():
    assert FOUND.of(5) == {0, 1, 3}
    with pytest.raises(ValueError, match="'cats' is written for 5 steps, but the run has 8"):
        FOUND.of(8)


def test_it_fits_runs_like_the_one_it_was_found_on():
    require_fits(FOUND, FAMILY, SIGMAS)
    require_fits(FOUND, FAMILY, [sigma + 0.005 for sigma in SIGMAS])  # as much as a table of times rounds


@pytest.mark.parametrize("schedule", [Interval(2), Anchors((0, 2, 4)), Anchors((0, 2, 4), 5)])
def test_schedules_that_were_not_found_fit_any_family_and_times(schedule):
    require_fits(schedule, "another", [1.0, 0.9, 0.5, 0.4, 0.1, 0.0])


@pytest.mark.parametrize(
    ("family", "sigmas", "told"),
    [
        ("HunyuanVideo 1.5", SIGMAS, "was found for 'HunyuanVideo 1.0', but the model is 'HunyuanVideo 1.5'. Find one"),
        (FAMILY, SIGMAS[:-1], "is written for 5 steps, but the run has 4"),
        (FAMILY, shifted_sigmas(5, 7.0).tolist(), "at shift 5, where step 4 is at sigma 0.556, but the run has 0.636"),
        (FAMILY, shifted_sigmas(5, 1.0).tolist(), "Set shift to 5 and denoise to 1, or find a schedule"),
        (FAMILY, shifted_sigmas(5, 5.0, denoise=0.5).tolist(), "step 3 is at sigma 0.769, but the run has 0.556 there"),
        (FAMILY, [math.nan] * 6, "the run has nan there"),
    ],
)  # fmt: skip
def test_a_run_of_another_family_steps_or_times_is_refused(family, sigmas, told):
    with pytest.raises(ValueError) as error:
        require_fits(FOUND, family, sigmas)
    assert told in str(error.value)


@pytest.mark.parametrize(
    ("keys", "values", "told"),
    [
        ([], {"kind": "disca predictor"}, "is not a schedule of DisCa. Choose a file that DisCa Find Schedule saved."),
        ([], {"format": 2}, "is a schedule of format 2, but this DisCa reads format 1. Update DisCa"),
        ([], {"format": True}, "is a schedule of format True"),
        ([], {"format": [1]}, "is a schedule of format [1]"),
        ([], {"more": 1}, "the schedule has keys that are none: 'more'."),
        ([], {"name": ""}, "'name' is empty, or longer than 200 characters."),
        ([], {"family": "x" * 201}, "'family' is empty, or longer than 200 characters."),
        ([], {"method": 5}, "'method' is 5, but must be a text."),
        ([], {"method": "a\ud800"}, "with characters in it that no file can hold"),
        ([], {"steps": 0}, "'steps' is 0, but must be at least 1."),
        ([], {"steps": 5.0}, "'steps' is 5.0, but must be a whole number."),
        ([], {"steps": True}, "'steps' is True, but must be a whole number."),
        ([], {"steps": 10**9}, "'steps' is 1000000000, but must be at most 1000."),
        ([], {"steps": 6}, "'estimated' has not one error for each of 6 steps."),
        ([], {"shift": 0}, "'shift' is 0, but must be more."),
        ([], {"shift": math.nan}, "'shift' is nan, but must be a finite number."),
        ([], {"shift": "5"}, "'shift' is '5', but must be a finite number."),
        ([], {"listed": []}, "'listed' is not a list of up to 5 steps."),
        ([], {"listed": "0 1 3"}, "'listed' is not a list of up to 5 steps."),
        ([], {"listed": [0, 1, 2, 3, 4, 5]}, "'listed' is not a list of up to 5 steps."),
        ([], {"listed": [0, 3, 1]}, "'listed' does not ascend from step 0."),
        ([], {"listed": [0, 1, 1]}, "'listed' does not ascend from step 0."),
        ([], {"listed": [1, 3]}, "'listed' does not ascend from step 0."),
        ([], {"listed": [0, 5]}, "'listed' is 5, but must be at most 4."),
        ([], {"listed": [0, 1.0]}, "'listed' is 1.0, but must be a whole number."),
        ([], {"listed": [0, [1]]}, "'listed' is [1], but must be a whole number."),
        ([], {"measured": None}, "'measured' is not an object."),
        ([], {"measured": {}}, "'measured' lacks the key 'error'."),
        (["measured"], {"also": 1}, "'measured' has keys that are none: 'also'."),
        (["measured"], {"width": -1}, "'width' is -1, but must be at least 1."),
        (["measured"], {"size": [704, 704]}, "'size' is not three numbers."),
        (["measured"], {"size": [704, 704, "129"]}, "'size' is '129', but must be a whole number."),
        (["measured"], {"prompts": 0}, "'prompts' is 0, but must be at least 1."),
        (["measured"], {"seed": 2**64}, "'seed' is 18446744073709551616, but must be at most"),
        (["measured"], {"error": -0.1}, "'error' is -0.1, but must be at least 0."),
        (["measured"], {"error": math.inf}, "'error' is inf, but must be a finite number."),
        (["measured"], {"published": []}, "'published' and its error are not both there."),
        (["measured"], {"published_error": None}, "'published' and its error are not both there."),
        (["measured"], {"published": [0, 9]}, "'published' is 9, but must be at most 4."),
        (["measured"], {"published_error": "0"}, "'published_error' is '0', but must be a finite number."),
        (["measured"], {"estimated": 1}, "'estimated' is not a list."),
        (["measured"], {"estimated": [0.1]}, "'estimated' has not one error for each of 5 steps."),
        (["measured"], {"estimated": [1, 1, 1, 1, None]}, "'estimated' is None, but must be a finite number."),
    ],
)  # fmt: skip
def test_each_damage_has_its_sentence(file, keys, values, told):
    assert told in told_of(damaged(file, *keys, **values))


@pytest.mark.parametrize("key", ["name", "family", "method", "steps", "shift", "listed", "measured"])
def test_a_key_that_lacks_is_named(file, key):
    found = json.loads(file.read_text())
    del found[key]
    file.write_text(json.dumps(found))
    assert f"the schedule lacks the key '{key}'. Get the file again." in told_of(file)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\xff\xfe\x00", b"\x00" * 100, b"[" * 100_000, b'{"kind": ' + b"9" * 5000 + b"}", b'{"a": 1, "a": 2}'],
)
def test_what_is_no_json_is_said_to_be_damaged(file, content):
    file.write_bytes(content)
    assert "is not a schedule of DisCa, or damaged (" in told_of(file)


@pytest.mark.parametrize("content", [b"null", b"[]", b"1e999", b'"disca schedule"', b"{}"])
def test_other_json_is_said_to_be_no_schedule(file, content):
    file.write_bytes(content)
    assert "is not a schedule of DisCa. Choose a file that DisCa Find Schedule saved." in told_of(file)


def test_a_file_of_any_size_is_read_no_further_than_a_schedule_goes(file):
    os.truncate(file, 2**40)  # takes no room on the disk
    assert f"has more than {MOST_BYTES:,} bytes, which no schedule has" in told_of(file)


def test_an_editors_mark_at_the_start_does_no_harm(file):
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert read_schedule(file) == FOUND


def test_what_is_no_file_is_refused(tmp_path):
    path = tmp_path / "cats.json"
    assert "'cats.json' cannot be read: No such file or directory. Choose one that is there." in told_of(path)
    path.mkdir()
    assert "'cats.json' is not a file." in told_of(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes in this system's folders")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "cats.json")
    assert "'cats.json' is not a file." in told_of(tmp_path / "cats.json")


def test_what_could_not_be_read_again_is_not_written(tmp_path):
    for wrong in (replace(FOUND, listed=(0, 7)), replace(FOUND, shift=math.inf), replace(FOUND, name="")):
        with pytest.raises(ValueError, match="cats.json"):
            write_schedule(tmp_path / "cats.json", wrong)
    assert list(tmp_path.iterdir()) == []


def test_a_name_is_a_file_in_the_folder(tmp_path):
    assert schedule_path(tmp_path, "cats") == schedule_path(tmp_path, "cats.json") == tmp_path / "cats.json"
    assert schedule_path(tmp_path, "pets/cats") == tmp_path / "pets" / "cats.json"


@pytest.mark.parametrize(
    "name", ["../cats", "/cats", "pets/../../cats", "..\\cats", "C:\\cats", "", "con", "a\0b", " cats", 5]
)
def test_a_name_that_leads_elsewhere_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="'name' is"):
        schedule_path(tmp_path, name)


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "cats.json").symlink_to(tmp_path / "elsewhere.json")
    with pytest.raises(ValueError, match="'cats' is a link out of the folder"):
        schedule_path(tmp_path / "inside", "cats")


def test_links_in_a_circle_are_refused(tmp_path):
    (tmp_path / "loop.json").symlink_to("loop.json")
    (tmp_path / "looped").symlink_to("looped")
    for name in ("loop", "looped/cats"):
        with pytest.raises(ValueError, match="is a link out of the folder"):
            schedule_path(tmp_path, name)


def test_a_schedule_of_another_method_is_told_as_such():
    schedule = replace(FOUND, name="mine", method="RFC-Lite")
    assert other_method(schedule, "RFC-Lite") is None and other_method(Anchors((0, 1)), "FORA") is None
    assert "'mine' was found with 'RFC-Lite'; its error there says nothing of 'FORA'" in other_method(schedule, "FORA")
