"""Trainings of the toy's tiny network, run by torchrun: notes how many weights lie here after every pass.

python sharded.py BATCH RUNS, where RUNS is a list in JSON: algorithm, start, folder of the results, rank of the LoRA
"""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from disca.training.network.comfy import prepare_comfy

prepare_comfy("cpu")

import torch  # noqa: E402

from disca.training.choose import chosen  # noqa: E402
from disca.training.contract.method_settings import PairSettings, PredictorSettings  # noqa: E402
from disca.training.contract.settings import (  # noqa: E402
    DataSettings,
    LoraSettings,
    MemorySettings,
    ModelSettings,
    OptimiserSettings,
    PreviewSettings,
    SaveSettings,
    Settings,
)
from disca.training.engine.distributed import local  # noqa: E402
from disca.training.engine.loop import train  # noqa: E402
from disca.training.network.lora import EMBEDDERS  # noqa: E402
from disca.training.network.velocity import Network  # noqa: E402

PAIRS = PairSettings(line=0.3, trajectory=0.3, cached=0.4)
PREDICTOR = PredictorSettings(mse_iterations=1, gan_iterations=2, full_steps=2, pairs=PAIRS)


def settings(algorithm: str, start: str, out: str, batch: int, rank: int) -> Settings:
    """Three iterations."""
    return Settings(
        algorithm=algorithm,
        out=out,
        data=DataSettings("toy://shapes", batch=batch),
        model=ModelSettings(path=start, dtype="fp32"),
        optimizer=OptimiserSettings(lr=1e-3, warmup=0, ema=0.0),
        memory=MemorySettings(recompute_blocks=True),
        save=SaveSettings(every=3),
        preview=PreviewSettings(every=3, steps=2),
        predictor=PREDICTOR,
        lora=LoraSettings(rank=rank),
        iterations=3,
        device="cpu",
    )


@contextmanager
def watched(lora: bool) -> Iterator[list[tuple[int, int]]]:
    """Notes after each pass through a network how many of its weights lie here, and how many there are.

    What a LoRA run trains, embedders with it, is not counted: it is small, and whole in every process.
    """
    run, noted = Network._run, []

    def noting(self, *args, **options):
        out = run(self, *args, **options)
        left_out = {"adapter", *EMBEDDERS} if lora else set()
        weights = [weight for name, weight in self.module.named_parameters() if left_out.isdisjoint(name.split("."))]
        noted.append((sum(local(weight).numel() for weight in weights), sum(weight.numel() for weight in weights)))
        return out

    Network._run = noting
    try:
        yield noted
    finally:
        Network._run = run


def main(batch: int, runs: list[tuple[str, str, str, int]]) -> None:
    """Runs them one after the other."""
    torch.set_num_threads(1)
    for algorithm, start, out, rank in runs:
        with watched(bool(rank)) as noted:
            train(settings(algorithm, start, out, batch, rank), chosen)
        Path(out, f"noted-{os.environ.get('RANK', '0')}.json").write_text(json.dumps(noted))


if __name__ == "__main__":
    main(int(sys.argv[1]), json.loads(sys.argv[2]))
