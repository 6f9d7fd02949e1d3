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
    require_equal(f"{case}, full", run, "full", u, x)


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
    require_equal(f"{case}, {layout}, cached", run, "disca", u, x)


def require_equal(name, run, kind, u, x):
    errors = relative_error(u, run.tensors[f"{kind}_u"]), relative_error(x, run.tensors[f"{kind}_x"])
    print(f"\n{name}: largest relative error of u {errors[0]:.1e}, of x {errors[1]:.1e}")
    assert max(errors) < TOLERANCE
