"""Which steps the methods run in full, and by which way they do the others."""

import pytest
import torch

from disca.meanflow import shifted_sigmas
from disca.methods import METHODS
from disca.methods.scheduled.rfc import InputError
from disca.methods.seam.anchors import AtAnchors
from disca.methods.seam.when import FULL, MODULATED, Now
from disca.schedule import Anchors


def even(steps: int) -> list[float]:
    return [1 - step / steps for step in range(steps + 1)]


def full(name: str, steps: int, preset: str | None = None, **settings) -> list[int]:
    """The steps in full of a run of that many."""
    cache = METHODS[name]
    plan = cache(**(cache.presets[preset] if preset else settings)).rule().plan(even(steps))
    return [step for step, decision in enumerate(plan) if decision == FULL]


@pytest.mark.parametrize(
    ("name", "preset", "steps", "expected"),
    [
        ("FORA", "DisCa, low speed", 50, [*range(0, 50, 3)]),  # 17
        ("FORA", "DisCa, high speed", 50, [*range(0, 50, 6)]),  # 9, as the paper's FLOPs say
        ("FORA", "TaylorSeer repo", 50, [*range(0, 50, 5)]),
        ("FORA", "DisCa, high speed", 20, [0, 6, 12, 18]),
        ("FORA", "DisCa, low speed", 8, [0, 3, 6]),
        ("Delta-DiT", "DisCa, low speed", 50, [*range(0, 50, 5)]),
        ("Delta-DiT", "DisCa, high speed", 50, [0, 8, 16, 24, 32, 40, 48]),
        ("Delta-DiT", "DisCa, high speed", 8, [0]),
        ("PAB", "DisCa, low speed", 50, [*range(0, 50, 5)]),
        ("PAB", "DisCa, high speed", 50, [0, 8, 16, 24, 32, 40, 48]),
        ("PAB", "DisCa, low speed", 20, [0, 5, 10, 15]),
        ("ToCa", "TaylorSeer repo", 50, [*range(0, 50, 5)]),
        ("DuCa", "TaylorSeer repo", 20, [0, 5, 10, 15]),
        ("TaylorSeer", "DisCa, high speed", 50, [0, 1, 2, 8, 14, 20, 26, 32, 38, 44]),
        ("LESA", "paper, low speed", 50, [0, 1, 2, 3, 9, 16, 23, 30, 37, 44]),
        ("LESA", "paper, high speed", 50, [0, 1, 2, 3, 10, 18, 26, 34, 42]),
        ("LESA", "paper, low speed", 20, [0, 1, 2, 3, 9, 16]),
        ("LESA", "paper, low speed", 8, [0, 1, 2, 3]),
        ("Spectrum", "paper, low speed", 50, [0, 1, 2, 3, 4, 6, 8, 11, 15, 20, 25, 31, 38, 46]),  # 14
        ("Spectrum", "paper, high speed", 50, [0, 1, 2, 3, 4, 6, 11, 19, 30, 44]),  # 10
        ("Spectrum", "ComfyUI-Spectrum", 20, [0, 1, 2, 4, 6, 9, 13, 18]),
        ("Spectrum", "ComfyUI-Spectrum", 8, [0, 1, 2, 4, 6]),
    ],
)
def test_a_preset_runs_the_published_steps_in_full(name, preset, steps, expected):
    assert full(name, steps, preset) == expected


@pytest.mark.parametrize("name", ["LESA", "Spectrum"])
def test_a_run_shorter_than_the_warm_up_is_full(name):
    assert full(name, 2) == [0, 1]


def test_a_window_that_does_not_grow_is_an_interval():
    assert full("Spectrum", 20, interval=5.0, growth=0.0, warmup=3) == full("FORA", 20, interval=5, warmup=3)


def test_gaps_grow_and_tenths_add_up_to_a_whole():
    """1.9, 2.6, 3.3 and 4.0, which is 3.9999999999999996 by addition."""
    assert full("Spectrum", 11, interval=1.9, growth=0.7, warmup=1) == [0, 1, 3, 6, 10]


def test_outside_of_its_window_pab_runs_in_full_and_the_edges_are_outside():
    assert full("PAB", 8, interval=8, low=250, high=750) == [0, 1, 2, 6, 7]  # 1000 875 750 | 625 500 375 | 250 125


