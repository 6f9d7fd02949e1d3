"""python -m disca.training run.yaml: trains what the file describes; the same under torchrun.

    python -m disca.training run.yaml --plan                        what it needs in memory and time, without training
    torchrun --nproc-per-node=8 -m disca.training run.yaml          several GPUs of one machine
    TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 torchrun --nnodes=1:4 --nproc-per-node=8 --rdzv-backend=c10d \
        --rdzv-id=my_run --rdzv-endpoint=host:29500 --max-restarts=3 -m disca.training run.yaml      several machines

Run it in the pack's folder, with ComfyUI's Python. ComfyUI is at COMFYUI_PATH, or where the pack lies in its
custom_nodes. An interrupt, or a file named stop in the run's folder, saves and stops; the same command goes on.
On several machines the run's folder must be one that all of them see; by its id, a job that starts again without the
machine that held the folder takes it over.
"""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from tqdm.contrib.logging import logging_redirect_tqdm

from ..messages import quoted
from .contract.settings import Settings, read_settings
from .engine.distributed import choose_device

PACK = Path(__file__).resolve().parents[2]

log = logging.getLogger("disca.training")


def main(arguments: list[str], stop: Callable[[], bool] = lambda: False) -> int:
    """The command, which `stop` may end too; 0 if all went well, 2 if settings or machine do not allow the run."""
    parser = argparse.ArgumentParser(prog="python -m disca.training", description=__doc__.splitlines()[0])
    parser.add_argument("settings", help="the YAML file that describes the run")
    parser.add_argument("--plan", action="store_true", help="print what the run needs in memory and time, and end")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="[disca] %(message)s")
    try:
        settings = read_settings(options.settings)
        device = choose_device(settings.device)
        prepare_comfy(device.type)
    except (ValueError, RuntimeError) as error:
        log.error("%s", error)
        return 2
    return _plan(settings) if options.plan else _train(settings, stop)


def prepare_comfy(device: str) -> None:
    """Puts ComfyUI on the import path, for the CPU if that is the device, and in training mode."""
    sys.path.insert(0, str(comfy_folder()))
    import comfy.options

    comfy.options.enable_args_parsing(False)
    from comfy.cli_args import args

    args.cpu = args.cpu or device == "cpu"
    args.use_pytorch_cross_attention = True  # ComfyUI's other kernels are slow or have no gradient
    import comfy.model_management

    comfy.model_management.in_training = True  # else rotary embeddings have no gradient


def comfy_folder() -> Path:
    """ComfyUI's folder: COMFYUI_PATH, or the one whose custom_nodes the pack lies in."""
    named = os.environ.get("COMFYUI_PATH")
    folder = Path(named) if named else PACK.parents[1]
    if not (folder / "comfy" / "model_management.py").is_file():
        told = "COMFYUI_PATH is" if named else "COMFYUI_PATH is not set, and the pack's grandparent folder is"
        raise RuntimeError(f"{told} {quoted(folder)}, which is no ComfyUI. Set COMFYUI_PATH to ComfyUI's folder.")
    return folder


class Interrupt:
    """Remembers a first SIGINT or SIGTERM, so that the run saves and stops; a second one acts at once."""

    def __init__(self):
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(number, signal.SIG_DFL)
        log.info("Saving and stopping after this iteration. Once more to stop at once.")


def _plan(settings: Settings) -> int:
    from .budget import memory

    sys.stdout.write(f"{memory.table(settings)}\n")
    return 0


def _train(settings: Settings, stop: Callable[[], bool]) -> int:
    from .engine.loop import train

    interrupt = Interrupt()
    try:
        with logging_redirect_tqdm():
            train(settings, lambda: interrupt.asked or stop())
    except (ValueError, RuntimeError, OSError) as error:
        log.error("%s", error, exc_info=log.isEnabledFor(logging.DEBUG))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
