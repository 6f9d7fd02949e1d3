"""Which list is kept, on runs whose errors are known."""

import numpy as np
import pytest

from disca.autoschedule import Choice
from disca.finding import (
    BY_COST,
    BY_MISS,
    BY_RUNS,
    Goal,
    Listed,
    Search,
    candidates,
    each_once,
    near,
    report_of,
    rival_of,
)
from disca.schedule_chart import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Mark, draw_chart

STEPS = 6
BY_COSTS = [Choice(tuple(range(m)), 2.0**-m if m < STEPS else 0.0) for m in range(1, STEPS + 1)]
BY_MISSES = [Choice((0, *range(STEPS - m + 1, STEPS)), 3.0 * choice.error) for m, choice in enumerate(BY_COSTS, 1)]
RIVALS = [Listed((0, 2, 4), "published"), Listed((0, 3), "attached")]


def search_of(error, choices=(BY_COSTS, BY_MISSES), rivals=RIVALS) -> Search:
    return Search(choices, rivals, error)


@pytest.mark.parametrize("best", [(0, 1, 2), (0, 4, 5), (0, 2, 4)])
def test_of_what_was_tried_the_best_is_kept(best):
    search = search_of(lambda anchors: 0.1 if anchors == best else 0.2)
    assert search.find(Goal(full_steps=3)) == best
    assert {*search.errors} == {(0, 1, 2), (0, 4, 5), (0, 2, 4)}
    assert rival_of(search, RIVALS, 3) == (0, 2, 4)
    assert rival_of(search, RIVALS, 2) == rival_of(search, RIVALS, 4) == ()


def test_of_equal_ones_the_one_expected_to_be_best_is_kept():
    assert search_of(lambda anchors: 0.5).find(Goal(full_steps=3)) == (0, 1, 2)


def test_a_thorough_search_moves_anchors_until_no_move_is_better():
    wanted, tried = (0, 3, 5), []

    def error(anchors):
        tried.append(anchors)
        return sum(abs(one - other) for one, other in zip(anchors, wanted, strict=True))

    search = Search((BY_COSTS, BY_MISSES), [], error, thorough=True)
    assert search.find(Goal(full_steps=3)) == wanted
    assert search.origins[wanted] == BY_RUNS and search.origins[0, 1, 2] == BY_COST
    assert {*near(wanted, STEPS)} <= {*search.errors} and len(tried) == len({*tried})
    assert search_of(error, rivals=[]).find(Goal(full_steps=3)) == (0, 4, 5)


def test_lists_near_another_start_in_full_and_have_as_many_anchors():
    assert near((0, 1, 4), STEPS) == [(0, 2, 4), (0, 1, 3), (0, 1, 5)]
    assert near((0,), STEPS) == near(tuple(range(STEPS)), STEPS) == []


def test_a_report_names_the_best_of_many_lists():
    search = Search((BY_COSTS, BY_MISSES), [], lambda anchors: sum(anchors) / 100, thorough=True)
    search.errors = {(0, step): step / 100 for step in range(1, 20)}
    search.origins = dict.fromkeys(search.errors, BY_RUNS)
    told = report_of(search, (0, 1), 20, True, [])
    assert told.count("tried 0 ") == 12 and "tried 7 more" in told


def test_a_list_is_tried_once_wherever_it_is_from():
    same = [Listed((0, 1, 2), "published")]
    assert candidates([BY_COSTS, BY_COSTS], same, 3) == [Listed((0, 1, 2), BY_COST)]
    assert candidates([BY_MISSES], [], 2) == [Listed((0, 5), BY_MISS)]
    lists = [Listed((0, 1), "a"), Listed((0, 2), "b"), Listed((0, 1), "c")]
    assert each_once(lists) == lists[:2]


def test_all_steps_in_full_are_all_steps_and_take_no_run():
    search = search_of(lambda anchors: pytest.fail("nothing to run"))
    assert search.find(Goal(full_steps=STEPS)) == tuple(range(STEPS))
    assert search.find(Goal(allowed_error=0.0)) == tuple(range(STEPS))


@pytest.mark.parametrize("times", [0.5, 1.0, 1.9, 2.3, 5.0])
@pytest.mark.parametrize("allowed", [0.4, 0.1, 0.02, 0.001])
def test_as_many_steps_run_in_full_as_the_allowed_error_wants(allowed, times):
    """What comes is `times` what was expected."""

    def error(anchors):
        return times * 2.0 ** -len(anchors)

    search = search_of(error, rivals=[])
    kept = search.find(Goal(allowed_error=allowed))
    assert search.errors[kept] <= allowed
    fewer = kept[:-1]
    assert times < 1.0 or len(kept) == 1 or error(fewer) > allowed


@pytest.mark.parametrize("allowed", [0.4, 0.1, 0.02, 0.001])
def test_an_estimate_without_a_unit_is_given_one_by_a_run(allowed):
    def error(anchors):
        return 0.01 * 2.0 ** -len(anchors)

    search = search_of(error, choices=(BY_MISSES,), rivals=[])
    kept = search.find(Goal(allowed_error=allowed))
    assert search.errors[kept] <= allowed
    assert len(kept) == 1 or error(kept[:-1]) > allowed


def test_an_estimate_that_promises_too_much_ends_with_all_steps():
    tried = []
    kept = search_of(lambda anchors: tried.append(anchors) or 1.0).find(Goal(allowed_error=0.3))
    assert kept == tuple(range(STEPS))
    assert len(tried) <= 3 * STEPS


def test_the_report_has_the_figures_of_the_runs():
    search = search_of(lambda anchors: 0.25 if anchors == (0, 2, 4) else 0.5)
    kept = search.find(Goal(full_steps=3))
    told = report_of(search, kept, STEPS, True, ["it took a second"])
    assert told.startswith("0 2 4: 3 of 6 steps in full, error 0.25\n")
    assert "tried 0 2 4: error 0.25, published\n" in told
    assert f"tried 0 1 2: error 0.5, {BY_COST}\n" in told
    assert "it took a second\n" in told
    assert told.endswith("by full steps: 1: 0.5, 2: 0.25, 3: 0.12, 4: 0.062, 5: 0.031, 6: 0")


def test_the_chart_marks_what_was_run_where_its_error_is():
    picture = draw_chart([1.0, 0.1, 0.01, 0.0], [Mark("found", 2, 0.1, "#228833")], "expected")
    assert picture.size == (WIDTH, HEIGHT)
    found = np.argwhere((np.asarray(picture) == (0x22, 0x88, 0x33)).all(axis=-1))
    rows, columns = found[found[:, 0] > TOP].T  # below the names
    across = LEFT + (WIDTH - LEFT - RIGHT) / 3
    down = TOP + (HEIGHT - TOP - BOTTOM) * 2 / 3  # from 10 to 0.01
    assert abs(columns.mean() - across) < 1.5
    assert abs(rows.mean() - down) < 1.5


@pytest.mark.parametrize("expected", [[0.0], [0.0, 0.0], [1e-30, 0.0], [5.0] * 100, [1e20, 1e-20, 0.0]])
def test_every_error_can_be_drawn(expected):
    marks = [Mark("found: " + "1 " * 500, len(expected), expected[-1], "#228833")]
    assert draw_chart(expected, marks, "expected").size == (WIDTH, HEIGHT)
