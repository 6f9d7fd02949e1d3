"""Prompts through ComfyUI's executor: validation, the execution cache, errors at their node."""

import asyncio

import graph
import pytest
import recipes
from conftest import PACK


@pytest.fixture(scope="module")
def prompt(golden_files, comfy_nodes):
    """Loaders, schedule, Apply and Sample, with a golden run's conditions."""
    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(comfy_nodes.load_custom_node(str(PACK / "tests" / "golden_nodes.py")))
    model_name, predictor_name = golden_files("hv10_t2v")
    inputs = {
        "model": ("DiscaLoadModel", {"model_name": model_name, "weight_dtype": "default"}),
        "predictor": ("DiscaLoadPredictor", {"predictor_name": predictor_name, "weight_dtype": "default"}),
        "schedule": ("DiscaCacheSchedule", {"plan": "anchors", "plan.anchors": "0 1 4 6"}),
        "apply": (
            "DiscaApplyPredictor",
            {"model": ["model", 0], "predictor": ["predictor", 0], "schedule": ["schedule", 0], "cache_device": "auto"},
        ),
        "golden": ("GoldenInputs", {"file": str(recipes.GOLDEN / "hv10_t2v.safetensors"), "guidance": 6.0}),
        "latent": ("EmptyHunyuanLatentVideo", {"width": 96, "height": 64, "length": 9, "batch_size": 1}),
        "sample": (
            "DiscaSample",
            {
                "model": ["apply", 0],
                "positive": ["golden", 0],
                "latent_image": ["latent", 0],
                "seed": 1,
                "steps": 8,
                "shift": 5.0,
                "denoise": 1.0,
            },
        ),
        "report": ("PreviewAny", {"source": ["sample", 1]}),
    }
    return {
        key: {"class_type": class_type, "inputs": values, "_meta": {"title": key}}
        for key, (class_type, values) in inputs.items()
    }


def text_of(outputs: dict) -> str:
    return outputs["report"]["text"][0]


def test_a_graph_of_all_nodes_samples_and_reports(execute, prompt):
    outputs, error, _ = execute(prompt)
    assert error is None
    assert graph.counts(text_of(outputs)) == "4 full + 4 predicted"


def test_only_what_changed_runs_again_and_counts_the_same(execute, prompt):
    execute(prompt)
    outputs, error, ran = execute(graph.changed(prompt, "sample", seed=2))
    assert error is None
    assert ran == {"sample", "report"}
    assert graph.counts(text_of(outputs)) == "4 full + 4 predicted"


@pytest.mark.parametrize(
    ("plan", "counts"),
    [
        ({"plan": "interval", "plan__interval": 1, "plan__warmup": 1, "plan__last_step": True}, "8 full"),
        (
            {"plan": "interval", "plan__interval": 4, "plan__warmup": 1, "plan__last_step": False},
            "2 full + 6 predicted",
        ),
        ({"plan": "preset", "plan__preset": "HunyuanVideo 1.5, 8 steps"}, "4 full + 4 predicted"),
    ],
)
def test_every_plan_is_taken(execute, prompt, plan, counts):
    outputs, error, _ = execute(graph.changed(prompt, "schedule", **plan))
    assert error is None
    assert graph.counts(text_of(outputs)) == counts


@pytest.mark.parametrize(
    ("node", "inputs"),
    [
        ("sample", {"steps": 0}),
        ("sample", {"denoise": 1.5}),
        ("apply", {"cache_device": "disk"}),
        ("model", {"model_name": "no_such_file.safetensors"}),
        ("schedule", {"plan": "preset", "plan__preset": "no such preset"}),
    ],
)
def test_a_value_out_of_range_is_refused_before_anything_runs(execute, prompt, node, inputs):
    _, error, ran = execute(graph.changed(prompt, node, **inputs))
    assert error["type"] == "prompt_outputs_failed_validation"
    assert node in error["nodes"]
    assert not ran


NAN = float("nan")


@pytest.mark.parametrize(
    ("node", "inputs", "told"),
    [
        ("sample", {"shift": NAN}, "'shift' is nan, but must be a finite number"),
        ("sample", {"denoise": NAN}, "'denoise' is nan, but must be a finite number"),
        ("sample", {"denoise": 1e-12}, "'denoise' is 1e-12, but must be from 0.0001"),
        ("sample", {"cfg": float("inf")}, "'cfg' is inf, but must be a finite number"),
        ("sample", {"cfg": 3.0}, "'cfg' is 3, but no negative conditioning is connected. Connect one, or set cfg to 1"),
        ("sample", {"positive": "a cat"}, "'positive' is 'a cat'. Connect conditioning"),
        ("apply", {"schedule": 0.5}, "'schedule' is 0.5. Connect a schedule, from DisCa Cache Schedule"),
        ("apply", {"predictor": "\ud800"}, r"'predictor' is '\ud800'. Connect a Predictor"),
        ("schedule", {"plan__anchors": ""}, "The anchor list is empty."),
        ("schedule", {"plan__anchors": "0 3 2"}, "is not ascending: 2 comes after 3"),
        ("schedule", {"plan__anchors": "0-99999 " * 1000}, "is not ascending: 0 comes after 99999"),
        ("schedule", {"plan__anchors": "0 \ud800"}, "with characters in it that no file can hold"),
        ("schedule", {"plan": "of a newer version"}, "It is one of 'preset', 'interval', 'anchors', 'file'."),
        ("schedule", {"plan": {"plan": "preset"}}, "It is one of 'preset', 'interval', 'anchors', 'file'."),
        ("schedule", {"plan": None}, "It is one of 'preset', 'interval', 'anchors', 'file'."),
        ("model", {"model_name": "\ud800"}, r"There is no file '\ud800' in models/diffusion_models"),
    ],
)
def test_what_a_node_can_know_is_said_once_at_the_node_when_it_is_queued(execute, prompt, node, inputs, told):
    _, error, ran = execute(graph.changed(prompt, node, **inputs))
    (said,) = error["nodes"][node]["errors"]
    assert told in said["details"] and not ran
    said["details"].encode("utf-8")


