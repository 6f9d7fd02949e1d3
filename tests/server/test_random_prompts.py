"""Random prompts on a real server end in a result or in one sentence, and a reference run stays right to the bit.

A short form by default; `--full` sends 1,000 prompts. What fails is printed with its number; the seed is fixed.
"""

import json
import random
import re
import sys
import time
import urllib.error
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PACK = Path(__file__).resolve().parents[2]
sys.path += [str(PACK / "scripts"), str(Path(__file__).parent)]
import recipes  # noqa: E402
from comfy_server import Server, install, serve  # noqa: E402
from PIL import Image  # noqa: E402
from random_prompts import Drawing  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from test_soak import Job, outcome_of, prompt_of  # noqa: E402

PROMPTS = {"short": 60, "full": 1000}
REFERENCE_EVERY = 50
PATIENCE = 10.0  # seconds until a prompt that still runs is interrupted
DEADLINE = 600.0  # seconds until it counts as hung
REFERENCE = Job(
    case="hv10_t2v", frames=3, height=8, width=12, batch=1, steps=4, cfg=1.0, shift=5.0, denoise=1.0, seed=1,
    plan=json.dumps({"plan": "anchors", "plan.anchors": "0 2"}), cache_device="auto", core=False,
)  # fmt: skip
ERROR_KINDS = ("ValueError", "RuntimeError")  # and what derives from them under a name of ours

pytestmark = pytest.mark.server


@dataclass
class Seen:
    """How the prompts ended."""

    ends: dict[str, int] = field(default_factory=dict)
    raw: list[str] = field(default_factory=list)
    hung: list[str] = field(default_factory=list)
    kinds: set[str] = field(default_factory=set)
    references: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    base = tmp_path_factory.mktemp("random")
    install(base)
    for case in recipes.CASES:
        run = recipes.golden(case)
        save_file(run.model, base / "models" / "diffusion_models" / f"{case}.safetensors")
        save_file(run.predictor, base / "models" / "disca" / f"{case}.safetensors")
    _training_files(base)
    _lora(base)
    for name in ("soak_nodes.py", "random_nodes.py"):
        (base / "custom_nodes" / name).symlink_to(PACK / "tests" / "server" / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        with serve(base) as running:
            yield running


def _training_files(base: Path) -> None:
    """A toy network that can be trained, and a folder of captioned pictures."""
    import torch

    from disca.toy.network import new_network
    from disca.training.network.roles import add_embedder

    network = new_network("tiny", seed=0)
    add_embedder(network, "time_r_in")
    with torch.no_grad():
        for weight in network.parameters():
            torch.nn.init.normal_(weight, std=0.05)
    save_file(network.state_dict(), base / "models" / "diffusion_models" / "toy.safetensors")
    clips = base / "input" / "clips"
    clips.mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (32, 32), "red").save(clips / f"{name}.png")
        (clips / f"{name}.txt").write_text("a red picture")


def _lora(base: Path) -> None:
    import torch

    (folder := base / "models" / "loras").mkdir(exist_ok=True)
    rows, columns = recipes.golden("hv10_t2v").model["double_blocks.0.img_mlp.fc1.weight"].shape
    layer = {"lora_A": torch.ones(2, columns), "lora_B": torch.full((rows, 2), 0.01)}
    layer = {f"double_blocks.0.img_mlp.fc1.{part}.weight": tensor for part, tensor in layer.items()}
    save_file(layer, folder / "lora.safetensors")


@pytest.fixture(scope="module")
def seen(server, pytestconfig) -> Seen:
    """All prompts, once."""
    form = "full" if pytestconfig.getoption("--full") else "short"
    offered, chance, seen = server.get("/object_info"), random.Random(0), Seen()
    for number in range(PROMPTS[form]):
        if number % REFERENCE_EVERY == 0:
            seen.references.append(reference(server, number))
        prompt = Drawing(offered, chance).draw()
        seen.kinds |= {node["class_type"] for node in prompt.values()}
        end = send(server, prompt, seen, number)
        seen.ends[end] = seen.ends.get(end, 0) + 1
        if end == "hung":
            break
    else:
        seen.references.append(reference(server, PROMPTS[form]))
    return seen


