"""The pack on a real server: what a user's browser sends, gets back and sees on the way."""

import asyncio
import json
import re
import struct
import sys
import urllib.error
from pathlib import Path

import aiohttp
import numpy as np
import pytest

PACK = Path(__file__).resolve().parents[2]
sys.path.append(str(PACK / "scripts"))
import golden_prompt as golden  # noqa: E402
import recipes  # noqa: E402
from comfy_server import install, serve  # noqa: E402
from graph_parts import QUICKSTART  # noqa: E402
from graphs_toy import run_toy  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

NODE_IDS = {
    "DiscaLoadModel",
    "DiscaLoadPredictor",
    "DiscaCacheSchedule",
    "DiscaApplyPredictor",
    "DiscaApplyCache",
    "DiscaMeanFlowSigmas",
    "DiscaMeanFlowSampler",
    "DiscaSample",
    "DiscaAttention",
    "DiscaBuildDataset",
    "DiscaTrainPredictor",
    "DiscaTrainMeanFlow",
    "DiscaTrainCFG",
    "DiscaToyModels",
    "DiscaToyPrompt",
    "DiscaToyDecode",
    "DiscaLoadLora",
    "DiscaLoadDCM",
    "DiscaCalibrate",
    "DiscaFindSchedule",
    "DiscaCompareMethods",
    "DiscaCompareVideos",
    "DiscaTileVideos",
}
TEXT_EVENT = 3
ENDS = ("execution_success", "execution_error", "execution_interrupted")
PREVIEW_EVENTS = {1, 4}  # a picture, without and with metadata

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def prompt() -> dict:
    """The shipped workflow with the golden run's inputs."""
    return golden.golden_prompt(json.loads(golden.WORKFLOW.read_text()), recipes.golden(golden.CASE))


@pytest.fixture(scope="module")
def server(tmp_path_factory, prompt):
    base = tmp_path_factory.mktemp("comfyui")
    install(base)
    golden.put_files(base, prompt)
    (base / "elsewhere").mkdir()
    save_file(recipes.golden("hv15_i2v").predictor, base / "elsewhere" / "other_predictor.safetensors")
    (base / "paths.yaml").write_text(f"more:\n  base_path: {base}\n  disca: elsewhere\n")
    arguments = ("--extra-model-paths-config", str(base / "paths.yaml"), "--preview-method", "latent2rgb")
    with serve(base, *arguments) as running:
        yield running


def test_every_node_is_offered(server):
    offered = server.get("/object_info")
    assert NODE_IDS <= offered.keys()
    for node_id in NODE_IDS:
        part = "/toy" if "Toy" in node_id else "/training" if "Train" in node_id or "Dataset" in node_id else ""
        assert offered[node_id]["category"] == f"DisCa{part}"
    assert {key for key, node in offered.items() if node["python_module"].endswith("ComfyUI-DisCa")} == NODE_IDS


def test_predictors_are_listed_from_models_disca_and_from_extra_paths(server):
    schema = server.get("/object_info/DiscaLoadPredictor")["DiscaLoadPredictor"]
    _, settings = schema["input"]["required"]["predictor_name"]
    names = settings["options"]
    assert {"hyvideo10_t2v_predictor_540p.safetensors", "other_predictor.safetensors"} <= set(names)


def test_the_shipped_workflow_gives_the_authors_result(server, prompt):
    history = server.run(prompt)
    assert history["status"]["status_str"] == "success"
    assert float(history["outputs"]["compare"]["text"][0]) < 1e-5
    assert re.search(r"DisCa: \d+\.\dx: 4 full \+ 4 predicted;", server.log())


def test_a_second_prompt_is_answered_from_the_cache_of_the_first(server, prompt):
    runs = server.log().count("4 full + 4 predicted;")
    server.run(prompt)
    history = server.run(prompt)
    assert history["status"]["status_str"] == "success"
    assert server.log().count("4 full + 4 predicted;") <= runs + 1


def test_progress_previews_and_counts_are_shown_on_the_running_node(server, prompt):
    sampled = golden.id_of(prompt, "SamplerCustomAdvanced")
    texts, steps, previews, ended = asyncio.run(_watch(server, _reseeded(prompt)))
    assert ended == "execution_success"
    assert (sampled, "4 full + 4 predicted") in texts
    assert any(node == sampled and re.match(r"\d+\.\dx: 4 full \+ 4 predicted  \n", text) for node, text in texts)
    assert (sampled, 8, 8) in steps
    assert previews > 0


