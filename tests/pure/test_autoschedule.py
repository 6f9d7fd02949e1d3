"""Anchors of least cost, against all lists there are and where the answer is known in closed form."""

import math
from itertools import combinations, pairwise

import pytest
import torch

from disca.autoschedule import best_anchors, best_paths, between, histories_of, least


def random_costs(steps: int, seed: int, most: int = 1000) -> list[list[float]]:
    """Whole numbers, so that sums are exact in any order; few of them, so that some are equal."""
    drawn = torch.randint(0, most, (steps, steps + 1), generator=torch.Generator().manual_seed(seed))
    return [[0.0 if k <= i + 1 else float(drawn[i, k]) for k in range(steps + 1)] for i in range(steps)]


def all_lists(steps: int):
    return [(0, *rest) for count in range(steps) for rest in combinations(range(1, steps), count)]


def cost_of(anchors, costs, steps: int) -> float:
    return sum(costs[i][k] for i, k in pairwise((*anchors, steps)))


def best_of_all(costs, steps: int, most: int):
    lists = [anchors for anchors in all_lists(steps) if len(anchors) <= most]
    return min((cost_of(anchors, costs, steps), len(anchors), anchors) for anchors in lists)


@pytest.mark.parametrize("steps", range(1, 10))
@pytest.mark.parametrize("most", [1000, 4])
def test_no_list_is_better_for_any_budget(steps, most):
    costs = random_costs(steps, seed=steps, most=most)
    found = best_anchors(costs)
    assert len(found) == steps
    for budget, choice in enumerate(found, start=1):
        error, _, anchors = best_of_all(costs, steps, budget)
        assert choice == (anchors, error)


@pytest.mark.parametrize("reach", [2, 3])
def test_no_list_is_better_where_costs_depend_on_several_anchors(reach):
    steps = 7
    draw = torch.Generator().manual_seed(reach)
    histories = histories_of(steps, reach)
    costs = {
        history: [0.0] * (history[-1] + 2)
        + torch.randint(0, 99, (steps - 1 - history[-1],), generator=draw).float().tolist()
        for history in histories
    }

    def cost(anchors):
        ends = [*anchors[1:], steps]
        return sum(costs[anchors[: i + 1][-reach:]][end] for i, end in enumerate(ends))

    for budget, choice in enumerate(best_paths(costs), start=1):
        lists = [anchors for anchors in all_lists(steps) if len(anchors) <= budget]
        error, _, anchors = min((cost(anchors), len(anchors), anchors) for anchors in lists)
        assert choice == (anchors, error)


def test_the_histories_are_those_that_lists_of_anchors_have():
    for steps, reach in [(1, 1), (5, 1), (5, 2), (5, 3), (2, 3)]:
        had = {anchors[: i + 1][-reach:] for anchors in all_lists(steps) for i in range(len(anchors))}
        found = histories_of(steps, reach)
        assert set(found) == had
        assert len(found) == len(had)


@pytest.mark.parametrize("seed", range(5))
def test_more_anchors_are_never_worse(seed):
    errors = [choice.error for choice in best_anchors(random_costs(12, seed))]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == 0.0


