"""A ComfyUI in which names of its inside are others: the pack loads, runs are native, and one sentence says why.

All names of a room at once, and a few of them alone; `--full` has each of them alone.
"""

import ast
import json
import os
import random
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import recipes
from comfyui_version import __version__
from conftest import PACK
from safetensors.torch import save_file
from torch import ones

from disca.host.comfy_names import CAME_WITH, NEEDS

ALONE = 4  # in the short form
ROOMS = {  # what a node does when a name of the room is missing
    "model": {
        "apply": "native",
        "load": "refused",
        "lora": "refused",
        "dcm": "refused",
        "sample": "refused",
        "sampler": "refused",
        "calibrate": "refused",
        "find": "refused",
        "compare": "refused",
        "attention": "left",
        "train": "refused",
        "build": "refused",
        "toy": "refused",
    },
    "loading": {"apply": "native", "load": "refused", "dcm": "refused", "train": "refused", "toy": "refused"},
    "lora": {"lora": "refused", "dcm": "refused", "train": "refused"},
    "dcm": {"dcm": "refused"},
    "attach": {"apply": "native", "calibrate": "refused", "find": "refused", "compare": "refused"},
    "sampling": dict.fromkeys(("sample", "sampler", "calibrate", "find", "compare"), "refused"),
    "calibration": {"calibrate": "refused"},
    "finding": {"find": "refused"},
    "comparing": {"compare": "refused"},
    "speed": {"attention": "left"},
    "training": {"train": "refused"},
    "datasets": {"build": "refused"},
    "toy": {"toy": "refused"},
}
WORKS = {"apply": "predicted"} | dict.fromkeys(
    ("load", "lora", "dcm", "sample", "sampler", "calibrate", "find", "compare", "attention", "train", "build", "toy"),
    "works",
)

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="every renamed ComfyUI is a forked process")


def words_of(room: str) -> list[str]:
    """What a room needs of this ComfyUI, as words to rename."""
    needed = [*NEEDS[room].values()]
    paths = [path for attributes, words in needed for path in (*attributes.split(), *words.split())]
    words = dict.fromkeys(path.rpartition(".")[2] for path in paths)
    return [word for word in words if word not in CAME_WITH or find_spec(CAME_WITH[word])]


MODULES = list(dict.fromkeys(f"module:{module}" for needs in NEEDS.values() for module in needs))
BEFORE = {word: f"module:{module} {word}" for word, module in CAME_WITH.items()}  # a ComfyUI from before it came
EACH = list(dict.fromkeys([*MODULES, *(word for room in NEEDS for word in words_of(room))]))


def pytest_generate_tests(metafunc):
    if "item" in metafunc.fixturenames:
        full = metafunc.config.getoption("--full")
        metafunc.parametrize("item", EACH if full else random.Random(8).sample(EACH, ALONE))


@pytest.fixture(scope="module")
def answers(pytestconfig, tmp_path_factory) -> dict[str, dict]:
    """What the pack does with each room's words renamed, and with single ones."""
    folder, run = tmp_path_factory.mktemp("renamed"), recipes.golden("hv10_t2v")
    paths = [folder / "model" / "tiny.safetensors", folder / "predictor" / "tiny.safetensors"]
    for path, weights in zip(paths, (run.model, run.predictor), strict=True):
        path.parent.mkdir()
        save_file(weights, path)
    layer = "double_blocks.0.img_attn_q"
    save_file(
        {f"{layer}.lora_A.weight": ones(2, 256), f"{layer}.lora_B.weight": ones(256, 2)},
        paths[1].with_name("lora.safetensors"),
    )
    save_file(recipes.golden("hv10_dcm").model, paths[0].with_name("experts.safetensors"))
    alone = EACH if pytestconfig.getoption("--full") else random.Random(8).sample(EACH, ALONE)
    command = [sys.executable, str(Path(__file__).with_name("renamed.py")), *map(str, paths)]
    command += [" ".join(words_of(room)) for room in NEEDS] + ["nothing_of_it", *BEFORE.values(), *alone]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(map(json.loads, (line for line in done.stdout.splitlines() if line.startswith("["))))


def check(answer: dict, names: list[str]) -> None:
    """That every node did what the missing names leave it, and said so in one sentence."""
    assert "crash" not in answer, answer["crash"]
    lacking = [room for room, needs in NEEDS.items() if any(_within(needs, name) for name in names)]
    expected = WORKS | {node: end for room in reversed(lacking) for node, end in ROOMS[room].items()}
    for node, end in expected.items():
        told = answer[node]
        if end in ("predicted", "works"):
            assert told == end, f"{node}: {told}"
            continue
        assert told.startswith({"left": "works"}.get(end, end)), f"{node}: {told}"
        assert told.count(f"This ComfyUI ({__version__}) has no ") == 1 and told.endswith("in its README."), (
            f"{node}: {told}"
        )


def _within(needs: dict, name: str) -> bool:
    if name.startswith("module:"):
        return name.removeprefix("module:") in needs
    words = [word for attributes, words in needs.values() for word in f"{attributes} {words}".split()]
    return name in {part for word in words for part in word.split(".")}


@pytest.mark.parametrize("room", NEEDS)
def test_a_room_whose_names_are_all_renamed_leaves_native_runs(room, answers):
    check(answers[" ".join(words_of(room))], words_of(room))


@pytest.mark.parametrize("room", NEEDS)
def test_every_renamed_name_is_missed(room, answers):
    told = "".join(name for names in answers[" ".join(words_of(room))]["missing"].values() for name in names)
    assert [word for word in words_of(room) if word not in told] == []


def test_an_unchanged_comfyui_has_every_name(answers):
    check(answers["nothing_of_it"], [])
    assert not any(answers["nothing_of_it"]["missing"].values())


@pytest.mark.parametrize("word", CAME_WITH)
def test_a_word_that_came_with_a_module_is_not_missed_where_neither_is(word, answers):
    check(answers[BEFORE[word]], [])
    assert not any(answers[BEFORE[word]]["missing"].values())


def test_a_name_renamed_alone_leaves_a_native_run(item, answers):
    check(answers[item], [item])
    word = item.removeprefix("module:")
    assert any(word in name for names in answers[item]["missing"].values() for name in names)


def test_every_name_that_the_host_rooms_use_is_listed():
    modules = {module for needs in NEEDS.values() for module in needs}
    listed = {f"{module}.{path}" for needs in NEEDS.values() for module in needs for path in needs[module][0].split()}
    optional = {"comfy.model_prefetch.pause_malloc_graph"}
    for path in [path for room in ("host", "models", "server") for path in (PACK / "disca" / room).rglob("*.py")]:
        assert _used(ast.parse(path.read_text()), modules) - optional <= modules | listed, path.name


def _used(tree: ast.Module, modules: set[str]) -> set[str]:
    """ComfyUI's modules that the code imports, and what it takes from them."""
    used = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level:
            used |= {f"{node.module}.{name.name}" for name in node.names}
        elif isinstance(node, ast.Import):
            used |= {name.name for name in node.names}
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in modules and node.attr != "__file__":
            used.add(ast.unparse(node))
    return {name for name in used if name.startswith(("comfy.", "comfy_", "latent_preview"))}
