"""What is moved to the host comes back the same, and is gone from the device in between."""

import pytest
import small_networks
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.checkpoint import checkpoint

from disca.training.network.blocks import make_out_of_place
from disca.training.network.lora import add_lora
from disca.training.network.offload import offloaded_activations, swap_blocks
from disca.training.network.velocity import Network

FAMILIES = ["1.0", "1.5"]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _training():
    with small_networks.training_mode():
        yield


def trained(family: str):
    """A network with adapters that already do something."""
    module = small_networks.network(family)
    lora = add_lora(module, rank=2)
    with torch.no_grad():
        for parameter in lora.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(9)) * 0.1)
    return module, lora


def gradients(network: Network, lora, family: str) -> list[torch.Tensor]:
    """Of every trained weight, after one pass."""
    x, t, r, condition = small_networks.inputs(family)
    network.velocity(x, t, r, condition).square().mean().backward()
    return [parameter.grad for parameter in lora.parameters()]


@pytest.mark.parametrize("recomputed", [False, True], ids=["saved", "recomputed"])
@pytest.mark.parametrize("family", FAMILIES)
def test_offloaded_activations_give_the_same_gradients(family, recomputed):
    module, lora = trained(family)
    plain = gradients(Network(module, recomputed), lora, family)
    module, lora = trained(family)
    with offloaded_activations(least=0) as traffic:
        moved = gradients(Network(module, recomputed), lora, family)
    assert all(torch.equal(a, b) for a, b in zip(plain, moved, strict=True))
    assert traffic.tensors > 10


def stream(count: int) -> tuple[list, tuple]:
    """Double blocks, and img, txt, vec and pe for them."""
    module = small_networks.network("1.5", depth=count)
    make_out_of_place(module.double_blocks)
    ids = torch.zeros(1, 5 + 48, 3)
    return list(module.double_blocks), (torch.randn(1, 32), module.pe_embedder(ids))


def test_of_recomputed_blocks_the_inputs_are_moved_and_nothing_else():
    blocks, (vec, pe) = stream(4)
    img, txt = torch.randn(1, 48, 32, requires_grad=True), torch.randn(1, 5, 32)
    inputs = []
    with offloaded_activations(least=img.nbytes) as traffic:
        for block in blocks:
            inputs.append(StorageWeakRef(img.untyped_storage()))
            img, txt = checkpoint(block, img, txt, vec, pe, use_reentrant=False)
    assert traffic.tensors == len(blocks) + 1, "the image tokens of each block, and once the rotary embedding"
    assert traffic.bytes == len(blocks) * img.nbytes + pe.nbytes
    assert all(storage.expired() for storage in inputs[1:])


def test_a_changed_tensor_is_moved_anew():
    weight = torch.ones(4, requires_grad=True)
    x = torch.ones(4)
    with offloaded_activations(least=0) as traffic:
        y = weight * x
        x.add_(1.0)
        y = y + weight * x
    y.sum().backward()
    assert traffic.tensors == 2
    assert torch.equal(weight.grad, torch.full((4,), 3.0))


def test_each_view_of_one_tensor_comes_back_in_its_own_shape_and_order():
    x, weight = torch.arange(6.0), torch.ones(6, requires_grad=True)
    views = (x, x[:2], x[2:4], x[4:], x.view(2, 3), x.view(2, 3).T, x.view(3, 2), x.view(1, 6))
    with offloaded_activations(least=0):
        products = [weight[: view.numel()].view(view.shape) * view for view in views]
    for view, product in zip(views, products, strict=True):
        (gradient,) = torch.autograd.grad(product.sum(), weight)
        assert torch.equal(gradient[: view.numel()].view(view.shape), view)


def test_weights_are_not_moved():
    layer = torch.nn.Linear(64, 64)
    with offloaded_activations(least=layer.weight.nbytes) as traffic:
        layer(torch.randn(2, 64, requires_grad=True)).sum().backward()
    assert traffic.tensors == 0


@pytest.mark.parametrize("recomputed", [False, True], ids=["saved", "recomputed"])
@pytest.mark.parametrize("family", FAMILIES)
def test_swapped_blocks_give_the_same_gradients(family, recomputed):
    module, lora = trained(family)
    plain = gradients(Network(module, recomputed), lora, family)
    module, lora = trained(family)
    swap = swap_blocks(module, 2, CPU)
    moved = gradients(Network(module, recomputed), lora, family)
    assert all(torch.equal(a, b) for a, b in zip(plain, moved, strict=True))
    assert swap.visits == (4 if recomputed else 2), "each block visits for forward and for its recompute"


def test_a_swapped_block_is_on_the_device_only_while_it_runs():
    module, lora = trained("1.5")
    swap = swap_blocks(module, 1, CPU)
    layer = module.double_blocks[-1].img_attn.qkv
    home, seen = layer.weight, []
    layer.register_forward_hook(lambda layer, args, out: seen.append(layer.weight))
    gradients(Network(module), lora, "1.5")
    assert len(seen) == 2 and all(visitor is not home for visitor in seen)
    assert layer.weight is home
    swap.remove()
    assert torch.equal(layer.weight, home) and not layer.weight.requires_grad


def test_a_visitor_lives_until_backward_has_used_it():
    """And no longer: so at most one swapped block is on the device."""
    module, lora = trained("1.5")
    swap_blocks(module, 3, CPU)
    visitors = [[] for _ in module.double_blocks]
    alive = []

    def watch(i):
        def record(layer, args, out):
            alive.append(sum(not storage.expired() for block in visitors for storage in block))
            visitors[i].append(StorageWeakRef(layer.weight.untyped_storage()))

        return record

    for i, block in enumerate(module.double_blocks):
        block.img_mlp[0].register_forward_hook(watch(i))
    gradients(Network(module), lora, "1.5")
    assert max(alive) <= 1


def test_adapters_stay_on_the_device():
    module, lora = trained("1.5")
    swap = swap_blocks(module, 3, CPU)
    waiting = {id(weight) for entries in swap.host.values() for _, _, weight in entries}
    assert not waiting & {id(parameter) for parameter in lora.parameters()}


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
def test_swapping_trained_weights_is_refused(late):
    module = small_networks.network("1.5").requires_grad_(not late)
    x, t, r, condition = small_networks.inputs("1.5")
    with pytest.raises((ValueError, RuntimeError), match="only frozen weights can wait"):
        swap_blocks(module, 1, CPU)
        module.requires_grad_(True)
        Network(module).velocity(x, t, r, condition)


def test_more_blocks_than_there_are_is_refused():
    with pytest.raises(ValueError, match="memory.swap_blocks is 4, but the network has 3 blocks"):
        swap_blocks(small_networks.network("1.5").requires_grad_(False), 4, CPU)
