"""What cannot be right is refused in one sentence: what was found, what is needed, what to do."""

import io
import sys
import traceback

import graph
import pytest
import recipes
import torch
from comfy.nested_tensor import NestedTensor


@pytest.fixture(scope="module")
def both(load):
    return {case: load(case) for case in recipes.CASES}


def schedule(call, anchors="0 1 4 6"):
    return call("DiscaCacheSchedule", plan={"plan": "anchors", "anchors": anchors})[0]


def refused(told: str):
    return pytest.raises(ValueError, match=told)


def test_a_predictor_of_the_other_family_is_refused(both, apply):
    with refused("Predictor is for HunyuanVideo 1.5, but the MODEL is HunyuanVideo 1.0. Load a HunyuanVideo 1.0"):
        apply(both["hv10_t2v"][0], both["hv15_i2v"][1], "0 1")


def test_a_predictor_of_another_width_is_refused(both, apply):
    model, predictor = both["hv10_t2v"]
    wider = predictor._replace(spec=type(predictor.spec)("1.0", 512, 2, 4, 4.0))
    with refused(
        "Predictor has width 512 and 4 heads, but the MODEL has 256 and 2. Load the Predictor that was trained"
    ):
        apply(model, wider, "0 1")


def test_a_model_that_is_not_hunyuanvideo_is_refused(both, call, sample):
    other = graph.tiny_image_model()
    with refused("This MODEL is a Flux, but DisCa works on HunyuanVideo 1.0, HunyuanVideo 1.5. Load one of them, with"):
        call(
            "DiscaApplyPredictor",
            model=other,
            predictor=both["hv10_t2v"][1],
            schedule=schedule(call),
            cache_device="auto",
        )
    assert not other.wrappers and not other.additional_models and not other.attachments


def test_a_hunyuanvideo_without_meanflow_is_refused(both, apply, sample):
    model, predictor = both["hv10_t2v"]
    plain = graph.without_time_r(model)
    for use in (lambda: apply(plain, predictor, "0 1"), lambda: sample("hv10_t2v", plain)):
        with refused("has no time_r_in weights: it is not a MeanFlow model.* Load a Restricted-MeanFlow"):
            use()


def test_the_meanflow_sampler_refuses_a_model_without_meanflow(both, call):
    plain = graph.without_time_r(both["hv10_t2v"][0])
    (sampler,) = call("DiscaMeanFlowSampler")
    (sigmas,) = call("DiscaMeanFlowSigmas", steps=4, shift=5.0, denoise=1.0)
    with refused("has no time_r_in weights"):
        graph.sample_custom(call, plain, "hv10_t2v", sampler, sigmas, seed=0)


def test_steps_that_differ_from_the_schedules_are_refused(both, call, apply, sample):
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


@pytest.mark.parametrize("text", ["", " ", "all of them", "1 2", "0 2 1", "0-99999 " * 100])
def test_a_schedule_of_garbage_is_refused(text, call):
    with refused("anchor list"):
        schedule(call, text)


@pytest.mark.parametrize("case", recipes.CASES)
def test_a_latent_of_another_channel_count_is_refused(case, both, apply, sample, call):
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


@pytest.mark.parametrize("sides", [(9, 12), (8, 13), (1, 1)])
def test_an_odd_latent_height_or_width_is_refused_on_1_0(sides, both, apply, sample):
    latent = {"samples": torch.zeros(1, 16, 1, *sides)}
    for model in (both["hv10_t2v"][0], apply(*both["hv10_t2v"], "0 1")):
        with refused(rf"latent is .*{sides[1]} wide and {sides[0]} high, but HunyuanVideo 1.0 needs an even width and"):
            sample("hv10_t2v", model, latent_image=latent)


def test_any_height_and_width_is_sampled_on_1_5(both, apply, sample):
    model = both["hv15_i2v"][0]
    shape = list(graph.empty_latent("hv15_i2v")["samples"].shape)
    ((text, options),) = graph.conditioning(recipes.golden("hv15_i2v"), model)
    positive = [[text, {key: options[key] for key in ("pooled_output", "conditioning_byt5small")}]]
    latent = {"samples": torch.zeros(*shape[:3], 5, 7)}
    out, _ = sample("hv15_i2v", apply(*both["hv15_i2v"], "0 1 4 6"), latent_image=latent, positive=positive)
    assert out.shape[-2:] == (5, 7) and torch.isfinite(out).all()


