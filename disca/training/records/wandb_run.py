"""The log as a run of Weights & Biases, for those who ask for one: its package is not part of ComfyUI's environment."""

import re
from dataclasses import asdict
from pathlib import Path
from secrets import token_hex
from typing import Any

from ...files import replacing
from ...messages import cause, quoted
from ..contract.settings import Settings

ID = "wandb_id.txt"  # in the run's folder: a run that goes on is the same one there
FORM = re.compile(r"[a-z0-9]{8,32}")


class WandbRun:
    """One run there; what it has of an iteration it keeps, also where a run goes on from before it."""

    def __init__(self, settings: Settings, folder: Path):
        wandb = _imported()
        own_id = _own_id(folder / ID)
        options = {"project": settings.log.wandb, "name": folder.name, "id": own_id, "resume": "allow"}
        try:
            self._run = wandb.init(**options, dir=str(folder), config=asdict(settings))
        except Exception as error:  # it has many kinds, such as for who is not logged in
            raise RuntimeError(
                f"Weights & Biases gave no run for the project {quoted(settings.log.wandb)} ({cause(error)}). Log in "
                "with 'wandb login', set WANDB_MODE=offline, or leave log.wandb empty."
            ) from error

    def write(self, scalars: dict[str, float], step: int) -> None:
        """Sends figures of an iteration."""
        self._run.log(scalars, step=step)

    def close(self) -> None:
        """Ends the run there."""
        self._run.finish()


def _imported() -> Any:
    try:
        import wandb
    except ImportError as error:
        raise RuntimeError(
            "log.wandb names a project, but wandb cannot be imported. Install it into the Python that trains "
            "(pip install wandb), or leave log.wandb empty."
        ) from error
    return wandb


def _own_id(path: Path) -> str:
    if path.is_file() and FORM.fullmatch(found := path.read_text(encoding="utf-8", errors="replace").strip()):
        return found
    made = token_hex(8)
    with replacing(path) as aside:
        aside.write_text(made, encoding="utf-8")
    return made
