"""One sampling run: exact when neutral, the same however it is batched, and nothing left behind."""

import gc

import comfy.model_management
import graph
import pytest
import recipes
import torch
from comfy.patcher_extension import WrappersMP
from graph import CountedBlocks, relative_error

from disca.meanflow import shifted_sigmas

FORMS = ("published", "two")  # of the Predictor
ALL = "0-7"
SOME = "0 1 4 6"
LATE = 0.636  # of the schedule: a sigma of 0.8, which step 5 is the first below


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", recipes.CASES)
def test_every_step_an_anchor_is_the_plain_model(case, form, load, apply, sample, call):
    model, predictor = load(case, form)
    plain, _ = sample(case, model)
    cached, report = sample(case, apply(model, predictor, ALL))
    assert torch.equal(plain, cached)
    assert graph.counts(report) == "8 full"
    assert report.splitlines()[:2] == ["Nothing predicted: 8 full", "every step was to run in full"]


def test_a_run_without_a_predictor_says_so(load, sample):
    _, report = sample("hv10_t2v", load("hv10_t2v")[0])
    assert report.splitlines()[:2] == ["Nothing predicted: 8 full", "neither a Predictor nor a cache is on the model"]


def test_each_report_is_about_its_own_run(load, apply, sample):
    model, predictor = load("hv10_t2v")
    patched = apply(model, predictor, SOME)
    told = [
        graph.counts(sample("hv10_t2v", target, steps=steps)[1])
        for target, steps in ((patched, 8), (model, 3), (patched, 7), (model, 5))
    ]
    assert told == ["4 full + 4 predicted", "3 full", "4 full + 3 predicted", "5 full"]


def test_a_run_that_cannot_be_counted_says_why_and_leaves_the_model_alone(load, sample, pack, monkeypatch):
    model, _ = load("hv10_t2v")
    plain, _ = sample("hv10_t2v", model)
    compat, callbacks = pack("disca.host.compat"), repr(model.callbacks)
    missing = compat.missing
    monkeypatch.setattr(compat, "missing", lambda *rooms: ("a.name",) if "attach" in rooms else missing(*rooms))
    native, report = sample("hv10_t2v", model)
    assert torch.equal(native, plain) and repr(model.callbacks) == callbacks
    assert "has no 'a.name', so every step runs in full, without a Predictor or a cache" in report


@pytest.mark.parametrize("case", recipes.CASES)
def test_meanflow_sampler_is_cores_euler(case, load, sample, call):
    model, _ = load(case)
    ours, _ = sample(case, model)
    (sigmas,) = call("DiscaMeanFlowSigmas", steps=8, shift=5.0, denoise=1.0)
    (euler,) = call("KSamplerSelect", sampler_name="euler")
    cores = graph.sample_custom(call, model, case, euler, sigmas, seed=7)
    assert relative_error(ours, cores) < 1e-6


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", recipes.CASES)
def test_a_predicted_step_runs_the_predictors_blocks_and_none_of_the_models(case, form, load, apply, sample):
    model, predictor = load(case, form)
    with CountedBlocks(model.model.diffusion_model) as base, CountedBlocks(predictor.patcher.model) as small:
        _, report = sample(case, apply(model, predictor, SOME))
    blocks = {"hv10_t2v": 2 + 3, "hv15_i2v": 3}[case]
    assert base.calls == 4 * blocks
    assert small.calls == 4 * 2
    assert graph.counts(report) == "4 full + 4 predicted"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", recipes.CASES)
def test_prediction_is_not_reuse_and_not_the_full_step(case, form, load, apply, sample):
    model, predictor = load(case, form)
    full, _ = sample(case, model)
    cached, _ = sample(case, apply(model, predictor, SOME))
    assert relative_error(cached, full) > 1e-3


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", recipes.CASES)
def test_applying_twice_is_applying_once(case, form, load, apply, sample):
    model, predictor = load(case, form)
    once = apply(model, predictor, SOME)
    twice = apply(apply(model, predictor, ALL), predictor, SOME)
    assert torch.equal(sample(case, once)[0], sample(case, twice)[0])
    with CountedBlocks(predictor.patcher.model) as small:
        sample(case, twice)
    assert small.calls == 4 * 2


def test_two_runs_are_equal_and_the_model_stays_unpatched(load, apply, sample):
    model, predictor = load("hv10_t2v")
    plain, _ = sample("hv10_t2v", model)
    patched = apply(model, predictor, SOME)
    first, second = (sample("hv10_t2v", patched)[0] for _ in range(2))
    assert torch.equal(first, second)
    assert torch.equal(plain, sample("hv10_t2v", model)[0])
    assert "patches_replace" not in model.model_options["transformer_options"]