def reference(server: Server, number: int) -> str:
    """The digest of a prompt that is right."""
    return outcome_of(server.run(prompt_of(REFERENCE, nonce=number), DEADLINE))


def send(server: Server, prompt: dict, seen: Seen, number: int) -> str:
    """Sends one prompt, interrupts it if it takes long, and says how it ended."""
    shown = f"prompt {number}: {json.dumps(prompt)[:1500]}"
    try:
        prompt_id = server.post("/prompt", {"prompt": prompt})["prompt_id"]
    except urllib.error.HTTPError as error:
        answer = error.read().decode(errors="replace")
        seen.raw += [f"{problem}\n{answer[:600]}\n{shown}" for problem in problems_of(error.code, answer)]
        return "refused"
    history = ended(server, prompt_id)
    server.post("/history", {"clear": True})
    if history is None:
        seen.hung.append(shown)
        return "hung"
    for kind, told in history["status"]["messages"]:
        if kind == "execution_interrupted":
            return "interrupted"
        if kind == "execution_error":
            told["exception_message"].encode("utf-8")  # the log cannot hold it else
            if not is_ours(told):
                return "core's error"
            if problem := problem_of(told["exception_type"], told["exception_message"]):
                seen.raw.append(f"{told['node_type']}: {problem}\n{''.join(told['traceback'])[-1500:]}\n{shown}")
            return "sentence"
    return "result"


def ended(server: Server, prompt_id: str) -> dict | None:
    """The history of the prompt, None if not even interrupts end it."""
    patience, deadline = PATIENCE, time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        try:
            return server.wait(prompt_id, patience)
        except TimeoutError:
            server.post("/interrupt", {})
            patience = 5.0
    return None


def problems_of(code: int, answer: str) -> list[str]:
    """What is wrong with a refusal: no 400, or an exception out of our code that says no sentence."""
    if code != 400:
        return [f"status {code}"]
    found = []
    for node in json.loads(answer)["node_errors"].values():
        for error in node["errors"]:
            if "ComfyUI-DisCa" in "".join(error["extra_info"].get("traceback", [])[-1:]):
                found.append(problem_of(error["extra_info"]["exception_type"], error["details"]))
    return [problem for problem in found if problem]


def is_ours(told: dict) -> bool:
    """Whether it was raised at a node of ours, or in our code."""
    return told["node_type"].startswith("Disca") or "ComfyUI-DisCa" in "".join(told["traceback"][-1:])


def problem_of(kind: str, message: str) -> str | None:
    """What is wrong with an error of ours; None if it is one sentence or more."""
    message = message.strip()
    if kind.rsplit(".", 1)[-1] not in ERROR_KINDS and "disca" not in kind:
        return f"a raw error: {kind}: {message[:300]!r}"
    if not re.match(r"[A-Z'\"]", message) or not message.endswith(".") or "\n" in message or len(message) > 1500:
        return f"not one sentence: {message[:300]!r}"
    return None


def test_every_prompt_ends_in_a_result_or_one_sentence(seen, capsys):
    with capsys.disabled():
        print(f"\nrandom prompts: {seen.ends}, {len(seen.raw)} raw, {len(seen.hung)} hung")
    assert seen.raw == [], "\n\n".join(seen.raw)
    assert seen.hung == []


def test_the_reference_is_right_to_the_bit_after_all_of_them(seen):
    assert len(seen.references) > 1
    assert set(seen.references) == {seen.references[0]} and len(seen.references[0]) == 64


def test_every_kind_of_end_and_node_occurs(seen, server):
    assert {"result", "sentence", "refused"} <= seen.ends.keys()
    missing = {key for key in server.get("/object_info") if key.startswith("Disca")} - seen.kinds
    assert len(missing) <= 2, missing
