"""What features are kept, for whom and for how long: the Predictor never starts from others than it should."""

import comfy.model_management
import comfy.samplers
import graph
import pytest
import recipes
import torch
from graph import relative_error
from torch.multiprocessing.reductions import StorageWeakRef

CASE = "hv10_t2v"
SOME = "0 1 4 6"


@pytest.fixture
def patched(load, apply):
    return apply(*load(CASE), SOME)


def asking(before, after) -> comfy.samplers.KSAMPLER:
    """Euler, which asks for more before or after each step and throws it away."""

    def sampler(model, x, sigmas, extra_args=None, callback=None, disable=None):
        def ask(x, t):
            return model(x, t * x.new_ones([x.shape[0]]), **extra_args)

        for t, r in zip(sigmas[:-1], sigmas[1:], strict=True):
            before(ask, x, t)
            u = (x - ask(x, t)) / t
            after(ask, x, t)
            x = x + u * (r - t)
        return x

    return comfy.samplers.KSAMPLER(sampler)


def nothing(*_): ...


def steps(call, count: int = 8) -> torch.Tensor:
    return call("DiscaMeanFlowSigmas", steps=count, shift=5.0, denoise=1.0)[0]


@pytest.mark.parametrize("together_at_anchors", [True, False])
def test_features_of_conditions_batched_one_way_serve_them_batched_another(
    together_at_anchors, load, apply, sample, call
):
    """An anchor with both conditions in one call and predictions with one each, and the other way round."""
    model, predictor = load(CASE)
    guided = {"negative": graph.other_conditioning(CASE, model), "cfg": 3.0}
    together, _ = sample(CASE, apply(model, predictor, "0 4"), **guided)
    patched, factor = apply(model, predictor, "0 4"), model.model.memory_usage_factor
    anchors = steps(call)[[0, 4]].tolist()

    def choose(executor, model_, conds, x_in, timestep, options):
        together = (float(timestep[0]) in anchors) is together_at_anchors
        model.model.memory_usage_factor = factor if together else 1e12
        return executor(model_, conds, x_in, timestep, options)

    patched.add_wrapper_with_key("calc_cond_batch", "test", choose)
    try:
        changing, report = sample(CASE, patched, **guided)
    finally:
        model.model.memory_usage_factor = factor
    assert relative_error(changing, together) < 1e-5
    assert graph.counts(report) == ("2 full + 12 predicted" if together_at_anchors else "4 full + 6 predicted")


EXTRA = {
    "a second evaluation": (nothing, lambda ask, x, t: ask(x * 0.5, t)),
    "before, at another time": (lambda ask, x, t: ask(x * 0.5, t * 0.99), nothing),
    "after, at another time": (nothing, lambda ask, x, t: ask(x * 0.5, t * 0.99)),
}


@pytest.mark.parametrize("extra", EXTRA)
def test_evaluations_beside_the_steps_leave_the_features_alone(extra, patched, call):
    plain = graph.sample_custom(call, patched, CASE, asking(nothing, nothing), steps(call), seed=1)
    beside = graph.sample_custom(call, patched, CASE, asking(*EXTRA[extra]), steps(call), seed=1)
    assert torch.equal(plain, beside)


def test_another_model_keeps_no_features(patched, load, call, caplog):
    (guider,) = call(
        "DualModelGuider",
        model=patched,
        model_negative=load(CASE, "tensor_parallel")[0],
        positive=graph.conditioning(recipes.golden(CASE), patched),
        negative=graph.other_conditioning(CASE, patched),
        cfg=2.0,
    )
    noise = torch.zeros(recipes.golden(CASE).tensors["latent"].shape)
    with caplog.at_level("INFO"), torch.inference_mode():
        guider.sample(noise, noise, call("DiscaMeanFlowSampler")[0], steps(call), disable_pbar=True, seed=0)
    tokens = 3 * 4 * 6 + 7
    assert f"features held: {tokens * 256 * 4 / 1e6:.1f} MB" in caplog.text


