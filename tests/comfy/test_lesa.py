"""LESA's predictor, through the nodes: it adds what its experts say to the last output, in the runs that it is for."""

import graph
import pytest
import recipes
import torch

from disca.methods.scheduled.lesa import LesaNetwork
from disca.models.lesa_file import LesaSpec, write_lesa

STEPS, SHIFT, ANCHORS = 8, 5.0, "0 2 5"
ADDED = (0.25, 0.5, 0.75)  # by each expert


@pytest.fixture
def lesa(model_folders, call):
    """A predictor from its file, whose experts add a number, or nothing."""

    def load(added=ADDED):
        network = LesaNetwork(STEPS, hidden=2)
        for kan, layer, b in zip(network.timestep, network.latent, added, strict=True):
            kan.layers[-1].base_weight.data.zero_()
            kan.layers[-1].spline_scaler.data.fill_(1.0)
            kan.layers[-1].spline_weight.data.fill_(0.5)  # of two edges: α = 1
            layer.bias.data.fill_(b)
        write_lesa(str(model_folders.disca / "lesa.safetensors"), LesaSpec(STEPS, 2, SHIFT), network.state_dict())
        return call("DiscaLoadPredictor", predictor_name="lesa.safetensors", weight_dtype="default")[0]

    return load


def watched(model) -> tuple:
    """The MODEL, and a list that gets the sigma and the velocity of every call."""
    seen, model = [], model.clone()

    def watch(apply_model, args):
        x, sigma = args["input"], args["timestep"]
        denoised = apply_model(x, sigma, **args["c"])
        seen.append((sigma[0].item(), (x - denoised) / sigma.view(-1, 1, 1, 1, 1)))
        return denoised

    model.set_model_unet_function_wrapper(watch)
    return model, seen


@pytest.mark.parametrize("case", recipes.CASES)
def test_each_answer_adds_what_the_expert_of_its_time_says_to_the_last_output(case, load, lesa, apply, sample):
    model, seen = watched(apply(load(case)[0], lesa(), ANCHORS))
    _, report = sample(case, model, steps=STEPS, shift=SHIFT)
    assert graph.counts(report) == "3 full + 5 predicted"
    assert "predictors are trained for" not in report  # that is for features that age
    for step in (1, 3, 4, 6, 7):
        sigma, u = seen[step]
        added = ADDED[sum(sigma <= limit for limit in (0.9, 0.5))]
        torch.testing.assert_close(u, seen[step - 1][1] + added, rtol=1e-3, atol=1e-3)
    assert {sum(seen[step][0] <= limit for limit in (0.9, 0.5)) for step in (1, 3, 7)} == {0, 1, 2}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 7}, "trained for 8 steps, but the run has 7. Set steps to 8"),
        ({"shift": 2.0}, "trained at shift 5, where step .* Set the shift to 5"),
    ],
)
def test_another_run_is_refused_before_it_begins(changes, said, load, lesa, apply, sample):
    model, seen = watched(apply(load("hv10_t2v")[0], lesa(), ANCHORS))
    with pytest.raises(ValueError, match=said):
        sample("hv10_t2v", model, **({"steps": STEPS, "shift": SHIFT} | changes))
    assert not seen


def test_with_every_step_in_full_it_is_the_plain_model(load, lesa, apply, sample):
    model = load("hv15_i2v")[0]
    found, _ = sample("hv15_i2v", apply(model, lesa(), "0-7"), steps=STEPS, shift=SHIFT)
    assert torch.equal(found, sample("hv15_i2v", model, steps=STEPS, shift=SHIFT)[0])


@pytest.mark.parametrize(
    "changes, said",
    [({"steps": STEPS + 1}, "was trained for"), ({"shift": 1.0}, "was trained at shift")],
)
def test_no_schedule_is_looked_for_in_runs_that_it_is_not_for(changes, said, load, lesa, apply, call):
    model, seen = watched(apply(load("hv15_i2v")[0], lesa(), ANCHORS))
    inputs = {"steps": STEPS, "shift": SHIFT} | changes
    with pytest.raises(ValueError, match=said):
        call(
            "DiscaFindSchedule",
            model=model,
            positive=graph.conditioning(recipes.golden("hv15_i2v"), model),
            latent_image=graph.empty_latent("hv15_i2v"),
            seed=1,
            goal={"goal": "full_steps", "full_steps": 3},
            **inputs,
        )
    assert not seen


def test_a_schedule_that_is_found_for_it_still_refuses_other_runs(load, lesa, apply, pack):
    model = pack("disca.host.attach").with_anchors(apply(load("hv15_i2v")[0], lesa(), ANCHORS), (0, 1))
    with pytest.raises(ValueError, match="was trained for"):
        model.get_attachment("disca").method.when.plan([1.0, 0.5, 0.0])