def test_a_cache_on_a_model_without_meanflow_says_on_cores_sampler_what_it_holds_and_what_was_cached(server):
    toy = json.loads((PACK / "tests" / "workflows" / f"{QUICKSTART}.json").read_text(encoding="utf-8"))
    for name in ("DiscaSample", "DiscaToyDecode", "SaveAnimatedWEBP", "PreviewAny", "DiscaApplyPredictor"):
        toy = {key: node for key, node in toy.items() if node["class_type"] != name}
    sampled = golden.id_of(toy, "KSampler")
    settings = {"method": "reuse", "method.preset": "custom", "method.preset.interval": 2, "method.preset.warmup": 1}
    cache = {"model": toy[sampled]["inputs"]["model"], "cache_device": "auto"} | settings
    toy["cache"] = {"class_type": "DiscaApplyCache", "inputs": cache}
    toy[sampled]["inputs"] |= {"model": ["cache", 0], "steps": 4}
    toy["seen"] = {"class_type": "SaveLatent", "inputs": {"samples": [sampled, 0], "filename_prefix": "toy"}}
    texts, _, _, ended = asyncio.run(_watch(server, toy))
    assert ended == "execution_success"
    said = [text for node, text in texts if node == sampled]
    assert said[0] == "'reuse' holds 0.00 GB in this run"
    assert re.match(r"\d+\.\dx: 2 full \+ 2 cached  \n", said[-1])


def test_a_run_after_an_interrupted_one_is_right(server, prompt):
    long = _reseeded(prompt)
    golden.only(long, "DiscaMeanFlowSigmas")["steps"] = 1000
    long[golden.id_of(long, "DiscaCacheSchedule")]["inputs"] = {
        "plan": "interval",
        "plan.interval": 2,
        "plan.warmup": 1,
        "plan.last_step": True,
    }
    _, steps, _, ended = asyncio.run(_watch(server, long, interrupt_at=20))
    assert ended == "execution_interrupted" and 20 <= len(steps) < 1000
    again = server.run(_reseeded(prompt))
    assert float(again["outputs"]["compare"]["text"][0]) < 1e-5


def test_the_toy_workflow_shows_what_each_of_three_models_drew(server):
    films = run_toy(server)
    assert {name: [frame.size for frame in film] for name, film in films.items()} == dict.fromkeys(
        ("original", "meanflow", "disca"), 6 * [(128, 256)]
    )
    original, meanflow, disca = (np.asarray(film[3], dtype=float) for film in films.values())
    assert min(part.std() for part in (original, meanflow, disca)) > 20  # there is something to see
    assert abs(disca - meanflow).mean() < abs(disca - original).mean()


def test_a_bad_schedule_is_told_to_the_user_at_its_node(server, prompt):
    bad = json.loads(json.dumps(prompt))
    node = golden.id_of(bad, "DiscaCacheSchedule")
    bad[node]["inputs"] = {"plan": "anchors", "plan.anchors": "one two"}
    with pytest.raises(urllib.error.HTTPError) as refused:
        server.run(bad)
    told = json.loads(refused.value.read())["node_errors"]
    (error,) = told[node]["errors"]
    assert "Cannot read 'one' in the anchor list 'one two'. Write step numbers and ranges" in error["details"]


def _reseeded(prompt: dict) -> dict:
    """The same prompt, but one that the executor's cache does not know."""
    fresh = json.loads(json.dumps(prompt))
    _reseeded.count += 1
    fresh["save"]["inputs"]["filename_prefix"] = f"disca{_reseeded.count}"
    fresh["golden"]["inputs"]["guidance"] += 1e-9 * _reseeded.count
    return fresh


_reseeded.count = 0


async def _watch(
    server, prompt: dict, interrupt_at: int = 0
) -> tuple[list[tuple[str, str]], list[tuple[str, int, int]], int, str]:
    """The texts, step counts, number of pictures and last event that a browser gets, which may interrupt at a step."""
    texts, steps, previews = [], [], 0
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{server.url}/ws?clientId=test") as socket:
        answer = await session.post(f"{server.url}/prompt", json={"prompt": prompt, "client_id": "test"})
        assert answer.status == 200, await answer.text()
        async for message in socket:
            if message.type == aiohttp.WSMsgType.BINARY:
                kind, length = struct.unpack(">II", message.data[:8])
                previews += kind in PREVIEW_EVENTS
                if kind == TEXT_EVENT:
                    texts.append((message.data[8 : 8 + length].decode(), message.data[8 + length :].decode()))
                continue
            event = json.loads(message.data)
            if event["type"] == "progress":
                steps.append((event["data"]["node"], event["data"]["value"], event["data"]["max"]))
                if len(steps) == interrupt_at:
                    await session.post(f"{server.url}/interrupt", json={})
            if event["type"] in ENDS:
                return texts, steps, previews, event["type"]
    return texts, steps, previews, "closed"