def test_repeated_sigmas_under_a_predictor_are_the_run_without_the_repeats(load, apply, call, caplog):
    """A repeated time is its first step: the anchors there, and no step of its own."""
    model, predictor = load(CASE)
    sigmas, (sampler,) = steps(call, 4), call("DiscaMeanFlowSampler")
    once = graph.sample_custom(call, apply(model, predictor, "0 2"), CASE, sampler, sigmas, seed=1)
    repeated = sigmas.repeat_interleave(2)  # steps 0, 2, 4, 6 are the first of each time
    seen = []
    patched = apply(model, predictor, "0 4")
    with caplog.at_level("INFO"):
        twice = graph.sample_custom(call, watched(patched, seen), CASE, sampler, repeated, seed=1)
    assert "x: 2 full + 2 predicted; " in caplog.text and " in full: " not in caplog.text
    assert torch.equal(once, twice)
    assert len(seen) == 4


def test_an_anchor_at_the_second_of_two_equal_times_is_the_first(load, apply, call, caplog):
    model, predictor = load(CASE)
    sigmas, (sampler,) = steps(call, 4), call("DiscaMeanFlowSampler")
    once = graph.sample_custom(call, apply(model, predictor, "0 2"), CASE, sampler, sigmas, seed=1)
    patched = apply(model, predictor, "0 1 5")
    with caplog.at_level("INFO"):
        twice = graph.sample_custom(call, patched, CASE, sampler, sigmas.repeat_interleave(2), seed=1)
    assert "x: 2 full + 2 predicted; " in caplog.text and " in full: " not in caplog.text
    assert torch.equal(once, twice)


def test_the_report_tells_the_most_bytes_that_were_held(load, apply, sample):
    """From the second anchor on the network gets one frame of three: its features are smaller."""
    model, predictor = load(CASE)
    patched, calls = apply(model, predictor, "0 4"), []

    def crop(apply_model, args):
        calls.append(1)
        x = args["input"]
        if len(calls) < 5:
            return apply_model(x, args["timestep"], **args["c"])
        return apply_model(x[:, :, :1], args["timestep"], **args["c"]).expand_as(x)

    patched.set_model_unet_function_wrapper(crop)
    _, report = sample(CASE, patched)
    assert graph.counts(report) == "2 full + 6 predicted"
    tokens = 3 * 4 * 6 + 7
    assert f"features held: {tokens * 256 * 4 / 1e6:.1f} MB" in report


def test_while_a_run_lives_only_the_stores_own_copies_of_the_newest_features_do(load, apply, sample, pack, monkeypatch):
    """Their memory: what the last block gave goes with its call, what no longer fits with the next anchor."""
    model, predictor = load(CASE)
    patched = apply(model, predictor, "0 4")
    store, outputs, buffers, alive = pack("disca.host.running.features").FeatureStore, [], [], []
    allocate = store._buffer

    def watched_buffer(self, row):
        buffer = allocate(self, row)
        buffers.append(StorageWeakRef(buffer.untyped_storage()))
        return buffer

    def crop(apply_model, args):
        alive.append([sum(not ref.expired() for ref in refs) for refs in (outputs, buffers)])
        x = args["input"]
        if len(alive) < 5:
            return apply_model(x, args["timestep"], **args["c"])
        return apply_model(x[:, :, :1], args["timestep"], **args["c"]).expand_as(x)

    monkeypatch.setattr(store, "_buffer", watched_buffer)
    patched.set_model_unet_function_wrapper(crop)
    last = model.model.diffusion_model.single_blocks[-1]
    hook = last.register_forward_hook(lambda _, __, out: outputs.append(StorageWeakRef(out.untyped_storage())))
    try:
        sample(CASE, patched)
    finally:
        hook.remove()
    assert len(outputs) == len(buffers) == 2
    assert alive == [[0, 0], *[[0, 1]] * 7]


