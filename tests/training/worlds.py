"""A small real training: a line that is learnt from points, by the real loop. Also a program, for torchrun."""

import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from disca.training.contract.protocol import Loss, Trainable
from disca.training.contract.settings import DataSettings, ModelSettings, OptimiserSettings, SaveSettings, Settings
from disca.training.engine import checkpoints
from disca.training.engine.distributed import Processes
from disca.training.engine.loop import train

WIDTH = 4
LENGTH = 11


class Points:
    """Points x and what a fixed map makes of them; some are spoiled."""

    fingerprint, null = "points", {}
    family, encoder = "points", "none"

    def __init__(self, spoiled: tuple[int, ...] = (), shapes: int = 1):
        self._spoiled, self._shapes = spoiled, shapes

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        x = torch.randn(2 + i % self._shapes, WIDTH, generator=torch.Generator().manual_seed(i))
        return {"x": x * float("nan") if i in self._spoiled else x, "y": x.sin()}


def given(training, dataset):
    """What makes the loop's training and samples, where they are there already."""

    def make(settings: Settings, processes: Processes):
        training.prepare(settings)
        return training, dataset

    return make


class Regression:
    """Two parts: a network that learns the map with noise on its input, and a critic that learns its error."""

    may_change = frozenset({"cfg.guidance"})

    def __init__(self, seed: int = 0):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Linear(WIDTH, 16), nn.Tanh(), nn.Linear(16, WIDTH))
        self.modules = {"network": network, "critic": nn.Linear(WIDTH, 1)}
        self.seen: list[int] = []

    def prepare(self, settings: Settings) -> None:
        self.iterations = settings.iterations
        self.parts = {name: Trainable(module, settings.optimizer) for name, module in self.modules.items()}

    def losses(self, batch: dict[str, Tensor], iteration: int) -> Iterator[Loss]:
        positions = batch["index"].tolist()
        self.seen += positions
        draws = [torch.Generator().manual_seed(position) for position in positions]
        t = torch.stack([torch.rand((), generator=draw) for draw in draws]).to(batch["x"].device)
        x = batch["x"] + 0.1 * t[:, None, None]
        error = (self.modules["network"](x) - batch["y"]).square().mean((1, 2))
        yield Loss("network", error, t)
        if iteration >= 3:
            guess = self.modules["critic"](batch["x"]).mean((1, 2))
            yield Loss("critic", (guess - error.detach()).square(), t, {"guess": float(guess.detach().mean())})

    def probe(self, batch: dict[str, Tensor]) -> list[str]:
        return [f"probe of {len(batch['index'])}"]

    def preview(self, path: Path | None) -> dict[str, float]:
        if path:
            path.write_bytes(b"picture")
        return {"this to that": 0.25}

    def export(self, folder: Path, weights: dict[str, Tensor] | None) -> None:
        if weights is not None:
            save_file(weights, folder / "network.safetensors")

    @staticmethod
    def load(model: ModelSettings, export: Path) -> dict[str, Tensor]:
        return load_file(export / "network.safetensors")

    def shards(self) -> list[nn.Module]:
        return [self.modules["network"][2]]  # and the rest whole in every process, as around a network's blocks


def settings(
    out: Path, iterations: int = 8, batch: int = 2, accumulate: int = 1, every: int = 3, **changes
) -> Settings:
    """A short run in a folder."""
    made = Settings(
        algorithm="flow",
        out=str(out),
        data=DataSettings(path=str(out), batch=batch, accumulate=accumulate),
        iterations=iterations,
        optimizer=OptimiserSettings(lr=1e-2, warmup=3, clip=0.5, ema=0.9),
        save=SaveSettings(every=every),
        device="cpu",
    )
    return replace(made, model=replace(made.model, dtype="fp32"), **changes)


def run(out, dataset=None, training=None, stop=lambda: False, resume_from=None, **changes):
    """Trains in a folder and gives the exported weights."""
    export = train(settings(out, **changes), given(training or Regression(), dataset or Points()), stop, resume_from)
    return load_file(export / "network.safetensors")


def after(calls: int):
    """A stop that asks at this call."""
    left = iter(range(calls - 1, -1, -1))
    return lambda: next(left) == 0


def saved_bytes(out: Path, iteration: int) -> bytes:
    """All weights, optimisers and averages of a checkpoint."""
    return (out / "checkpoints" / f"step-{iteration:06d}" / "state" / "00000-00000.safetensors").read_bytes()


def program(*arguments: str, two: bool = False, restarts: int = 2) -> str:
    """Runs the small training as a program, or as two under torchrun; gives what it told."""
    return launched(Path(__file__), *arguments, processes=2 if two else 1, restarts=restarts)


def launched(file: Path, *arguments: str, processes: int, restarts: int = 0) -> str:
    """Runs a program, as several under torchrun where there are; gives what it told."""
    torchrun = ["-m", "torch.distributed.run", "--standalone"]
    torchrun += [f"--nproc-per-node={processes:d}", f"--max-restarts={restarts:d}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *(torchrun if processes > 1 else []), str(file), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1800)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


class Mortal(Regression):
    """Kills its own process at one iteration, the first time it gets there."""

    def __init__(self, mark: Path, iteration: int, rank: int):
        super().__init__()
        self._mark, self._iteration, self._rank = mark, iteration, rank

    def losses(self, batch: dict[str, Tensor], iteration: int) -> Iterator[Loss]:
        if iteration == self._iteration and os.environ["RANK"] == str(self._rank) and not self._mark.exists():
            self._mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        yield from super().losses(batch, iteration)


def be_killed(out: Path, times: int, iterations: int) -> None:
    """Trains in processes that are killed at random moments; says what was found after each, then trains to the end."""
    random.seed(0)
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])  # imports what each child would import anew
    for _ in range(times):
        child = os.fork()
        if not child:
            train(settings(out, iterations, every=1), given(Regression(), Points()))
            os._exit(0)
        before = checkpoints.newest(out / "checkpoints", print)
        ended = 0  # by itself, on a fast machine
        while not ended and checkpoints.newest(out / "checkpoints", lambda told: None) == before:
            ended, _ = os.waitpid(child, os.WNOHANG)
            time.sleep(0.05)
        if not ended:
            time.sleep(random.uniform(0, 0.1))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        partial = len(list((out / "checkpoints").glob("*.partial")))
        print(partial, checkpoints.newest(out / "checkpoints", lambda told: print("broken", told)), flush=True)
    train(settings(out, iterations, every=1), given(Regression(), Points()))


if __name__ == "__main__":
    what, *folders = sys.argv[1], *map(Path, sys.argv[2:])
    torch.set_num_threads(1)
    logging.basicConfig(level=logging.INFO)
    if what in ("train", "train-and-die"):
        for out in folders:
            dies = what == "train-and-die" and out == folders[-1]
            training = Mortal(out / "died", 5, rank=1) if dies else Regression()
            train(settings(out), given(training, Points(shapes=2)))
    elif what == "be-killed":
        be_killed(*folders, times=4, iterations=40)
