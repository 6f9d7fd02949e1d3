"""What a calibration is made of: rules that look on, what it says, and its picture."""

import pytest
import torch

from disca.curve import HEIGHT, WIDTH, curve
from disca.methods.adaptive.calibration import Calibration
from disca.methods.adaptive.findings import drawn, told
from disca.methods.adaptive.magcache import Magnitudes
from disca.methods.adaptive.measuring import MEASURED, Changing, Magnifying
from disca.methods.adaptive.teacache import InputChange
from disca.methods.seam.when import ENTERING, FEATURES, FULL, MODULATED, OUTPUT, Now

SIGMAS = [1 - step / 8 for step in range(9)]
SIZE = (64, 32, 5)


def run(rule, seen: list[dict], steps: list[int] | None = None) -> None:
    """One row's run, which shows these signals."""
    decider = rule.fresh([*SIGMAS[: len(seen)], 0.0])
    for step, signals in zip(steps or range(len(seen)), seen, strict=True):
        now = Now(step, None, signals.__getitem__)
        assert decider.decide(now) == FULL
        decider.saw(now)


def with_residuals(*residuals: torch.Tensor) -> list[dict]:
    """Steps at whose blocks this is added to changing tokens."""
    entering = [torch.full_like(added, step) for step, added in enumerate(residuals)]
    return [{ENTERING: into, FEATURES: into + added} for into, added in zip(entering, residuals, strict=True)]


@pytest.mark.parametrize("kind", MEASURED.values())
def test_every_step_is_full(kind):
    assert kind([]).plan(SIGMAS) == (FULL,) * 8


def test_ratios_are_of_residuals_whatever_they_are_added_to():
    token = torch.tensor([[3.0, 4.0], [0.0, 1.0]])
    rule = Magnifying([])
    run(rule, with_residuals(token, 2 * token, torch.tensor([[0.5], [1.5]]) * token))
    assert rule.values(3) == (1.0, 2.0, 0.5)  # of 1/4 and 3/4


def test_ratios_are_means_over_rows():
    token, rule = torch.ones(2, 4), Magnifying([])
    for factor in (2.0, 4.0):
        run(rule, with_residuals(token, factor * token))
    assert rule.values(2) == (1.0, 3.0)


def test_a_polynomial_is_found_again_from_runs_that_follow_it():
    coefficients, rule = (2.0, -1.0, 0.5, 0.25, 0.1), Changing([])
    changes = [0.05, 0.1, 0.2, 0.3, 0.35, 0.4, 0.25]
    read = answer = torch.ones(4, dtype=torch.float64)
    seen = [{MODULATED: read, OUTPUT: answer}]
    for change in changes:
        estimated = sum(c * change ** (4 - i) for i, c in enumerate(coefficients))
        read, answer = read * (1 + change), answer * (1 + estimated)
        seen.append({MODULATED: read, OUTPUT: answer})
    run(rule, seen)
    assert rule.values(8) == pytest.approx(coefficients, abs=1e-6)
    assert [into for into, _ in rule.pairs(8)] == pytest.approx(changes)


@pytest.mark.parametrize("steps", [[0, 2, 3], [0, 1, 1], [1, 2, 3]])
def test_a_row_that_lacks_a_step_is_refused(steps):
    rule = Magnifying([])
    run(rule, with_residuals(*torch.ones(4, 2, 4)))
    run(rule, with_residuals(*torch.ones(3, 2, 4)), steps)
    with pytest.raises(ValueError, match="1 of 2 videos and conditions were not seen in every one of 4 steps"):
        rule.values(4)


def test_nothing_seen_is_refused():
    with pytest.raises(ValueError, match="0 of 0 videos and conditions were not seen"):
        Changing([]).values(4)


def test_a_decider_holds_one_step():
    rule = Magnifying([])
    decider = rule.fresh(SIGMAS)
    for step, signals in enumerate(with_residuals(*torch.ones(3, 2, 4))):
        decider.saw(Now(step, None, signals.__getitem__))
        assert sum(tensor.numel() for tensor in decider.held()) == 8 * rule.tensors


def test_teacaches_full_steps_are_known_from_the_changes():
    assert InputChange(0.15, (0.0, 0.1)).full([1.0] * 7) == [0, 2, 4, 6, 7]  # 0.1 a step, and the last one
    assert InputChange(0.0).full([0.0] * 3) == [0, 1, 2, 3]
    assert InputChange(100.0).full([1.0] * 3) == [0, 3]


def test_what_is_said_of_magcache_names_the_steps_in_full():
    values = (1.0, 1.05, 1.05, 1.05, 0.9, 0.9, 0.9, 0.9)
    found = Calibration("MagCache", "1.0", 128, 8, 5.0, SIZE, values)
    rule = Magnifying([dict(enumerate(values))] * 3)
    first, ratios, *laws = told(found, rule)
    assert first == "MagCache's ratios of 3 videos and conditions, 64x32, 5 frames, in 8 steps at shift 5:"
    assert ratios == "1 1.05 1.05 1.05 0.9 0.9 0.9 0.9"
    full = Magnitudes(values, 0.12, 4, 0.2).full(8)
    steps = " ".join(map(str, full))
    assert laws[0] == f"threshold 0.12, most 4, retention 0.2: {len(full)} of 8 steps in full: {steps}"
    assert len(laws) == len(set(laws)) > 1


def test_what_is_said_of_teacache_is_the_mean_over_rows():
    found = Calibration("TeaCache", "1.0", 128, 5, 5.0, SIZE, (1.0, 0.0))
    rows = [dict.fromkeys(range(1, 5), (change, change)) for change in (0.1, 1.0)]
    lines = told(found, Changing(rows))
    assert "threshold 0.15: about 4 of 5 steps in full" in lines  # 0, 2, 4 and all 5


def test_what_is_drawn_of_teacache_is_the_polynomial_among_its_pairs():
    found = Calibration("TeaCache", "1.0", 128, 3, 5.0, SIZE, (2.0, 0.0))
    drawing = drawn(found, Changing([{1: (0.1, 0.3), 2: (0.4, 0.7)}]))
    assert drawing.dots == [(0.1, 0.3), (0.4, 0.7)]
    assert drawing.lines["fitted"][0] == pytest.approx((0.1, 0.2))  # no further than was measured
    assert drawing.lines["fitted"][-1] == pytest.approx((0.4, 0.8))


def test_a_line_goes_from_corner_to_corner():
    picture = curve("up", "right", {"a": [(0.0, 0.0), (1.0, 1.0)]})
    dark = [(x, y) for x in range(81, WIDTH - 121) for y in range(50, HEIGHT - 60) if picture.getpixel((x, y))[0] < 60]
    assert dark and all(abs((x - 80) / (WIDTH - 200) - (HEIGHT - 54 - y) / (HEIGHT - 98)) < 0.02 for x, y in dark)


@pytest.mark.parametrize("points", [[(0.0, 1.0)], [(2.0, 1.0), (2.0, 1.0)], [(0.0, 0.0), (1.0, 0.0)]])
def test_points_in_a_row_can_be_drawn(points):
    assert curve("up", "right", {"a": points}, points).size == (WIDTH, HEIGHT)
