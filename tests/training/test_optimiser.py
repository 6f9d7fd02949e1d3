"""AdamW in 32 and 8 bits."""

import sys

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from disca.training.contract.settings import OptimiserSettings
from disca.training.engine.optimiser import make_optimiser, set_learning_rate

EIGHT = OptimiserSettings(name="adamw_8bit")


def descend(
    settings, dtype=torch.float32, steps: int = 12, lr: float = 0.1, share=lambda full: full
) -> tuple[float, torch.nn.Parameter]:
    """How much of a quadratic's value is left after some steps, and the weight."""
    generator = torch.Generator().manual_seed(1)
    target = share(torch.randn(64, 128, generator=generator))
    weight = torch.nn.Parameter(share(torch.zeros(64, 128, dtype=dtype)))
    optimiser = make_optimiser(settings, [weight], lr)
    for _ in range(steps):
        optimiser.zero_grad()
        (weight - target).square().sum().backward()
        optimiser.step()
    return ((weight - target).square().mean() / target.square().mean()).item(), weight


def test_eight_bits_descend_as_thirty_two_do():
    pytest.importorskip("torchao")
    full, eight = (descend(settings)[0] for settings in (OptimiserSettings(), EIGHT))
    assert eight == pytest.approx(full, rel=0.05) and full < 0.3


def test_updates_below_the_resolution_of_bf16_are_kept_on_average():
    """Each is an eighth of the distance between neighbouring values; rounded to nearest, none would ever happen."""
    pytest.importorskip("torchao")
    weight = torch.nn.Parameter(torch.ones(64, 256, dtype=torch.bfloat16))
    optimiser = make_optimiser(EIGHT, [weight], lr=2.0**-11)
    for _ in range(16):
        weight.grad = torch.full_like(weight, -1.0)
        optimiser.step()
    assert weight.float().mean().item() - 1.0 == pytest.approx(16 * 2.0**-11, rel=0.05)


def test_the_rounding_of_bf16_weights_is_repeatable():
    pytest.importorskip("torchao")
    torch.manual_seed(1)
    _, first = descend(EIGHT, torch.bfloat16, steps=3)
    torch.manual_seed(2)
    _, second = descend(EIGHT, torch.bfloat16, steps=3)
    assert torch.equal(first, second)


def test_sharded_bf16_weights_are_trained_as_whole_ones():
    pytest.importorskip("torchao")
    _, whole = descend(EIGHT, torch.bfloat16, steps=3)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        _, sharded = descend(
            EIGHT, torch.bfloat16, steps=3, share=lambda full: distribute_tensor(full, mesh, [Shard(0)])
        )
        assert torch.equal(sharded.to_local(), whole)
    finally:
        dist.destroy_process_group()


@pytest.mark.parametrize("name", ["adamw", "adamw_8bit"])
def test_the_learning_rate_can_be_set_between_steps(name):
    if name == "adamw_8bit":
        pytest.importorskip("torchao")
    weight = torch.nn.Parameter(torch.ones(64, 64))
    optimiser = make_optimiser(OptimiserSettings(name=name), [weight], lr=1.0)
    set_learning_rate(optimiser, 0.25)
    weight.grad = torch.ones_like(weight)
    optimiser.step()
    assert torch.allclose(weight, torch.tensor(0.75), atol=1e-3)


def test_moments_are_held_in_a_byte_each():
    pytest.importorskip("torchao")
    weight = torch.nn.Parameter(torch.ones(64, 256))
    optimiser = make_optimiser(EIGHT, [weight], lr=1e-3)
    weight.grad = torch.ones_like(weight)
    optimiser.step()
    assert {optimiser.state[weight][name].codes.dtype for name in ("exp_avg", "exp_avg_sq")} == {torch.uint8}


def test_frozen_weights_are_left_out():
    frozen, trained = (torch.nn.Parameter(torch.ones(2), requires_grad=r) for r in (False, True))
    (group,) = make_optimiser(OptimiserSettings(), [frozen, trained], 1e-3).param_groups
    assert [id(parameter) for parameter in group["params"]] == [id(trained)]


def test_adamw_on_bf16_weights_is_refused():
    weight = torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    with pytest.raises(ValueError, match="torch.bfloat16.*set optimizer.name to adamw_8bit"):
        make_optimiser(OptimiserSettings(), [weight], 1e-3)


def test_without_torchao_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao.optim", None)
    with pytest.raises(RuntimeError, match="pip install torchao"):
        make_optimiser(EIGHT, [torch.nn.Parameter(torch.ones(2))], 1e-3)
