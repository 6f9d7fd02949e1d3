"""Which steps are anchors."""

import tracemalloc

import pytest

from disca.meanflow import shifted_sigmas
from disca.schedule import EVERY_STEP, MAX_CACHE_AGE, PRESETS, Interval, oldest_features, parse_anchors


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("0 1 2 5 9 13 17 19", (0, 1, 2, 5, 9, 13, 17, 19)),
        ("0-2, 5, 9", (0, 1, 2, 5, 9)),
        ("0", (0,)),
        (" 0,1 ; 3 - 5\n7 ", (0, 1, 3, 4, 5, 7)),
        ("0-0", (0,)),
    ],
)
def test_a_list_reads_as_its_steps(text, steps):
    assert parse_anchors(text).listed == steps


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "The anchor list is empty."),
        (" ,; ", "The anchor list is empty."),
        ("0 \u0663", "Cannot read '\u0663'"),  # a digit, but none of ours
        ("0 1\ud800", r"Cannot read '1\ud800'"),
        ("0 " * 6000, "has 11999 characters, but may have 10000"),
        ("zero one", "Cannot read 'zero'"),
        ("0 1.5", "Cannot read '1.5'"),
        ("-1 0", "Cannot read '-1'"),
        ("0 2-", "Cannot read '2-'"),
        ("0 5-3", "runs backwards. Write '3-5'"),
        ("1 2 3", "step 0 must be an anchor"),
        ("0 3 2", "not ascending"),
        ("0 2 2", "not ascending"),
        ("0 1 2 99999999999", "is too large: no run has 100000 steps. Remove it."),
        ("0-99999999", "'0-99999999' is too large"),
    ],
)
def test_garbage_is_refused_with_what_to_write(text, told):
    with pytest.raises(ValueError, match="anchor list") as error:
        parse_anchors(text)
    assert told in str(error.value)


def test_a_list_that_runs_backwards_is_refused_before_its_ranges_are_expanded():
    tracemalloc.start()
    with pytest.raises(ValueError, match="not ascending: 0 comes after 99999"):
        parse_anchors("0-99999 " * 1200)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6  # one range; all of them would be a gigabyte


def test_a_list_longer_than_the_run_is_refused():
    with pytest.raises(ValueError, match="asks for step 9 in full, but the run has 8 steps, 0 to 7"):
        parse_anchors("0 9").of(8)


def test_a_preset_is_refused_at_other_steps():
    preset = PRESETS["HunyuanVideo 1.5, 8 steps"]
    assert preset.of(8) == {0, 2, 4, 7}
    for steps in (7, 9, 20):
        with pytest.raises(ValueError, match=f"written for 8 steps, but the run has {steps}. Set steps to 8"):
            preset.of(steps)


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("HunyuanVideo 1.0, 20 steps, N=4", 8),
        ("HunyuanVideo 1.0, 20 steps, N=3 (ours)", 11),
        ("HunyuanVideo 1.0, 20 steps, N=2 (ours)", 13),
        ("HunyuanVideo 1.0, 20 steps, 10 anchors", 10),
        ("HunyuanVideo 1.5, 8 steps", 4),
        ("HunyuanVideo 1.5, 12 steps (ours)", 6),
    ],
)
def test_presets_have_the_papers_counts_and_young_features(name, full):
    preset = PRESETS[name]
    anchors = preset.of(preset.steps)
    sigmas = shifted_sigmas(preset.steps, 5.0 if preset.steps == 20 else 7.0).tolist()
    assert len(anchors) == full
    assert {0, preset.steps - 1} <= anchors
    assert oldest_features(anchors, sigmas)[1] < MAX_CACHE_AGE


def test_no_preset_waits_longer_than_its_n_allows():
    for name, preset in PRESETS.items():
        if "N=" in name:
            n = int(name.split("N=")[1][0])
            assert max(b - a for a, b in zip(preset.listed, preset.listed[1:], strict=False)) <= n


def test_interval_one_is_every_step():
    for steps in (1, 2, 20):
        assert EVERY_STEP.of(steps) == set(range(steps))
        assert Interval(1, warmup=3, last_step=False).of(steps) == set(range(steps))


def test_an_interval_counts_from_the_last_warm_up_step():
    assert Interval(4, warmup=3, last_step=True).of(20) == {0, 1, 2, 6, 10, 14, 18, 19}
    assert Interval(3, warmup=1, last_step=False).of(8) == {0, 3, 6}
    assert Interval(100, warmup=1, last_step=False).of(8) == {0}
    assert Interval(2, warmup=100).of(4) == {0, 1, 2, 3}


def test_the_oldest_features_are_those_farthest_behind_in_sigma():
    sigmas = [1.0, 0.95, 0.8, 0.5, 0.4, 0.0]
    assert oldest_features(frozenset({0, 3}), sigmas) == (2, pytest.approx(0.2))
    assert oldest_features(frozenset({0}), sigmas) == (4, pytest.approx(0.6))
    assert oldest_features(frozenset(range(5)), sigmas) == (0, 0.0)


def test_the_papers_ages_come_out():
    eight = PRESETS["HunyuanVideo 1.0, 20 steps, N=4"].of(20)
    assert oldest_features(eight, shifted_sigmas(20, 5.0).tolist()) == (16, pytest.approx(0.1736, abs=1e-4))
    four = PRESETS["HunyuanVideo 1.5, 8 steps"].of(8)
    assert oldest_features(four, shifted_sigmas(8, 7.0).tolist()) == (6, pytest.approx(0.175, abs=1e-4))


def test_the_last_step_may_be_an_anchor_and_the_one_after_it_not():
    assert max(parse_anchors("0 7").of(8)) == 7
    with pytest.raises(ValueError, match="asks for step 8 in full, but the run has 8 steps, 0 to 7"):
        parse_anchors("0 8").of(8)


def test_a_schedule_is_written_as_what_it_says():
    assert str(parse_anchors("0-2, 5")) == "0 1 2 5"
    assert str(Interval(3, warmup=2)) == "0 to 1, then one step in 3, and the last"
    assert str(Interval(3, warmup=2, last_step=False)) == "0 to 1, then one step in 3"
    assert str(Interval(2, warmup=1)) == "0, then one step in 2, and the last"
