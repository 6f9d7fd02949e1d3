"""DisCa beside what else users put on a model: the same result as alone, or a full call, or a clear refusal."""

import comfy.samplers
import graph
import pytest
import recipes
import torch
from graph import CountedBlocks, relative_error

CASE = "hv10_t2v"
SOME = "0 1 4 6"


@pytest.fixture(scope="module")
def loaded(load):
    return load(CASE)


@pytest.fixture
def patched(loaded, apply):
    return apply(*loaded, SOME)


def conditions(model) -> list:
    return graph.conditioning(recipes.golden(CASE), model)


def test_several_positive_conditions_equal_one_at_a_time(patched, sample):
    """Two whole-frame conditions: each step's velocity is their mean, so both must have features of their own."""
    both = conditions(patched) + graph.other_conditioning(CASE, patched)
    together, report = sample(CASE, patched, positive=both)
    with graph.split_batches(patched):
        apart, report_apart = sample(CASE, patched, positive=both)
    assert relative_error(apart, together) < 1e-5
    assert graph.counts(report) == "4 full + 4 predicted"
    assert graph.counts(report_apart) == "8 full + 8 predicted"


@pytest.mark.parametrize("where", ["positive", "negative"])
@pytest.mark.parametrize("cached", [True, False])
def test_steps_at_which_no_condition_is_active_are_told_first(cached, where, loaded, patched, sample):
    """ComfyUI then takes zeros for the network's answer, and asks no network."""
    model = patched if cached else loaded[0]
    first = graph.timed(conditions(model), end=0.3)
    gap = first + graph.timed(graph.other_conditioning(CASE, model), start=0.7)
    guided = {"positive": gap} if where == "positive" else {"positive": conditions(model), "negative": gap, "cfg": 2.0}
    _, report = sample(CASE, model, **guided)
    assert report.splitlines()[0].startswith("no condition was active at 3 of 8 steps, where ComfyUI takes zeros")
    assert "another" not in report and "x: " not in report


def test_conditions_that_cover_the_run_together_raise_no_alarm(patched, sample):
    halves = graph.timed(conditions(patched), end=0.5)
    halves += graph.timed(graph.other_conditioning(CASE, patched), start=0.5)
    _, report = sample(CASE, patched, positive=halves)
    assert "no condition" not in report and "x: " in report.splitlines()[0]


def test_an_area_condition_equals_one_condition_at_a_time(patched, call, sample):
    """ComfyUI copies an area condition into the negative under the same id: features must not be shared."""
    (left,) = call("ConditioningSetAreaPercentageVideo", **_left_half(graph.other_conditioning(CASE, patched)))
    guided = {"positive": conditions(patched) + left, "negative": graph.other_conditioning(CASE, patched), "cfg": 2.0}
    together, report = sample(CASE, patched, **guided)
    with graph.split_batches(patched):
        apart, _ = sample(CASE, patched, **guided)
    assert relative_error(apart, together) < 1e-5
    assert "fallback" not in report


def test_guidance_with_all_anchors_is_the_plain_model(loaded, apply, sample):
    model, predictor = loaded
    guided = {"negative": graph.other_conditioning(CASE, model), "cfg": 2.0}
    assert torch.equal(sample(CASE, apply(model, predictor, "0-7"), **guided)[0], sample(CASE, model, **guided)[0])


@pytest.mark.parametrize("causal_fix", [True, False])
def test_features_never_cross_context_windows(causal_fix, loaded, apply, call, sample):
    """Each window sampled alone gives what it gives beside the others, before they are fused."""
    windows = {"context_length": 3, "context_overlap": 1, "context_schedule": "standard_static", "context_stride": 1}
    windows |= {"closed_loop": False, "fuse_method": "flat", "dim": 2, "freenoise": False}
    windows |= {"cond_retain_index_list": "", "split_conds_to_windows": False, "latent_retain_index_list": ""}
    latent = {"samples": torch.zeros(1, 16, 7, 8, 12)}
    model, predictor = loaded

    def windowed(anchors: str, seen: list):
        (result,) = call(
            "ContextWindowsManual", model=apply(model, predictor, anchors), **windows, causal_window_fix=causal_fix
        )
        result.set_model_unet_function_wrapper(_recorder(seen))
        return sample(CASE, result, latent_image=latent)

    seen = []
    _, report = windowed(SOME, seen)
    assert graph.counts(report) == "12 full + 12 predicted"
    for window in range(3):
        alone = _replayed(apply(model, predictor, SOME), call, [seen[i] for i in range(window, 24, 3)])
        for (_, _, beside), (_, _, by_itself) in zip([seen[i] for i in range(window, 24, 3)], alone, strict=True):
            assert relative_error(by_itself, beside) < 1e-5


