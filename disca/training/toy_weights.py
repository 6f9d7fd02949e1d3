"""What the pack ships of a chain: weights in half precision with their hashes, curves, last previews, a short log."""

import hashlib
import json
import shutil
from pathlib import Path
from statistics import mean

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ..toy import WEIGHTS
from .records.log import read_log
from .records.run_folder import RunFolder

SUMS = "SHA256SUMS"
LINES = 50  # of each stage in the short log


def ship(results: dict[str, Path], folder: Path = WEIGHTS) -> None:
    """Writes the exports of a chain's stages, each run.../export/*.safetensors, as the folder has them."""
    folder.mkdir(parents=True, exist_ok=True)
    for stage, export in results.items():
        run = RunFolder(export.parents[1])
        _write_half(export, folder / f"{stage}.safetensors")
        shutil.copy(run.curves, folder / f"{stage}-curves.png")
        shutil.copy(run.last_preview(), folder / f"{stage}-preview.png")
    log = folder / "log.jsonl"
    before = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
    kept = [line for line in before if line["stage"] not in results]
    found = [line for stage, export in results.items() for line in _short_log(stage, RunFolder(export.parents[1]))]
    log.write_text("".join(json.dumps(line) + "\n" for line in kept + found), encoding="utf-8")
    sums = ["  ".join((sha256(path), path.name)) for path in sorted(folder.glob("*.safetensors"))]
    (folder / SUMS).write_text("\n".join(sums) + "\n", encoding="utf-8")


def sha256(path: Path) -> str:
    """The file's hash."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _write_half(source: Path, target: Path) -> None:
    with safe_open(source, "pt") as file:
        state = {key: file.get_tensor(key).to(torch.float16) for key in file.keys()}
        save_file(state, target, file.metadata())


def _short_log(stage: str, run: RunFolder) -> list[dict]:
    """Means of equal parts of the run: losses of each part, and seconds of an iteration."""
    log = read_log(run)
    size = max(1, len(log) // LINES)
    found = []
    for start in range(0, len(log), size):
        part = log[start : start + size]
        found_losses: dict[str, list[float]] = {}
        for name, loss in (entry for line in part for entry in line["loss"].items()):
            found_losses.setdefault(name, []).extend([] if loss is None else [loss])
        losses = {name: round(mean(values), 5) for name, values in found_losses.items() if values}
        seconds = round(mean(line["seconds"] for line in part), 3)
        found.append({"stage": stage, "iteration": part[-1]["iteration"], "loss": losses, "seconds": seconds})
    return found
