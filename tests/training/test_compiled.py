"""Compiled blocks: the gradients of those that are not, and few compilations."""

from dataclasses import replace

import comfy.ldm.flux.math
import pytest
import small_networks
import torch
from comfy.ldm.modules.attention import attention_pytorch
from torch._dynamo.utils import counters

from disca.training.contract.method_settings import MeanFlowSettings
from disca.training.contract.settings import DataSettings, ModelSettings, Settings
from disca.training.network import compiled
from disca.training.network.fp8 import store_fp8
from disca.training.network.lora import adapters_off, add_lora
from disca.training.network.velocity import Network

FAMILIES = ["1.0", "1.5"]


@pytest.fixture(autouse=True)
def _training(monkeypatch):
    """Captured as for a GPU, with its attention, but run by PyTorch's own kernels: to make code would take minutes."""
    monkeypatch.setattr(comfy.ldm.flux.math, "optimized_attention", attention_pytorch)
    monkeypatch.setattr(compiled, "BACKEND", "aot_eager")
    torch._dynamo.reset()
    counters.clear()
    with small_networks.training_mode():
        yield
    torch._dynamo.reset()


def gradients(family: str, rank: int, fp8: bool = False, **options) -> dict[str, torch.Tensor]:
    """Of all trained weights, at two times one after the other."""
    module = small_networks.network(family)
    if fp8:
        store_fp8(module)
    if rank:
        lora, generator = add_lora(module, rank), torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in lora.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    else:
        module.requires_grad_(True)
    network = Network(module, **options)
    x, t, r, condition = small_networks.inputs(family)
    for time in (t, 0.8 * t):
        if rank:
            with adapters_off(module, lora):
                x = x + 0.1 * network.velocity(x, time, r, condition)
        network.velocity(x, time, r, condition).square().mean().backward()
    return {name: weight.grad for name, weight in module.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize(
    "family, rank, fp8, options",
    [
        ("1.0", 0, False, {"recomputed": True}),
        ("1.5", 0, False, {"recomputed": False}),
        ("1.5", 4, True, {"offloaded": True}),
    ],
)
def test_gradients_are_those_of_blocks_that_are_not_compiled(family, rank, fp8, options):
    plain, ours = (gradients(family, rank, fp8, compiled=on, **options) for on in (False, True))
    assert plain.keys() == ours.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=1e-6)
    assert not counters["graph_break"]


@pytest.mark.parametrize("family", FAMILIES)
def test_all_blocks_of_a_kind_share_a_compilation(family):
    gradients(family, 0, compiled=True)
    kinds = {"1.0": 2, "1.5": 1}[family]  # of blocks, with gradients
    assert counters["stats"]["unique_graphs"] == kinds


def test_the_inputs_of_a_block_stay_as_they_are():
    module = small_networks.network("1.0")
    network = Network(module, compiled=True, recomputed=False)
    seen = []
    module.double_blocks[1].register_forward_pre_hook(lambda block, args: seen.append((args[0], args[0].clone())))
    x, t, r, condition = small_networks.inputs("1.0")
    network.velocity(x, t, r, condition)
    ((given, before),) = seen
    assert torch.equal(given, before)


def test_dual_numbers_are_refused():
    run = Settings("meanflow", "out", DataSettings("toy://shapes"), ModelSettings(compile_blocks=True))
    with pytest.raises(ValueError, match="Dual numbers do not go through compiled blocks"):
        replace(run, meanflow=MeanFlowSettings(derivative="dual"))
