"""The store of an anchor step's features by itself."""

import pytest
import torch

from disca.methods.seam.method import Span
from disca.methods.seam.whats import Line, Reuse, Taylor

CPU = torch.device("cpu")


@pytest.fixture
def store(pack):
    return pack("disca.host.running.features").FeatureStore("auto")


class Older(Reuse):
    """Keeps the features, and a part of the earlier ones."""

    def keep(self, given, made, kept, ages):
        return [made[0], *(tensor[:, :2] for tensor in kept[:1])]


class Part(Reuse):
    def keep(self, given, made, kept, ages):
        return [made[0][:, :1]]


def keep(store, features: torch.Tensor, what=None, rows=("row",), ages=()) -> None:
    for row in rows:
        store.open(row, (features.shape,))
    store.keep(rows, 0, what or Reuse(), [features], [features], [ages] * len(rows))


def test_features_of_another_size_are_kept_anew_and_not_copied_over_the_earlier_ones(store):
    wide, narrow = torch.arange(6.0).view(1, 2, 3), torch.full((1, 1, 3), 9.0)
    for features in (wide, narrow, wide):
        keep(store, features)
        (found,) = store.take(["row"], 0, CPU)
        assert torch.equal(found, features)
        assert store.nbytes == features.nbytes


def test_what_is_kept_of_two_anchors_moves_up_and_is_not_overwritten(store):
    for number in range(4):
        keep(store, torch.full((1, 2, 3), float(number)), Line())
        kept = [tensor.flatten()[0].item() for tensor in store.take(["row"], 0, CPU)]
        assert kept == [number, number - 1][: number + 1]
    assert store.nbytes == 2 * 4 * 6


def test_places_are_kept_apart(store):
    store.open("row", ())
    for place in (0, (0, "double_block", "img_attn")):
        store.keep(["row"], place, Reuse(), [], [torch.full((1, 2), float(place == 0))], [()])
    assert store.take(["row"], 0, CPU)[0].mean() == 1.0
    assert store.nbytes == 2 * 8


def test_rows_of_a_batch_are_kept_apart(store):
    batch = torch.arange(6.0).view(3, 2, 1)
    keep(store, batch, rows=["a", "b", "c"])
    assert torch.equal(store.take(["c", "a"], 0, CPU)[0], batch[[2, 0]])


def test_only_memory_of_the_same_shape_is_used_again_and_none_that_is_still_read(store):
    for number in (1.0, 2.0):
        keep(store, torch.full((1, 4, 3), number), Older())
    last, before = store.take(["row"], 0, CPU)
    assert (last == 2.0).all() and before.shape == (1, 2, 3) and (before == 1.0).all()
    keep(store, torch.ones(1, 4, 3), Part())
    assert store.take(["row"], 0, CPU)[0].shape == (1, 1, 3)


def test_differences_are_made_where_the_features_are_and_kept_where_they_belong(pack):
    store = pack("disca.host.running.features").FeatureStore("cpu")
    for number in (1.0, 4.0):
        keep(store, torch.full((1, 2, 3), number), Taylor(), ages=[Span(3, 0.1)])
    assert [tensor.mean().item() for tensor in store.take(["row"], 0, CPU)] == [4.0, 1.0]


def test_what_an_answer_renews_takes_the_place_of_what_was_held(store):
    keep(store, torch.zeros(2, 2, 3), rows=["a", "b"])
    store.put(["a", "b"], 0, [torch.arange(12.0).view(2, 2, 3)])
    assert torch.equal(store.take(["b"], 0, CPU)[0], torch.arange(6.0, 12.0).view(1, 2, 3))
