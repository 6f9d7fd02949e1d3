"""Trainings of a small network, run by torchrun: notes the most memory that the second iteration held, and the plan's.

python peaks.py RUNS, where RUNS is a list in JSON: algorithm, start, folder of the results, rank of the LoRA, dataset
"""

import json
import os
import sys
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import sharded  # prepares ComfyUI
import torch
from torch.profiler import ProfilerActivity, profile

from disca.training.budget import memory
from disca.training.budget.sizes import sizes_of_run
from disca.training.choose import chosen
from disca.training.contract.method_settings import PredictorSettings
from disca.training.contract.settings import DataSettings, OptimiserSettings, PreviewSettings, SaveSettings, Settings
from disca.training.engine.loop import train

UPDATE = "aten::_fused_adamw_"  # the moments are there from the first one on


def settings(algorithm: str, start: str, out: str, rank: int, data: str) -> Settings:
    """Two iterations."""
    return replace(
        sharded.settings(algorithm, start, out, 1, rank),
        data=DataSettings(data),
        optimizer=OptimiserSettings(lr=1e-4, warmup=0, ema=0.9),
        save=SaveSettings(every=100),
        preview=PreviewSettings(every=0),
        predictor=PredictorSettings(mse_iterations=1, gan_iterations=1, full_steps=2),
        iterations=2,
    )


def measured(run: Settings) -> int:
    """Bytes of PyTorch's allocator at the worst moment between the first update and the last."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=True) as profiled:
        train(run, chosen)
    events = sorted(profiled.profiler.kineto_results.events(), key=lambda event: event.start_ns())
    updates = [place for place, event in enumerate(events) if event.name() == UPDATE]
    changes = [event.nbytes() if event.name() == "[memory]" else 0 for event in events]
    return max(list(accumulate(changes))[updates[0] : updates[-1]])


def planned(run: Settings, processes: int) -> int:
    """What the plan says, without what a card takes for itself."""
    savings = replace(memory.savings_of_run(run), gpus=processes)
    needs = memory.peak(sizes_of_run(run), memory.job_of_run(run), savings)
    return sum(needs.values()) - needs["runtime"]


def main(runs: list[tuple[str, str, str, int, str]]) -> None:
    """Runs them one after the other."""
    torch.set_num_threads(1)
    rank, processes = os.environ.get("RANK", "0"), int(os.environ.get("WORLD_SIZE", "1"))
    for each in runs:
        run = settings(*each)
        found = {"measured": measured(run), "planned": planned(run, processes)}
        Path(run.out, f"peak-{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
