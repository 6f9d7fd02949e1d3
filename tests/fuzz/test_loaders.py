"""Spoiled weight files, seeded: the loaders give the module that the file describes, or say what is wrong.

A short form by default; `--full` runs 2,000 cases and prints the figures of benchmarks/RESULTS.md. `CASE=number` in the
environment runs one case.
"""

import json
import os
import random
import signal
import time
from collections import Counter
from contextlib import contextmanager
from math import prod
from pathlib import Path

import mutations
import pytest
import recipes
import torch
from safetensors.torch import load_file

from disca.models.loading import load_meanflow_model, load_predictor
from disca.weights import layouts
from disca.weights.predictor_layout import LAYOUTS
from disca.weights.predictor_spec import PredictorSpec, published_shapes

pytestmark = pytest.mark.usefixtures("one_thread")

CASES = {"short": 200, "full": 2000}
LARGE_CASES = {"short": 4, "full": 40}
LARGE = dict(hidden_size=1536, num_heads=12, depth=1)
SECONDS = 20  # of the processor that one file may take
FACTOR = 1.2  # of the file's or the module's size that loading may take in memory
MAPPED = 64 * 2**20  # read before the file's pages are given back, and what the process takes for other things
ONE_IN = 5  # cases have a change that should not matter
PARTS = ("q", "k", "v", "mlp")
COMPANIONS = (".weight_scale", ".input_scale", ".comfy_quant")


class Hang(BaseException):
    """A case took too long; no `except Exception` catches it."""


@contextmanager
def time_limit(seconds: int):
    """Hang if the body takes longer, by the processor's time: the machine may be busy."""

    def give_up(*_):
        raise Hang

    before = signal.signal(signal.SIGPROF, give_up)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def peak_of(action) -> tuple[object, int]:
    """What the action returns, and the most memory it took at once."""
    clear = Path("/proc/self/clear_refs")
    if not os.access(clear, os.W_OK):
        return action(), 0
    clear.write_text("5")
    before = _status("VmRSS")
    result = action()
    return result, _status("VmHWM") - before


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def state_of(loader: str, path: Path) -> dict[str, torch.Tensor]:
    """The loaded module's weights, in the file's joined layout."""
    if loader == "model":
        return load_meanflow_model(str(path)).model.diffusion_model.state_dict()
    state = load_predictor(str(path)).patcher.model.state_dict()
    for key in [key for key in state if key.endswith(".now.weight")]:
        halves = (state.pop(key), state.pop(key.replace(".now.", ".cached.")))
        state[key.replace(".now.", ".0.")] = torch.cat(halves, dim=1)
    return {key.replace(".now.", ".0.").replace(".out.", ".2."): tensor for key, tensor in state.items()}


def outcome_of(loader: str, path: Path) -> dict[str, torch.Tensor] | str:
    """The loaded weights, or the sentence of the refusal."""
    try:
        return state_of(loader, path)
    except ValueError as error:
        sentence = str(error)
        assert f"'{path.name}'" in sentence and sentence.endswith("."), sentence
        assert len(sentence) < 3000, sentence[:300]
        return sentence


def differences(loader: str, state: dict[str, torch.Tensor], path: Path) -> list[str]:
    """Keys of the module that do not hold what the file holds for them."""
    stored = load_file(path)
    marks = (layouts.MODEL_MARK,) if loader == "model" else tuple(layout.mark for layout in LAYOUTS.values())
    prefix = max((key.removesuffix(mark) for key in stored for mark in marks if key.endswith(mark)), key=len)
    stored = {key.removeprefix(prefix): tensor for key, tensor in stored.items()}
    wrong = []
    for key, value in state.items():
        if key.endswith(COMPANIONS):
            continue
        found = _stored(stored, key)
        same = [cast.shape == value.shape and cast.equal(value) for cast in _casts(found, value.dtype)]
        if not any(same):
            wrong.append(key)
    return wrong


def _stored(stored: dict[str, torch.Tensor], key: str) -> list[torch.Tensor]:
    for name in (key, layouts.published_key(key), layouts.published_key(key).replace(".linear2.", ".linear2.fc.")):
        if name in stored:
            return [stored[name]]
    stem, _, kind = layouts.published_key(key).rpartition(".")
    names = [f"{stem.removesuffix('_qkv')}_{part}.{kind}" for part in PARTS]
    return [stored[name] for name in names if name in stored]


def _casts(parts: list[torch.Tensor], dtype: torch.dtype) -> list[torch.Tensor]:
    """The parts joined in that type, converted at once, and by way of float32 as parts of mixed types are."""
    cast = ([part.to(dtype) for part in parts], [part.float().to(dtype) for part in parts])
    return [torch.cat(each) if len(each) > 1 else each[0] for each in cast if each]


@pytest.fixture(scope="module")
def form(pytestconfig) -> str:
    return "full" if pytestconfig.getoption("--full") else "short"


@pytest.fixture(scope="module")
def bases() -> dict[str, mutations.Base]:
    torch.manual_seed(0)
    return mutations.bases()


