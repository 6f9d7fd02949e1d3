"""The store of an anchor step's features by itself."""

import torch

from disca.methods.extrapolation import Line
from disca.methods.reuse import Reuse


def test_features_of_another_size_are_kept_anew_and_not_copied_over_the_earlier_ones(pack):
    store = pack("disca.host.features").FeatureStore("auto")
    wide, narrow = torch.arange(6.0).view(1, 2, 3), torch.full((1, 1, 3), 9.0)
    for features in (wide, narrow, wide):
        store.keep(["positive"], (features.shape,), [features], Reuse().keep)
        (found,) = store.take(["positive"], features.device)
        assert torch.equal(found, features)
        assert store.nbytes == features.nbytes


def test_what_is_kept_of_two_anchors_moves_up_and_is_not_overwritten(pack):
    store, shape = pack("disca.host.features").FeatureStore("auto"), (1, 2, 3)
    for number in range(4):
        store.keep(["row"], (shape,), [torch.full(shape, float(number))], Line().keep)
        kept = [tensor.flatten()[0].item() for tensor in store.take(["row"], torch.device("cpu"))]
        assert kept == [number, number - 1][: number + 1]
    assert store.nbytes == 2 * 4 * 6


def test_rows_of_a_batch_are_kept_apart(pack):
    store, batch = pack("disca.host.features").FeatureStore("auto"), torch.arange(6.0).view(3, 2, 1)
    store.keep(["a", "b", "c"], ((2, 1),), [batch], Reuse().keep)
    assert torch.equal(store.take(["c", "a"], batch.device)[0], batch[[2, 0]])


def test_only_memory_of_the_same_shape_is_used_again_and_none_that_is_still_read(pack):
    store, shape = pack("disca.host.features").FeatureStore("auto"), (1, 4, 3)
    older = lambda made, kept: [made[0], *(tensor[:, :2] for tensor in kept[:1])]  # noqa: E731
    for number in (1.0, 2.0):
        store.keep(["row"], (shape,), [torch.full(shape, number)], older)
    last, before = store.take(["row"], torch.device("cpu"))
    assert (last == 2.0).all() and before.shape == (1, 2, 3) and (before == 1.0).all()
    store.keep(["row"], (shape,), [torch.ones(shape)], lambda made, kept: [made[0][:, :1]])
    assert store.take(["row"], torch.device("cpu"))[0].shape == (1, 1, 3)
