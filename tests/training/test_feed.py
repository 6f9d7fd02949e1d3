"""The samples of an iteration: from where they are asked for, whatever was read ahead."""

import sys
from pathlib import Path

import torch

sys.path.insert(1, str(Path(__file__).parent))
from worlds import LENGTH, Points

from disca.training.data.order import order
from disca.training.engine.distributed import Processes
from disca.training.engine.feed import Feed, without


def processes(rank: int = 0, size: int = 1) -> Processes:
    """One process of so many."""
    return Processes(rank, size, torch.device("cpu"))


def positions(micros: list) -> list[int]:
    """Of all samples, in the order in which they are taken."""
    return [position for micro in micros for batch in micro for position in batch["index"].tolist()]


def test_samples_come_from_where_they_are_asked_for_and_not_from_what_was_read_ahead():
    feed, points = Feed(Points(), 0, processes(), batch=2, accumulate=2), Points()
    try:
        for position in (0, 4, 40, 4, 8):
            micros = feed.take(position)
            assert positions(micros) == list(range(position, position + 4))
            for place, x in zip(range(position, position + 2), micros[0][0]["x"], strict=True):
                assert torch.equal(x, points[order(LENGTH, 0, place)]["x"])
    finally:
        feed.close()


def test_processes_share_the_samples_of_each_iteration_out_among_them():
    feeds = [Feed(Points(), 0, processes(rank, 3), batch=2, accumulate=2) for rank in range(3)]
    try:
        taken = [positions(feed.take(24)) for feed in feeds]
    finally:
        for feed in feeds:
            feed.close()
    assert taken[1] == [26, 27, 32, 33]
    assert sorted(sum(taken, [])) == list(range(24, 24 + feeds[0].samples)) and feeds[0].samples == 12


def test_bad_samples_are_replaced_by_a_good_one_and_by_zeros_where_all_are_bad():
    batch = {"index": torch.tensor([7, 8, 9]), "x": torch.tensor([[float("nan")], [2.0], [3.0]])}
    assert without(batch, {7, 9})["x"].tolist() == [[2.0], [2.0], [2.0]]
    assert without(batch, {7, 8, 9})["x"].tolist() == [[0.0], [0.0], [0.0]]
    assert without(batch, {7})["index"].tolist() == [7, 8, 9]
    assert batch["x"].isnan().any(), "the batch itself is left as it was"
