"""LoRA: right gradients, the teacher underneath, and files that ComfyUI's own loader reads."""

import comfy.sd
import comfy.supported_models
import pytest
import small_networks
import torch
from comfy.model_patcher import ModelPatcher
from torch.distributed.fsdp import fully_shard

from disca.training.network.fp8 import FP8, store_fp8
from disca.training.network.lora import (
    EMBEDDERS,
    adapters_off,
    add_lora,
    base_state,
    lora_state,
    lora_targets,
    whole_state,
)
from disca.training.network.velocity import Network

FAMILIES = ["1.0", "1.5"]
KINDS = {"1.0": "HunyuanVideo", "1.5": "HunyuanVideo15"}


@pytest.fixture(autouse=True)
def _training():
    with small_networks.training_mode():
        yield


def stir(lora, size: float = 0.05) -> None:
    """Moves every trained weight, as training would."""
    with torch.no_grad():
        for parameter in lora.parameters():
            parameter.add_(torch.randn_like(parameter) * size)


def gradients(network, lora, family: str, recomputed: bool) -> dict[str, torch.Tensor]:
    """The gradient of each trained weight."""
    x, t, r, condition = small_networks.inputs(family)
    lora.zero_grad()
    network.recomputed = recomputed
    network.velocity(x, t, r, condition).square().mean().backward()
    return {name: parameter.grad.clone() for name, parameter in lora.named_parameters()}


@pytest.mark.parametrize("family", FAMILIES)
def test_before_training_nothing_has_changed(family):
    module = small_networks.network(family)
    network = Network(module)
    x, t, r, condition = small_networks.inputs(family)
    with torch.no_grad():
        plain = network.velocity(x, t, r, condition)
        add_lora(module, rank=4)
        assert torch.equal(network.velocity(x, t, r, condition), plain)


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_trained_are_adapters_of_blocks_and_whole_embedders(family):
    module = small_networks.network(family)
    lora = add_lora(module, rank=4)
    trained = {id(parameter) for parameter in module.parameters() if parameter.requires_grad}
    assert trained == {id(parameter) for parameter in lora.parameters()}
    blocks = [*module.double_blocks, *module.single_blocks]
    per_block = [8] * len(module.double_blocks) + [2] * len(module.single_blocks)
    assert [sum(".adapter.up" in n for n, _ in block.named_parameters(".")) for block in blocks] == per_block
    assert set(lora.originals) == set(EMBEDDERS if family == "1.0" else EMBEDDERS[:2])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("fp8", [False, True], ids=["full", "fp8"])
