"""What leaving steps out costs, on networks whose runs are known in closed form."""

from dataclasses import dataclass

import pytest
import torch

from disca.measured import calls_to_measure, measure
from disca.rehearsal import Calls, calls_to_try, full_run, try_lists

STEPS, RATE = 10, 0.7
SIGMAS = [1.0 - i / STEPS for i in range(STEPS + 1)]
KEEPS = 1.0 - RATE / STEPS  # of x in each step in full
NOISE = torch.tensor([[1.0, 2.0], [-3.0, 0.5]])


@dataclass
class Decay:
    """u = λx; answered with the u of the last full step, which is wrong by what x has decayed since."""

    noise: torch.Tensor

    def full(self, step, x):
        return RATE * x, RATE * x

    def answering(self, anchors):
        return lambda step, y: anchors[-1].features


@dataclass
class Ramp:
    """u grows evenly with the step, whatever x is; answered along the line through the last two full steps."""

    noise: torch.Tensor

    def full(self, step, x):
        u = torch.full_like(x, 1.0 + 3.0 * step)
        return u, u

    def answering(self, anchors):
        *before, last = anchors
        if not before:
            return lambda step, y: last.features
        slope = (last.features - before[-1].features) / (last.step - before[-1].step)
        return lambda step, y: last.features + (step - last.step) * slope


def x_at(step: int) -> float:
    """How much of the noise is left."""
    return KEEPS**step


def end_after(i: int, k: int) -> float:
    """How much of the noise is left of y_k, answered from step i."""
    return x_at(i + 1) - RATE * x_at(i) * (k - i - 1) / STEPS


def test_a_stretch_costs_what_its_error_makes_of_the_end():
    measured = measure([Decay(NOISE)], SIGMAS)
    for i in range(STEPS):
        for k in range(i + 1, STEPS + 1):
            error = (end_after(i, k) - x_at(k)) * KEEPS ** (STEPS - k)
            assert measured.costs[i,][k] == pytest.approx((error / x_at(STEPS)) ** 2, rel=1e-3, abs=1e-12)


def test_a_cost_is_the_error_of_a_run_that_leaves_only_this_stretch_out():
    prompts = [Decay(NOISE)]
    measured = measure(prompts, SIGMAS)
    for i, k in [(0, 3), (2, 6), (4, 10), (8, 10)]:
        anchors = tuple(step for step in range(STEPS) if not i < step < k)
        tried = try_lists([anchors], prompts, measured.ends, SIGMAS)
        assert tried.errors[anchors] == pytest.approx(measured.costs[i,][k], rel=1e-3)


def test_the_cheap_form_asks_how_wrong_answers_are_on_the_path():
    cheap, whole = measure([Decay(NOISE)], SIGMAS, cheap=True), measure([Decay(NOISE)], SIGMAS)
    assert cheap.costs is None and cheap.misses == whole.misses
    for i in range(STEPS):
        expected = sum((x_at(i) / x_at(j) - 1.0) ** 2 for j in range(i + 1, STEPS))
        assert cheap.misses[i,][STEPS] == pytest.approx(expected, rel=1e-3)


def test_amplification_is_how_the_end_follows():
    a = measure([Decay(NOISE)], SIGMAS).amplification
    torch.testing.assert_close(a[2:], tuple(KEEPS ** (STEPS - k) for k in range(2, STEPS + 1)), atol=0.0, rtol=1e-3)


def test_a_line_through_two_anchors_leaves_nothing_to_pay_on_a_straight_path():
    measured = measure([Ramp(NOISE)], SIGMAS, reach=2)
    by_drift, by_misses = measured.choices()
    for choices in (by_drift, by_misses):
        assert choices[0].error > 0.1
        assert choices[1].anchors == (0, 1)
        assert choices[1].error < 1e-9


def test_batches_apart_cost_what_they_cost_together():
    together = measure([Decay(NOISE)], SIGMAS)
    apart = measure([Decay(row[None]) for row in NOISE], SIGMAS)
    for history, row in together.costs.items():
        torch.testing.assert_close(apart.costs[history], row, atol=1e-9, rtol=1e-4)


@pytest.mark.parametrize(("reach", "cheap"), [(1, False), (1, True), (2, False), (3, True)])
@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_the_calls_are_as_many_as_were_estimated(reach, cheap, steps):
    sigmas, told = [1.0 - i / steps for i in range(steps + 1)], []
    measured = measure([Decay(NOISE)], sigmas, reach, cheap, told.append)
    assert measured.calls == told[-1] == calls_to_measure(steps, reach, cheap)
    assert [sum(calls) for calls in told] == list(range(1, len(told) + 1))


def test_a_measurement_of_twenty_steps_costs_what_the_design_says():
    assert calls_to_measure(20) == Calls(20 + 50, 2 * 190 - 19 + 5)
    assert calls_to_measure(20, cheap=True) == Calls(20, 190)


def test_lists_are_tried_with_the_calls_that_were_estimated_and_the_best_comes_first():
    prompts = [Decay(NOISE), Decay(2.0 * NOISE)]
    ends = [full_run(one, SIGMAS).x[-1] for one in prompts]
    lists = [(0,), tuple(range(STEPS)), (0, 5)]
    told = []
    tried = try_lists(lists, prompts, ends, SIGMAS, progress=told.append)
    assert tried.best == tuple(range(STEPS))
    assert [*tried.errors] == [tuple(range(STEPS)), (0, 5), (0,)]
    assert tried.errors[tried.best] == 0.0
    assert tried.calls == told[-1] == Calls(*(2 * count for count in calls_to_try(lists, STEPS)))


def test_what_progress_raises_ends_the_measurement():
    def stop(calls):
        if calls.answered == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure([Decay(NOISE)], SIGMAS, progress=stop)


def test_a_run_that_ends_in_nan_is_refused_before_anything_is_answered():
    with pytest.raises(ValueError, match="ends in NaN or infinity, so nothing can be compared with it"):
        measure([Decay(NOISE * float("nan"))], SIGMAS, progress=lambda calls: calls.answered and pytest.fail())


def test_no_prompts_are_refused():
    with pytest.raises(ValueError, match="no prompts to measure on. Give one at least"):
        measure([], SIGMAS)


def test_a_run_of_no_error_has_the_anchor_0_alone():
    still = [1.0] + [0.5] * 4 + [0.0]  # only the first and the last step go anywhere
    measured = measure([Ramp(NOISE)], still, reach=1)
    assert measured.costs[0,][5 - 1] == 0.0
    assert all(a > 0 for a in measured.amplification)
