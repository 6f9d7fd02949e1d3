"""Every feature cache beside what users do with a model: LoRAs, other weights, windows, compilation, ControlNets."""

import graph
import pytest
import recipes
import torch
from cached_steps import KINDS, NAMES, active
from comfy_api.torch_helpers import set_torch_compile_wrapper
from graph import relative_error
from safetensors.torch import save_file

CASE = "hv10_t2v"
WINDOWS = {
    **{"context_length": 3, "context_overlap": 1, "context_schedule": "standard_static", "context_stride": 1},
    **{"closed_loop": False, "fuse_method": "flat", "dim": 2, "freenoise": False, "causal_window_fix": False},
    **{"cond_retain_index_list": "", "split_conds_to_windows": False, "latent_retain_index_list": ""},
}


@pytest.mark.parametrize("case", recipes.CASES)
@pytest.mark.parametrize("name", NAMES)
def test_a_lora_gives_what_merged_weights_give(name, case, load, attached, sample):
    model, _ = load(case)
    patched, report = sample(case, graph.with_lora(attached(case, name, active(name), model)))
    merged, _ = sample(case, attached(case, name, active(name), graph.with_merged_lora(model)))
    assert "cached" in graph.counts(report)
    assert relative_error(patched, merged) < 1e-5
    assert relative_error(patched, sample(case, attached(case, name, active(name)))[0]) > 1e-4


@pytest.mark.parametrize("case", recipes.CASES)
@pytest.mark.parametrize("name", NAMES)
def test_offloaded_weights_give_what_resident_weights_give(name, case, load, attached, sample, request):
    resident, _ = sample(case, attached(case, name, active(name)))
    request.getfixturevalue("novram")
    offloaded, report = sample(case, attached(case, name, active(name)))
    assert "cached" in graph.counts(report)
    assert relative_error(offloaded, resident) < 1e-6


@pytest.mark.parametrize("case", recipes.CASES)
@pytest.mark.parametrize("name", NAMES)
def test_fp8_weights_give_what_the_rounded_weights_give(name, case, load, attached, call, sample, model_folders):
    file = "rounded.safetensors"
    kept = "cond_type_embedding.weight"  # which ComfyUI keeps in full
    weights = recipes.golden(case).model
    rounding = {key: w if key == kept else w.to(torch.float8_e4m3fn).float() for key, w in weights.items()}
    save_file(rounding, model_folders.diffusion_models / file)
    load(case)
    found = []
    for source, dtype in ((f"{case}_published.safetensors", "fp8_e4m3fn"), (file, "default")):
        (model,) = call("DiscaLoadModel", model_name=source, weight_dtype=dtype)
        found.append(sample(case, attached(case, name, active(name), model))[0])
    assert relative_error(*found) < 1e-5


@pytest.mark.parametrize("case", recipes.CASES)
@pytest.mark.parametrize("name", NAMES)
def test_compiled_blocks_give_what_others_give(name, case, attached, sample, load, pack):
    """Also where the method looks inside of them, which it does without the compiled code."""
    model, _ = load(case)
    kinds = pack("disca.models.checks").family_of_model(model).kinds
    expected, _ = sample(case, attached(case, name, active(name)))
    torch._dynamo.reset()
    compiled = attached(case, name, active(name), model).clone()
    counts = {kind.attribute: len(kind.of(model.model.diffusion_model)) for kind in kinds}
    blocks = [f"diffusion_model.{kind}.{i}" for kind, count in counts.items() for i in range(count)]
    set_torch_compile_wrapper(compiled, backend="eager", keys=blocks)
    found, report = sample(case, compiled)
    torch._dynamo.reset()
    assert "cached" in graph.counts(report)
    assert relative_error(found, expected) < 1e-5


def of_frames(conditions: list, count: int) -> list:
    """The conditions, their start image in so many frames."""
    ((text, options),) = conditions
    image = {key: options[key] for key in ("concat_latent_image", "concat_mask") if key in options}
    longer = {key: tensor.repeat(1, 1, count, 1, 1) for key, tensor in image.items()}
    return [[text, options | {key: tensor[:, :, :count] for key, tensor in longer.items()}]]


@pytest.mark.parametrize("case", recipes.CASES)
@pytest.mark.parametrize("name", NAMES)
def test_windows_keep_apart_and_a_second_run_is_the_first(name, case, attached, call, sample, load):
    """Every window is a row of its own: together and apart are the same."""
    _, channels, _, *size = graph.empty_latent(case)["samples"].shape
    latent = {"samples": torch.zeros(1, channels, 7, *size)}
    plain, _ = load(case)
    inputs = {"latent_image": latent, "positive": of_frames(graph.conditioning(recipes.golden(case), plain), 7)}
    (windowed,) = call("ContextWindowsManual", model=attached(case, name, active(name), plain), **WINDOWS)
    first, report = sample(case, windowed, **inputs)
    again, _ = sample(case, windowed, **inputs)
    assert "cached" in graph.counts(report) and "in full:" not in report
    assert torch.equal(first, again)
    neutral, _ = sample(case, call("ContextWindowsManual", model=plain, **WINDOWS)[0], **inputs)
    assert 1e-5 < relative_error(first, neutral) < 1.0


@pytest.mark.parametrize("name", KINDS)
def test_a_controlnet_runs_in_full(name, attached, sample, load):
    model, _ = load(CASE)
    positive = graph.with_control(graph.conditioning(recipes.golden(CASE), model), model)
    cached, report = sample(CASE, attached(CASE, name, active(name), model), positive=positive)
    assert torch.equal(cached, sample(CASE, model, positive=positive)[0])
    assert "ControlNet residuals" in report


@pytest.mark.parametrize("name", ["FORA", "PAB", "ToCa"])
def test_a_block_with_a_forward_of_another_packs_runs_in_full(name, attached, sample, load):
    model, _ = load(CASE)
    block = model.model.diffusion_model.double_blocks[0]
    plain, _ = sample(CASE, model)
    own = block.forward
    block.forward = lambda *args, **kwargs: own(*args, **kwargs)
    try:
        cached, report = sample(CASE, attached(CASE, name, active(name), model))
    finally:
        del block.forward
    assert torch.equal(cached, plain)
    assert "another node replaces blocks" in report


def test_a_method_that_takes_blocks_as_a_whole_does_not_mind_how_they_run(attached, sample, load):
    model, _ = load(CASE)
    expected, _ = sample(CASE, attached(CASE, "TaylorSeer-Lite", active("TaylorSeer-Lite"), model))
    block = model.model.diffusion_model.double_blocks[0]
    own = block.forward
    block.forward = lambda *args, **kwargs: own(*args, **kwargs)
    try:
        found, report = sample(CASE, attached(CASE, "TaylorSeer-Lite", active("TaylorSeer-Lite"), model))
    finally:
        del block.forward
    assert torch.equal(found, expected)
    assert "cached" in graph.counts(report)
