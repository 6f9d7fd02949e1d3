"""A LoRA training that starts from a LoRA, and one of chosen layers."""

import re

import pytest
import recipes
import small_networks
import torch
from lora_files import lora_file, merged_layout
from safetensors.torch import save_file

from disca.models.loading import load_network
from disca.training.contract.settings import LoraSettings
from disca.training.network.lora import adapters_off, add_lora, lora_state, lora_targets
from disca.training.network.lora_start import start_from
from disca.training.network.velocity import Network

FAMILIES = ["1.0", "1.5"]


@pytest.fixture(autouse=True)
def _training():
    with small_networks.training_mode():
        yield


def stirred(lora) -> None:
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in lora.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)


def velocity(module, family: str) -> torch.Tensor:
    x, t, r, condition = small_networks.inputs(family)
    with torch.no_grad():
        return Network(module).velocity(x, t, r, condition)


def started(path, family: str, rank: int = 4, **options):
    module = small_networks.network(family)
    lora = add_lora(module, rank, **options)
    start_from(module, lora, str(path))
    return module, lora


@pytest.fixture
def exported(tmp_path):
    """A LoRA of rank 4 and alpha 2 as a training exports it, and what the network gives with it."""

    def make(family: str):
        module = small_networks.network(family)
        lora = add_lora(module, 4, 2.0)
        stirred(lora)
        save_file(lora_state(lora), tmp_path / "lora.safetensors")
        return tmp_path / "lora.safetensors", velocity(module, family)

    return make


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("rank, alpha", [(4, 2.0), (4, 0.0), (7, 3.0)])
def test_a_run_that_starts_from_a_lora_begins_where_that_one_ended(exported, family, rank, alpha):
    path, expected = exported(family)
    plain = velocity(small_networks.network(family), family)
    module, lora = started(path, family, rank, alpha=alpha)
    assert (velocity(module, family) - expected).norm() < 1e-5 * (expected - plain).norm()
    x, t, r, condition = small_networks.inputs(family)
    with adapters_off(module, lora):
        assert torch.equal(Network(module).velocity(x, t, r, condition), plain), "the teacher is the base"


@pytest.mark.parametrize("trainer", ["musubi-tuner", "diffusion-pipe on split layers", "diffusers", "ComfyUI"])
def test_it_may_be_any_trainers(trainer, tmp_path):
    weights = merged_layout(recipes.golden("hv10_t2v").model)
    blocks = {name: weight for name, weight in weights.items() if re.match(r"(double|single)_blocks\.(?!.*mod)", name)}
    tensors, added = lora_file(blocks, trainer)
    merged = {name: weight + added.get(name, 0.0) for name, weight in weights.items()}
    for name, state in (("base", weights), ("merged", merged), ("theirs", tensors)):
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, tmp_path / f"{name}.safetensors")
    files = [str(tmp_path / f"{name}.safetensors") for name in ("base", "base", "merged")]
    module, plain, expected = (load_network(file, torch.float32) for file in files)
    start_from(module, add_lora(module, 12), str(tmp_path / "theirs.safetensors"))
    wanted, plain = expected.state_dict(), plain.state_dict()
    changed = 0
    for name, adapter in module.named_modules():
        if name.endswith(".adapter"):
            weight = f"{name.removesuffix('.adapter')}.weight"
            difference = adapter.scale * adapter.up @ adapter.down
            torch.testing.assert_close(difference, wanted[weight] - plain[weight], rtol=1e-3, atol=1e-5)
            changed += 1
    assert changed > 10


def test_ranks_that_the_file_does_not_need_start_as_new_ones(exported):
    path, _ = exported("1.5")
    _, lora = started(path, "1.5", 6)
    for adapter in lora.adapters().values():
        assert not adapter.up[:, 4:].any() and adapter.down[4:].any(1).all()


def test_a_higher_rank_is_asked_for(exported):
    path, _ = exported("1.0")
    with pytest.raises(ValueError, match="lora.path has rank 4 in '.*', but lora.rank is 3. Set it higher."):
        started(path, "1.0", 3)


def test_a_lora_of_another_model_is_refused(exported):
    path, _ = exported("1.5")
    with pytest.raises(ValueError, match="LoRA|layers that do not fit"):
        started(path, "1.0")


def test_layers_that_are_no_targets_are_named(exported):
    path, _ = exported("1.0")
    with pytest.raises(ValueError, match="changes what this training does not train: .*mlp.* Set lora.targets"):
        started(path, "1.0", targets=["*attn*", "single_blocks.*"])


def test_only_the_wanted_layers_get_adapters():
    module = small_networks.network("1.0")
    lora = add_lora(module, 2, targets=["*.img_attn.*", "single_blocks.0.linear1"])
    names = set(lora.adapters())
    assert names == {name for name in lora_targets(module) if ".img_attn." in name} | {"single_blocks.0.linear1"}
    assert len([name for name, _ in module.named_parameters() if ".adapter.up" in name]) == len(names)


def test_a_pattern_that_fits_nothing_is_answered_with_the_layers_there_are():
    with pytest.raises(ValueError, match=r"'\*atn\*' in lora.targets fits no layer .*'double_blocks.\*.img_attn.qkv'"):
        add_lora(small_networks.network("1.0"), 2, targets=["*attn*", "*atn*"])


@pytest.mark.parametrize("given", [{"path": "x.safetensors"}, {"targets": ("*",)}])
def test_settings_of_a_lora_without_a_rank_are_refused(given):
    with pytest.raises(ValueError, match="lora.path and lora.targets are for a LoRA, but lora.rank is 0"):
        LoraSettings(**given)
