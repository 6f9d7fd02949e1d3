"""What the shipped toy weights are worth, in short; benchmarks/toy_world.py measures it at length."""

import pytest
import small_networks
import torch

from disca.host.loading import build_predictor, load_network
from disca.meanflow import shifted_sigmas
from disca.schedule import PRESETS
from disca.toy import world
from disca.toy.shipping import SHIPPED
from disca.training.blocks import make_out_of_place
from disca.training.network import Network
from disca.training.previews import distance
from disca.training.sampling import CachedVelocity, Predicted, Rule, mean_velocity, sample
from disca.weights.files import open_weights
from disca.weights.predictor_file import read_predictor

VIDEOS, FIRST, SIGMAS = 8, 800_000, shifted_sigmas(20, 5.0)


@pytest.fixture(scope="module")
def network():
    with small_networks.training_mode():
        yield Network(load_network(str(SHIPPED / "meanflow.safetensors"), torch.float32).requires_grad_(False))


@pytest.fixture(scope="module")
def predictor():
    spec, state = read_predictor(open_weights(str(SHIPPED / "predictor.safetensors")))
    made = build_predictor(spec, dtype=torch.float32)
    made.load_state_dict({key: tensor.float() for key, tensor in state.items()})
    make_out_of_place(made.blocks)
    return made.requires_grad_(False)


@torch.no_grad()
def test_the_predictor_is_nearer_to_the_run_in_full_than_reuse_of_the_features(network, predictor):
    scenes = [world.random_scene(FIRST + i) for i in range(VIDEOS)]
    attributes = torch.cat([scene.attributes for scene in scenes])
    condition = world.condition(attributes) | {"guidance": torch.full((VIDEOS,), 3.0)}
    noise = torch.randn(VIDEOS, 16, world.FRAMES, 8, 8, generator=torch.Generator().manual_seed(FIRST))
    full = sample(mean_velocity(network, condition), noise, SIGMAS)
    anchors = PRESETS["HunyuanVideo 1.0, 20 steps, N=4"].of(20)
    apart = [
        distance(sample(CachedVelocity(network, condition, anchors, rule), noise, SIGMAS), full)
        for rule in (Predicted(predictor), Rule())
    ]
    assert 0.0 < apart[0] < 0.9 * apart[1]
