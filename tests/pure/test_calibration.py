"""Calibrations: what they are measured from, their files, and who may use them."""

import json
import math
from dataclasses import replace

import pytest
import torch

from disca.meanflow import shifted_sigmas
from disca.methods import METHODS
from disca.methods.adaptive import magcache, teacache
from disca.methods.adaptive.calibration import (
    MOST_BYTES,
    Calibration,
    fitted,
    magnitude_ratio,
    mean_ratios,
    read,
    resampled,
    write,
)

PUBLISHED = [*teacache.CALIBRATIONS.values(), *magcache.CALIBRATIONS.values()]
CONTENT = {
    "format": 1,
    "method": "MagCache",
    "family": "1.0",
    "width": 3072,
    "steps": 3,
    "shift": 5.0,
    "size": [704, 704, 129],
    "values": [1.0, 1.5, 0.5],
}


def without(key):
    return {name: value for name, value in CONTENT.items() if name != key}


@pytest.mark.parametrize("calibration", PUBLISHED)
def test_a_file_gives_back_what_was_written(calibration, tmp_path):
    write(tmp_path / "one.json", calibration)
    assert read(tmp_path / "one.json") == calibration
    assert [path.name for path in tmp_path.iterdir()] == ["one.json"]


def test_the_content_that_the_damaged_ones_are_made_of_is_whole(tmp_path):
    (tmp_path / "one.json").write_text(json.dumps(CONTENT))
    assert read(tmp_path / "one.json").values == (1.0, 1.5, 0.5)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "it is not JSON."),
        ("{", "it is not JSON."),
        (b"\xff\xfe\x00", "it is not JSON."),
        ("[" * 100_000, "it is not JSON."),
        ("1" * 10_000, "it is not JSON."),
        (" " * MOST_BYTES + "{}", "it has more than 1000000 bytes."),
        ([1, 2], "it is not a JSON object."),
        (without("family"), "it lacks 'family'."),
        (without("format"), "it lacks 'format'."),
        (CONTENT | {"os\n": 1}, r"it has keys that are not known: 'os\n'."),
        (CONTENT | {"format": 2}, "'format' is 2, but must be at most 1."),
        (CONTENT | {"format": True}, "'format' is True, but must be a whole number."),
        (CONTENT | {"method": "DisCa"}, "'method' is 'DisCa', but must be one of"),
        (CONTENT | {"method": ["MagCache"]}, "'method' is ['MagCache'], but must be one of"),
        (CONTENT | {"family": 1}, "'family' is 1, but must be a text."),
        (CONTENT | {"family": "a\0"}, "with characters in it that no file can hold"),
        (CONTENT | {"width": "3072"}, "'width' is '3072', but must be a whole number."),
        (CONTENT | {"width": 0}, "'width' is 0, but must be at least 1."),
        (CONTENT | {"steps": 3.0}, "'steps' is 3.0, but must be a whole number."),
        (CONTENT | {"steps": 10**30}, f"'steps' is {10**30}, but must be at most 10000."),
        (CONTENT | {"steps": 4}, "'values' has 3 numbers, but must have 4."),
        (CONTENT | {"shift": -1}, "'shift' is -1, but must be at least 0."),
        (CONTENT | {"size": [704, 704]}, "'size' has 2 numbers, but must have 3: width, height and frames."),
        (CONTENT | {"size": [704, 704, True]}, "'size' is True, but must be a whole number."),
        (CONTENT | {"values": 1}, "'values' is 1, but must be a list."),
        (CONTENT | {"values": [1.0, None, 1.0]}, "'values' is None, but must be a finite number."),
        (CONTENT | {"values": [1.0, math.nan, 1.0]}, "'values' is nan, but must be a finite number."),
        (CONTENT | {"values": [1.0, math.inf, 1.0]}, "'values' is inf, but must be a finite number."),
        (json.dumps(CONTENT).replace("1.5", "1e999"), "'values' is inf, but must be a finite number."),
        (CONTENT | {"values": [1.0, -0.5, 1.0]}, "'values' has -0.5 in it, but ratios must be from 1e-06 to 1e+06."),
        (CONTENT | {"values": [1.0, 1e10, 1.0]}, "'values' is 10000000000.0, but must be at most 1000000000.0."),
        (CONTENT | {"method": "TeaCache", "values": []}, "'values' has 0 numbers, but must have 1 to 5."),
        (CONTENT | {"method": "TeaCache", "values": [1.0] * 6}, "'values' has 6 numbers, but must have 1 to 5."),
    ],
)
def test_a_damaged_file_is_refused_with_what_is_wrong(content, told, tmp_path):
    path = tmp_path / "mine.json"
    content = json.dumps(content) if isinstance(content, dict | list) else content
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ValueError) as error:
        read(path)
    assert str(error.value).startswith("The calibration 'mine.json' cannot be used: ")
    assert told in str(error.value) and str(error.value).endswith(" Calibrate again, or choose another.")