@pytest.mark.parametrize("step", range(8))
def test_a_run_after_an_interrupted_one_is_the_first(step, load, apply, sample):
    model, predictor = load("hv10_t2v")
    patched = apply(model, predictor, SOME)
    first, _ = sample("hv10_t2v", patched)
    interrupted = patched.clone()
    calls = []

    def interrupt(apply_model, args):
        if len(calls) == step:
            comfy.model_management.interrupt_current_processing()
        calls.append(args["timestep"])
        return apply_model(args["input"], args["timestep"], **args["c"])

    interrupted.set_model_unet_function_wrapper(interrupt)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        sample("hv10_t2v", interrupted)
    assert len(calls) == step + 1
    assert torch.equal(sample("hv10_t2v", patched)[0], first)


@pytest.mark.parametrize("fails", [False, True])
def test_no_state_outlives_a_run(fails, load, apply, sample, pack):
    model, predictor = load("hv15_i2v")
    patched = apply(model, predictor, SOME)
    if fails:
        patched.model_options["model_function_wrapper"] = _fail_at_step_five()
        with pytest.raises(ArithmeticError):
            sample("hv15_i2v", patched)
    else:
        sample("hv15_i2v", patched)
    gc.collect()
    kinds = (
        pack("disca.host.running.run").Run,
        pack("disca.host.running.run").Call,
        pack("disca.host.running.features").FeatureStore,
    )
    assert not [kept for kept in gc.get_objects() if type(kept) in kinds]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", recipes.CASES)
@pytest.mark.parametrize("cache_device", ["gpu", "cpu"])
def test_the_cache_device_changes_nothing_but_the_place(case, form, cache_device, load, apply, sample):
    model, predictor = load(case, form)
    auto, _ = sample(case, apply(model, predictor, SOME))
    assert torch.equal(sample(case, apply(model, predictor, SOME, cache_device))[0], auto)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", recipes.CASES)
def test_cond_and_uncond_together_equal_apart(case, form, load, apply, sample):
    model, predictor = load(case, form)
    patched = apply(model, predictor, SOME)
    guided = {"negative": graph.other_conditioning(case, model), "cfg": 3.0}
    together, report = sample(case, patched, **guided)
    with graph.split_batches(model):
        apart, report_apart = sample(case, patched, **guided)
    assert relative_error(apart, together) < 1e-5
    assert graph.counts(report) == "4 full + 4 predicted"
    assert graph.counts(report_apart) == "8 full + 8 predicted"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", recipes.CASES)
def test_batch_two_equals_twice_batch_one(case, form, load, apply, sample):
    model, predictor = load(case, form)
    patched = apply(model, predictor, SOME)
    latent = graph.empty_latent(case, batch=2)
    both, report = sample(case, patched, latent_image=latent)
    assert graph.counts(report) == "4 full + 4 predicted"
    for i in range(2):
        one, _ = sample(case, patched, latent_image=graph.empty_latent(case) | {"batch_index": [i]})
        assert relative_error(one[0], both[i]) < 1e-5


def test_a_condition_that_starts_late_runs_its_first_step_in_full_and_the_others_do_not_wait(load, apply, sample):
    """Steps 2, 3, 5 and 7 are predicted: the early condition's all, the late one's after its first, step 5."""
    model, predictor = load("hv10_t2v")
    patched = apply(model, predictor, "0 1 4 6")
    late = graph.timed(graph.other_conditioning("hv10_t2v", model), start=LATE)
    positive = graph.conditioning(recipes.golden("hv10_t2v"), model) + late
    rows = []
    hook = predictor.patcher.model.register_forward_pre_hook(lambda _, args: rows.append(len(args[0])))
    together, report = sample("hv10_t2v", patched, positive=positive)
    count = sum(rows)
    rows.clear()
    with graph.split_batches(model):
        apart, counted = sample("hv10_t2v", patched, positive=positive)
    hook.remove()
    assert count == sum(rows) == 4 + 1
    assert "1 in full: no features of this condition yet" in report
    assert "1 in full: no features of this condition yet" in counted
    assert relative_error(apart, together) < 1e-5


def test_features_are_never_written_to_by_a_predicted_step(load, apply, sample, pack, monkeypatch):
    model, predictor = load("hv15_i2v")
    store = pack("disca.host.running.features").FeatureStore
    seen, take = [], store.take

    def watched(self, keys, place, device):
        features = take(self, keys, place, device)
        seen.append([tensor.clone() for tensor in features])
        return features

    monkeypatch.setattr(store, "take", watched)
    sample("hv15_i2v", apply(model, predictor, "0 4"))
    for step in (1, 2, 4, 5):  # predicted steps 2, 3 and 6, 7 read what 1 and 5 read
        assert all(torch.equal(a, b) for a, b in zip(seen[step], seen[step - 1], strict=True))


