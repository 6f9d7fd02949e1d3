"""Weights that ComfyUI keeps elsewhere than where it computes: `--lowvram`, `--novram` and CPU offload.

The decisions and the casting are ComfyUI's own; the processor plays the GPU, under a name that ComfyUI takes for one.
Dynamic VRAM is in test_loading.py: on the processor ComfyUI gets the weights, but can not run them.
"""

import gc
import weakref

import comfy.model_management
import graph
import pytest
import torch
from graph import relative_error
from safetensors.torch import save_file

SOME = "0 1 4 6"
DEVICE = torch.device("cpu", 0)  # is not torch.device("cpu"), but its tensors are


@pytest.fixture(params=["hv10_t2v", "hv15_i2v"])
def resident(request, load, apply, sample):
    """The case, and its result with all weights where they are computed."""
    return request.param, sample(request.param, apply(*load(request.param), SOME))[0]


def loaded(network):
    """ComfyUI's record of the network among the models it has loaded."""
    return next(each.model for each in comfy.model_management.current_loaded_models if each.model.model is network)


def test_lowvram_gives_the_result_of_resident_weights(resident, small_gpu, load, apply, sample):
    """Also: the Predictor is loaded, cast, offloaded and freed by ComfyUI."""
    case, expected = resident
    model, predictor = load(case)
    networks = (model.model, predictor.patcher.model)
    result, report = sample(case, apply(model, predictor, SOME))
    assert torch.equal(result, expected)
    assert graph.counts(report) == "4 full + 4 predicted"
    big, small = map(loaded, networks)
    assert big.loaded_size() < 0.7 * big.model_size()
    if small_gpu == "novram":
        assert small.loaded_size() < 0.1 * small.model_size()
        assert all(each.comfy_cast_weights for each in small.model.modules() if isinstance(each, torch.nn.Linear))
    comfy.model_management.free_memory(1e30, DEVICE)
    assert networks[1].model_loaded_weight_memory == 0
    assert not [each for each in comfy.model_management.current_loaded_models if each.model.model in networks]
    watched = [weakref.ref(network) for network in networks]
    del model, predictor, networks, big, small
    gc.collect()
    assert [ref() for ref in watched] == [None, None]


def test_lowvram_lets_a_lora_take_effect(small_gpu, load, apply, sample):
    """ComfyUI adds it to offloaded weights as they are cast."""
    import graph

    model, predictor = load("hv10_t2v")
    plain, _ = sample("hv10_t2v", apply(model, predictor, SOME))
    patched, report = sample("hv10_t2v", graph.with_lora(apply(model, predictor, SOME)))
    reference, _ = sample("hv10_t2v", apply(graph.with_merged_lora(model), predictor, SOME))
    assert graph.relative_error(patched, reference) < 1e-5
    assert graph.relative_error(patched, plain) > 1e-4
    assert graph.counts(report) == "4 full + 4 predicted"


def test_lowvram_gives_a_loras_result_of_resident_weights(small_gpu, load, sample, pack, tmp_path, monkeypatch):
    """ComfyUI then works the patches in at each call, from copies of them that it makes itself."""
    model, _ = load("hv10_t2v")
    layers = {}
    for block in range(3):
        linear1, v = f"single_blocks.{block}.linear1", f"double_blocks.{block % 2}.txt_attn_v"
        layers |= {
            f"{linear1}.lora_A.weight": torch.randn(4, 256),
            f"{linear1}.lora_B.weight": torch.randn(1792, 4) * 0.1,
        }
        layers[f"{linear1}.lora_magnitude_vector"] = torch.rand(1792) + 0.5
        layers[f"{v}.oft_blocks"] = torch.randn(32, 8, 8) * 0.1
    save_file(layers, tmp_path / "lora.safetensors")
    patched, _ = pack("disca.models.lora").load_lora(model, str(tmp_path / "lora.safetensors"), 0.5)
    result, _ = sample("hv10_t2v", patched, steps=2)
    assert loaded(model.model).loaded_size() < 0.7 * loaded(model.model).model_size()
    comfy.model_management.unload_all_models()
    monkeypatch.undo()
    assert relative_error(result, sample("hv10_t2v", patched, steps=2)[0]) < 1e-5
    assert relative_error(result, sample("hv10_t2v", model, steps=2)[0]) > 1e-3