def test_controlnet_residuals_run_in_full(loaded, patched, sample):
    model, _ = loaded
    positive = graph.with_control(conditions(patched), model)
    cached, report = sample(CASE, patched, positive=positive)
    full, _ = sample(CASE, model, positive=positive)
    plain, _ = sample(CASE, model)
    assert torch.equal(cached, full)
    assert relative_error(plain, full) > 1e-3
    assert graph.counts(report) == "4 full + 4 fallback"
    assert "4 in full: ControlNet residuals" in report


def test_skip_layer_guidance_is_the_plain_models(loaded, patched, call, sample):
    """Its own evaluation, the second in a step, runs in full and leaves the features alone."""
    settings = {"scale": 2.0, "start_percent": 0.0, "end_percent": 1.0, "double_layers": "1", "single_layers": "1, 2"}
    model, predictor = loaded
    (guided,) = call("SkipLayerGuidanceDiT", model=patched, rescaling_scale=0.0, **settings)
    _, report = sample(CASE, guided)
    assert graph.counts(report) == "4 full + 4 predicted + 8 fallback"
    assert "8 in full: second evaluation in one step" in report


@pytest.mark.parametrize("order", ["before", "after"])
def test_another_replacement_of_the_same_block_is_honoured(order, loaded, apply, sample):
    """Honoured in every call, so no call may be predicted; put there before DisCa it is called by our handler."""
    model, predictor = loaded

    def louder(args, extra):
        out = extra["original_block"](args)
        return out | {"img": out["img"] * 1.1}

    def replaced(target):
        target = target.clone()
        target.set_model_patch_replace(louder, "dit", "double_block", 1)
        return target

    both = apply(replaced(model), predictor, SOME) if order == "before" else replaced(apply(model, predictor, SOME))
    cached, report = sample(CASE, both)
    assert torch.equal(cached, sample(CASE, replaced(model))[0])
    assert graph.counts(report) == "4 full + 4 fallback"
    assert "4 in full: another node replaces blocks" in report


def test_normalised_attention_guidance_runs_in_full(loaded, apply, call, sample):
    model, predictor = loaded
    guided = {"negative": graph.other_conditioning(CASE, model)}
    settings = {"nag_scale": 4.0, "nag_alpha": 0.5, "nag_tau": 1.5}
    (plain,) = call("NAGuidance", model=model, **settings)
    (cached,) = call("NAGuidance", model=apply(model, predictor, SOME), **settings)
    result, report = sample(CASE, cached, **guided)
    assert torch.equal(result, sample(CASE, plain, **guided)[0])
    assert graph.counts(report) == "4 full + 4 fallback"
    assert "4 in full: another node patches attention" in report


@pytest.mark.parametrize("order", ["before", "after"])
def test_a_lora_before_or_after_the_patch_gives_what_merged_weights_give(order, loaded, apply, sample):
    model, predictor = loaded
    first = graph.with_lora(model) if order == "before" else model
    both = apply(first, predictor, SOME)
    both = graph.with_lora(both) if order == "after" else both
    cached, report = sample(CASE, both)
    reference = apply(graph.with_merged_lora(model), predictor, SOME)
    assert relative_error(cached, sample(CASE, reference)[0]) < 1e-5
    assert relative_error(cached, sample(CASE, apply(model, predictor, SOME))[0]) > 1e-4
    assert graph.counts(report) == "4 full + 4 predicted"


def test_features_are_not_reused_across_a_change_of_weights(loaded, patched, sample):
    """A LoRA that is switched off at 40 % of the schedule: the first predicted step after that is full."""
    positive = graph.with_timed_lora(conditions(patched), loaded[0], switch_off=0.4)
    cached, report = sample(CASE, patched, positive=positive)
    assert "1 in full: inputs of another shape or type, or other weights" in report
    assert relative_error(cached, sample(CASE, patched)[0]) > 1e-4


@pytest.mark.parametrize("node", ["EasyCache", "LazyCache"])
def test_another_cache_is_refused_by_name(node, patched, call, sample):
    (cached,) = call(node, model=patched, reuse_threshold=0.2, start_percent=0.1, end_percent=0.9, verbose=False)
    with pytest.raises(ValueError, match="EasyCache or LazyCache is on this MODEL too"):
        sample(CASE, cached)


