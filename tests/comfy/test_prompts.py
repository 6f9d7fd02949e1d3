"""Prompts through ComfyUI's executor: validation, the execution cache, errors at their node."""

import asyncio
import copy
import uuid

import graph
import pytest
import recipes
from conftest import PACK


@pytest.fixture(scope="module")
def execute(comfy_nodes):
    """Runs prompts on one executor, which keeps its cache between them; gives (outputs, error, nodes that ran)."""
    import execution

    class Client:
        client_id, last_node_id, last_prompt_id, sockets_metadata = "test", None, None, {}

        def send_sync(self, event, data, sid=None):
            pass

    cache = {"lru": 0, "ram": 0.0, "ram_inactive": 0.0}
    executor = execution.PromptExecutor(Client(), cache_type=execution.CacheType.CLASSIC, cache_args=cache)

    def run(prompt: dict):
        prompt_id = str(uuid.uuid4())
        valid, error, outputs, node_errors = asyncio.run(execution.validate_prompt(prompt_id, prompt, None))
        if not valid:
            return {}, {**error, "nodes": node_errors}, set()
        executor.execute(prompt, prompt_id, {}, outputs)
        told = dict(executor.status_messages)
        ran = prompt.keys() - told.get("execution_cached", {"nodes": []})["nodes"]
        return executor.history_result.get("outputs", {}), told.get("execution_error"), ran

    return run


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


def changed(prompt: dict, node: str, **inputs) -> dict:
    other = copy.deepcopy(prompt)
    other[node]["inputs"] |= {key.replace("__", "."): value for key, value in inputs.items()}
    return other


def text_of(outputs: dict) -> str:
    return outputs["report"]["text"][0]


def test_a_graph_of_all_nodes_samples_and_reports(execute, prompt):
    outputs, error, _ = execute(prompt)
    assert error is None
    assert graph.counts(text_of(outputs)) == "4 full + 4 predicted"


def test_only_what_changed_runs_again_and_counts_the_same(execute, prompt):
    execute(prompt)
    outputs, error, ran = execute(changed(prompt, "sample", seed=2))
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
    outputs, error, _ = execute(changed(prompt, "schedule", **plan))
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
    _, error, ran = execute(changed(prompt, node, **inputs))
    assert error["type"] == "prompt_outputs_failed_validation"
    assert node in error["nodes"]
    assert not ran


def test_an_error_stands_at_its_node_and_the_next_prompt_is_right(execute, prompt):
    _, error, _ = execute(changed(prompt, "sample", steps=5))
    assert error["node_id"] == "sample"
    assert "asks for step 6 in full, but the run has 5 steps" in error["exception_message"]
    outputs, error, _ = execute(prompt)
    assert error is None
    assert graph.counts(text_of(outputs)) == "4 full + 4 predicted"