@pytest.fixture(scope="module")
def unspoiled(bases, tmp_path_factory) -> dict[str, dict[str, torch.Tensor]]:
    """What the loaders make of each file as it should be."""
    states = {}
    for name, base in bases.items():
        path = tmp_path_factory.mktemp("bases") / "base.safetensors"
        path.write_bytes(mutations.save(base.weights, base.metadata))
        states[name] = state_of(base.loader, path)
        assert differences(base.loader, states[name], path) == [], name
    return states


def test_a_file_gives_the_right_module_or_is_refused_in_a_sentence(bases, unspoiled, form, tmp_path, capsys):
    outcomes, slowest, most = Counter(), 0.0, 0.0
    chosen = os.environ.get("CASE")
    for number in [int(chosen)] if chosen else range(CASES[form]):
        chance = random.Random(f"disca {number}")
        name = list(bases)[number % len(bases)]
        base, path = bases[name], tmp_path / f"case{number}.safetensors"
        harmless = chance.randrange(ONE_IN) == 0
        path.write_bytes((mutations.variant if harmless else mutations.mutant)(base, chance))
        other = {"model": "predictor", "predictor": "model"}[base.loader]
        for loader in (base.loader, other) if chance.random() < 0.25 else (base.loader,):
            started = time.process_time()
            try:
                with time_limit(SECONDS):
                    outcome, peak = peak_of(lambda loader=loader, path=path: outcome_of(loader, path))
            except BaseException as error:
                error.add_note(f"CASE={number}: {name}, {loader} loader")
                raise
            slowest = max(slowest, time.process_time() - started)
            loaded = not isinstance(outcome, str)
            size = max(path.stat().st_size, sum(t.nbytes for t in outcome.values()) if loaded else 0)
            most = max(most, peak - FACTOR * size)
            assert peak <= FACTOR * size + MAPPED, f"CASE={number}: {peak:,} bytes for a file of {size:,}"
            if loaded:
                assert differences(loader, outcome, path) == [], f"CASE={number}: {name}"
            if harmless and loader == base.loader:
                assert loaded, f"CASE={number}: {name}: {outcome}"
                assert equal(outcome, unspoiled[name]), f"CASE={number}: {name}"
            outcomes["loaded" if loaded else "refused"] += 1
            outcomes["harmless"] += harmless and loader == base.loader
        path.unlink()
    with capsys.disabled():
        print(
            f"\nfuzz: {sum(outcomes.values()) - outcomes['harmless']} loads of {CASES[form]} files: "
            f"{outcomes['loaded']} gave the right module ({outcomes['harmless']} of harmless changes), "
            f"{outcomes['refused']} were refused; slowest {slowest:.2f} s, "
            f"memory at most {FACTOR} times the size and {max(0.0, most) / 1e6:.1f} MB"
        )
    assert chosen or min(outcomes.values()) > CASES[form] // 10


def equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> bool:
    """The same keys, and the same bits under each."""
    return ours.keys() == theirs.keys() and all(
        ours[key].dtype == tensor.dtype and ours[key].equal(tensor) for key, tensor in theirs.items()
    )


def large_file(loader: str, chance: random.Random, path: Path) -> None:
    """Writes half a gigabyte of zeros after a header that is right, or wrong in one place."""
    with torch.device("meta"):
        model = recipes.tensor_parallel(mutations.tiny_transformer(**LARGE))
    small = published_shapes(PredictorSpec("1.0", 2048, 2, 16, 4.0))
    shapes = {key: list(tensor.shape) for key, tensor in model.items()} if loader == "model" else small
    table, end = {}, 0
    for key, shape in shapes.items():
        start, end = end, end + 4 * prod(shape)
        table[key] = {"dtype": "F32", "shape": list(shape), "data_offsets": [start, end]}
    key, change = chance.choice(list(table)), chance.choice(["none", "none", "name", "shape", "type", "value", "value"])
    if change == "name":
        table[f"{key}x"] = table.pop(key)
    elif change == "shape":
        table[key]["shape"] = [prod(shapes[key]), 1]
    elif change == "type":
        table[key]["dtype"] = "I32"
    text = json.dumps(table).encode()
    with open(path, "wb") as file:
        file.write(mutations.header(text))
        file.truncate(8 + len(text) + end)  # a hole: it takes no room on the disk
        if change == "value":
            file.seek(8 + len(text) + table[key]["data_offsets"][0])
            file.write(b"\xff\xff\xff\x7f")


def test_a_large_file_takes_little_more_memory_than_its_size(form, tmp_path, capsys):
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("needs Linux to measure the peak")
    outcomes, most, size = Counter(), 0.0, 0
    for number in range(LARGE_CASES[form]):
        chance, path = random.Random(f"disca large {number}"), tmp_path / "large.safetensors"
        loader = ("model", "predictor")[number % 2]
        large_file(loader, chance, path)
        with time_limit(2 * SECONDS):
            outcome, peak = peak_of(lambda loader=loader, path=path: outcome_of(loader, path))
        outcomes["refused" if isinstance(outcome, str) else "loaded"] += 1
        del outcome
        size = path.stat().st_size
        most = max(most, peak / size)
        assert peak <= FACTOR * size + MAPPED, f"large case {number}: {peak:,} bytes for a file of {size:,}"
    with capsys.disabled():
        print(f"\nfuzz: {dict(outcomes)} of {size / 1e6:.0f} MB or so, memory at most {most:.2f} times the size")