def test_cfg_above_1_runs_with_a_negative_whatever_comes_by_a_link(execute, prompt):
    assert execute(graph.changed(prompt, "sample", cfg=3.0, negative=["golden", 0]))[1] is None


def test_a_plan_that_is_left_out_is_said_when_it_is_queued(execute, prompt):
    other = graph.changed(prompt, "schedule")
    del other["schedule"]["inputs"]["plan"]
    _, error, ran = execute(other)
    assert "It is one of 'preset', 'interval', 'anchors', 'file'." in error["nodes"]["schedule"]["errors"][0]["details"]
    assert not ran


def test_a_value_that_comes_by_a_link_is_looked_at_when_it_is_there(execute, prompt):
    other = graph.changed(prompt, "sample", shift=["number", 0]) | {
        "number": {"class_type": "PrimitiveFloat", "inputs": {"value": NAN}, "_meta": {"title": "number"}},
    }
    _, error, _ = execute(other)
    assert error["node_id"] == "sample" and "'shift' is nan, but must be a finite number" in error["exception_message"]


def test_anchors_that_come_by_a_link_are_looked_at_when_they_are_there(execute, prompt):
    other = graph.changed(prompt, "schedule", plan__anchors=["text", 0]) | {
        "text": {"class_type": "PrimitiveString", "inputs": {"value": "0 3 2"}, "_meta": {"title": "text"}},
    }
    _, error, _ = execute(other)
    assert error["node_id"] == "schedule" and "is not ascending" in error["exception_message"]
    other["text"]["inputs"]["value"] = "0 1 4 6"
    assert execute(other)[1] is None


def test_an_error_stands_at_its_node_and_the_next_prompt_is_right(execute, prompt):
    _, error, _ = execute(graph.changed(prompt, "sample", steps=5))
    assert error["node_id"] == "sample"
    assert "asks for step 6 in full, but the run has 5 steps" in error["exception_message"]
    outputs, error, _ = execute(prompt)
    assert error is None
    assert graph.counts(text_of(outputs)) == "4 full + 4 predicted"


def test_what_is_calibrated_in_a_graph_can_be_chosen_in_the_next(execute, prompt, tmp_path, monkeypatch):
    import folder_paths

    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    given = {key: prompt["sample"]["inputs"][key] for key in ("positive", "latent_image", "seed", "steps", "shift")}
    measured = {"model": ["model", 0], "method": "MagCache", "name": "here", "prompts.prompt0": ["golden", 0]}
    calibrating = {key: prompt[key] for key in ("model", "golden", "latent")} | {
        "calibrate": {"class_type": "DiscaCalibrate", "inputs": given | measured},
        "report": {"class_type": "PreviewAny", "inputs": {"source": ["calibrate", 0]}},
    }
    outputs, error, _ = execute(calibrating)
    assert error is None
    assert text_of(outputs).startswith("MagCache's ratios of 2 videos and conditions, 96x64, 9 frames, in 8 steps")
    chosen = {"calibration": "here.json", "threshold": 0.5, "most": 4, "retention": 0.2}
    chosen = {f"method.preset.{key}": value for key, value in chosen.items()}
    inputs = {"model": ["model", 0], "method": "MagCache", "method.preset": "custom", "cache_device": "auto"} | chosen
    outputs, error, _ = execute(prompt | {"apply": {"class_type": "DiscaApplyCache", "inputs": inputs}})
    assert error is None
    assert graph.counts(text_of(outputs)) != "8 full"


@pytest.mark.parametrize("name", ["there.json", "../here.json"])
def test_a_calibration_that_is_not_there_is_refused_before_the_run(name, execute, prompt):
    chosen = {"method.preset.calibration": name, "method.preset.threshold": 0.5}
    inputs = {"model": ["model", 0], "method": "TeaCache", "method.preset": "custom", "cache_device": "auto"} | chosen
    _, error, ran = execute(prompt | {"apply": {"class_type": "DiscaApplyCache", "inputs": inputs}})
    assert not ran and f"'calibration' is '{name}', but must be one of 'HunyuanVideo 1.0', 'none'" in str(error)
