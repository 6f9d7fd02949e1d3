"""The process that trains, started from the server: a crash in it leaves the server and its queue alone.

It is started by PyTorch's `start_processes`, the half of torchrun that starts programs and keeps their output in
files. torchrun whole (`elastic_launch`) also listens on a port, needs a store that PyTorch on Windows may lack, and
restarts a run that failed for good. Python's multiprocessing would import ComfyUI's main.py anew in the child, and
asyncio's processes need an event loop for their end to be noticed, which a node does not have to itself. The registry
wants no packages installed and nothing downloaded by a process that a pack starts; this one does neither.
"""

import atexit
import inspect
import logging
import os
import re
import shutil
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import comfy.model_management
import torch

from ..files import remove
from ..messages import cause, quoted
from ..training.console import PREFIX
from ..training.records.run_folder import RunFolder

PROGRAM = Path(__file__).resolve().parents[1] / "training" / "worker.py"
LOGS = "test_run_id_*"  # PyTorch's folders of a process's output, a new one for each start
TRACEBACK = "Traceback (most recent call last)"
EXPLAINED = (1, 2)  # exit codes with which disca.training ends after a line that says why
KILL_SIGNAL = getattr(signal, "SIGKILL", signal.SIGTERM)  # Windows has only the second, which is as hard there


class Worker:
    """A training by the settings in a folder, in its own process, from its start to the end of the `with`."""

    def __init__(self, folder: RunFolder):
        if not torch.distributed.is_available():
            raise ValueError(
                "This PyTorch was built without torch.distributed, which training needs. "
                "Install one from pytorch.org that has it."
            )
        self._folder = folder
        self._result = None
        with ThreadPoolExecutor(1) as thread:  # in the main thread it would take over the server's signals
            self._process = thread.submit(_start, folder).result()
        atexit.register(self.ask_to_stop)

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        atexit.unregister(self.ask_to_stop)
        if not self.ended():  # what went wrong is here, not there
            self.ask_to_stop()
            return
        self._folder.forget_stop()
        if self._result and not self._result.failures:
            shutil.rmtree(self.log.parents[2], ignore_errors=True)

    @property
    def log(self) -> Path:
        """The file with what it printed."""
        return Path(self._process.stderrs[0])

    def ended(self) -> bool:
        """Whether it is no longer running."""
        self._result = self._result or self._process.wait(0)
        return self._result is not None

    def ask_to_stop(self) -> None:
        """Lets it save and end after the iteration it is at."""
        self._folder.ask_to_stop()

    def kill(self) -> None:
        """Ends it at once."""
        self._process.close(KILL_SIGNAL)

    def failure(self) -> str | None:
        """Why it ended, in a sentence; None if all went well."""
        if not self._result or not self._result.failures:
            return None
        code = self._result.failures[0].exitcode
        printed = self.log.read_bytes().decode("utf-8", "replace").replace("\r\n", "\n")
        sentence = printed.rpartition(PREFIX)[2].partition("\r")[0].strip()
        if code in EXPLAINED and PREFIX in printed and TRACEBACK not in sentence:
            return f"{cause(sentence)} The log is {quoted(self.log)}."
        end = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code:d}"
        lines = [line.strip() for line in re.split(r"[\r\n]+", printed) if line.strip()]
        last = f" It last said: {cause(lines[-1])}" if lines else ""
        return (
            f"The training {end}.{last} The log is {quoted(self.log)}. Queue again to go on from the last checkpoint."
        )


def clear(run: RunFolder) -> None:
    """Takes away what an earlier start in the run's folder left to the server."""
    for path in (run.state, run.worker.stop, *run.worker.path.glob(LOGS)):
        remove(path)


def comfy_folder() -> Path:
    """Where ComfyUI's code is, which --base-directory does not change."""
    return Path(inspect.getfile(comfy.model_management)).resolve().parents[1]


def _start(folder: RunFolder):
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std, start_processes

    # it speaks of torchrun and of signals that are not its to handle here; how a run ended is said by `failure`
    logging.getLogger("torch.distributed.elastic.multiprocessing.api").setLevel(logging.CRITICAL)
    environment = {"COMFYUI_PATH": str(comfy_folder()), "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1"}
    return start_processes(
        name="disca",
        entrypoint=sys.executable,
        args={0: (str(PROGRAM), os.fspath(folder.settings))},
        envs={0: environment},
        logs_specs=DefaultLogsSpecs(log_dir=str(folder.path), redirects=Std.ALL),
    )