def test_a_denoise_mask_keeps_what_it_masks(patched, sample):
    latent = {"samples": torch.randn(1, 16, 3, 8, 12), "noise_mask": torch.zeros(1, 1, 3, 8, 12)}
    latent["noise_mask"][..., 6:] = 1.0
    out, report = sample(CASE, patched, latent_image=latent)
    assert torch.allclose(out[..., :6], latent["samples"][..., :6], atol=1e-5)
    assert not torch.allclose(out[..., 6:], latent["samples"][..., 6:], atol=1e-2)
    assert graph.counts(report) == "4 full + 4 predicted"


def test_split_sigmas_over_two_samplers_are_two_runs(loaded, apply, call):
    """Each part starts with an anchor of its own; all anchors equal one unsplit run."""
    model, predictor = loaded
    (sigmas,) = call("DiscaMeanFlowSigmas", steps=8, shift=5.0, denoise=1.0)
    (sampler,) = call("DiscaMeanFlowSampler")
    high, low = call("SplitSigmas", sigmas=sigmas, step=4)
    whole = graph.sample_custom(call, model, CASE, sampler, sigmas, seed=3)
    everything = apply(model, predictor, "0-3")
    first = graph.sample_custom(call, everything, CASE, sampler, high, seed=3)
    halves = graph.sample_custom(
        call, everything, CASE, sampler, low, seed=3, latent=first, noise=torch.zeros_like(first)
    )
    assert relative_error(halves, whole) < 1e-5


def test_ksampler_advanced_with_start_and_end_steps(loaded, call, apply):
    model, predictor = loaded
    (schedule,) = call("DiscaCacheSchedule", plan={"plan": "interval", "interval": 2, "warmup": 1, "last_step": False})
    (patched,) = call("DiscaApplyPredictor", model=model, predictor=predictor, schedule=schedule, cache_device="auto")
    settings = {"add_noise": "enable", "noise_seed": 1, "steps": 8, "cfg": 1.0, "sampler_name": "euler"}
    settings |= {"scheduler": "simple", "positive": conditions(model), "negative": conditions(model)}
    with CountedBlocks(model.model.diffusion_model) as counted:
        call(
            "KSamplerAdvanced",
            model=patched,
            latent_image=graph.empty_latent(CASE),
            start_at_step=2,
            end_at_step=6,
            return_with_leftover_noise="enable",
            **settings,
        )
    assert counted.calls == 2 * 5


def test_a_second_model_in_one_run_is_left_alone(loaded, patched, load, call, caplog):
    """DualModelGuider runs the negative on another model, under the first one's options."""
    (sigmas,) = call("DiscaMeanFlowSigmas", steps=8, shift=5.0, denoise=1.0)
    (sampler,) = call("DiscaMeanFlowSampler")
    (guider,) = call(
        "DualModelGuider",
        model=patched,
        model_negative=load(CASE, "tensor_parallel")[0],
        positive=conditions(patched),
        cfg=2.0,
        negative=graph.other_conditioning(CASE, patched),
    )
    noise = torch.zeros(recipes.golden(CASE).tensors["latent"].shape)
    with caplog.at_level("INFO"), torch.inference_mode():
        guider.sample(noise, noise, sampler, sigmas, disable_pbar=True, seed=0)
    assert "4 full + 4 predicted + 8 fallback; " in caplog.text
    assert "; 8 in full: another model in the same run; " in caplog.text


def _left_half(conditioning: list) -> dict:
    return {"conditioning": conditioning, "width": 0.5, "height": 1.0, "temporal": 1.0, "x": 0, "y": 0, "z": 0} | {
        "strength": 1.0
    }


def _recorder(seen: list):
    def record(apply_model, args):
        out = apply_model(args["input"], args["timestep"], **args["c"])
        seen.append((args["input"].clone(), args["timestep"].clone(), out.clone()))
        return out

    return record


def _replayed(model, call, calls: list) -> list:
    """What the model answers to the same inputs at the same times, in one run without windows."""
    answers = []

    def replay(network, x, sigmas, extra_args=None, callback=None, disable=None):
        for given, time, _ in calls:
            answers.append((given, time, network(given, time, **extra_args)))
        return x

    sigmas = torch.stack([time[0] for _, time, _ in calls] + [torch.zeros(())])
    (guider,) = call("BasicGuider", model=model, conditioning=conditions(model))
    shape = calls[0][0].shape
    nothing, sampler = torch.zeros(shape), comfy.samplers.KSAMPLER(replay)
    with torch.inference_mode():
        guider.sample(nothing, nothing, sampler, sigmas, disable_pbar=True, seed=0)
    return answers