def test_costs_that_grow_with_the_square_of_the_distance_space_anchors_evenly():
    steps = 24
    costs = [[max(0, k - i - 1) * max(0, k - i) for k in range(steps + 1)] for i in range(steps)]
    found = best_anchors(costs)
    for budget in (1, 2, 3, 4, 6, 8, 12, 24):
        assert found[budget - 1].anchors == tuple(range(0, steps, steps // budget))


def test_anchors_crowd_where_errors_weigh_most():
    steps = 16
    costs = [
        [(k - i - 1) ** 2 * (10.0 if i < 8 else 1.0) if k > i else 0.0 for k in range(steps + 1)] for i in range(steps)
    ]
    anchors = best_anchors(costs)[7].anchors
    assert sum(anchor < 8 for anchor in anchors) > 4


def test_of_equal_lists_the_one_with_fewer_and_earlier_anchors_is_chosen():
    flat = [[1.0 if k > i + 1 else 0.0 for k in range(7)] for i in range(6)]
    assert best_anchors(flat)[2].anchors == (0,)  # two more stretches are left out whatever three anchors there are
    free = [[0.0] * 7 for _ in range(6)]
    assert {choice.anchors for choice in best_anchors(free)} == {(0,)}
    assert best_anchors([[0, 0, 1, 5], [0, 0, 0, 1], [0, 0, 0, 0]])[1] == ((0, 1), 1.0)  # as (0, 2)


def test_no_anchor_is_spent_on_a_step_of_no_length():
    steps, repeated = 8, 4  # step 4 goes nowhere: whatever answers it does no harm
    lengths = [0.0 if step == repeated else 1.0 for step in range(steps)]
    costs = [[sum(lengths[i + 1 : k]) ** 2 for k in range(steps + 1)] for i in range(steps)]
    found = best_anchors(costs)
    assert not any(repeated in choice.anchors for choice in found[: steps - 1])
    assert found[steps - 2] == found[steps - 1] == ((0, 1, 2, 3, 5, 6, 7), 0.0)


def test_a_run_of_one_step_has_one_anchor():
    assert best_anchors([[0.0, 0.0]]) == [((0,), 0.0)]


def test_an_allowed_error_takes_the_fewest_anchors_that_keep_to_it():
    choices = best_anchors(random_costs(9, seed=3))
    for choice in choices:
        found = least(choices, choice.error)
        assert found.error <= choice.error
        assert all(other.error > choice.error for other in choices if len(other.anchors) < len(found.anchors))
    assert least(choices, math.inf).anchors == (0,)
    assert least(choices, 0.0).error == 0.0


@pytest.mark.parametrize("allowed", [-0.1, math.nan])
def test_an_allowed_error_below_0_is_refused(allowed):
    with pytest.raises(ValueError, match="must be at least 0. 0 runs every step in full"):
        least(best_anchors([[0.0, 0.0]]), allowed)


@pytest.mark.parametrize(
    ("costs", "told"),
    [
        ([], "There are no costs to choose anchors by. Measure a run of at least one step."),
        ([[0, 0, math.nan], [0, 0, 0]], "The stretch from anchor 0 to 2 costs nan"),
        ([[0, 0, math.inf], [0, 0, 0]], "The stretch from anchor 0 to 2 costs inf"),
        ([[0, 0, -1.0], [0, 0, 0]], "The stretch from anchor 0 to 2 costs -1, but must cost a finite number from 0 on"),
        ([[0, 0.5, 1.0], [0, 0, 0]], "from anchor 0 to 1 costs 0.5, but nothing is left out between them. Give 0."),
        ([[0, 0, 1.0], [0, 0]], "There are 2 costs of stretches from anchor 1, but 3 are needed"),
        ([[0, 0, 1.0, 2.0], [0, 0, 0, 0]], "There are 4 costs of stretches from anchor 0, but 3 are needed"),
    ],
)
def test_costs_that_are_none_are_refused(costs, told):
    with pytest.raises(ValueError) as error:
        best_anchors(costs)
    assert told in str(error.value)


def test_stretches_that_were_not_measured_are_missed():
    with pytest.raises(ValueError, match="behind 2 lists of anchors, but a run of 3 steps has 3, or others"):
        best_paths({(0,): [0.0] * 4, (2,): [0.0] * 4})


def test_amplification_is_a_line_in_its_logarithm_between_what_was_measured():
    a = between({2: 16.0, 6: 1.0, 8: 4.0}, 9)
    torch.testing.assert_close(a, [16.0, 16.0, 16.0, 8.0, 4.0, 2.0, 1.0, 2.0, 4.0, 4.0])
    assert between({3: 1.0}, 3) == [1.0] * 4


@pytest.mark.parametrize(
    ("measured", "told"),
    [
        ({}, "No amplification was measured."),
        ({2: math.nan}, "an error before step 2 of 4 is nan"),
        ({2: -1.0}, "an error before step 2 of 4 is -1"),
        ({5: 1.0}, "before step 5 of 4 is 1, but must be a finite number from 0 on, of a step of the run"),
    ],
)
def test_amplifications_that_are_none_are_refused(measured, told):
    with pytest.raises(ValueError) as error:
        between(measured, 4)
    assert told in str(error.value)


def test_an_end_that_does_not_move_has_the_least_amplification():
    assert between({1: 0.0, 2: 1.0}, 2)[0] == pytest.approx(1e-12)
