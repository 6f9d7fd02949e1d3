"""How a part's weights move: learning rate over the run and clipping."""

import math

import pytest
import torch

from disca.training.contract.protocol import Trainable, trainable
from disca.training.contract.settings import OptimiserSettings
from disca.training.engine.parts import Part


def part(iterations: int = 20, **optimiser) -> Part:
    """A part of two weights in a run of so many iterations."""
    module = torch.nn.Linear(2, 1, bias=False)
    return Part("network", Trainable(module, OptimiserSettings(lr=0.1, **optimiser)), iterations)


def rates(one: Part, count: int) -> list[float]:
    """The learning rate of each of the next updates, as the optimiser was given it."""
    found = []
    for _ in range(count):
        one.module.weight.grad = torch.ones(1, 2)
        one.update(1.0)
        found.append(one.optimiser.param_groups[0]["lr"])
    return found


def test_the_learning_rate_rises_evenly_over_the_warmup_and_stays():
    assert rates(part(warmup=4), 6) == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])


def test_the_learning_rate_falls_as_a_cosine_to_zero_at_the_end_of_the_run():
    found = rates(part(decay="cosine"), 20)
    assert found == pytest.approx([0.05 * (1 + math.cos(math.pi * i / 20)) for i in range(20)])
    assert 0.0 < found[-1] < 0.001


@pytest.mark.parametrize(("clip", "expected"), [(0.5, 0.5), (10.0, 5.0), (0.0, 5.0)])
def test_only_a_gradient_longer_than_the_clip_is_cut_to_it(clip, expected):
    one = part(clip=clip)
    one.module.weight.grad = torch.tensor([[3.0, 4.0]])
    one.update(5.0)
    assert one.module.weight.grad.norm().item() == pytest.approx(expected)
    torch.testing.assert_close(one.module.weight.grad / expected, torch.tensor([[0.6, 0.8]]))


def test_a_learning_rate_that_the_settings_leave_open_is_the_trainings_own():
    module = torch.nn.Linear(2, 1)
    assert trainable(module, OptimiserSettings(lr=0.0), 0.03).optimiser.lr == 0.03
    assert trainable(module, OptimiserSettings(lr=0.1), 0.03).optimiser.lr == 0.1


def test_a_part_without_weights_to_train_is_refused():
    with pytest.raises(ValueError, match="'network' has no weights to train"):
        Part("network", Trainable(torch.nn.Identity(), OptimiserSettings()), 20)
