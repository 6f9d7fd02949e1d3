"""How a part's weights move: learning rate over the run, clipping, and the discriminator's own optimiser."""

import math
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(1, str(Path(__file__).parent))
from worlds import settings  # noqa: E402

from disca.training.contract.settings import OptimiserSettings, PredictorSettings  # noqa: E402
from disca.training.engine.parts import Part  # noqa: E402


def part(tmp_path, name: str = "network", iterations: int = 20, **optimiser) -> Part:
    """A part of two weights in a run of so many iterations."""
    module = torch.nn.Linear(2, 1, bias=False)
    made = settings(tmp_path, iterations, optimiser=OptimiserSettings(lr=0.1, **optimiser))
    return Part(name, module, replace(made, predictor=PredictorSettings(lr_discriminator=0.03)))


def rates(one: Part, count: int) -> list[float]:
    """The learning rate of each of the next updates, as the optimiser was given it."""
    found = []
    for _ in range(count):
        one.module.weight.grad = torch.ones(1, 2)
        one.update(1.0)
        found.append(one.optimiser.param_groups[0]["lr"])
    return found


def test_the_learning_rate_rises_evenly_over_the_warmup_and_stays(tmp_path):
    assert rates(part(tmp_path, warmup=4), 6) == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.1, 0.1])


def test_the_learning_rate_falls_as_a_cosine_to_zero_at_the_end_of_the_run(tmp_path):
    found = rates(part(tmp_path, decay="cosine"), 20)
    assert found == pytest.approx([0.05 * (1 + math.cos(math.pi * i / 20)) for i in range(20)])
    assert 0.0 < found[-1] < 0.001


@pytest.mark.parametrize(("clip", "expected"), [(0.5, 0.5), (10.0, 5.0), (0.0, 5.0)])
def test_only_a_gradient_longer_than_the_clip_is_cut_to_it(tmp_path, clip, expected):
    one = part(tmp_path, clip=clip)
    one.module.weight.grad = torch.tensor([[3.0, 4.0]])
    one.update(5.0)
    assert one.module.weight.grad.norm().item() == pytest.approx(expected)
    torch.testing.assert_close(one.module.weight.grad / expected, torch.tensor([[0.6, 0.8]]))


def test_the_discriminator_has_its_own_learning_rate_and_no_momentum(tmp_path):
    own = part(tmp_path, "discriminator", betas=(0.9, 0.99))
    assert rates(own, 1) == pytest.approx([0.03])
    assert own.optimiser.param_groups[0]["betas"] == (0.0, 0.999)
    assert part(tmp_path, betas=(0.9, 0.99)).optimiser.param_groups[0]["betas"] == (0.9, 0.99)


def test_a_part_without_weights_to_train_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'network' has no weights to train"):
        Part("network", torch.nn.Identity(), settings(tmp_path))