@pytest.mark.parametrize("case", recipes.CASES)
def test_conditioning_of_another_models_encoders_is_refused(case, both, apply, sample):
    model = both[case][0]
    ((text, options),) = graph.conditioning(recipes.golden(case), model)
    for patched in (model, apply(*both[case], "0 1")):
        with refused(r"'cross_attn' is \[1, 7, 32\], but this HunyuanVideo 1.\d reads 96 numbers of it"):
            sample(case, patched, positive=[[text[..., :32], options]])
        with refused("'cross_attn' is"):
            sample(case, patched, cfg=2.0, negative=[[text[..., :32], options]])


def test_a_pooled_vector_that_is_missing_or_short_is_refused_on_1_0(both, sample):
    model = both["hv10_t2v"][0]
    ((text, options),) = graph.conditioning(recipes.golden("hv10_t2v"), model)
    for pooled, found in ((None, "None"), (options["pooled_output"][:, :32], r"\[1, 32\]")):
        with refused(f"'pooled_output' is {found}, but this HunyuanVideo 1.0 reads 768 numbers of it"):
            sample("hv10_t2v", model, positive=[[text, options | {"pooled_output": pooled}]])


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (None, "None"),
        ("a cat", "'a cat'"),
        (torch.zeros(()), r"\[\]"),
        (torch.zeros(7, 96), r"\[7, 96\]"),
        (torch.zeros(1, 0, 96), r"\[1, 0, 96\]"),
        (torch.zeros(0, 7, 96), r"\[0, 7, 96\]"),
        (torch.ones(1, 7, 96, dtype=torch.int64), r"\[1, 7, 96\]"),
    ],
)
def test_conditioning_that_is_no_text_of_tokens_is_refused(text, shown, both, sample):
    model = both["hv10_t2v"][0]
    ((_, options),) = graph.conditioning(recipes.golden("hv10_t2v"), model)
    with refused(f"'cross_attn' is {shown}, but this HunyuanVideo 1.0 reads 96 numbers of it"):
        sample("hv10_t2v", model, positive=[[text, options]])


@pytest.mark.parametrize("case", recipes.CASES)
@pytest.mark.parametrize("change", [lambda z: z[:0], lambda z: z[:, :, :0], lambda z: z[..., :0], lambda z: z.long()])
def test_a_latent_of_nothing_or_of_whole_numbers_is_refused(case, change, both, sample):
    latent = {"samples": change(graph.empty_latent(case)["samples"])}
    with refused("has to hold floating-point numbers, of one frame at least"):
        sample(case, both[case][0], latent_image=latent)


@pytest.mark.parametrize("case", recipes.CASES)
@pytest.mark.parametrize("several", [0, 1, 2])
def test_a_nested_latent_is_refused(case, several, both, sample):
    """What core's nodes for video with sound give: a list of tensors that passes for one."""
    latent = {"samples": NestedTensor([graph.empty_latent(case)["samples"]] * several)}
    with refused("The latent is nested, as one of video with sound is, but HunyuanVideo 1.. needs a video alone"):
        sample(case, both[case][0], latent_image=latent)


@pytest.mark.parametrize("shape", [(), (5,), (8, 12), (16, 8, 12), (1, 1, 16, 3, 8, 12)])
def test_a_latent_of_other_dimensions_is_refused(shape, both, sample):
    with refused(r"The latent is \[.*\], but HunyuanVideo 1.0 needs \[batch, 16, frames, height, width\]"):
        sample("hv10_t2v", both["hv10_t2v"][0], latent_image={"samples": torch.zeros(shape)})


@pytest.mark.parametrize("time", [float("nan"), float("inf")])
def test_sigmas_that_are_no_numbers_are_refused_before_the_run(time, both, call):
    (sampler,) = call("DiscaMeanFlowSampler")
    (sigmas,) = call("DiscaMeanFlowSigmas", steps=4, shift=5.0, denoise=1.0)
    sigmas = torch.cat([sigmas[:2], torch.tensor([time]), sigmas[2:]])
    watched = call(
        "DiscaApplyPredictor",
        model=both["hv10_t2v"][0],
        predictor=both["hv10_t2v"][1],
        schedule=schedule(call, "0 1"),
        cache_device="auto",
    )[0]
    with refused("The sigmas are .*, but have to be finite numbers"):
        graph.sample_custom(call, watched, "hv10_t2v", sampler, sigmas, seed=1)