@pytest.mark.parametrize(("form", "count"), [("published", 1), ("two", 2)])
def test_the_report_tells_the_bytes_of_the_feature_tensors(form, count, load, apply, sample):
    model, predictor = load("hv10_t2v", form)
    _, report = sample("hv10_t2v", apply(model, predictor, SOME))
    tokens = 3 * 4 * 6 + 7  # patches of 1x2x2 in 3x8x12, and the text
    assert f"features held: {count * tokens * 256 * 4 / 1e6:.1f} MB" in report


@pytest.mark.parametrize("case", recipes.CASES)
def test_a_predictor_of_two_features_is_told_their_ages_and_those_of_the_step_before(case, load, apply, sample):
    model, predictor = load(case, "two")
    told, kept = [], []

    def seen(_, args, given):
        told.append(given["times"][0].tolist())
        kept.append([tensor.clone() for tensor in (*args[len(args) // 2 :], *given["before"])])

    hook = predictor.patcher.model.register_forward_pre_hook(seen, with_kwargs=True)
    sample(case, apply(model, predictor, SOME))
    hook.remove()
    t = shifted_sigmas(8, 5.0)
    steps = [(2, 1, 0), (3, 1, 0), (5, 4, 1), (7, 6, 4)]  # predicted, the last full one, the one before
    expected = [(t[now], t[last] - t[now], t[before] - t[last]) for now, last, before in steps]
    torch.testing.assert_close(torch.tensor(told), torch.tensor(expected), rtol=1e-5, atol=1e-6)
    half = len(kept[0]) // 2
    for one, other in ((2, 1), (3, 2)):  # step 5 looks back at what 3 went by, and 7 at what 5 did
        assert all(torch.equal(a, b) for a, b in zip(kept[one][half:], kept[other][:half], strict=True))


def test_a_predictor_of_two_features_says_where_it_goes_by_one(load, apply, sample, caplog):
    model, predictor = load("hv10_t2v", "two")
    alone, _ = sample("hv10_t2v", apply(model, predictor, "0 4"))
    assert "before step 1 only one step is full" in caplog.text
    caplog.clear()
    sample("hv10_t2v", apply(model, predictor, SOME))
    assert "only one step is full" not in caplog.text
    assert alone.isfinite().all()


def _fail_at_step_five():
    calls = []

    def fail(apply_model, args):
        calls.append(1)
        if len(calls) == 6:
            raise ArithmeticError("step five")
        return apply_model(args["input"], args["timestep"], **args["c"])

    return fail


def halved(call: int):
    """A wrapper inside ours that runs the network on each half of a batch of four or more from that call on."""
    count = [0]

    def split(executor, *args, **kwargs):
        count[0] += 1
        batch = len(args[0])
        if count[0] <= call or batch < 4:
            return executor(*args, **kwargs)

        def cut(value, rows):
            return value[rows] if isinstance(value, torch.Tensor) and len(value) == batch else value

        halves = slice(0, batch // 2), slice(batch // 2, None)
        parts = [
            executor(*(cut(value, rows) for value in args), **{key: cut(value, rows) for key, value in kwargs.items()})
            for rows in halves
        ]
        return torch.cat(parts)

    return split


@pytest.mark.parametrize("videos", [2, 3])
def test_a_call_that_another_node_runs_in_halves_predicts_nothing(videos, load, apply, sample):
    model, predictor = load("hv10_t2v")

    def third_step(anchors: str, call: int = 99) -> torch.Tensor:
        patched, seen = apply(model, predictor, anchors), []
        patched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", halved(call))
        patched.set_model_unet_function_wrapper(
            lambda apply_model, args: seen.append(apply_model(args["input"], args["timestep"], **args["c"])) or seen[-1]
        )
        guided = {"negative": graph.other_conditioning("hv10_t2v", model), "cfg": 3.0}
        _, report = sample("hv10_t2v", patched, **guided, latent_image=graph.empty_latent("hv10_t2v", batch=videos))
        assert call == 99 or "in full: another node evaluates a condition in several pieces" in report
        return seen[2]

    assert relative_error(third_step(SOME, call=2)[None], third_step("0 1 2 4 6")[None]) < 1e-5


def test_every_step_an_anchor_is_said_where_times_repeat(load, apply, call):
    model, predictor = load("hv10_t2v")
    patched, reports = apply(model, predictor, "0-3"), []
    patched.add_callback_with_key("disca_on_report", "test", reports.append)
    (sampler,) = call("KSamplerSelect", sampler_name="euler")
    graph.sample_custom(call, patched, "hv10_t2v", sampler, torch.tensor([1.0, 0.8, 0.8, 0.5, 0.0]), 1)
    assert "every step was to run in full" in str(reports[0])
