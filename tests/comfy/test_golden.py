"""The authors' code, in double precision, and ours, through the nodes, give the same velocities and latents."""

from contextlib import nullcontext

import pytest
import recipes
import torch
from comfy.ldm.flux.layers import timestep_embedding
from golden_double import double_embedding
from golden_double import timestep_embedding as in_double
from graph import relative_error, sample_golden

LAYOUTS = [("hv10_t2v", "published"), ("hv10_t2v", "tensor_parallel"), ("hv15_i2v", "published")]
EMBEDDINGS = {"embedding in double": (double_embedding, 1e-5), "ComfyUI's embedding": (nullcontext, 1e-4)}


@pytest.mark.parametrize("embedding", EMBEDDINGS)
@pytest.mark.parametrize("case", recipes.CASES)
def test_full_run_is_the_authors(case, embedding, call, load):
    model, _ = load(case)
    require_equal(f"{case}, full", embedding, call, model, recipes.golden(case), "full")


@pytest.mark.parametrize("embedding", EMBEDDINGS)
@pytest.mark.parametrize(("case", "layout"), LAYOUTS)
def test_cached_run_is_the_authors(case, layout, embedding, call, load):
    model = cached(case, layout, call, load)
    require_equal(f"{case}, {layout}, cached", embedding, call, model, recipes.golden(case), "disca")


@pytest.mark.parametrize("case", recipes.CASES)
def test_an_anchor_one_step_off_is_far_from_the_authors(case, call, load):
    run = recipes.golden(case)
    *others, last = run.meta["step_list"]
    model = cached(case, "published", call, load, anchors=[*others, last - 1])
    with double_embedding():
        u, _ = sample_golden(call, model, run)
    assert relative_error(u, run.tensors["disca_u"]) > 1e-2


@pytest.mark.parametrize("factor", [1.0, 1000.0])
def test_the_embedding_in_double_is_comfyuis_but_for_rounding(factor):
    t = torch.linspace(0, 1000 / factor, 41)
    own, double = (embed(t, 256, time_factor=factor) for embed in (timestep_embedding, in_double))
    assert double.dtype == own.dtype and torch.allclose(own, double, rtol=0, atol=5e-4)


def cached(case, layout, call, load, anchors=None):
    model, predictor = load(case, layout)
    listed = " ".join(map(str, anchors or recipes.golden(case).meta["step_list"]))
    (schedule,) = call("DiscaCacheSchedule", plan={"plan": "anchors", "anchors": listed})
    (model,) = call("DiscaApplyPredictor", model=model, predictor=predictor, schedule=schedule, cache_device="auto")
    return model


def require_equal(name, embedding, call, model, run, kind):
    embed, tolerance = EMBEDDINGS[embedding]
    with embed():
        u, x = sample_golden(call, model, run)
    errors = relative_error(u, run.tensors[f"{kind}_u"]), relative_error(x, run.tensors[f"{kind}_x"])
    print(f"\n{name}, {embedding}: largest relative error of u {errors[0]:.1e}, of x {errors[1]:.1e}")
    assert max(errors) < tolerance
