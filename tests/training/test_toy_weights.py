"""What the shipped toy weights are worth, in short; benchmarks/toy_world.py measures it at length."""

import pytest
import small_networks
import torch

from disca.meanflow import shifted_sigmas
from disca.methods.scheduled.disca import disca
from disca.methods.scheduled.reuse import PlainReuse
from disca.methods.seam.anchors import AtAnchors
from disca.models.loading import build_predictor, load_network
from disca.schedule import PRESETS
from disca.toy import WEIGHTS, world
from disca.training.algorithms.previews import distance
from disca.training.algorithms.sampling import CachedVelocity, guided, mean_velocity, sample
from disca.training.network.blocks import make_out_of_place
from disca.training.network.velocity import Network
from disca.weights.files import open_weights
from disca.weights.predictor_file import read_predictor

VIDEOS, FIRST, SHIFT = 32, 800_000, 1.0


def shipped(stage: str) -> Network:
    """The network that a stage of the chain gave."""
    return Network(load_network(str(WEIGHTS / f"{stage}.safetensors"), torch.float32).requires_grad_(False))


@pytest.fixture(scope="module")
def network():
    with small_networks.training_mode():
        yield shipped("meanflow")


@pytest.fixture(scope="module")
def teacher():
    with small_networks.training_mode():
        yield shipped("cfg")


@pytest.fixture(scope="module")
def predictor():
    spec, state = read_predictor(open_weights(str(WEIGHTS / "predictor.safetensors")))
    made = build_predictor(spec, dtype=torch.float32)
    made.load_state_dict({key: tensor.float() for key, tensor in state.items()})
    make_out_of_place(made.blocks)
    return made.requires_grad_(False)


@pytest.fixture(scope="module")
def asked():
    """Noise, and the condition of as many prompts."""
    attributes = torch.cat([world.random_scene(FIRST + i).attributes for i in range(VIDEOS)])
    noise = torch.randn(VIDEOS, 16, world.FRAMES, 8, 8, generator=torch.Generator().manual_seed(FIRST))
    return noise, world.condition(attributes) | {"guidance": torch.full((VIDEOS,), 3.0)}


@torch.no_grad()
def test_the_predictor_is_nearer_to_the_run_in_full_than_reuse_and_than_as_many_full_steps(network, predictor, asked):
    noise, condition = asked
    u, schedule = mean_velocity(network, condition), PRESETS["HunyuanVideo 1.0, 20 steps, N=4"]
    times = shifted_sigmas(20, SHIFT)
    full, fewer = sample(u, noise, times), sample(u, noise, shifted_sigmas(len(schedule.listed), SHIFT))
    methods = disca(AtAnchors(schedule), predictor.features), PlainReuse().method(AtAnchors(schedule))
    cached = [CachedVelocity(network, condition, method, times.tolist(), predictor) for method in methods]
    predicted, reused = (distance(sample(velocity, noise, times), full) for velocity in cached)
    assert 0.0 < predicted < 0.9 * reused
    assert predicted < 0.5 * distance(fewer, full)


@torch.no_grad()
def test_in_8_steps_the_meanflow_model_is_nearer_to_its_teachers_samples_than_the_teacher(network, teacher, asked):
    noise, condition = asked
    v, times = guided(teacher, condition, {}, 1.0), shifted_sigmas(8, SHIFT)
    finest = sample(v, noise, shifted_sigmas(32, SHIFT))
    own, students = (sample(u, noise, times) for u in (v, mean_velocity(network, condition)))
    assert distance(students, finest) < 0.7 * distance(own, finest)
