"""DisCa Apply Cache as a user meets it: through prompts, on the toy models, with core's samplers and DisCa Sample."""

import logging
import re

import graph
import pytest
import torch

from disca.methods import METHODS

OBJECTS = {
    "back_shape": "square", "back_colour": "blue", "back_direction": "left", "back_speed": "slow",
    "front_shape": "circle", "front_colour": "red", "front_direction": "right", "front_speed": "medium",
}  # fmt: skip
STEPS = 6
SAMPLE = {"positive": ["words", 0], "latent_image": ["latent", 0], "seed": 1, "steps": STEPS, "denoise": 1.0}
REUSE = {"method": "reuse", "preset": {"preset": "custom", "interval": 2, "warmup": 1}}  # as the node is given it
ONCE_IN_TWO = {"method": "reuse", "method.preset": "custom", "method.preset.interval": 2, "method.preset.warmup": 1}


@pytest.fixture(scope="module")
def prompt():
    """A cache on the toy's MeanFlow model by DisCa Sample, and one on its original model by core's KSampler."""
    nodes = {
        "models": ("DiscaToyModels", {}),
        "words": ("DiscaToyPrompt", OBJECTS),
        "latent": ("EmptyHunyuanLatentVideo", {"width": 64, "height": 64, "length": 21, "batch_size": 1}),
        "apply": ("DiscaApplyCache", {"model": ["models", 1], "cache_device": "auto"} | ONCE_IN_TWO),
        "sample": ("DiscaSample", {"model": ["apply", 0], "shift": 1.0} | SAMPLE),
        "report": ("PreviewAny", {"source": ["sample", 1]}),
    }
    return described(nodes)


@pytest.fixture(scope="module")
def core_prompt(prompt):
    """The same cache on the toy's original model, which is no MeanFlow model, by core's KSampler."""
    sampler = {"sampler_name": "euler", "scheduler": "simple", "cfg": 3.0, "negative": ["nothing", 0]}
    nodes = {
        "nothing": ("ConditioningZeroOut", {"conditioning": ["words", 0]}),
        "sample": ("KSampler", {"model": ["apply", 0]} | SAMPLE | sampler),
        "report": ("DiscaToyDecode", {"samples": ["sample", 0], "size": 32}),
        "seen": ("PreviewImage", {"images": ["report", 0]}),
    }
    return graph.changed(prompt, "apply", model=["models", 0]) | described(nodes)


def described(nodes: dict) -> dict:
    """Nodes in API form."""
    return {
        key: {"class_type": kind, "inputs": inputs, "_meta": {"title": key}} for key, (kind, inputs) in nodes.items()
    }


def text_of(outputs: dict) -> str:
    return outputs["report"]["text"][0]


def chosen(method: str, preset: str = "custom", **settings) -> dict:
    """The node's inputs for that choice."""
    given = {f"method.preset.{name}": value for name, value in settings.items()}
    return {"method": method, "method.preset": preset} | given


def with_choice(prompt: dict, choice: dict) -> dict:
    """The prompt with another method on the node."""
    other = graph.changed(prompt, "apply")
    kept = {name: value for name, value in other["apply"]["inputs"].items() if not name.startswith("method")}
    other["apply"]["inputs"] = kept | choice
    return other


def said(error: dict, node: str) -> str:
    """What a queue or a run says of that node, once."""
    if "nodes" in error:
        (one,) = error["nodes"][node]["errors"]
        return one["details"]
    assert error["node_id"] == node
    return error["exception_message"]


def test_what_a_cache_answers_is_reported_as_cached(execute, prompt):
    outputs, error, _ = execute(prompt)
    assert error is None
    assert graph.counts(text_of(outputs)) == "3 full + 3 cached"
    assert "predicted" not in text_of(outputs)


def test_every_method_and_preset_that_is_offered_runs(execute, prompt, comfy_nodes):
    node = comfy_nodes.NODE_CLASS_MAPPINGS["DiscaApplyCache"]
    method = next(one for one in node.define_schema().inputs if one.id == "method")
    for option in method.options:
        (preset,) = option.inputs
        assert [one.key for one in preset.options] == [*METHODS[option.key].presets, "custom"]
        custom = {one.id: one.default for one in preset.options[-1].inputs}
        for one in preset.options:
            choice = chosen(option.key, one.key, **(custom if one.key == "custom" else {}))
            outputs, error, _ = execute(with_choice(prompt, choice))
            assert error is None, (option.key, one.key, error)
            assert "predicted" not in text_of(outputs)


def test_a_method_with_a_network_of_its_own_is_not_offered(comfy_nodes):
    node = comfy_nodes.NODE_CLASS_MAPPINGS["DiscaApplyCache"]
    method = next(one for one in node.define_schema().inputs if one.id == "method")
    assert {*METHODS} - {option.key for option in method.options} == {"LESA"}


def test_a_model_without_meanflow_is_sampled_by_core_and_reported_in_the_log(execute, core_prompt, caplog):
    with caplog.at_level(logging.INFO):
        _, error, _ = execute(core_prompt)
    assert error is None
    assert re.search(r"DisCa: 'reuse' holds 0\.00 GB in this run", caplog.text)
    assert re.search(r"DisCa: \S+x: 3 full \+ 3 cached; ", caplog.text)


