"""Which steps to run in full, from what it costs to leave them out: the best anchors for every budget at once.

A stretch lies between two anchors, or between the last one and the end; its cost is the squared error that it leaves in
the result. Errors of stretches add up as squares, so the best anchors are the path of least sum from step 0 to the end.
Pure Python.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations, pairwise
from typing import NamedTuple

History = tuple[int, ...]  # the latest anchors that an answer is made of, the very latest last
Costs = Mapping[History, Sequence[float]]  # of the stretch behind a history, for each next anchor k; k = steps: the end
LEAST_AMPLIFICATION = 1e-12  # what moves the end by less has no logarithm worth drawing a line through


class Choice(NamedTuple):
    """The anchors that cost least, and the sum of their stretches' costs."""

    anchors: tuple[int, ...]
    error: float


def best_anchors(costs: Sequence[Sequence[float]]) -> list[Choice]:
    """At place m - 1 the best of all lists of at most m anchors, for every m up to the number of steps.

    costs[i][k] is the cost of the stretch from anchor i to the next one k; 0 for k = i + 1, not read for k <= i. Equal
    sums go to the list with fewer anchors, then to the one whose anchors come earlier.
    """
    return best_paths({(i,): row for i, row in enumerate(costs)})


def best_paths(costs: Costs) -> list[Choice]:
    """As `best_anchors`, where the cost of a stretch depends on several anchors before it.

    The longest history says on how many; there is one for every ascending list of so many steps, and a shorter one for
    every such list that starts at step 0, where no more have been.
    """
    steps = _require_costs(costs)
    reach = max(map(len, costs))
    histories = sorted(costs, key=lambda history: history[-1], reverse=True)
    tables: list[dict[History, tuple[float, int, int]]] = []  # by anchors left: least sum, anchors taken, next anchor
    for left in range(steps):
        table = {}
        for history in histories:
            row = costs[history]
            ways = [(row[steps], 0, steps)]
            if left:
                for k in range(history[-1] + 1, steps):
                    error, taken, _ = tables[-1][_then(history, k, reach)]
                    ways.append((row[k] + error, taken + 1, k))
            table[history] = min(ways)
        tables.append(table)
    return [Choice(_anchors(tables, left, steps, reach), tables[left][(0,)][0]) for left in range(steps)]


def histories_of(steps: int, reach: int) -> list[History]:
    """All that a stretch of such a run can lie behind; `reach` is the number of anchors that an answer is made of."""
    begun = [(0, *rest) for count in range(reach - 1) for rest in combinations(range(1, steps), count)]
    return begun + list(combinations(range(steps), reach))


def least(choices: Sequence[Choice], allowed_error: float) -> Choice:
    """The choice of fewest anchors whose error is at most the allowed one."""
    if not allowed_error >= 0.0:
        raise ValueError(f"The allowed error is {allowed_error:g}, but must be at least 0. 0 runs every step in full.")
    return next(choice for choice in choices if choice.error <= allowed_error)  # with all steps in full it is 0


def between(measured: Mapping[int, float], steps: int) -> list[float]:
    """The amplifications a_0 ... a_steps: as measured, log-linear between, and the nearest one beyond."""
    if not measured:
        raise ValueError("No amplification was measured. Measure at least that of the end, which is 1.")
    for k, value in measured.items():
        if not (0 <= k <= steps and math.isfinite(value) and value >= 0.0):
            raise ValueError(
                f"The amplification of an error before step {k:d} of {steps:d} is {value:g}, but must be a finite "
                "number from 0 on, of a step of the run. Look for NaN in what the model gives."
            )
    known = sorted((k, math.log(max(value, LEAST_AMPLIFICATION))) for k, value in measured.items())
    found = [math.exp(known[0][1])] * (known[0][0] + 1)
    for (start, a), (end, b) in pairwise(known):
        found += [math.exp(a + (b - a) * (k - start) / (end - start)) for k in range(start + 1, end + 1)]
    return found + found[-1:] * (steps + 1 - len(found))


def _then(history: History, k: int, reach: int) -> History:
    return (*history, k)[-reach:]


def _anchors(tables: Sequence[Mapping], left: int, steps: int, reach: int) -> tuple[int, ...]:
    history, anchors = (0,), [0]
    while (k := tables[left][history][2]) < steps:
        anchors.append(k)
        history, left = _then(history, k, reach), left - 1
    return tuple(anchors)


def _require_costs(costs: Costs) -> int:
    """The number of steps; ValueError unless there is one cost, a number from 0 on, for each stretch of the run."""
    if not costs:
        raise ValueError("There are no costs to choose anchors by. Measure a run of at least one step.")
    steps, reach = 1 + max(history[-1] for history in costs), max(map(len, costs))
    expected = set(histories_of(steps, reach))
    if expected != set(costs):
        raise ValueError(
            f"There are costs behind {len(costs):d} lists of anchors, but a run of {steps:d} steps has "
            f"{len(expected):d}, or others. Measure every stretch."
        )
    for history, row in costs.items():
        i = history[-1]
        if len(row) != steps + 1:
            raise ValueError(
                f"There are {len(row):d} costs of stretches from anchor {i:d}, but {steps + 1:d} are needed: one for "
                f"each next anchor from 0 to {steps:d}, the end."
            )
        for k in range(i + 1, steps + 1):
            if not (math.isfinite(row[k]) and row[k] >= 0.0):
                raise ValueError(
                    f"The stretch from anchor {i:d} to {k:d} costs {row[k]:g}, but must cost a finite number from 0 "
                    "on. Look for NaN in what the model gives."
                )
        if row[i + 1] != 0.0:
            raise ValueError(
                f"The stretch from anchor {i:d} to {i + 1:d} costs {row[i + 1]:g}, but nothing is left out between "
                "them. Give 0."
            )
    return steps