NAN, INFINITY = float("nan"), float("inf")


@pytest.mark.parametrize(
    "change, told",
    [
        ({"shift": NAN}, "'shift' is nan, but must be a finite number"),
        ({"cfg": NAN}, "'cfg' is nan, but must be a finite number"),
        ({"denoise": NAN}, "'denoise' is nan, but must be a finite number"),
        ({"shift": INFINITY}, "'shift' is inf"),
        ({"shift": 0.0}, "'shift' is 0.0, but must be at least 0.01"),
        ({"shift": 1e9}, "'shift' is 1000000000.0, but must be at most 100.0"),
        ({"denoise": 1e-12}, "'denoise' is 1e-12, but must be from 0.0001 to 1, or 0 to leave the latent as it is"),
        ({"denoise": 1e-300}, "'denoise' is 1e-300, but must be from 0.0001"),
        ({"steps": 0}, "'steps' is 0, but must be at least 1"),
        ({"steps": 10**12}, "'steps' is 1000000000000, but must be at most 1000"),
        ({"steps": 2.5}, "'steps' is 2.5, but must be a whole number"),
        ({"steps": "\ud800"}, r"'steps' is '\\ud800', but must be a whole number"),
        ({"seed": -1}, "'seed' is -1, but must be at least 0"),
        ({"seed": 2**64}, "'seed' is 18446744073709551616, but must be at most"),
        ({"positive": "a cat"}, "'positive' is 'a cat'. Connect conditioning, from a node that encodes a prompt"),
        ({"positive": []}, "'positive' is \\[\\]. Connect conditioning"),
        ({"positive": [[1]]}, "'positive' is .* Connect conditioning"),
        ({"negative": 3}, "'negative' is 3. Connect conditioning"),
        ({"latent_image": "latent"}, "'latent_image' is 'latent'. Connect a latent, from a node"),
        ({"latent_image": {"samples": 3}}, "'latent_image' is .* Connect a latent"),
        ({"latent_image": None}, "'latent_image' is missing. Connect a latent"),
        ({"model": 1.5}, "'model' is 1.5. Connect a MODEL, from a node that loads one"),
    ],
)
def test_what_no_widget_and_no_link_should_give_is_said_at_the_sampler(change, told, both, sample):
    with refused(told) as error:
        sample("hv10_t2v", **{"model": both["hv10_t2v"][0]} | change)
    str(error.value).encode("utf-8")


@pytest.mark.parametrize("value", [0.5, "\ud800", {"of": 3}, [1, 2, 3], True, None])
@pytest.mark.parametrize("name, told", [("schedule", "a schedule"), ("predictor", "a Predictor"), ("model", "a MODEL")])
def test_a_plain_value_where_a_link_belongs_is_said_at_apply_predictor(name, told, value, both, call):
    model, predictor = both["hv10_t2v"]
    inputs = {"model": model, "predictor": predictor, "schedule": schedule(call), "cache_device": "auto"}
    with refused(f"'{name}' is .*Connect {told}, from") as error:
        call("DiscaApplyPredictor", **inputs | {name: value})
    str(error.value).encode("utf-8")


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"plan": None},
        {"plan": "preset"},
        {"plan": {"plan": "of a newer version"}},
        {"plan": {"plan": {"plan": "preset"}}},
        {"plan": {"plan": "\ud800"}},
    ],
)
def test_a_plan_that_is_missing_or_not_known_names_those_there_are(inputs, call):
    with refused("'plan' is missing, .* It is one of 'preset', 'interval', 'anchors', 'file'. Choose one of them."):
        call("DiscaCacheSchedule", **inputs)


