"""The plan's memory is what trainings are measured to hold, on one process and on two."""

import json
import sys
from pathlib import Path

import pytest
import small_networks
import torch

sys.path.insert(1, str(Path(__file__).parent))
from worlds import launched

from disca.training.contract.settings import DataSettings, Settings
from disca.training.data.dataset import DatasetWriter
from disca.training.network.export import export_network
from disca.training.network.roles import add_embedder

pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo")

PROGRAM = Path(__file__).parent / "peaks.py"
RUNS = {  # algorithm, rank of the LoRA, what its start has been told
    "CFG, all weights": ("cfg", 0, ()),
    "MeanFlow LoRA": ("meanflow", 4, ("guidance_in",)),
    "Predictor with discriminator": ("predictor", 0, ("guidance_in", "time_r_in")),
}
WIDE = {"hidden_size": 256, "num_heads": 2, "axes_dim": [16, 56, 56], "depth": 1, "depth_single_blocks": 4}
INPUTS = {"vec_in_dim": 768, "context_in_dim": 32, "in_channels": 16, "out_channels": 16}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Algorithm, start, rank and dataset of each run: 1,032 tokens in a network wide enough to count."""
    folder, found = tmp_path_factory.mktemp("starts"), {}
    null = {"context": torch.zeros(8, 32), "y": torch.zeros(768)}
    with DatasetWriter(str(folder / "data"), encoder="any", family="1.0", null=null) as writer:
        for i in range(4):
            latent, text = torch.randn(16, 4, 32, 32), {"context": torch.randn(8, 32), "y": torch.randn(768)}
            writer.add(f"{i}", {"latent": latent, **text})
    for name, (algorithm, rank, embedders) in RUNS.items():
        network = small_networks.network("1.0", **WIDE, **INPUTS, meanflow=False, guidance_embed=False)
        for embedder in embedders:
            add_embedder(network, embedder)
        (folder / name).mkdir()
        with small_networks.training_mode():
            export_network(folder / name, network, {}, Settings("flow", str(folder), DataSettings("toy://shapes")))
        found[name] = (algorithm, str(folder / name / "model.safetensors"), rank, str(folder / "data"))
    return found


@pytest.mark.parametrize(("processes", "least"), [(1, 0.9), (2, 0.8)])
def test_what_is_measured_is_at_most_a_tenth_above_the_plan_and_little_below(processes, least, runs, tmp_path):
    """How much of the next block is there while one is at work hangs on how the processes come along."""
    outs = {name: tmp_path / name for name in runs}
    given = [(algorithm, start, str(outs[name]), rank, data) for name, (algorithm, start, rank, data) in runs.items()]
    launched(PROGRAM, json.dumps(given), processes=processes)
    for name, out in outs.items():
        for rank in range(processes):
            peak = json.loads((out / f"peak-{rank:d}.json").read_text())
            assert least <= peak["measured"] / peak["planned"] <= 1.1, f"{name}, process {rank:d}: {peak}"
