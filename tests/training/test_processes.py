"""The loop in processes of its own: killed, restarted, two at once."""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(1, str(Path(__file__).parent))
from worlds import Points, Regression, given, program, settings

from disca.training.engine.distributed import process_group
from disca.training.engine.loop import train
from disca.training.records.lock import run_lock

pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo")


def exported(out: Path, iteration: int = 8) -> dict:
    """The weights that a run exported."""
    return load_file(out / "checkpoints" / f"step-{iteration:06d}" / "export" / "network.safetensors")


def difference(first: dict, second: dict) -> float:
    """The greatest difference of two sets of weights."""
    assert first.keys() == second.keys()
    return max(float((first[key] - second[key]).abs().max()) for key in first)


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    """A run of one process with as many samples in an iteration."""
    out = tmp_path_factory.mktemp("one")
    train(settings(out, batch=4), given(Regression(), Points(shapes=2)))
    return out


@pytest.fixture(scope="module")
def two_processes(one_process, tmp_path_factory):
    """Runs of two processes: from start to end, on from a checkpoint of one process, one killed once; and their log."""
    runs = [tmp_path_factory.mktemp(name) for name in ("two", "onward", "killed")]
    shutil.copytree(one_process / "checkpoints" / "step-000006", runs[1] / "checkpoints" / "step-000006")
    told = program("train-and-die", *map(str, runs), two=True)
    return *runs, told


def test_two_processes_train_as_one_with_the_same_samples(one_process, two_processes):
    assert difference(exported(two_processes[0]), exported(one_process)) < 1e-5


def test_a_process_that_is_killed_is_started_again_with_the_same_numbers(two_processes):
    start, _, killed, told = two_processes
    assert (killed / "died").exists() and "iteration 3 of 8" in told
    assert difference(exported(killed), exported(start)) == 0


def test_a_run_of_two_processes_goes_on_with_one(two_processes, one_process, tmp_path):
    shutil.copytree(two_processes[0] / "checkpoints" / "step-000006", tmp_path / "checkpoints" / "step-000006")
    train(settings(tmp_path, batch=2), given(Regression(seed=1), Points(shapes=2)))
    assert difference(exported(tmp_path), exported(one_process)) < 1e-5


def test_a_run_of_one_process_goes_on_with_two(two_processes, one_process):
    assert difference(exported(two_processes[1]), exported(one_process)) < 1e-5


def test_two_processes_are_both_refused_where_a_run_is_being_trained(tmp_path):
    with run_lock(tmp_path), pytest.raises(AssertionError) as error:
        program("train", str(tmp_path), two=True, restarts=0)
    assert f"This run is being trained by process {os.getpid()} on" in str(error.value)
    assert "The main process could not take the run's folder, and says why." in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_restarts_on_several_machines_need_a_store_of_their_own(monkeypatch):
    about = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "GROUP_WORLD_SIZE": "2"}
    for key, value in {**about, "TORCHELASTIC_MAX_RESTARTS": "3"}.items():
        monkeypatch.setenv(key, value)
    monkeypatch.delenv("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", raising=False)
    with pytest.raises(RuntimeError, match="Set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"), process_group("cpu"):
        pass


def test_a_kill_at_any_moment_leaves_the_last_checkpoint_whole(tmp_path):
    told = program("be-killed", str(tmp_path / "killed"))
    found = [int(number) for number in re.findall(r"step-(\d+)$", told, flags=re.M)]
    assert "broken" not in told and found == sorted(found) and found[-1] > found[0]
    train(settings(tmp_path / "unbroken", 40, every=40), given(Regression(), Points()))
    assert difference(exported(tmp_path / "killed", 40), exported(tmp_path / "unbroken", 40)) == 0
