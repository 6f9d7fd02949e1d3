"""The loop on a small real training, in one process."""

import errno
import json
import logging
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

sys.path.insert(1, str(Path(__file__).parent))
from worlds import LENGTH, Points, Regression, after, given, run, saved_bytes, settings

from disca.training.__main__ import Interrupt, main
from disca.training.contract.settings import PreviewSettings
from disca.training.data.order import order
from disca.training.engine import checkpoints
from disca.training.engine.checkpoints import SaveError
from disca.training.engine.ema import Ema
from disca.training.engine.loop import train
from disca.training.network.comfy import comfy_folder
from disca.training.records.lock import FolderInUseError, run_lock
from disca.training.records.log import read_log, read_state
from disca.training.records.run_folder import RunFolder


def figures(out: Path) -> list[dict]:
    """The log without what depends on the clock."""
    return [{key: value for key, value in line.items() if key != "seconds"} for line in read_log(RunFolder(out))]


def difference(first: dict, second: dict) -> float:
    """The greatest difference of two sets of weights."""
    assert first.keys() == second.keys()
    return max(float((first[key] - second[key]).abs().max()) for key in first)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    """A run from start to end."""
    out = tmp_path_factory.mktemp("unbroken")
    run(out)
    return out


def test_the_loss_falls(tmp_path):
    run(tmp_path, iterations=40, every=100)
    losses = [line["loss"]["network"] for line in read_log(RunFolder(tmp_path))]
    assert sum(losses[-5:]) < sum(losses[:5]) / 2


@pytest.mark.parametrize("stopped", [1, 4, 7])
def test_a_resumed_run_gives_the_same_bits_as_an_unbroken_one(unbroken, tmp_path, stopped):
    run(tmp_path, stop=after(stopped))
    assert read_log(RunFolder(tmp_path))[-1]["iteration"] == stopped
    run(tmp_path, training=Regression(seed=1))
    assert saved_bytes(tmp_path, 8) == saved_bytes(unbroken, 8)
    assert figures(tmp_path) == figures(unbroken)


def test_a_run_that_died_repeats_what_came_after_its_checkpoint(unbroken, tmp_path):
    shutil.copytree(unbroken / "checkpoints" / "step-000006", tmp_path / "checkpoints" / "step-000006")
    shutil.copy(unbroken / "log.jsonl", tmp_path)
    with open(tmp_path / "log.jsonl", "a") as log:
        log.write('{"iteration": 9, "lo')
    run(tmp_path)
    assert saved_bytes(tmp_path, 8) == saved_bytes(unbroken, 8)
    assert [line["iteration"] for line in read_log(RunFolder(tmp_path))] == list(range(1, 9))


