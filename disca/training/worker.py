"""The program that ComfyUI's server starts to train: python worker.py run.yaml.

A file of its own, not `-m disca.training`: the pack's folder may have any name, and ComfyUI's portable Python heeds
neither PYTHONPATH nor the working folder.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

PACK = Path(__file__).resolve().parents[2]
LOOK_SECONDS = 1.0


def stop_without_server(server: int) -> None:
    """Saves and stops once the server is gone; on Windows nobody tells us, and the run goes on to its end."""
    while os.getppid() == server:
        time.sleep(LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


def run() -> int:
    """What `python -m disca.training` does."""
    here = Path(__file__).resolve().parent
    sys.path[:] = [str(PACK), *(path for path in sys.path if Path(path).resolve() != here)]
    if os.name != "nt":
        threading.Thread(target=stop_without_server, args=(os.getppid(),), daemon=True).start()
    from disca.training.__main__ import main
    from disca.training.records.run_folder import RunFolder

    own = RunFolder(Path(sys.argv[1]).parent)  # the server's, whose stop no other training heeds
    return main(sys.argv[1:], own.asked_to_stop)


if __name__ == "__main__":
    sys.exit(run())
