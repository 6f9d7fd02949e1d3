"""The store of an anchor step's features by itself."""

import torch


def test_features_of_another_size_are_kept_anew_and_not_copied_over_the_earlier_ones(pack):
    store = pack("disca.host.features").FeatureStore("auto")
    wide, narrow = torch.arange(6.0).view(1, 2, 3), torch.full((1, 1, 3), 9.0)
    for features in (wide, narrow, wide):
        store.keep(["positive"], (features.shape,), [features])
        (found,) = store.take(["positive"], features.device)
        assert torch.equal(found, features)
        assert store.nbytes == features.nbytes
