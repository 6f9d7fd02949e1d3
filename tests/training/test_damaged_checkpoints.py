"""What others put into a run's folder: nothing of it runs, and damage is passed over."""

import json
import logging
import pickle
import shutil
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(1, str(Path(__file__).parent))
from worlds import Points, Regression, given, program, run, saved_bytes, settings

from disca.training.engine.loop import train

NEWEST = "step-000008"


class Payload:
    """What makes a file where it is unpickled."""

    def __init__(self, mark: Path):
        self._mark = mark

    def __reduce__(self):
        return Path.touch, (self._mark,)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """A run from start to end."""
    out = tmp_path_factory.mktemp("unbroken")
    run(out)
    return out


def copied(unbroken: Path, out: Path) -> Path:
    """A copy of the run to be spoiled; gives its newest checkpoint."""
    shutil.copytree(unbroken, out)
    return out / "checkpoints" / NEWEST


def plant(out: Path, names: list[str], content: bytes) -> None:
    """Puts the content into these files of a run; if meta.json is not one, it is made to fit."""
    checkpoint = out / "checkpoints" / NEWEST
    meta = checkpoint / "meta.json"
    told = json.loads(meta.read_text())
    for name in names:
        (out / name).write_bytes(content)
    if meta not in [out / name for name in names]:
        found = {path.relative_to(checkpoint).as_posix(): path.stat().st_size for path in checkpoint.rglob("*.*")}
        meta.write_text(json.dumps(told | {"files": {name: size for name, size in found.items() if name != meta.name}}))


def go_on(out: Path) -> str:
    """Goes on with the run; gives what it refused with."""
    try:
        train(settings(out), given(Regression(), Points()))
    except (ValueError, RuntimeError) as error:
        return str(error)
    return ""


def files_of(out: Path) -> list[str]:
    """All files of a run and of its newest checkpoint, and some that torch would read."""
    found = [path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()]
    return [name for name in found if "step-000006" not in name] + [
        f"checkpoints/{NEWEST}/state/{name}" for name in (".metadata", "__0_0.distcp", "planted.safetensors", "a.pt")
    ]


@pytest.mark.parametrize("form", ["pickle 2", "pickle 5", "torch.save"])
def test_a_payload_in_any_file_of_a_run_never_runs(unbroken, tmp_path, form):
    mark, payload = tmp_path / "ran", tmp_path / "payload"
    if form == "torch.save":
        torch.save({"state": Payload(mark)}, payload)
        torch.load(payload, weights_only=False)
    else:
        payload.write_bytes(pickle.dumps(Payload(mark), int(form[-1])))
        pickle.loads(payload.read_bytes())
    assert mark.exists()
    mark.unlink()
    names = files_of(unbroken)
    but_meta = [name for name in names if not name.endswith("meta.json")]
    for number, chosen in enumerate([*([name] for name in names), names, but_meta]):
        out = tmp_path / f"out {number}"
        copied(unbroken, out)
        plant(out, chosen, payload.read_bytes())
        assert go_on(out) or saved_bytes(out, 8) == saved_bytes(unbroken, 8), chosen
        assert not mark.exists(), chosen


@pytest.mark.parametrize("content", [b"", b"{}", bytes(200), b"\x08" + bytes(7) + b"{" * 8, b"\x80\x05N."])
def test_a_damaged_state_is_passed_over_for_the_checkpoint_before(unbroken, tmp_path, content):
    copied(unbroken, tmp_path / "out")
    plant(tmp_path / "out", [f"checkpoints/{NEWEST}/state/00000-00000.safetensors"], content)
    run(tmp_path / "out")
    assert saved_bytes(tmp_path / "out", 8) == saved_bytes(unbroken, 8)


@pytest.mark.parametrize("samples", [2**20, 2**40])
def test_more_samples_an_iteration_than_any_run_takes_are_refused(unbroken, tmp_path, samples):
    place = copied(unbroken, tmp_path / "out") / "meta.json"
    meta = json.loads(place.read_text())
    meta["progress"]["samples"] = samples
    place.write_text(json.dumps(meta))
    assert f"had {samples} samples" in go_on(tmp_path / "out")


@pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo")
def test_a_payload_never_runs_where_two_processes_go_on(unbroken, tmp_path):
    mark = tmp_path / "ran"
    copied(unbroken, tmp_path / "out")
    plant(tmp_path / "out", files_of(unbroken), pickle.dumps(Payload(mark)))
    assert "is not whole and is passed over" in program("train", str(tmp_path / "out"), two=True)
    assert not mark.exists()


def test_a_checkpoint_with_pickles_is_refused_with_what_to_do(unbroken, tmp_path):
    checkpoint = copied(unbroken, tmp_path / "out")
    (checkpoint / "state" / ".metadata").write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    meta = json.loads((checkpoint / "meta.json").read_text())
    (checkpoint / "meta.json").write_text(json.dumps(meta | {"format": 1}))
    told = go_on(tmp_path / "out")
    assert "has format 1, but this version of DisCa reads format 2. Reading format 1 can run code" in told
    assert "choose another 'out' folder to start anew" in told and not (tmp_path / "ran").exists()


def changed(**entries):
    """meta.json with other entries, as a function of what it is."""
    return lambda meta: json.dumps(meta | entries).encode()


def progress(**entries):
    """meta.json with another progress."""
    return lambda meta: json.dumps(meta | {"progress": meta["progress"] | entries}).encode()


DAMAGE = {
    "null": lambda _: b"null",
    "a list": lambda _: b"[]",
    "a text": lambda _: b'"step"',
    "nothing": lambda _: b"",
    "zeros": lambda _: bytes(4096),
    "a million brackets": lambda _: b"[" * 10**6,
    "deep objects": lambda _: b'{"a":' * 10**5,
    "not UTF-8": lambda _: b'{"format": 2, "\xff": 1}',
    "a long number": lambda _: b'{"format": ' + b"9" * 5000 + b"}",
    "no files": changed(files=None),
    "a list of files": changed(files=["a"]),
    "files with texts for sizes": changed(files={"export/network.safetensors": "12"}),
    "a file with NUL in its name": changed(files={"a\0b": 1}),
    "a file with a lone surrogate": changed(files={"\ud800": 1}),
    "no state": changed(files={}),
    "a negative size": changed(files={"meta.json": -1}),
    "format of another type": changed(format="2"),
    "format in a list": changed(format=[2]),
    "no progress": changed(progress=None),
    "progress with another key": progress(more=1),
    "a huge iteration": progress(iteration=10**400),
    "a negative iteration": progress(iteration=-3),
    "half an iteration": progress(iteration=3.5),
    "NaN for an iteration": progress(iteration=float("nan")),
    "true for an iteration": progress(iteration=True),
    "updates as a list": changed(updates=[1]),
    "updates of null": changed(updates={"network": None, "critic": 1}),
    "average updates of a text": changed(average_updates="4"),
    "settings as a list": changed(settings=[]),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_meta_json_is_passed_over_for_the_checkpoint_before(unbroken, tmp_path, caplog, damage):
    caplog.set_level(logging.INFO)
    meta = copied(unbroken, tmp_path / "out") / "meta.json"
    meta.write_bytes(DAMAGE[damage](json.loads(meta.read_text())))
    run(tmp_path / "out")
    assert saved_bytes(tmp_path / "out", 8) == saved_bytes(unbroken, 8)
    told = [message for message in caplog.messages if "step-000008' is not whole and is passed over: " in message]
    assert len(told) == 1 and "\n" not in told[0] and told[0].encode()
    assert any("Going on from" in message and "step-000006" in message for message in caplog.messages)
