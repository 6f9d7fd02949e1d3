"""python -m disca.training run.yaml: trains what the file describes; the same under torchrun.

    python -m disca.training run.yaml --plan                        what it needs in memory and time, without training
    python -m disca.training --reference > run.yaml                 every setting with its default, to start from
    python -m disca.training run.yaml --resume-from 500             goes on from an earlier checkpoint than the last
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
import signal
import sys
from collections.abc import Callable
from types import FrameType

from tqdm.contrib.logging import logging_redirect_tqdm

from .console import speak
from .contract.reference import reference
from .contract.settings import Settings
from .contract.yaml_settings import read_settings
from .network.comfy import choose_device, prepare_comfy

log = logging.getLogger("disca.training")


def main(arguments: list[str], stop: Callable[[], bool] = lambda: False) -> int:
    """The command, which `stop` may end too; 0 if all went well, 2 if settings or machine do not allow the run."""
    parser = argparse.ArgumentParser(prog="python -m disca.training", description=__doc__.splitlines()[0])
    parser.add_argument("settings", nargs="?", help="the YAML file that describes the run")
    parser.add_argument("--reference", action="store_true", help="print every setting with its default, and end")
    parser.add_argument("--plan", action="store_true", help="print what the run needs in memory and time, and end")
    parser.add_argument("--resume-from", type=int, metavar="ITERATION", help="go on from this checkpoint, not the last")
    options = parser.parse_args(arguments)
    speak()
    if options.reference:
        sys.stdout.write(reference())
        return 0
    if options.settings is None:
        parser.error("name the YAML file that describes the run; --reference prints one to start from")
    try:
        settings = read_settings(options.settings)
        device = choose_device(settings.device)
        prepare_comfy(device.type)
    except (ValueError, RuntimeError) as error:
        log.error("%s", error)
        return 2
    return _plan(settings) if options.plan else _train(settings, stop, options.resume_from)


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
    from .budget.plan import table

    sys.stdout.write(f"{table(settings)}\n")
    return 0


def _train(settings: Settings, stop: Callable[[], bool], resume_from: int | None) -> int:
    from .choose import chosen
    from .engine.loop import train

    interrupt = Interrupt()
    try:
        with logging_redirect_tqdm():
            train(settings, chosen, lambda: interrupt.asked or stop(), resume_from)
    except (ValueError, RuntimeError, OSError) as error:
        log.error("%s", error, exc_info=log.isEnabledFor(logging.DEBUG))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
