"""The report counts calls and never flatters."""

import pytest

from disca.report import CACHED, Report


def test_speedup_is_the_time_of_all_full_calls_over_the_measured_time():
    report = Report(full=2, predicted=8, seconds_full=[1.0, 1.0], seconds_predicted=[0.05] * 8)
    assert report.speedup == pytest.approx(10 / 2.4)


def test_a_slow_first_call_does_not_flatter():
    report = Report(full=3, predicted=1, seconds_full=[100.0, 1.0, 1.0], seconds_predicted=[0.1])
    assert report.speedup == pytest.approx(103 / 102.1)


def test_all_full_is_no_speedup():
    assert Report(full=3, seconds_full=[1.0, 2.0, 3.0]).speedup == pytest.approx(1.0)


def test_a_run_without_calls_has_no_speedup():
    assert Report().speedup is None
    assert str(Report()) == "Nothing predicted: 0 calls"


def test_the_headline_is_short_and_the_first_line_and_says_what_it_is_relative_to():
    report = Report(full=8, predicted=12, seconds_full=[1.0] * 8, seconds_predicted=[0.2] * 12, steps=20)
    assert report.lines == [
        "1.9x: 8 full + 12 predicted",
        "full: 1 s each",
        "predicted: 0.2 s each",
        "total: 10.4 s in the network",
        "compared with: all 20 calls in full, each as long as this run's full ones (estimated)",
    ]


def test_what_stands_on_the_node_has_the_result_in_two_short_lines():
    report = Report(full=8, predicted=12, seconds_full=[0.7654] * 8, seconds_predicted=[0.1] * 12, steps=20)
    report.bytes_held = 394_200_000
    assert report.short == ["2.1x: 8 full + 12 predicted", "0.765 s full, 0.1 s predicted"]
    assert Report().short == ["Nothing predicted: 0 calls"]


def test_on_the_node_too_alarms_come_first_and_reasons_last():
    report = Report(full=1, seconds_full=[1.0] * 2, alarms=["an alarm"])
    report.fallbacks["a reason"] = 1
    assert report.short == ["an alarm", "Nothing predicted: 1 full + 1 fallback", "1 s full", "1 in full: a reason"]


def test_a_warning_is_not_missed_on_the_node():
    report = Report(full=2, predicted=18, seconds_full=[1.0] * 2, seconds_predicted=[0.1] * 18, warnings=["too old"])
    assert report.short[-1] == "warnings, see the report: 1"


def test_each_fact_has_a_line_and_warnings_and_reasons_follow_the_headline():
    report = Report(full=4, predicted=2, seconds_full=[1.0] * 7, seconds_predicted=[0.2] * 2, bytes_held=2_000_000)
    report.fallbacks.update({"ControlNet residuals": 2, "second evaluation in one step": 1})
    report.warnings.append("something else")
    assert report.lines[0] == "1.2x: 4 full + 2 predicted + 3 fallback"
    assert report.lines[1] == "Warning: something else"
    assert report.lines[2:4] == ["2 in full: ControlNet residuals", "1 in full: second evaluation in one step"]
    assert report.lines[-1] == "features held: 2.0 MB"


def test_why_nothing_was_to_be_predicted_is_said_on_the_node_too():
    report = Report(full=4, seconds_full=[1.0] * 4, only_full="every step was to run in full")
    assert report.lines[:2] == ["Nothing predicted: 4 full", "every step was to run in full"]
    assert report.short[-1] == "every step was to run in full"


def test_calls_that_are_not_steps_are_told_apart():
    assert "16 calls in 8 steps" in Report(full=8, predicted=8, seconds_full=[1.0], steps=8).lines


def test_where_nothing_was_predicted_the_headline_says_so_and_gives_no_factor():
    report = Report(full=4, seconds_full=[1.0] * 6)
    report.fallbacks["ControlNet residuals"] = 2
    assert report.headline == "Nothing predicted: 4 full + 2 fallback"


@pytest.mark.parametrize("spoiled", [{"alarms": ["another cache answered 4 of 8 steps"]}, {"partial": 1}])
def test_a_run_that_is_not_what_it_looks_like_is_told_no_speedup(spoiled):
    report = Report(full=2, predicted=2, seconds_full=[1.0] * 2, seconds_predicted=[0.1] * 2, **spoiled)
    assert report.headline == "2 full + 2 predicted"
    assert not any("compared" in line for line in report.lines)


def test_an_alarm_stands_before_the_headline():
    report = Report(full=2, predicted=2, seconds_full=[1.0], alarms=["NaN or infinity in the latent at step 3"])
    assert report.lines[:2] == ["NaN or infinity in the latent at step 3", "2 full + 2 predicted"]


def test_what_a_method_without_a_network_of_its_own_answers_is_cached_not_predicted():
    report = Report(full=8, predicted=12, seconds_full=[1.0] * 8, seconds_predicted=[0.2] * 12, steps=20, word=CACHED)
    assert report.lines[:3] == ["1.9x: 8 full + 12 cached", "full: 1 s each", "cached: 0.2 s each"]
    assert report.short == ["1.9x: 8 full + 12 cached", "1 s full, 0.2 s cached"]
    assert Report(full=4, word=CACHED).headline == "Nothing cached: 4 full"