@pytest.mark.parametrize("sigmas", [[], [1.0], [0.5]])
def test_one_sigma_or_none_is_no_step(sigmas, patched, call, caplog):
    (sampler,) = call("DiscaMeanFlowSampler")
    with caplog.at_level("INFO"):
        graph.sample_custom(call, patched, CASE, sampler, torch.tensor(sigmas), seed=1)
    assert ("Nothing predicted: 0 calls" in caplog.text) is bool(sigmas)
    assert "another cache" not in caplog.text


@pytest.mark.parametrize("name", ["attn2_patch", "post_input", "double_block", "a_name_of_tomorrow"])
def test_a_patch_of_another_name_is_no_reason_against_prediction(name, patched, sample):
    plain, _ = sample(CASE, patched)
    other = patched.clone()
    other.set_model_patch(lambda *args, **kwargs: args[0], name)
    same, report = sample(CASE, other)
    assert torch.equal(plain, same)
    assert graph.counts(report) == "4 full + 4 predicted"


def test_patches_of_other_nodes_are_not_handed_to_the_predictor(patched, sample):
    other, seen = patched.clone(), []
    other.set_model_patch(lambda *args, **kwargs: args[0], "a_name_of_tomorrow")
    small = patched.get_additional_models_with_key("disca")[0].model
    hook = small.register_forward_pre_hook(lambda _, __, kw: seen.append(kw["transformer_options"]), with_kwargs=True)
    try:
        sample(CASE, other)
    finally:
        hook.remove()
    assert len(seen) == 4
    assert not any({"patches", "patches_replace", "disca_call"} & options.keys() for options in seen)


def test_the_predictor_sees_no_text_that_is_masked(load, apply, sample):
    """Other numbers where the mask hides them: the same video, predicted steps and all."""
    model, predictor = load(CASE)
    ((text, options),) = graph.conditioning(recipes.golden(CASE), model)
    mask = torch.ones(1, text.shape[1], dtype=torch.int64)
    mask[:, -3:] = 0
    other = text.clone()
    other[:, -3] += 5.0  # ComfyUI's refiner takes the mean of all tokens, masked or not: that stays
    other[:, -2] -= 5.0
    patched = apply(model, predictor, SOME)
    one, report = sample(CASE, patched, positive=[[text, options | {"attention_mask": mask}]])
    two, _ = sample(CASE, patched, positive=[[other, options | {"attention_mask": mask}]])
    assert graph.counts(report) == "4 full + 4 predicted"
    assert relative_error(two, one) < 1e-5
    assert relative_error(sample(CASE, patched, positive=[[other, options]])[0], one) > 1e-4


@pytest.mark.parametrize("at", [2, 3, 5])
@pytest.mark.parametrize("case", recipes.CASES)
def test_a_model_unloaded_in_mid_run_gives_the_same_result(at, case, load, apply, sample):
    model, predictor = load(case)
    patched = apply(model, predictor, SOME)
    expected, _ = sample(case, patched)
    unloading, calls = patched.clone(), []

    def unload(apply_model, args):
        calls.append(1)
        if len(calls) == at + 1:
            comfy.model_management.unload_all_models()
            comfy.model_management.soft_empty_cache()
        return apply_model(args["input"], args["timestep"], **args["c"])

    unloading.set_model_unet_function_wrapper(unload)
    result, report = sample(case, unloading)
    assert torch.equal(result, expected)
    assert graph.counts(report) == "4 full + 4 predicted"
    assert torch.equal(sample(case, patched)[0], expected)


def watched(model, seen: list):
    """The MODEL, whose calls are noted by their times."""
    model = model.clone()

    def note(apply_model, args):
        seen.append(float(args["timestep"][0]))
        return apply_model(args["input"], args["timestep"], **args["c"])

    model.set_model_unet_function_wrapper(note)
    return model
