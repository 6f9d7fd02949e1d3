"""The folder of a run: what lies where, for all who write there or read it."""

import re
from pathlib import Path

SETTINGS = "run.yaml"
PREVIEW = re.compile(r"step-(\d{6,9})\.png")


class RunFolder:
    """The files and folders of a run, whether they are there or not."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.settings = self.path / SETTINGS
        self.log = self.path / "log.jsonl"  # a line for each iteration
        self.state = self.path / "state.json"  # where the run stands now
        self.curves = self.path / "curves.png"
        self.previews = self.path / "previews"
        self.prompts = self.path / "prompts.safetensors"  # encoded, those of the settings for previews
        self.tensorboard = self.path / "tensorboard"
        self.checkpoints = self.path / "checkpoints"
        self.export = self.path / "export"  # what the inference nodes load
        self.stop = self.path / "stop"  # while there is such a file, the run is to save and stop

    @property
    def worker(self) -> "RunFolder":
        """What the server keeps in the run's folder for the process that trains: settings, stop and curves."""
        return RunFolder(self.path / "worker")

    def ask_to_stop(self) -> None:
        """Lets the run save and end after the iteration it is at."""
        self.stop.touch()

    def asked_to_stop(self) -> bool:
        """Whether somebody has asked."""
        return self.stop.exists()

    def forget_stop(self) -> None:
        """Takes back what was asked."""
        self.stop.unlink(missing_ok=True)

    def preview(self, iteration: int) -> Path:
        """The picture of the previews of an iteration."""
        return self.previews / f"step-{iteration:06d}.png"

    def last_preview(self) -> Path | None:
        """The last picture of previews that is there."""
        return max(self.previews.glob("*.png"), key=_iteration, default=None)


def _iteration(preview: Path) -> int:
    found = PREVIEW.fullmatch(preview.name)
    return int(found[1]) if found else -1