def test_a_finished_run_gives_its_export_again_and_can_be_made_longer(unbroken, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(unbroken, out)
    training = Regression()
    run(out, training=training)
    assert training.seen == []
    exported = next((out / "export").glob("*.safetensors"))
    content = exported.read_bytes()
    exported.unlink()  # as a kill between the last checkpoint and its export would leave it
    run(out)
    assert exported.read_bytes() == content
    run(out, iterations=10)
    run(tmp_path / "longer", iterations=10)
    assert saved_bytes(out, 10) == saved_bytes(tmp_path / "longer", 10)


def test_a_run_goes_on_from_the_checkpoint_that_is_asked_for(unbroken, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(unbroken, out)
    earlier = sorted((out / "checkpoints").iterdir())[0]
    training = Regression(seed=1)
    run(out, training=training, resume_from=int(earlier.name.removeprefix("step-")))
    assert training.seen and saved_bytes(out, 8) == saved_bytes(unbroken, 8)
    assert figures(out) == figures(unbroken)


def test_a_checkpoint_that_is_not_there_is_answered_with_those_that_are(unbroken, tmp_path):
    shutil.copytree(unbroken, tmp_path / "out")
    with pytest.raises(ValueError, match="no checkpoint of iteration 5 in .* There are those of 6, 8: choose one"):
        run(tmp_path / "out", resume_from=5)
    with pytest.raises(ValueError, match="There is no checkpoint in .* yet."):
        run(tmp_path / "new", resume_from=5)


def test_a_checkpoint_that_is_asked_for_and_not_whole_is_named_with_the_others(unbroken, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(unbroken, out)
    (out / "checkpoints" / "step-000006" / "meta.json").unlink()
    with pytest.raises(ValueError, match=r"The checkpoint '.*step-000006' is not whole .* There are those of 6, 8"):
        run(out, resume_from=6)


def test_fewer_iterations_than_were_done_are_a_finished_run(unbroken, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(unbroken, out)
    run(out, iterations=4)
    assert json.loads((out / "state.json").read_text())["message"] == "Done"


def test_each_epoch_sees_each_sample_once(tmp_path):
    training = Regression()
    run(tmp_path, training=training, iterations=LENGTH)
    drawn = [order(LENGTH, 0, position) for position in sorted(set(training.seen))]
    assert sorted(drawn) == sorted(2 * list(range(LENGTH)))


def test_accumulating_gives_the_gradient_of_all_samples_at_once(tmp_path):
    at_once = run(tmp_path / "at once", batch=4, accumulate=1)
    in_turn = run(tmp_path / "in turn", batch=1, accumulate=4)
    by_shape = run(tmp_path / "by shape", dataset=Points(shapes=3), batch=4)
    by_shape_in_turn = run(tmp_path / "by shape in turn", dataset=Points(shapes=3), batch=1, accumulate=4)
    assert difference(at_once, in_turn) < 1e-6
    assert difference(by_shape, by_shape_in_turn) < 1e-6


def test_the_export_is_the_running_average(tmp_path):
    training = Regression()
    averaged = run(tmp_path, training=training)
    weights = training.modules["network"].state_dict()
    assert averaged.keys() == weights.keys()
    assert difference(averaged, weights) > 1e-4


def test_a_stop_file_saves_and_stops(tmp_path):
    class Asked(Regression):
        def losses(self, batch, iteration):
            if iteration == 3:
                (tmp_path / "stop").touch()
            return super().losses(batch, iteration)

    run(tmp_path, training=Asked())
    assert checkpoints.newest(tmp_path / "checkpoints", print).name == "step-000004"
    assert not (tmp_path / "stop").exists()
    assert "Stopped at iteration 4" in json.loads((tmp_path / "state.json").read_text())["message"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_saves_and_stops(tmp_path, number):
    class Interrupted(Regression):
        def losses(self, batch, iteration):
            if iteration == 1:
                os.kill(os.getpid(), number)
            return super().losses(batch, iteration)

    handlers = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        interrupt = Interrupt()
        run(tmp_path, training=Interrupted(), stop=lambda: interrupt.asked)
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)
    assert checkpoints.newest(tmp_path / "checkpoints", print).name == "step-000002"


def test_a_sample_with_nan_is_named_and_the_others_are_trained_on(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    weights = run(tmp_path, dataset=Points(spoiled=(5,)), iterations=LENGTH)
    assert "Skipped sample 5" in caplog.text
    assert [line["skipped"] for line in read_log(RunFolder(tmp_path)) if line["skipped"]] == [[5], [5]]
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())


@pytest.mark.parametrize("only_gradient", [False, True])
def test_a_sample_whose_loss_or_gradient_is_not_finite_is_found(tmp_path, only_gradient):
    class Marked(Points):
        def __getitem__(self, i):
            return {**super().__getitem__(i), "which": torch.tensor([float(i)])}

    class Spoiling(Regression):
        def losses(self, batch, iteration):
            for loss in super().losses(batch, iteration):
                zero = (loss.value - loss.value.detach())[batch["which"][:, 0] == 5]
                yield loss._replace(value=loss.value + (zero.sqrt() if only_gradient else zero / zero).sum())

    run(tmp_path, dataset=Marked(), training=Spoiling(), batch=1, accumulate=2)
    skipped = [line["skipped"] for line in read_log(RunFolder(tmp_path)) if line["skipped"]]
    assert skipped and all(found == [5] for found in skipped)


def test_a_run_of_bad_samples_stops_the_training_and_keeps_the_checkpoint(tmp_path):
    class Diverging(Regression):
        def losses(self, batch, iteration):
            for loss in super().losses(batch, iteration):
                yield loss._replace(value=loss.value * (float("nan") if iteration >= 3 else 1))

    with pytest.raises(RuntimeError, match="9 samples in a row gave NaN or infinity, the last one sample") as error:
        run(tmp_path, training=Diverging(), iterations=20)
    assert "step-000006" in str(error.value)
    weights = load_file(tmp_path / "checkpoints" / "step-000003" / "export" / "network.safetensors")
    assert all(torch.isfinite(tensor).all() for tensor in weights.values())


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


def test_an_error_without_a_word_while_saving_is_named_by_its_kind(tmp_path, monkeypatch):
    def wordless(*_, **__):
        raise OSError

    monkeypatch.setattr(Regression, "export", wordless)
    with pytest.raises(SaveError, match="could not be written to .* .OSError; "):
        run(tmp_path)


@pytest.mark.parametrize("place", ["state", "export", "meta"])
def test_a_disk_that_fills_while_saving_leaves_the_last_checkpoint_whole(unbroken, tmp_path, monkeypatch, place):
    run(tmp_path, stop=after(3))
    if place == "state":
        monkeypatch.setattr("disca.training.data.tensors.save_file", full_disk)
    elif place == "export":
        monkeypatch.setattr(Regression, "export", full_disk)
    else:
        monkeypatch.setattr("disca.training.engine.checkpoints.os.fsync", full_disk)
    with pytest.raises(SaveError, match="'step-000006' could not be written.*No space left.*step-000003"):
        run(tmp_path)
    assert [entry.name for entry in (tmp_path / "checkpoints").iterdir()] == ["step-000003"]
    monkeypatch.undo()
    run(tmp_path)
    assert saved_bytes(tmp_path, 8) == saved_bytes(unbroken, 8)


def test_a_checkpoint_that_is_not_whole_is_passed_over(unbroken, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    shutil.copytree(unbroken, tmp_path, dirs_exist_ok=True)
    state = tmp_path / "checkpoints" / "step-000008" / "state" / "00000-00000.safetensors"
    state.write_bytes(state.read_bytes()[:-1])
    run(tmp_path)
    assert "step-000008' is not whole and is passed over" in caplog.text
    assert saved_bytes(tmp_path, 8) == saved_bytes(unbroken, 8)


def test_a_broken_checkpoint_goes_once_there_is_a_newer_whole_one(unbroken, tmp_path):
    shutil.copytree(unbroken, tmp_path, dirs_exist_ok=True)
    for name in ("step-000008", "step-000009", "step-000700"):
        (tmp_path / "checkpoints" / name).mkdir(exist_ok=True)
        (tmp_path / "checkpoints" / name / "meta.json").write_text("{}")
    run(tmp_path)
    assert sorted(entry.name for entry in (tmp_path / "checkpoints").iterdir()) == ["step-000006", "step-000008"]
    assert saved_bytes(tmp_path, 8) == saved_bytes(unbroken, 8)


def test_what_a_kill_while_saving_left_is_removed_and_not_read(unbroken, tmp_path):
    shutil.copytree(unbroken / "checkpoints" / "step-000006", tmp_path / "checkpoints" / "step-000006")
    shutil.copytree(unbroken / "checkpoints" / "step-000008", tmp_path / "checkpoints" / "step-000008.partial")
    training = Regression()
    run(tmp_path, training=training)
    assert len(training.seen) == 4  # two iterations of two samples
    assert sorted(entry.name for entry in (tmp_path / "checkpoints").iterdir()) == ["step-000006", "step-000008"]


def test_files_in_the_place_of_folders_do_not_end_the_training(unbroken, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    (tmp_path / "checkpoints").mkdir()
    for name in ("previews", "checkpoints/step-000004", "checkpoints/step-000006", "checkpoints/step-000008.partial"):
        (tmp_path / name).write_bytes(b"picture")
    (tmp_path / "checkpoints" / "step-000003.partial").symlink_to(unbroken)
    run(tmp_path, preview=PreviewSettings(every=4))
    assert saved_bytes(tmp_path, 8) == saved_bytes(unbroken, 8) and (unbroken / "checkpoints").is_dir()
    assert "The previews could not be written (Not a directory). The training goes on." in caplog.messages


def test_a_stop_file_that_was_left_over_stops_no_new_run(tmp_path):
    (tmp_path / "stop").touch()
    run(tmp_path, iterations=4)
    assert [line["iteration"] for line in read_log(RunFolder(tmp_path))] == [1, 2, 3, 4]


def test_the_running_average_follows_quickly_at_first():
    weight = torch.nn.Parameter(torch.zeros(1))
    ema, seen = Ema({"w": weight}, decay=0.9), []
    weight.data.fill_(1.0)
    for _ in range(100):
        ema.update()
        seen.append(1 - float(ema.average["w"]))
    kept = [after / before for before, after in zip([1.0, *seen], seen, strict=False)]
    assert kept[:3] == pytest.approx([1 / 10, 2 / 11, 3 / 12], rel=1e-3)


def test_the_running_average_comes_to_keep_what_its_decay_says():
    weight = torch.nn.Parameter(torch.zeros(1))
    ema = Ema({"w": weight}, decay=0.9)
    ema.updates = 81  # 82 / 91 is more than 0.9
    weight.data.fill_(1.0)
    ema.update()
    assert float(ema.average["w"]) == pytest.approx(0.1)


DAMAGED_LINES = {
    "not JSON": b"{",
    "not UTF-8": b'{"iteration": 2, "\xff": 3}',
    "null": b"null",
    "a list": b"[1, 2]",
    "deep": b"[" * 10**5,
    "a long number": b'{"iteration": ' + b"9" * 5000 + b"}",
    "no iteration": b'{"loss": {}, "bands": {}}',
    "an iteration of a text": b'{"iteration": "2", "loss": {}, "bands": {}}',
    "no bands": b'{"iteration": 2, "loss": {"network": 1}}',
    "bands of another part": b'{"iteration": 2, "loss": {"network": 1}, "bands": {"critic": [1, 1, 1, 1]}}',
    "too few bands": b'{"iteration": 2, "loss": {"network": 1}, "bands": {"network": [1]}}',
    "a loss of a text": b'{"iteration": 2, "loss": {"network": "1"}, "bands": {"network": [1, 1, 1, 1]}}',
    "NaN": b'{"iteration": 2, "loss": {"network": NaN}, "bands": {"network": [1, 1, 1, 1]}}',
    "too large": b'{"iteration": 2, "loss": {"network": 1%s}, "bands": {"network": [1, 1, 1, 1]}}' % (b"0" * 400),
    "an odd name": b'{"iteration": 2, "loss": {"\\ud800": 1}, "bands": {"\\ud800": [1, 1, 1, 1]}}',
    "many parts": json.dumps(
        {"iteration": 2, "loss": dict.fromkeys("abcdefghi", 1), "bands": dict.fromkeys("abcdefghi", [1] * 4)}
    ).encode(),
}


@pytest.mark.parametrize("damage", DAMAGED_LINES)
def test_a_damaged_line_of_the_log_is_left_out_and_said_once(unbroken, tmp_path, caplog, damage):
    shutil.copytree(unbroken, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "checkpoints" / "step-000008")
    lines = (unbroken / "log.jsonl").read_bytes().splitlines()
    lines[1] = DAMAGED_LINES[damage]
    (tmp_path / "log.jsonl").write_bytes(b"\n".join(lines))
    run(tmp_path)
    told = [message for message in caplog.messages if "damaged" in message]
    assert len(told) == 1 and told[0].startswith("1 damaged lines of '")
    assert [line["iteration"] for line in read_log(RunFolder(tmp_path))] == [1, 3, 4, 5, 6, 7, 8]
    assert Image.open(tmp_path / "curves.png").height == 2 * 320


def test_a_log_that_cannot_be_cut_at_the_start_does_not_end_the_training(unbroken, tmp_path, monkeypatch, caplog):
    run(tmp_path, stop=after(3))
    monkeypatch.setattr("disca.training.records.log._cut", full_disk)
    run(tmp_path)
    assert saved_bytes(tmp_path, 8) == saved_bytes(unbroken, 8)
    assert [message for message in caplog.messages if "log.jsonl' could not be written (No space" in message]


def test_records_that_cannot_be_written_do_not_end_the_training(unbroken, tmp_path, caplog):
    class Spoiling(Regression):
        def losses(self, batch, iteration):
            if iteration == 2:
                for name in ("log.jsonl", "state.json"):
                    (tmp_path / name).unlink()
                    (tmp_path / name).mkdir()
                (tmp_path / "curves.png").mkdir(exist_ok=True)
            return super().losses(batch, iteration)

    run(tmp_path, training=Spoiling())
    assert saved_bytes(tmp_path, 8) == saved_bytes(unbroken, 8)
    assert len([message for message in caplog.messages if "log.jsonl' could not be written" in message]) == 1


@pytest.mark.parametrize(
    "text",
    [b"", b"null", b"[]", b"{", b"\xff", b"[" * 10**5, b'{"iteration": 1}']
    + [
        json.dumps({"iteration": 1, "total": 2, "seconds_left": 3, "message": "Training"} | change).encode()
        for change in (
            {"iteration": "1"},
            {"iteration": 10**400},
            {"total": None},
            {"seconds_left": "soon"},
            {"seconds_left": 1e999},
            {"message": "\ud800"},
            {"message": "a\nb"},
            {"message": "a" * 10**5},
            {"message": ["a"]},
        )
    ],
)
def test_a_damaged_state_says_nothing(tmp_path, text):
    (tmp_path / "state.json").write_bytes(text)
    assert read_state(RunFolder(tmp_path)) == {}


def test_only_the_last_checkpoints_stay(tmp_path):
    run(tmp_path, every=1)
    assert sorted(entry.name for entry in (tmp_path / "checkpoints").iterdir()) == ["step-000007", "step-000008"]


def test_a_checkpoint_of_another_run_is_refused_by_what_differs(unbroken, tmp_path):
    shutil.copytree(unbroken, tmp_path, dirs_exist_ok=True)
    with pytest.raises(ValueError, match="of another run: 'seed' was 0 and is 7. Set these back"):
        run(tmp_path, seed=7, iterations=9)
    other = Points()
    other.fingerprint = "other points"
    with pytest.raises(ValueError, match="'the dataset' was 'points' and is 'other points'"):
        run(tmp_path, dataset=other, iterations=9)


def test_a_checkpoint_of_another_version_is_refused(unbroken, tmp_path):
    shutil.copytree(unbroken, tmp_path, dirs_exist_ok=True)
    meta = tmp_path / "checkpoints" / "step-000008" / "meta.json"
    meta.write_text(meta.read_text().replace('"format": 2', '"format": 3'))
    with pytest.raises(ValueError, match="has format 3, but this version of DisCa reads format 2"):
        run(tmp_path)


def test_the_command_ends_with_a_sentence_where_it_cannot_start(tmp_path, monkeypatch, caplog):
    assert main([str(tmp_path / "none.yaml")]) == 2
    assert "There is no file" in caplog.text
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match="which is no ComfyUI. Set COMFYUI_PATH"):
        comfy_folder()


def test_a_run_that_is_being_trained_is_refused_before_anything_is_written_or_deleted(unbroken, tmp_path):
    shutil.copytree(unbroken, tmp_path, dirs_exist_ok=True)
    (tmp_path / "stop").touch()
    with run_lock(tmp_path):
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        training = Regression()
        with pytest.raises(FolderInUseError, match=f"This run is being trained by process {os.getpid()} on"):
            run(tmp_path, training=training, iterations=10)
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert not training.seen
    run(tmp_path, iterations=10)


def test_a_run_gives_its_folder_back_when_it_fails(tmp_path):
    class Failing(Regression):
        def losses(self, batch, iteration):
            raise RuntimeError("no more memory")

    with pytest.raises(RuntimeError, match="no more memory"):
        run(tmp_path, training=Failing())
    run(tmp_path)


def test_inference_mode_is_refused(tmp_path):
    with torch.inference_mode(), pytest.raises(RuntimeError, match="cannot run in inference mode"):
        run(tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_cuda_without_a_gpu_is_refused(tmp_path):
    with pytest.raises(RuntimeError, match="ask for device: cuda, but PyTorch finds no CUDA device"):
        run(tmp_path, device="cuda")


def test_a_state_that_is_being_read_on_windows_does_not_end_the_run(tmp_path, monkeypatch):
    replace = os.replace

    def refusing(source, target):
        if Path(target).name == "state.json":
            raise PermissionError(errno.EACCES, "being read")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refusing)
    run(tmp_path)
    assert not (tmp_path / "state.json").exists()


def test_previews_come_first_and_then_as_often_as_asked(tmp_path):
    run(tmp_path, preview=PreviewSettings(every=4))
    names = sorted(file.name for file in (tmp_path / "previews").iterdir())
    assert names == ["step-000000.png", "step-000004.png", "step-000008.png"]


def test_what_previews_are_apart_is_said(tmp_path, caplog):
    caplog.set_level("INFO")
    run(tmp_path, preview=PreviewSettings(every=4))
    assert "Previews of iteration 4: this to that 0.25." in caplog.messages


def test_previews_change_no_number_of_the_training(unbroken, tmp_path):
    class Drawing(Regression):
        def preview(self, path):
            torch.randn(3)
            return {}

    run(tmp_path, training=Drawing(), preview=PreviewSettings(every=1))
    assert saved_bytes(tmp_path, 8) == saved_bytes(unbroken, 8)


def test_curves_are_drawn_for_each_part(unbroken):
    assert Image.open(unbroken / "curves.png").height == 2 * 320


def test_a_sample_of_no_weight_moves_nothing_and_is_still_in_the_curves(tmp_path):
    class Weightless(Regression):
        def losses(self, batch, iteration):
            yield from (loss._replace(weight=torch.zeros(len(loss.value))) for loss in super().losses(batch, iteration))

    training = Weightless()
    before = {key: weight.clone() for key, weight in training.modules["network"].state_dict().items()}
    train(settings(tmp_path), given(training, Points()))
    assert all(torch.equal(weight, before[key]) for key, weight in training.modules["network"].state_dict().items())
    assert read_log(RunFolder(tmp_path))[0]["loss"]["network"] > 0