def test_a_window_moves_no_step_of_the_interval():
    assert full("PAB", 8, interval=4, low=250, high=750) == [0, 1, 2, 4, 6, 7]


def test_the_first_step_is_full_below_the_window_too():
    plan = METHODS["PAB"](interval=5).rule().plan([0.5, 0.4, 0.3, 0.0])
    assert plan == (FULL, 0, 0)


def test_duca_brings_tokens_up_to_date_first_and_reuses_next():
    assert METHODS["DuCa"](interval=6).rule().plan(even(9)) == (FULL, 0, 1, 0, 1, 0, FULL, 0, 1)


def test_duca_begins_anew_after_each_full_step_of_another_list():
    when = METHODS["DuCa"]().method(AtAnchors(Anchors((0, 2, 3)))).when
    assert when.plan(even(7)) == (FULL, 0, FULL, FULL, 0, 1, 0)


@pytest.mark.parametrize("name", ["FORA", "PAB", "DuCa", "LESA", "Spectrum"])
def test_an_anchor_at_a_repeated_time_is_the_first_step_of_that_time(name):
    sigmas = [1.0, 0.8, 0.6, 0.4, 0.4, 0.4, 0.2, 0.0]
    plan = METHODS[name]().method().when.plan(sigmas)
    moved = METHODS[name]().method(AtAnchors(Anchors((0, 5)))).when.plan(sigmas)
    assert plan[0] == FULL
    assert [step for step, decision in enumerate(moved) if decision == FULL] == [0, 3]


class Inputs:
    """A row whose first module reads these; goes through its steps as a run does."""

    def __init__(self, rule, inputs: list[float]):
        self.inputs = inputs
        self.decider = rule.fresh(shifted_sigmas(len(inputs), 1.0).tolist())

    def full(self) -> list[int]:
        found = []
        for step, value in enumerate(self.inputs):
            now = Now(step, found[-1] if found else None, {MODULATED: torch.full((3, 2), value)}.__getitem__)
            if self.decider.decide(now) == FULL:
                self.decider.saw(now)
                found.append(step)
        return found


def test_rfc_runs_in_full_only_to_begin_with_where_its_input_is_a_line():
    assert Inputs(InputError(1e-6, 2), [float(1 + step) for step in range(12)]).full() == [0, 1]


def test_rfc_runs_in_full_when_the_errors_of_its_input_add_up_to_more_than_the_threshold():
    """2 and 2, then 4: half of it is unforeseen each time, and 1.0 is not more than 1.0; after 4, 4 nothing is."""
    inputs = [2.0, 2.0] + [4.0] * 6
    assert Inputs(InputError(1.0, 2), inputs).full() == [0, 1, 4]


def test_rfc_at_no_tolerance_is_full_wherever_the_input_bends():
    assert Inputs(InputError(0.0, 2), [float(step * step + 1) for step in range(8)]).full() == [*range(8)]


def test_rfc_is_full_in_its_warm_up_and_until_it_has_seen_a_line():
    still = [1.0] * 6
    assert Inputs(InputError(1.0, 4), still).full() == [0, 1, 2, 3]
    assert Inputs(InputError(1.0, 1), still).full() == [0, 1]


def test_an_input_that_is_not_a_number_is_run_in_full():
    assert Inputs(InputError(1.0, 2), [1.0, 1.0, float("nan"), 1.0]).full() == [0, 1, 2, 3]


def test_a_full_step_that_is_told_twice_is_one_point_of_the_line():
    row = Inputs(InputError(1e-6, 2), [1.0, 2.0])
    row.full()
    look = {MODULATED: torch.full((3, 2), 2.0)}.__getitem__
    row.decider.saw(Now(1, 1, look))
    assert row.decider.decide(Now(2, 1, {MODULATED: torch.full((3, 2), 3.0)}.__getitem__)) == 0


def test_rfc_holds_two_inputs():
    row = Inputs(InputError(0.0, 2), [float(step * step + 1) for step in range(6)])
    row.full()
    assert [float(tensor[0, 0]) for tensor in row.decider.held()] == [26.0, 17.0]


def test_without_a_threshold_rfc_goes_by_its_interval():
    assert full("RFC", 50, interval=6, warmup=3) == full("TaylorSeer", 50, "DisCa, high speed")
    assert METHODS["RFC"](threshold=0.5).rule().sees == (MODULATED,)