@pytest.mark.parametrize(
    "plan, told",
    [
        ({"plan": "preset", "preset": "no such"}, "'preset' is 'no such', but must be one of 'HunyuanVideo 1.0, 20 st"),
        (
            {"plan": "interval", "interval": NAN, "warmup": 1, "last_step": True},
            "'interval' is nan, but must be a whole",
        ),
        (
            {"plan": "interval", "interval": 0, "warmup": 1, "last_step": True},
            "'interval' is 0, but must be at least 1",
        ),
        (
            {"plan": "interval", "interval": 2, "warmup": 1, "last_step": "no"},
            "'last_step' is 'no', but must be true or",
        ),
        ({"plan": "anchors", "anchors": ""}, "The anchor list is empty."),
        ({"plan": "anchors", "anchors": "0 \ud800"}, "'anchors' is .* with characters in it that no file can hold"),
        ({"plan": "anchors", "anchors": 7}, "'anchors' is 7, but must be a text"),
        ({"plan": "anchors"}, "'anchors' is missing. Set it."),
    ],
)
def test_a_plan_with_anything_in_it_is_refused_in_a_sentence(plan, told, call):
    with refused(told) as error:
        call("DiscaCacheSchedule", plan=plan)
    str(error.value).encode("utf-8")


def test_an_error_that_no_log_can_hold_is_said_in_another_way(pack, call, monkeypatch, both):
    def fail(*_):
        raise ValueError("in \ud800") from OSError("\udcff")

    monkeypatch.setattr(pack("disca.host.attach"), "attach_predictor", fail)
    inputs = {"model": both["hv10_t2v"][0], "predictor": both["hv10_t2v"][1], "schedule": schedule(call)}
    with pytest.raises(RuntimeError, match=r"ValueError: in \\ud800") as error:
        call("DiscaApplyPredictor", **inputs, cache_device="auto")
    "".join(traceback.format_exception(error.value)).encode("utf-8")


def test_an_error_with_a_name_that_the_log_of_this_system_cannot_hold_is_escaped(pack, call, monkeypatch, both):
    def fail(*_):
        raise ValueError("no file '电影.safetensors'")

    monkeypatch.setattr(pack("disca.host.attach"), "attach_predictor", fail)
    inputs = {"model": both["hv10_t2v"][0], "predictor": both["hv10_t2v"][1], "schedule": schedule(call)}
    with pytest.raises(ValueError, match="电影"):
        call("DiscaApplyPredictor", **inputs, cache_device="auto")
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(io.BytesIO(), encoding="cp1252"))
    with pytest.raises(RuntimeError, match=r"ValueError: no file '\\u7535\\u5f71.safetensors'"):
        call("DiscaApplyPredictor", **inputs, cache_device="auto")


@pytest.mark.parametrize("node", ["DiscaLoadModel", "DiscaLoadPredictor"])
def test_a_file_that_is_not_offered_is_refused_by_name(node, call):
    name = "model_name" if node == "DiscaLoadModel" else "predictor_name"
    for value in ("\ud800.safetensors", "../../etc/passwd", 3):
        with refused("There is no file .* in models/") as error:
            call(node, **{name: value, "weight_dtype": "default"})
        str(error.value).encode("utf-8")


@pytest.mark.parametrize("node", ["DiscaLoadModel", "DiscaLoadPredictor", "DiscaToyModels"])
def test_weights_kept_as_powers_of_two_are_refused(node, call, golden_files, monkeypatch):
    import comfy.cli_args

    name = golden_files("hv10_t2v")[0]
    inputs = {
        "DiscaLoadModel": {"model_name": name, "weight_dtype": "default"},
        "DiscaLoadPredictor": {"predictor_name": name, "weight_dtype": "default"},
        "DiscaToyModels": {},
    }
    monkeypatch.setattr(comfy.cli_args.args, "fp8_e8m0fnu_unet", True)
    with refused("started with --fp8_e8m0fnu-unet, which keeps only powers of two"):
        call(node, **inputs[node])
    if node == "DiscaLoadModel":
        call(node, model_name=name, weight_dtype="fp8_e4m3fn")  # what is chosen at the node counts


def test_more_toy_videos_than_memory_holds_are_refused_before_it_is_asked_for(call):
    many = {"samples": torch.zeros(1, 16, 6, 8, 8).expand(4096, -1, -1, -1, -1)}
    with refused("4096 videos of 1024 x 1024 pixels are more than fit into memory"):
        call("DiscaToyDecode", samples=many, size=1024)


def test_guidance_without_a_negative_is_refused(both, sample):
    with refused("'cfg' is 3, but no negative conditioning is connected. Connect one, or set cfg to 1"):
        sample("hv10_t2v", both["hv10_t2v"][0], cfg=3.0)


def test_another_cache_on_the_same_model_is_refused(both, apply, sample, call):
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