def test_disca_sample_says_where_a_model_without_meanflow_is_sampled(execute, prompt):
    _, error, _ = execute(graph.changed(prompt, "apply", model=["models", 0]))
    assert "DisCa Apply Cache and core's KSampler take any HunyuanVideo" in said(error, "sample")


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        (chosen("reuse", interval=0, warmup=1), "'interval' is 0, but must be at least 1."),
        (chosen("TeaCache", threshold=float("nan"), calibration="none"), "'threshold' is nan, but must be a finite"),
        (chosen("TeaCache", threshold=-1.0, calibration="none"), "'threshold' is -1.0, but must be at least 0"),
        (chosen("TaylorSeer", order=3, interval=2, warmup=1), "'order' is 3, but must be at most 2."),
        (chosen("PAB", interval=2, warmup=1, low=800.0, high=200.0), "Set 'low' below 'high'."),
        (chosen("SpeCa", "of a newer version"), "It is one of 'released', 'paper', 'custom'. Choose one of them."),
        (chosen("of a newer version", "custom"), "'method' is missing, or is none that this version of DisCa knows."),
        (chosen("LESA", interval=2, warmup=1), "'method' is missing, or is none that this version of DisCa knows."),
        (chosen("reuse", "custom"), "Required input is missing"),
        ({"method": "FORA"}, "'preset' is missing, or is none that this version of DisCa knows."),
        ({}, "'method' is missing, or is none that this version of DisCa knows."),
    ],
)
def test_a_choice_that_cannot_be_right_is_said_when_it_is_queued(execute, prompt, choice, told):
    _, error, ran = execute(with_choice(prompt, choice))
    assert not ran
    errors = error["nodes"]["apply"]["errors"]
    assert any(told in f"{one['message']} {one['details']}" for one in errors), errors


def scheduled(prompt: dict, anchors: str) -> dict:
    """The prompt with a list of anchors on the node."""
    node = described({"schedule": ("DiscaCacheSchedule", {"plan": "anchors", "plan.anchors": anchors})})
    return graph.changed(prompt, "apply", schedule=["schedule", 0]) | node


@pytest.mark.parametrize("choice", [ONCE_IN_TWO, chosen("AdaCache", "fast"), chosen("DuCa", "TaylorSeer repo")])
def test_a_schedule_takes_the_place_of_the_methods_own_steps(execute, prompt, choice):
    outputs, error, _ = execute(scheduled(with_choice(prompt, choice), "0 1"))
    assert error is None
    assert graph.counts(text_of(outputs)) == "2 full + 4 cached"


def test_a_schedule_for_more_steps_than_the_run_has_is_refused(execute, prompt):
    _, error, _ = execute(scheduled(prompt, "0 1 8"))
    assert f"asks for step 8 in full, but the run has {STEPS} steps" in said(error, "sample")


def test_of_two_caches_the_second_counts(execute, prompt):
    first = described({"first": ("DiscaApplyCache", {"model": ["models", 1], "cache_device": "cpu"} | ONCE_IN_TWO)})
    second = with_choice(prompt, chosen("FORA", interval=3, warmup=1))
    alone, _, _ = execute(second)
    both, error, _ = execute(graph.changed(second, "apply", model=["first", 0]) | first)
    assert error is None
    assert graph.counts(text_of(both)) == graph.counts(text_of(alone)) == "2 full + 4 cached"


@pytest.mark.parametrize("cache_last", [True, False])
def test_of_a_cache_and_a_predictor_the_last_one_counts(call, cache_last):
    _, model, predictor = call("DiscaToyModels")
    (schedule,) = call("DiscaCacheSchedule", plan={"plan": "anchors", "anchors": "0 1"})

    def predicted(model):
        return call("DiscaApplyPredictor", model=model, predictor=predictor, schedule=schedule, cache_device="auto")[0]

    def cached(model):
        return call("DiscaApplyCache", model=model, method=REUSE, cache_device="auto")[0]

    model = cached(predicted(model)) if cache_last else predicted(cached(model))
    latent = {"samples": torch.zeros(1, 16, 6, 8, 8)}
    positive, rest = call("DiscaToyPrompt", **OBJECTS)[0], {"seed": 1, "steps": STEPS, "shift": 1.0, "denoise": 1.0}
    _, report = call("DiscaSample", model=model, positive=positive, latent_image=latent, **rest)
    assert graph.counts(report) == ("3 full + 3 cached" if cache_last else "2 full + 4 predicted")


def test_a_cache_of_another_node_beside_it_is_refused(execute, prompt):
    settings = {"reuse_threshold": 0.2, "start_percent": 0.15, "end_percent": 0.95, "verbose": False}
    easy = described({"easy": ("EasyCache", {"model": ["apply", 0]} | settings)})
    _, error, _ = execute(graph.changed(prompt, "sample", model=["easy", 0]) | easy)
    assert "EasyCache or LazyCache is on this MODEL too, and both decide which steps to skip" in said(error, "sample")
    assert "Remove EasyCache or LazyCache, or DisCa Apply Predictor or Apply Cache." in said(error, "sample")


def test_a_model_that_is_no_video_model_of_ours_is_refused(call):
    with pytest.raises(ValueError, match="This MODEL is a Flux, but DisCa works on HunyuanVideo 1.0, HunyuanVideo 1.5"):
        call("DiscaApplyCache", model=graph.tiny_image_model(), method=REUSE, cache_device="auto")
