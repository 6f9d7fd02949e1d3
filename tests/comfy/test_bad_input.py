"""What cannot be right is refused in one sentence: what was found, what is needed, what to do."""

import graph
import pytest
import recipes
import torch


@pytest.fixture(scope="module")
def both(load):
    return {case: load(case) for case in recipes.CASES}


def schedule(call, anchors="0 1 4 6"):
    return call("DiscaCacheSchedule", plan={"plan": "anchors", "anchors": anchors})[0]


def refused(told: str):
    return pytest.raises(ValueError, match=told)


def test_a_predictor_of_the_other_family(both, apply):
    with refused("Predictor is for HunyuanVideo 1.5, but the MODEL is HunyuanVideo 1.0. Load a HunyuanVideo 1.0"):
        apply(both["hv10_t2v"][0], both["hv15_i2v"][1], "0 1")


def test_a_predictor_of_another_width(both, apply):
    model, predictor = both["hv10_t2v"]
    wider = predictor._replace(spec=type(predictor.spec)("1.0", 512, 2, 4, 4.0))
    with refused(
        "Predictor has width 512 and 4 heads, but the MODEL has 256 and 2. Load the Predictor that was trained"
    ):
        apply(model, wider, "0 1")


def test_a_model_that_is_not_hunyuanvideo(both, call, sample):
    other = graph.tiny_image_model()
    with refused("This MODEL is a Flux, but DisCa works on HunyuanVideo 1.0 and 1.5. Load one with"):
        call(
            "DiscaApplyPredictor",
            model=other,
            predictor=both["hv10_t2v"][1],
            schedule=schedule(call),
            cache_device="auto",
        )
    assert not other.wrappers and not other.additional_models and not other.attachments


def test_a_hunyuanvideo_without_meanflow(both, apply, sample):
    model, predictor = both["hv10_t2v"]
    plain = graph.without_time_r(model)
    for use in (lambda: apply(plain, predictor, "0 1"), lambda: sample("hv10_t2v", plain)):
        with refused("has no time_r_in weights: it is not a MeanFlow model.* Load a Restricted-MeanFlow"):
            use()


def test_the_meanflow_sampler_on_a_model_without_meanflow(both, call):
    plain = graph.without_time_r(both["hv10_t2v"][0])
    (sampler,) = call("DiscaMeanFlowSampler")
    (sigmas,) = call("DiscaMeanFlowSigmas", steps=4, shift=5.0, denoise=1.0)
    with refused("has no time_r_in weights"):
        graph.sample_custom(call, plain, "hv10_t2v", sampler, sigmas, seed=0)


def test_steps_that_differ_from_the_schedules(both, call, apply, sample):
    model, predictor = both["hv10_t2v"]
    (preset,) = call("DiscaCacheSchedule", plan={"plan": "preset", "preset": "HunyuanVideo 1.0, 20 steps, N=4"})
    (patched,) = call("DiscaApplyPredictor", model=model, predictor=predictor, schedule=preset, cache_device="auto")
    with refused("'HunyuanVideo 1.0, 20 steps, N=4' is written for 20 steps, but the run has 8. Set steps to 20"):
        sample("hv10_t2v", patched)
    with refused("asks for step 19 in full, but the run has 8 steps"):
        sample("hv10_t2v", apply(model, predictor, "0 1 19"))


def test_features_older_than_predictors_are_trained_for_are_warned_of(both, apply, sample):
    _, report = sample("hv10_t2v", apply(*both["hv10_t2v"], "0 1"))
    assert "step 7 predicts from features 0.56 older in sigma, predictors are trained for 0.2; put an anchor" in report


@pytest.mark.parametrize("text", ["", "all of them", "1 2", "0 2 1"])
def test_a_schedule_of_garbage(text, call):
    with refused("anchor list"):
        schedule(call, text)


@pytest.mark.parametrize("case", recipes.CASES)
def test_a_latent_of_another_channel_count(case, both, apply, sample, call):
    model, predictor = both[case]
    wrong = {"samples": torch.ones(1, 4, 3, 8, 12)}
    channels = both[case][0].model.latent_format.latent_channels
    with refused(
        rf"latent is \[1, 4, 3, 8, 12\], but HunyuanVideo 1..* needs \[batch, {channels}, frames, height, width\]"
    ):
        sample(case, model, latent_image=wrong)
    (guider,) = call("BasicGuider", model=apply(model, predictor, "0 1"), conditioning=[])
    (sampler,) = call("DiscaMeanFlowSampler")
    (sigmas,) = call("DiscaMeanFlowSigmas", steps=4, shift=5.0, denoise=1.0)
    with refused(r"latent is \[1, 4, 3, 8, 12\]"):
        call(
            "SamplerCustomAdvanced",
            noise=call("RandomNoise", noise_seed=0)[0],
            guider=guider,
            sampler=sampler,
            sigmas=sigmas,
            latent_image=wrong,
        )


def test_guidance_without_a_negative(both, sample):
    with refused("cfg is 3, but no negative conditioning is connected. Connect one, or set cfg to 1"):
        sample("hv10_t2v", both["hv10_t2v"][0], cfg=3.0)


def test_another_cache_on_the_same_model(both, apply, sample, call):
    (cached,) = call(
        "EasyCache",
        model=apply(*both["hv10_t2v"], "0 1 4 6"),
        reuse_threshold=0.2,
        start_percent=0.1,
        end_percent=0.9,
        verbose=False,
    )
    with refused("EasyCache or LazyCache is on this MODEL too.* Remove"):
        sample("hv10_t2v", cached)


def test_nothing_to_denoise_gives_the_latent_back(both, sample):
    latent = {"samples": torch.randn(graph.empty_latent("hv10_t2v")["samples"].shape)}
    out, report = sample("hv10_t2v", both["hv10_t2v"][0], latent_image=latent, denoise=0.0)
    assert torch.equal(out, latent["samples"])
    assert report == "DisCa: nothing to denoise"


def test_a_refused_run_leaves_nothing_attached(both, apply, sample):
    model, predictor = both["hv10_t2v"]
    before = sample("hv10_t2v", model)[0]
    patched = apply(model, predictor, "0 1 19")
    with refused("asks for step 19"):
        sample("hv10_t2v", patched)
    assert not [key for key in patched.model_options["transformer_options"] if key.startswith("disca")]
    assert torch.equal(sample("hv10_t2v", model)[0], before)