def test_gradients_are_the_same_with_recomputed_blocks(family, fp8):
    module = small_networks.network(family)
    lora = add_lora(module, rank=4)
    if fp8:
        store_fp8(module)
    stir(lora)
    network = Network(module)
    plain, again = (gradients(network, lora, family, recomputed) for recomputed in (False, True))
    assert plain.keys() == dict(lora.named_parameters()).keys()
    assert all(torch.equal(plain[name], again[name]) for name in plain)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_weights_with_the_adapters_worked_in(family):
    """d loss / d up = scale * d loss / d W @ down^T of the merged network, in which W is trained in full."""
    module = small_networks.network(family)
    lora = add_lora(module, rank=4, alpha=8.0)
    stir(lora)
    ours = gradients(Network(module), lora, family, recomputed=True)
    merged = small_networks.network(family)
    merged.load_state_dict(whole_state(module, lora, base_state(module), lora.state_dict()))
    merged.requires_grad_(True)
    theirs = gradients(Network(merged), merged, family, recomputed=False)
    for name, adapter in lora.adapters().items():
        expected = 2.0 * theirs[f"{name}.weight"] @ adapter.down.T
        torch.testing.assert_close(ours[f"{name}.up"], expected, rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(ours["time_in.out_layer.bias"], theirs["time_in.out_layer.bias"], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_with_the_adapters_off_the_network_is_its_own_teacher(family):
    module = small_networks.network(family)
    network = Network(module)
    x, t, r, condition = small_networks.inputs(family)
    with torch.no_grad():
        before = network.velocity(x, t, r, condition)
    lora = add_lora(module, rank=4)
    stir(lora)
    with adapters_off(module, lora):
        teacher = network.velocity(x, t, r, condition)
    student = network.velocity(x, t, r, condition)
    assert torch.equal(teacher, before)
    assert not teacher.requires_grad and student.requires_grad
    assert not torch.allclose(student, before, atol=1e-2)


def test_an_error_in_the_teacher_puts_the_adapters_back_on():
    module = small_networks.network("1.5")
    lora = add_lora(module, rank=4)
    with pytest.raises(KeyError), adapters_off(module, lora):
        raise KeyError
    assert lora.on and module.time_in is lora.time_in


@pytest.mark.parametrize("family", FAMILIES)
def test_comfyuis_loader_makes_the_trained_network_of_the_base(family):
    module = small_networks.network(family)
    lora = add_lora(module, rank=4, alpha=2.0)
    stir(lora)
    x, t, r, condition = small_networks.inputs(family)
    with torch.no_grad():
        trained = Network(module).velocity(x, t, r, condition)
        patched = _load_lora(family, lora_state(lora))
        loaded = Network(patched).velocity(x, t, r, condition)
        untrained = Network(small_networks.network(family)).velocity(x, t, r, condition)
    assert (loaded - trained).norm() < 1e-5 * (trained - untrained).norm()


def test_comfyuis_loader_takes_every_key(caplog):
    module = small_networks.network("1.0")
    _load_lora("1.0", lora_state(add_lora(module, rank=4)))
    assert "not loaded" not in caplog.text.lower()


def test_other_weights_of_the_same_names_are_exported_when_given():
    """The moving average, say."""
    module = small_networks.network("1.5")
    lora = add_lora(module, rank=4)
    zeros = {name: torch.zeros_like(tensor) for name, tensor in lora.state_dict().items()}
    state = lora_state(lora, zeros)
    key = "diffusion_model.time_in.in_layer.diff"
    assert torch.equal(state[key], -module.time_in.in_layer.weight)
    assert not state["diffusion_model.double_blocks.0.img_attn.qkv.lora_down.weight"].any()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_whole_model_can_be_exported_with_the_lora_worked_in(family):
    module = small_networks.network(family)
    lora = add_lora(module, rank=4)
    stir(lora)
    merged = small_networks.network(family)
    merged.load_state_dict(whole_state(module, lora, base_state(module), lora.state_dict()))
    x, t, r, condition = small_networks.inputs(family)
    with torch.no_grad():
        ours, theirs = (Network(one).velocity(x, t, r, condition) for one in (merged, module))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_adapters_train_in_float32_on_weights_of_any_type():
    module = small_networks.network("1.5", dtype=torch.bfloat16)
    lora = add_lora(module, rank=4)
    assert store_fp8(module) == len(lora_targets(module)) + 2 * len(module.double_blocks)
    x, t, r, condition = small_networks.inputs("1.5", torch.bfloat16)
    Network(module).velocity(x, t, r, condition).float().square().mean().backward()
    assert {p.dtype for p in lora.parameters()} == {torch.float32}
    assert all(torch.isfinite(p.grad).all() for p in lora.parameters() if p.grad is not None)
    assert module.double_blocks[0].img_attn.qkv.weight.dtype == FP8


def test_fp8_weights_are_scaled_to_the_range_of_the_type():
    """A plain cast would put weights of a transformer's size among the subnormals."""
    module = small_networks.network("1.5")
    layer = module.double_blocks[0].img_mlp[0]
    before = (layer.weight / 6).detach()
    layer.weight = torch.nn.Parameter(before, requires_grad=False)
    module.requires_grad_(False)
    store_fp8(module)
    after = layer.weight_function[0](layer.weight.float())
    error, plain = ((w - before).norm() / before.norm() for w in (after, before.to(FP8).float()))
    assert error < 0.03 and plain > 1.5 * error


def test_weights_of_zeros_stay_zeros_in_fp8():
    module = small_networks.network("1.5").requires_grad_(False)
    layer = module.double_blocks[0].img_mlp[0]
    layer.weight.zero_()
    store_fp8(module)
    assert not layer.weight_function[0](layer.weight.float()).any()


@pytest.mark.parametrize("family", FAMILIES)
def test_of_fp8_weights_the_lora_is_worked_into_what_they_stand_for(family):
    module = small_networks.network(family)
    lora = add_lora(module, rank=4)
    store_fp8(module)
    stir(lora)
    state = whole_state(module, lora, base_state(module), lora.state_dict())
    assert not {tensor.dtype for tensor in state.values()} & {FP8}
    merged = small_networks.network(family)
    merged.load_state_dict(state)
    x, t, r, condition = small_networks.inputs(family)
    with torch.no_grad():
        ours, theirs, base = (
            Network(one).velocity(x, t, r, condition) for one in (merged, module, small_networks.network(family))
        )
    assert (ours - theirs).norm() < 0.05 * (theirs - base).norm()


@pytest.fixture
def one_process(tmp_path):
    """A process group of one."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("family", FAMILIES)
def test_sharded_it_teaches_learns_and_exports_the_same(family, one_process):
    found = []
    for sharded in (False, True):
        module = small_networks.network(family)
        lora = add_lora(module, rank=4)
        store_fp8(module)
        torch.manual_seed(1)
        stir(lora)
        network = Network(module)
        for part in [*module.double_blocks, *module.single_blocks, module] if sharded else []:
            fully_shard(part)
        x, t, r, condition = small_networks.inputs(family)
        with adapters_off(module, lora):
            teacher = network.velocity(x, t, r, condition)
        learned = gradients(network, lora, family, recomputed=True)
        learned = {name: getattr(gradient, "full_tensor", lambda g=gradient: g)() for name, gradient in learned.items()}
        found.append({"teacher": teacher, **learned, **lora_state(lora)})
    for name, plain in found[0].items():
        torch.testing.assert_close(found[1][name], plain, rtol=1e-4, atol=1e-7, msg=name)


def test_a_rank_of_zero_is_refused():
    with pytest.raises(ValueError, match="lora.rank is 0"):
        add_lora(small_networks.network("1.5"), rank=0)


def _load_lora(family: str, state: dict[str, torch.Tensor]):
    """The base with the LoRA, as the Load LoRA node patches it."""
    shape = small_networks.SHARED | small_networks.SHAPES[family]
    config = getattr(comfy.supported_models, KINDS[family])(shape)
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({})
    model.diffusion_model.load_state_dict(small_networks.network(family).state_dict())
    cpu = torch.device("cpu")
    patcher, _ = comfy.sd.load_lora_for_models(ModelPatcher(model, cpu, cpu), None, state, 1.0, 1.0)
    patcher.patch_model()
    return patcher.model.diffusion_model
