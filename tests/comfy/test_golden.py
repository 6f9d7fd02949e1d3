"""The authors' code and ours, through the nodes, give the same velocities and latents."""

import pytest
import recipes
from graph import relative_error, sample_golden

TOLERANCE = 1e-5


@pytest.mark.parametrize("case", recipes.CASES)
def test_full_run_is_the_authors(case, call, load):
    model, _ = load(case)
    run = recipes.golden(case)
    u, x = sample_golden(call, model, run)
    assert relative_error(u, run.tensors["full_u"]) < TOLERANCE
    assert relative_error(x, run.tensors["full_x"]) < TOLERANCE


@pytest.mark.parametrize(
    ("case", "layout"), [("hv10_t2v", "published"), ("hv10_t2v", "tensor_parallel"), ("hv15_i2v", "published")]
)
def test_cached_run_is_the_authors(case, layout, call, load):
    model, predictor = load(case, layout)
    run = recipes.golden(case)
    anchors = " ".join(map(str, run.meta["step_list"]))
    (schedule,) = call("DiscaCacheSchedule", plan={"plan": "anchors", "anchors": anchors})
    (model,) = call("DiscaApplyPredictor", model=model, predictor=predictor, schedule=schedule, cache_device="auto")
    u, x = sample_golden(call, model, run)
    assert relative_error(u, run.tensors["disca_u"]) < TOLERANCE
    assert relative_error(x, run.tensors["disca_x"]) < TOLERANCE
