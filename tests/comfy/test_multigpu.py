"""Core's multi-GPU split of conditions: every call in full, counted with its reason. Two processors play the GPUs."""

import comfy.model_management
import graph
import pytest
import recipes
import torch
from graph import relative_error

SOME = "0 1 4 6"
DEVICES = [torch.device("cpu"), torch.device("cpu", 1)]


@pytest.fixture
def two_devices(monkeypatch):
    """ComfyUI on a machine with two."""
    monkeypatch.setattr(comfy.model_management, "get_all_torch_devices", lambda exclude_current=False: DEVICES)


@pytest.mark.parametrize("order", ["split first", "split last"])
@pytest.mark.parametrize("case", recipes.CASES)
def test_the_multi_gpu_split_runs_in_full_and_says_so(case, order, two_devices, load, apply, call, sample):
    model, predictor = load(case)
    guided = {"negative": graph.other_conditioning(case, model), "cfg": 3.0}
    plain, _ = sample(case, model, **guided)
    if order == "split first":
        both = apply(call("MultiGPU_WorkUnits", model=model, max_gpus=2)[0], predictor, SOME)
    else:
        (both,) = call("MultiGPU_WorkUnits", model=apply(model, predictor, SOME), max_gpus=2)
    assert len(both.get_additional_models_with_key("multigpu")) == 1
    result, report = sample(case, both, **guided)
    assert graph.counts(report) == "8 full + 8 fallback"
    assert "8 in full: multi-GPU split" in report and "features held" not in report
    assert relative_error(result, plain) < 1e-5


def test_without_a_second_gpu_the_split_is_left_out(load, apply, call, sample):
    model, predictor = load("hv10_t2v")
    (both,) = call("MultiGPU_WorkUnits", model=apply(model, predictor, SOME), max_gpus=2)
    result, report = sample("hv10_t2v", both)
    assert graph.counts(report) == "4 full + 4 predicted"
    assert torch.equal(result, sample("hv10_t2v", apply(model, predictor, SOME))[0])
