"""torch.compile beside DisCa: never ignored, never an error, whichever node comes first or is taken away.

Core's node runs for real; elsewhere a backend that takes no time does as it does.
"""

import graph
import pytest
import torch
from comfy.samplers import sampler_object
from comfy_api.torch_helpers import set_torch_compile_wrapper
from graph import relative_error, sample_custom

CASE = "hv10_t2v"
SOME = "0 1 4 6"
BLOCKS = [f"diffusion_model.double_blocks.{i}" for i in range(2)] + [
    f"diffusion_model.single_blocks.{i}" for i in range(3)
]


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def compiled(model, keys=("diffusion_model",)):
    """As core's TorchCompileModel does, guards on transformer_options dropped, with a backend that takes no time."""
    model = model.clone()
    unguarded = {"guard_filter_fn": lambda entries: ["transformer_options" not in entry.name for entry in entries]}
    set_torch_compile_wrapper(model, backend="eager", options=unguarded, keys=list(keys))
    return model


def counted(action) -> tuple:
    """What the action returns, and how often each reason broke a graph; something was compiled."""
    torch._dynamo.reset()
    counters = torch._dynamo.utils.counters
    counters.clear()
    result = action()
    assert counters["stats"]["unique_graphs"] > 0
    return result, dict(counters["graph_break"])


@pytest.mark.parametrize("order", ["compiled first", "compiled last"])
@pytest.mark.parametrize("run_before", [False, True])
def test_whole_model_compile_is_left_out_and_said_so(order, run_before, load, apply, sample):
    model, predictor = load(CASE)
    expected, _ = sample(CASE, apply(model, predictor, SOME))
    if order == "compiled first":
        base = compiled(model)
        if run_before:
            sample(CASE, base)
        both = apply(base, predictor, SOME)
    else:
        both = compiled(apply(model, predictor, SOME))
        if run_before:
            sample(CASE, both)
    result, report = sample(CASE, both)
    assert graph.counts(report) == "4 full + 4 predicted"
    assert "torch.compile of the whole model is left out" in report
    assert torch.equal(result, expected)


@pytest.mark.parametrize("order", ["compiled first", "compiled last"])
def test_cores_torch_compile_node_is_left_out_and_said_so(order, load, apply, sample, call):
    model, predictor = load(CASE)
    expected, _ = sample(CASE, apply(model, predictor, SOME))
    first = order == "compiled first"
    (both,) = call("TorchCompileModel", model=model if first else apply(model, predictor, SOME), backend="inductor")
    result, report = sample(CASE, apply(both, predictor, SOME) if first else both)
    assert torch.equal(result, expected)
    assert graph.counts(report) == "4 full + 4 predicted"
    assert "torch.compile of the whole model is left out" in report


def test_a_compiled_model_runs_compiled_when_disca_is_taken_away(load, apply, sample, call):
    model, predictor = load(CASE)
    base = compiled(model)
    sample(CASE, apply(base, predictor, SOME))
    torch._dynamo.utils.counters.clear()
    (sigmas,) = call("DiscaMeanFlowSigmas", steps=4, shift=5.0, denoise=1.0)
    result = sample_custom(call, base, CASE, sampler_object("euler"), sigmas, seed=1)
    plain = sample_custom(call, model, CASE, sampler_object("euler"), sigmas, seed=1)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    assert relative_error(result, plain) < 1e-5


@pytest.mark.parametrize("order", ["compiled first", "compiled last"])
def test_compiled_blocks_stay_compiled_and_their_graph_breaks_are_counted(order, load, apply, sample, capsys):
    model, predictor = load(CASE)
    expected, _ = sample(CASE, apply(model, predictor, SOME))
    if order == "compiled first":
        both = apply(compiled(model, BLOCKS), predictor, SOME)
    else:
        both = compiled(apply(model, predictor, SOME), BLOCKS)
    _, plain = counted(lambda: sample(CASE, compiled(model, BLOCKS)))
    (result, report), breaks = counted(lambda: sample(CASE, both))
    with capsys.disabled():
        print(f"\nblocks {order}: {sum(breaks.values())} graph breaks, {sum(plain.values())} without DisCa")
    assert breaks.keys() <= plain.keys() and sum(breaks.values()) <= sum(plain.values())
    assert graph.counts(report) == "4 full + 4 predicted"
    assert "left out" not in report
    assert relative_error(result, expected) < 1e-5
