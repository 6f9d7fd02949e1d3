"""One writer at a time in a folder."""

import json
import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from disca.training.records import lock
from disca.training.records.lock import FILE, FolderInUseError, FolderLock

HOLDER = """
import sys, time
from pathlib import Path
from disca.training.records.lock import FolderLock
lock = FolderLock(Path(sys.argv[1]), "This run", "trained")
lock.acquire()
print("held", flush=True)
time.sleep(600)
"""


def lock_of(folder: Path, job: str = "") -> FolderLock:
    """The lock of a folder."""
    return FolderLock(folder, "This run", "trained", job)


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the folder."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, cwd=Path(lock.__file__).parents[3], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def left_behind(folder: Path, **changes) -> None:
    """What a process that was killed left in the folder."""
    told = {"process": 7, "since": 1.6e9, "job": "", "host": platform.node(), "boot": "of before"}
    (folder / FILE).write_text(json.dumps(told | changes))


def test_a_folder_that_is_taken_is_refused_with_who_has_it(holder, tmp_path):
    told = rf"^This run is being trained by process {holder.pid} on '{platform.node()}' since \d{{4}}-.*Stop it, or"
    with pytest.raises(FolderInUseError, match=told) as error:
        lock_of(tmp_path).acquire()
    assert "delete" not in str(error.value)


def test_what_a_killed_process_of_this_machine_held_is_taken_over(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with lock_of(tmp_path):
        assert json.loads((tmp_path / FILE).read_bytes())["process"] == os.getpid()


def test_a_folder_is_free_again_after_its_writer(tmp_path):
    for _ in range(2):
        with lock_of(tmp_path / "new"), pytest.raises(FolderInUseError, match=f"process {os.getpid()}"):
            lock_of(tmp_path / "new").acquire()


def test_a_refused_writer_changes_nothing(tmp_path):
    with lock_of(tmp_path):
        before = (tmp_path / FILE).read_bytes()
        with pytest.raises(FolderInUseError):
            lock_of(tmp_path).acquire()
        assert (tmp_path / FILE).read_bytes() == before


def test_a_writer_on_another_machine_is_believed_and_the_message_says_what_to_delete(tmp_path):
    left_behind(tmp_path, host="elsewhere")
    with pytest.raises(FolderInUseError, match="process 7 on 'elsewhere' since 2020-.* has ended, delete '.*lock'"):
        lock_of(tmp_path).acquire()


def test_a_restart_of_the_same_job_on_another_machine_takes_over(tmp_path):
    left_behind(tmp_path, host="elsewhere", job="job 1")
    with pytest.raises(FolderInUseError):
        lock_of(tmp_path, "job 2").acquire()
    lock_of(tmp_path, "job 1").acquire()


@pytest.mark.skipif(not lock.BOOT.exists(), reason="needs Linux's boot id")
def test_a_container_that_was_made_anew_takes_over_from_the_one_that_was_killed(tmp_path):
    left_behind(tmp_path, host="3f2a1b", boot=lock.BOOT.read_text().strip())
    lock_of(tmp_path).acquire()


def test_where_the_file_system_has_no_locks_the_file_is_believed(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_lock", lambda file: None)
    with lock_of(tmp_path), pytest.raises(FolderInUseError, match="has ended, delete"):
        lock_of(tmp_path).acquire()
    lock_of(tmp_path).acquire()


@pytest.mark.parametrize("text", [b"", b"null", b"[]", b"{", b"\xff\xfe", b"[" * 4000, b'{"a": 1}', b"9" * 5000])
def test_a_lock_file_that_is_nobodys_is_taken_over(tmp_path, text):
    (tmp_path / FILE).write_bytes(text)
    with lock_of(tmp_path):
        assert json.loads((tmp_path / FILE).read_bytes())["process"] == os.getpid()


@pytest.mark.parametrize("value", [None, [], "soon", 1e300, float("nan"), "\ud800", -1, {"a": []}])
def test_odd_values_in_a_lock_file_still_make_one_plain_line(tmp_path, value):
    left_behind(tmp_path, host=value, process=value, since=value, boot=value)
    with pytest.raises(FolderInUseError) as error:
        lock_of(tmp_path).acquire()
    assert "\n" not in str(error.value).encode().decode()


def test_a_link_in_place_of_the_lock_file_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("kept")
    (tmp_path / FILE).symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="cannot be written to"):
        lock_of(tmp_path).acquire()
    assert (tmp_path / "precious").read_text() == "kept"


@pytest.mark.parametrize("name", ["file", "file/below", "lo" + "ng" * 200, "a\0b", "\ud800"])
def test_a_folder_that_cannot_be_is_refused_in_a_sentence(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot be written to .* Take away what is in its place, or choose") as error:
        lock_of(tmp_path / name).acquire()
    assert "\n" not in str(error.value).encode().decode()
