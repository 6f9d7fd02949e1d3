"""The real trainings in several processes: what lies where, equal passes, and the numbers of one process."""

import json
import sys
from pathlib import Path

import pytest
import small_networks
import torch
from safetensors.torch import load_file

sys.path.insert(1, str(Path(__file__).parent))
from worlds import launched

from disca.toy.network import new_network
from disca.training.contract.settings import DataSettings, Settings
from disca.training.network.export import export_network
from disca.training.network.roles import add_embedder

pytestmark = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo")

PROGRAM, SAMPLES = Path(__file__).parent / "sharded.py", 4
RUNS = {  # algorithm, start, rank of the LoRA
    "Predictor": ("predictor", "meanflow", 0),
    "MeanFlow": ("meanflow", "cfg", 0),
    "MeanFlow LoRA": ("meanflow", "cfg", 2),
    "CFG": ("cfg", "base", 0),
}
BY_PROCESSES = {1: [*RUNS], 2: [*RUNS], 4: ["Predictor", "MeanFlow LoRA"]}  # a launch of four takes longest
CASES = [(name, processes) for processes in (2, 4) for name in BY_PROCESSES[processes]]
EXPORTS = {"predictor": "predictor.safetensors", "meanflow": "model.safetensors", "cfg": "model.safetensors"}


@pytest.fixture(scope="module")
def starts(tmp_path_factory):
    """Files of a base model, one told its guidance, and one with MeanFlow, whose outputs are not zero."""
    folder, network, found = tmp_path_factory.mktemp("starts"), new_network("tiny", 0), {}
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if not weight.any() and weight.ndim > 1:
                weight.normal_(std=0.05, generator=torch.Generator().manual_seed(len(name)))
    for name, embedder in (("base", None), ("cfg", "guidance_in"), ("meanflow", "time_r_in")):
        if embedder:
            add_embedder(network, embedder)
            torch.nn.init.normal_(getattr(network, embedder).out_layer.weight, std=0.1)
        (folder / name).mkdir()
        with small_networks.training_mode():
            export_network(folder / name, network, {}, Settings("flow", str(folder), DataSettings("toy://shapes")))
        found[name] = str(folder / name / "model.safetensors")
    return found


@pytest.fixture(scope="module")
def trained(starts, tmp_path_factory):
    """The folder of a run by its name in RUNS on so many processes; all runs of as many are made at once."""
    made = {}

    def run(name: str, processes: int) -> Path:
        if processes not in made:
            made[processes] = {each: tmp_path_factory.mktemp("run") for each in BY_PROCESSES[processes]}
            runs = [(*RUNS[each], str(folder)) for each, folder in made[processes].items()]
            launch(processes, [(algorithm, starts[start], out, rank) for algorithm, start, rank, out in runs])
        return made[processes][name]

    return run


def launch(processes: int, runs: list[tuple[str, str, str, int]]) -> None:
    """Trains with as many samples an iteration on any number of processes."""
    launched(PROGRAM, str(SAMPLES // processes), json.dumps(runs), processes=processes)


def weights(name: str, out: Path) -> dict[str, torch.Tensor]:
    """What the run exported."""
    algorithm, _, rank = RUNS[name]
    (path,) = out.glob(f"**/step-000003/export/{'lora.safetensors' if rank else EXPORTS[algorithm]}")
    return load_file(path)


def losses(out: Path) -> list[dict[str, float]]:
    """Each iteration's."""
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines]


@pytest.mark.parametrize(("name", "processes"), CASES)
def test_after_every_pass_each_process_holds_its_share_and_all_have_made_as_many(name, processes, trained):
    out = trained(name, processes)
    noted = [json.loads((out / f"noted-{rank:d}.json").read_text()) for rank in range(processes)]
    assert len(noted[0]) > 3 and len({len(passes) for passes in noted}) == 1
    for here, whole in (step for passes in noted for step in passes):
        assert here <= whole / processes * 1.03, "a weight whose rows do not divide leaves a process one more"
    assert all(sum(here for here, _ in step) == step[0][1] for step in zip(*noted, strict=True))


@pytest.mark.parametrize(("name", "processes"), CASES)
def test_several_processes_train_as_one_with_the_same_samples(name, processes, trained, starts):
    alone, together = trained(name, 1), trained(name, processes)
    for one, other in zip(losses(alone), losses(together), strict=True):
        assert other == pytest.approx(one, rel=2e-3)
    expected, found = weights(name, alone), weights(name, together)
    assert found.keys() == expected.keys()
    size = sum(tensor.float().square().sum() for tensor in expected.values()).sqrt()
    apart = sum((found[key].float() - expected[key].float()).square().sum() for key in expected).sqrt()
    assert apart < 2e-3 * size
