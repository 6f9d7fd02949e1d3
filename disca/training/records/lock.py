"""One writer at a time in a folder, and who it is.

The operating system's lock on a file goes with its process, however that ends, and shows across containers of one
machine. Across machines a network file system may not pass it on: there, what the file says is believed.
"""

import json
import os
import platform
import time
from pathlib import Path
from typing import Any, BinaryIO

from ...messages import cause, quoted

FILE = ".lock"
RUN = ("This run", "trained")  # subject and doing
NO_JOB = "none"  # torchrun's id of a job that was given none
MOST_BYTES = 4096  # a longer file is not ours
BOOT = Path("/proc/sys/kernel/random/boot_id")  # the same in all containers of a machine, until it starts anew


class FolderInUseError(RuntimeError):
    """Another process writes in the folder; the message says which."""


class FolderLock:
    """The right to write in a folder, from `acquire` to `release` or over a `with`; of one process at a time.

    `subject` and `doing` are for the message: "This run" is being "trained". What a dead process of this machine left
    is taken over, and what one of the same `job` left on another.
    """

    def __init__(self, folder: Path, subject: str, doing: str, job: str = ""):
        self._path, self._subject, self._doing, self._job = Path(folder) / FILE, subject, doing, job
        self._file: BinaryIO | None = None

    def acquire(self) -> None:
        """Makes the folder if need be and takes it; FolderInUseError, at once, if another process has it.

        OSError, in a sentence, if it cannot be written to.
        """
        file = self._opened()
        try:
            locked = _lock(file)
            holder = _read(file)
            if locked is False or (holder and not self._is_over(holder, bool(locked))):
                raise FolderInUseError(self._message(holder, locked is False))
            _write(file, {"process": os.getpid(), "since": time.time(), "job": self._job, **_machine()})
        except BaseException:
            file.close()
            raise
        self._file = file

    def release(self) -> None:
        """Gives the folder back, if it was taken."""
        if self._file is not None:
            file, self._file = self._file, None
            _write(file, None)
            file.close()

    def __enter__(self) -> "FolderLock":
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _opened(self) -> BinaryIO:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return open(self._path, "r+b", buffering=0, opener=_open)
        except (OSError, ValueError) as error:
            raise OSError(
                f"{quoted(self._path.parent)} cannot be written to ({quoted(str(error))}). "
                "Take away what is in its place, or choose another folder."
            ) from None

    def _is_over(self, holder: dict[str, Any], locked: bool) -> bool:
        if self._job and holder.get("job") == self._job:
            return True
        here = _machine()
        return locked and any(here[key] and holder.get(key) == here[key] for key in here)

    def _message(self, holder: dict[str, Any], alive: bool) -> str:
        who = "another process"
        if holder:
            since = _clock(holder.get("since"))
            who = f"process {quoted(holder.get('process'))} on {quoted(holder.get('host'))} {cause(since)}".strip()
        over = "" if alive else f" If that process has ended, delete {quoted(self._path)}."
        what, doing, where = cause(self._subject), cause(self._doing), quoted(self._path.parent)
        return f"{what} is being {doing} by {who}: {where}. Stop it, or choose another folder.{over}"


def run_lock(folder: Path) -> FolderLock:
    """The lock of a run's folder; restarts of a torchrun job that was given an id take over from each other."""
    job = os.environ.get("TORCHELASTIC_RUN_ID", NO_JOB)
    return FolderLock(folder, *RUN, "" if job == NO_JOB else job)


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)


def _lock(file: BinaryIO) -> bool | None:
    """Whether the lock is now this process's; None where the file system has no locks."""
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(MOST_BYTES)  # Windows lets nobody read what is locked
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None
    return True


def _read(file: BinaryIO) -> dict[str, Any]:
    """What the holder wrote; nothing if it gave the folder back, or if nobody of ours wrote it."""
    file.seek(0)
    try:
        holder = json.loads(file.read(MOST_BYTES))
    except (ValueError, RecursionError):
        return {}
    return holder if isinstance(holder, dict) and "process" in holder else {}


def _write(file: BinaryIO, holder: dict[str, Any] | None) -> None:
    file.seek(0)
    file.truncate()
    if holder is not None:
        file.write(json.dumps(holder).encode())


def _machine() -> dict[str, str]:
    return {"host": platform.node(), "boot": BOOT.read_text().strip() if BOOT.exists() else ""}


def _clock(since: object) -> str:
    try:
        return time.strftime("since %Y-%m-%d %H:%M:%S", time.localtime(since))
    except (TypeError, ValueError, OverflowError, OSError):
        return ""
