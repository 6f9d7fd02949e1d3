"""Runs outside of a sampler, on both families: in full they are the sampled run, with answers that of the method."""

import gc

import comfy.model_management
import comfy.sample
import graph
import pytest
import recipes
import torch
from graph import relative_error

STEPS, SHIFT, SEED = 5, 5.0, 7
ANCHORS = "0 1 3"
DISCA = "DisCa"
HV10, HV15 = recipes.CASES
METHODS = {  # name -> settings
    DISCA: {},
    "reuse": {},
    "TaylorSeer-Lite": {"order": 1},
    "RFC-Lite": {},
    "TeaCache": {},
    "Delta-DiT": {},
    "First-Block-Cache": {},
    "EasyCache": {},
}


@pytest.fixture
def rehearse(pack):
    """What a function makes of the prompts on a MODEL, of a golden case's conditions unless others are given."""
    rehearsing = pack("disca.host.finding.rehearsing")

    def run(case, model, asked, positives=None, negative=None, cfg=1.0, batch=1):
        latent = graph.empty_latent(case, batch)["samples"]
        noise = comfy.sample.prepare_noise(latent, SEED)
        positives = positives or [graph.conditioning(recipes.golden(case), model)]
        scenes = rehearsing.Scenes(positives, negative, cfg, noise)
        way = attachment.method.ways[0] if (attachment := model.get_attachment("disca")) else reuse(pack)
        return rehearsing.rehearse(model, way, scenes, sigmas(pack), asked)

    return run


def reuse(pack):
    return pack("disca.methods.seam.method").Way(pack("disca.methods.seam.whats").Reuse())


def sigmas(pack):
    return pack("disca.meanflow").shifted_sigmas(STEPS, SHIFT)


@pytest.fixture
def attached(load, apply, call, pack):
    """A golden case's MODEL with a method at the anchors."""

    def run(case, name):
        model, predictor = load(case)
        if name == DISCA:
            return apply(model, predictor, ANCHORS)
        schedule = pack("disca.schedule").parse_anchors(ANCHORS)
        rule = pack("disca.methods.seam.anchors").AtAnchors(schedule)
        return pack("disca.host.attach").attach(
            model, pack("disca.methods").METHODS[name](**METHODS[name]).method(rule)
        )

    return run


@pytest.fixture
def end(sample):
    """Where the sampled run ends, in the latent space of the network."""

    def run(case, model, **changes):
        batch = changes.pop("batch", 1)
        latent = graph.empty_latent(case, batch)
        samples, _ = sample(case, model, latent_image=latent, seed=SEED, steps=STEPS, shift=SHIFT, **changes)
        return model.model.process_latent_in(samples)

    return run


def in_full(pack):
    times = sigmas(pack).tolist()
    return lambda prompts: [pack("disca.rehearsal").full_run(one, times).x[-1] for one in prompts]


def cached(pack, model):
    times = sigmas(pack).tolist()
    reach = 2 if model.get_attachment("disca").method.ways[0].what.tensors > 1 else 1
    return lambda prompts: [pack("disca.rehearsal").cached_run(one, (0, 1, 3), times, reach) for one in prompts]


@pytest.mark.parametrize("case", recipes.CASES)
def test_a_run_in_full_is_the_plain_models(case, load, attached, rehearse, end, pack):
    model = load(case)[0]
    expected = end(case, model)
    for asked in (model, attached(case, "reuse")):  # with a method on it too
        (found,) = rehearse(case, asked, in_full(pack))
        assert relative_error(found, expected) < 1e-5


@pytest.mark.parametrize("case", recipes.CASES)
@pytest.mark.parametrize("name", METHODS)
def test_a_run_with_answers_is_the_sampled_one_of_the_method(name, case, attached, rehearse, end, pack):
    model = attached(case, name)
    expected = end(case, model)
    (found,) = rehearse(case, model, cached(pack, model))
    assert relative_error(found, expected) < 1e-5
    (full,) = rehearse(case, model, in_full(pack))
    assert relative_error(found, full) > 1e-4


@pytest.mark.parametrize("name", [DISCA, "TaylorSeer-Lite", "RFC-Lite", "EasyCache"])
@pytest.mark.parametrize("split", [False, True])
def test_with_guidance_and_a_batch_too(name, split, attached, rehearse, end, pack):
    model = attached(HV10, name)
    guided = {"negative": graph.other_conditioning(HV10, model), "cfg": 3.0, "batch": 2}
    expected = end(HV10, model, **guided)
    if split:
        with graph.split_batches(model):
            (found,) = rehearse(HV10, model, cached(pack, model), **guided)
    else:
        (found,) = rehearse(HV10, model, cached(pack, model), **guided)
    assert relative_error(found, expected) < 1e-5


def test_each_prompt_is_sampled_by_itself(attached, rehearse, end, pack):
    model = attached(HV15, DISCA)
    prompts = [graph.conditioning(recipes.golden(HV15), model), graph.other_conditioning(HV15, model)]
    found = rehearse(HV15, model, cached(pack, model), positives=prompts)
    for one, positive in zip(found, prompts, strict=True):
        assert relative_error(one, end(HV15, model, positive=positive)) < 1e-5


def test_the_model_stays_as_it_was_and_an_interrupt_leaves_nothing(attached, rehearse, end, pack):
    model = attached(HV10, DISCA)
    before, handlers = end(HV10, model), dict(model.model_options["transformer_options"]["patches_replace"]["dit"])

    def interrupted(prompts):
        prompts[0].full(0, prompts[0].noise)
        raise comfy.model_management.InterruptProcessingException

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        rehearse(HV10, model, interrupted)
    gc.collect()
    ours = pack("disca.host.finding.rehearsing")
    assert not [kept for kept in gc.get_objects() if type(kept) in (ours._Prompts, ours._Full, ours.Seen)]
    assert model.model_options["transformer_options"]["patches_replace"]["dit"] == handlers
    assert torch.equal(end(HV10, model), before)


def test_a_condition_of_a_part_of_the_run_is_refused(attached, rehearse, pack):
    model = attached(HV10, DISCA)
    late = graph.timed(graph.other_conditioning(HV10, model), start=0.3)
    both = graph.conditioning(recipes.golden(HV10), model) + late
    with pytest.raises(ValueError, match="active in a part of the run only"):
        rehearse(HV10, model, cached(pack, model), positives=[both])


def test_a_condition_in_pieces_is_refused(load, rehearse, pack):
    windows = load(HV10)[0].clone()

    def twice(apply_model, args):
        apply_model(args["input"], args["timestep"], **args["c"])
        return apply_model(args["input"], args["timestep"], **args["c"])

    windows.set_model_unet_function_wrapper(twice)
    with pytest.raises(ValueError, match="evaluated in several pieces"):
        rehearse(HV10, windows, in_full(pack))
