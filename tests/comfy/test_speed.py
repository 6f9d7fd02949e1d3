"""The attention kernel and compiled blocks: another speed, the same result, and nothing else lost."""

import graph
import pytest
import torch
from graph import relative_error

CASE = "hv10_t2v"
SOME = "0 1 4 6"


@pytest.mark.parametrize("attention", ["auto", "cudnn"])
def test_where_cudnn_has_no_kernel_comfyuis_is_used(attention, load, apply, sample, call):
    model, predictor = load(CASE)
    (fast,) = call("DiscaAttention", model=model, attention=attention, compile_blocks=False)
    assert torch.equal(sample(CASE, fast)[0], sample(CASE, model)[0])
    cached, report = sample(CASE, apply(fast, predictor, SOME))
    assert torch.equal(cached, sample(CASE, apply(model, predictor, SOME))[0])
    assert graph.counts(report) == "4 full + 4 predicted"


@pytest.mark.parametrize("attention", ["auto", "cudnn"])
def test_another_nodes_override_is_still_called(attention, load, sample, call):
    model, _ = load(CASE)
    louder = model.clone()
    louder.model_options["transformer_options"]["optimized_attention_override"] = lambda attend, *args, **options: (
        attend(*args, **options) * 1.1
    )
    (fast,) = call("DiscaAttention", model=louder, attention=attention, compile_blocks=False)
    (twice,) = call("DiscaAttention", model=fast, attention="auto", compile_blocks=False)
    expected, _ = sample(CASE, louder)
    assert torch.equal(sample(CASE, fast)[0], expected)
    assert torch.equal(sample(CASE, twice)[0], expected)
    assert relative_error(expected, sample(CASE, model)[0]) > 1e-3


def test_comfy_and_uncompiled_is_the_model_itself(load, call):
    model, _ = load(CASE)
    assert call("DiscaAttention", model=model, attention="comfy", compile_blocks=False)[0] is model


def test_apply_predictor_has_the_same_choices(load, call, sample, apply):
    model, predictor = load(CASE)
    (schedule,) = call("DiscaCacheSchedule", plan={"plan": "anchors", "anchors": SOME})
    inputs = {"model": model, "predictor": predictor, "schedule": schedule, "cache_device": "auto"}
    (fast,) = call("DiscaApplyPredictor", **inputs, attention="cudnn", compile_blocks=False)
    override = fast.model_options["transformer_options"]["optimized_attention_override"]
    assert override.choice == "cudnn"
    assert torch.equal(sample(CASE, fast)[0], sample(CASE, apply(model, predictor, SOME))[0])


def test_cores_attention_backend_stays_where_ours_comes_after_it_and_replaces_ours_where_not(load, call, comfy_nodes):
    if "ModelAttentionBackend" not in comfy_nodes.NODE_CLASS_MAPPINGS:
        pytest.skip("core has Model Attention Backend from 0.32 on")
    model, _ = load(CASE)

    def attention(model, ours: bool):
        settings = {"attention": "cudnn", "compile_blocks": False} if ours else {"attention": "pytorch attention"}
        return call("DiscaAttention" if ours else "ModelAttentionBackend", model=model, **settings)[0]

    def override(model):
        return model.model_options["transformer_options"]["optimized_attention_override"]

    cores = override(attention(model, ours=False))
    after = override(attention(attention(model, ours=False), ours=True))
    assert (after.choice, type(after.inner)) == ("cudnn", type(cores))
    assert type(override(attention(attention(model, ours=True), ours=False))) is type(cores)


def test_compiled_blocks_give_the_same_video(load, call, sample):
    """The compiler that users get, on the CPU."""
    torch._dynamo.reset()
    model, predictor = load("hv15_i2v")
    (schedule,) = call("DiscaCacheSchedule", plan={"plan": "anchors", "anchors": SOME})
    inputs = {"model": model, "predictor": predictor, "schedule": schedule, "cache_device": "auto"}
    (plain,) = call("DiscaApplyPredictor", **inputs)
    (fast,) = call("DiscaApplyPredictor", **inputs, attention="comfy", compile_blocks=True)
    compiled, report = sample("hv15_i2v", fast)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert relative_error(compiled, sample("hv15_i2v", plain)[0]) < 1e-5
    assert graph.counts(report) == "4 full + 4 predicted"
    torch._dynamo.reset()
