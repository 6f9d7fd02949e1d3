"""The report counts calls and never flatters."""

import pytest

from disca.report import Report


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
    assert "0 calls" in str(Report())


def test_the_text_names_every_reason():
    report = Report(full=4, predicted=2, seconds_full=[1.0] * 7, seconds_predicted=[0.1] * 2, bytes_held=2_000_000)
    report.fallbacks.update({"ControlNet residuals": 2, "second evaluation in one step": 1})
    text = str(report)
    assert "9 calls: 4 full, 2 predicted, 3 fallback (2 ControlNet residuals, 1 second evaluation" in text
    assert "2.0 MB of features held" in text