def test_a_file_that_is_not_there_is_said_to_be_so(tmp_path):
    with pytest.raises(ValueError, match="'none.json' cannot be used: No such file or directory. Calibrate again"):
        read(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"method": "TeaCache"}, "'method' is 'TeaCache', but the run's is 'MagCache'"),
        ({"family": "1.5"}, "'family' is '1.5', but the run's is '1.0'"),
        ({"width": 64}, "'width' is 64, but the run's is 3072"),
    ],
)
def test_a_calibration_of_another_method_or_model_is_refused(changed, told):
    found = Calibration("MagCache", "1.0", 3072, 2, None, (), (1.0, 1.0))
    found.require("MagCache", "1.0", 3072)
    with pytest.raises(ValueError) as error:
        replace(found, **changed).require("MagCache", "1.0", 3072)
    assert told in str(error.value)
    assert "Calibrate with this method and model" in str(error.value)


def times(steps: int, shift: float = 5.0) -> list[float]:
    return shifted_sigmas(steps, shift).tolist()


def test_another_number_of_steps_is_noticed():
    found = Calibration("MagCache", "1.0", 3072, 2, None, (), (1.0, 1.0))
    assert found.notice(times(2), "1.0") is None
    assert found.notice(times(20), "1.0") == (
        "The calibration was made with 2 steps, but the run has 20: the nearest ratio is taken for each step."
    )
    assert "it is used as it is" in replace(found, method="TeaCache").notice(times(20), "1.0")


def test_another_family_or_shift_is_noticed():
    found = Calibration("MagCache", "1.0", 3072, 4, 5.0, (), (1.0,) * 4)
    assert found.notice(times(4), "1.0") is None
    assert found.notice(times(4), "1.5") == "The calibration is for HunyuanVideo '1.0', but the model is '1.5'."
    assert found.notice(times(4, 1.0), "1.0") == ("The calibration was made at shift 5, but the run is at other times.")
    assert replace(found, shift=None).notice(times(4, 1.0), "1.0") is None


@pytest.mark.parametrize("name", ["1.0, 720p, slow", "1.0, 544p, fast"])
def test_a_published_calibration_says_of_which_model_it_is(name):
    method = METHODS["MagCache"](**METHODS["MagCache"].presets[name]).method()
    assert method.notice(times(50, 7.0), "1.0") is None
    assert "is for HunyuanVideo '1.0', but the model is '1.5'" in method.notice(times(50, 7.0), "1.5")


def test_changes_that_are_too_alike_and_ratios_of_nan_are_refused():
    alike = [(0.021 + 1e-9 * i, 0.01 * (-1) ** i) for i in range(9)]
    with pytest.raises(ValueError, match="9 changes that were measured are too alike for a polynomial"):
        fitted(alike)
    with pytest.raises(ValueError, match="ratios that were measured are not all finite"):
        mean_ratios([[1.0, float("nan")], [1.0, 1.0]])


def test_resampling_to_as_many_steps_changes_nothing():
    values = magcache.CALIBRATIONS["HunyuanVideo 1.0, 720p"].values
    assert resampled(values, 50) == values


def test_resampling_takes_the_nearest_and_keeps_both_ends():
    assert resampled((0.0, 1.0, 2.0, 3.0, 4.0), 3) == (0, 2, 4)
    assert resampled((0.0, 1.0, 2.0), 5) == (0, 0, 1, 2, 2)  # halves go to the even one
    assert resampled((7.0, 8.0), 1) == (7,)
    assert resampled((7.0,), 3) == (7, 7, 7)


@pytest.mark.parametrize("calibration", PUBLISHED)
def test_what_is_published_is_for_a_model_that_there_is(calibration):
    calibration.require(calibration.method, calibration.family, {"1.0": 3072, "1.5": 2048}[calibration.family])


def test_a_polynomial_is_found_again_from_its_own_pairs():
    coefficients = teacache.RELEASED.values
    changes = torch.linspace(0.01, 0.4, 40, dtype=torch.float64).tolist()
    pairs = [(d, sum(c * d ** (4 - i) for i, c in enumerate(coefficients))) for d in changes]
    assert fitted(pairs) == pytest.approx(coefficients, rel=1e-6)


def test_a_fit_is_the_least_squares_one():
    changes = [0.1, 0.2, 0.3, 0.4, 0.5]
    pairs = [(d, value) for d in changes for value in (2 * d - 0.1, 2 * d + 0.1)]  # the mean of each is on a line
    assert fitted(pairs) == pytest.approx((0, 0, 0, 2, 0), abs=1e-9)


@pytest.mark.parametrize("pairs", [[], [(0.1, 0.2)] * 9, [(d / 10, math.nan) for d in range(9)]])
def test_too_few_changes_for_a_polynomial_are_refused(pairs):
    with pytest.raises(ValueError, match="A polynomial needs 5 different finite changes, but"):
        fitted(pairs)


def test_a_ratio_is_the_mean_over_tokens_of_how_much_longer_they_are():
    before = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    now = torch.tensor([[6.0, 8.0], [1.0, 0.0]])  # twice and half as long
    assert magnitude_ratio(now, before).item() == 1.25


def test_ratios_are_means_over_runs_and_the_first_is_one():
    assert mean_ratios([[9.0, 1.0, 0.5], [3.0, 2.0, 1.0]]) == (1.0, 1.5, 0.75)
