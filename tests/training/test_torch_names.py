"""Optimisers and schedules by the names of PyTorch and torchao, and their state in a checkpoint."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from disca.training.contract.protocol import Trainable
from disca.training.contract.settings import OptimiserSettings, Settings
from disca.training.contract.torch_names import optimisers, schedules, uses_torchao
from disca.training.contract.yaml_settings import read_options, read_settings, write_settings
from disca.training.engine import state, tensor_files
from disca.training.engine.distributed import Processes
from disca.training.engine.learning_rate import LearningRate
from disca.training.engine.parts import Part

ALONE = Processes(0, 1, torch.device("cpu"))
FEW_BITS = ["Adam8bit", "AdamW8bit", "AdamFp8", "AdamWFp8"]
BY_NAME = [*optimisers(), *(f"torchao.optim.{name}" for name in FEW_BITS)]
SCHEDULE = "torch.optim.lr_scheduler."


def matrix_part(name: str, **options) -> Part:
    """A part of one matrix, large enough for torchao to keep few bits of its moments."""
    if uses_torchao(name):
        pytest.importorskip("torchao")
    torch.manual_seed(0)
    return Part("network", Trainable(torch.nn.Linear(64, 64, bias=False), OptimiserSettings(name, **options)), 20)


def descend(part: Part, steps: range) -> torch.Tensor:
    """The matrix after these steps towards another one, with gradients that depend on the step."""
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        weight = part.module.weight
        weight.grad = weight.detach() + torch.randn(weight.shape, generator=generator)
        part.update(1.0)
    return part.module.weight.detach().clone()


@pytest.mark.parametrize("name", BY_NAME)
def test_each_optimiser_moves_a_part_and_goes_on_from_a_checkpoint_as_if_never_stopped(name, tmp_path):
    whole, first = (matrix_part(name, lr=0.01) for _ in range(2))
    start = whole.module.weight.detach().clone()
    expected = descend(whole, range(6))
    descend(first, range(3))
    tensor_files.write(state.collect([first], None), tmp_path, ALONE)
    second = matrix_part(name, lr=0.01)
    with tensor_files.SavedTensors(sorted(tmp_path.iterdir())) as saved:
        state.make_room([second], saved.names)
        tensors = state.collect([second], None)
        assert not saved.lacks(tensors) and tensors.keys() == saved.names
        for key, tensor in tensors.items():
            saved.read_into(key, tensor)
    second.updates = first.updates
    assert torch.equal(descend(second, range(3, 6)), expected)
    assert not torch.equal(expected, start)


def test_a_class_named_in_full_is_the_one_of_the_short_name():
    named, short = (descend(matrix_part(name, lr=0.01), range(3)) for name in ("torch.optim.AdamW", "adamw"))
    assert torch.equal(named, short)


def test_options_reach_the_optimiser():
    part = matrix_part("torch.optim.SGD", lr=0.1, options={"momentum": 0.9, "nesterov": True})
    (group,) = part.optimiser.param_groups
    assert (group["momentum"], group["nesterov"]) == (0.9, True)


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("StepLR", {"step_size": 5, "gamma": 0.5}, [0.5 ** (i // 5) for i in range(20)]),
        ("LinearLR", {"start_factor": 1.0, "end_factor": 0.0}, [1.0 - i / 20 for i in range(20)]),
        ("CosineAnnealingLR", {}, [0.5 + 0.5 * math.cos(math.pi * i / 20) for i in range(20)]),
        ("PolynomialLR", {"power": 2.0}, [(1 - i / 20) ** 2 for i in range(20)]),
    ],
)
def test_schedules_of_pytorch_go_over_the_whole_run(name, options, expected):
    settings = OptimiserSettings(lr=0.1, decay=SCHEDULE + name, decay_options=options)
    rate = LearningRate(settings, 20)
    assert [rate.of(i) for i in range(20)] == pytest.approx([0.1 * share for share in expected], abs=1e-6)


@pytest.mark.parametrize("name", ["OneCycleLR", "CosineAnnealingLR"])
def test_a_schedule_is_the_same_after_a_resume(name):
    settings = OptimiserSettings(lr=0.1, decay=SCHEDULE + name, warmup=3)
    through = LearningRate(settings, 20)
    rates = [through.of(i) for i in range(20)]
    assert [LearningRate(settings, 20).of(i) for i in (0, 7, 19)] == [rates[0], rates[7], rates[19]]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("name: os.system", "'name' is 'os.system', but must be one of 'adamw', 'adamw_8bit', 'torch.optim.ASGD'"),
        ("name: torch.optim.LBFGS", "'name' is 'torch.optim.LBFGS', but must be one of"),
        ("name: torch.optim.SGD, options: {momentun: 0.9}", "'momentun' is no option of 'torch.optim.SGD'. It takes"),
        ("name: torch.optim.SGD, options: {lr: 0.9}", "'lr' is no option of 'torch.optim.SGD'"),
        ("name: torch.optim.SGD, options: {momentum: -1}", "cannot work with these options (Invalid momentum value"),
        ("name: torch.optim.SGD, options: {momentum: {a: b}}", "Give a number, a text, true or false, or a list."),
        ("decay: torch.optim.lr_scheduler.StepLR", "needs the option 'step_size'"),
        ("decay: torch.optim.lr_scheduler.StepLR, decay_options: {step_size: x}", "cannot work with these options"),
        ("decay: torch.optim.lr_scheduler.LambdaLR", "'decay' is 'torch.optim.lr_scheduler.LambdaLR', but must be one"),
        ("decay: cosine, decay_options: {T_max: 5}", "'cosine' takes none"),
    ],
)
def test_what_no_class_can_be_made_of_is_said_with_its_line(given, sentence, tmp_path):
    (tmp_path / "run.yaml").write_text(
        f"algorithm: flow\nout: out\ndata: {{path: 'toy://shapes'}}\noptimizer: {{{given}}}\n"
    )
    with pytest.raises(ValueError, match="run.yaml, line 4: ") as error:
        read_settings(tmp_path / "run.yaml")
    assert sentence in str(error.value)


def test_settings_with_options_are_written_as_they_are_read(tmp_path):
    optimizer = OptimiserSettings(
        "torch.optim.SGD", {"momentum": 0.5}, decay=SCHEDULE + "StepLR", decay_options={"step_size": 7}
    )
    settings = Settings("flow", str(tmp_path), {"path": "toy://shapes"}, optimizer=optimizer)
    write_settings(settings, tmp_path / "run.yaml")
    assert read_settings(tmp_path / "run.yaml").optimizer == optimizer


def test_an_optimiser_that_cannot_move_vectors_is_refused_with_its_reason():
    module = torch.nn.Linear(4, 4)
    with pytest.raises(ValueError, match="'torch.optim.Muon' cannot move the weights of this training .*2D"):
        Part("network", Trainable(module, OptimiserSettings("torch.optim.Muon")), 20)


def test_every_schedule_that_is_offered_needs_no_more_than_its_own_options():
    given = {"gamma": 0.9, "step_size": 3, "milestones": [3, 5], "T_0": 4, "base_lr": 0.01}
    needs = {
        "StepLR": ("step_size",), "MultiStepLR": ("milestones",), "ExponentialLR": ("gamma",),
        "CosineAnnealingWarmRestarts": ("T_0",), "CyclicLR": ("base_lr",),
    }  # fmt: skip
    for name in schedules()[2:]:
        options = {key: given[key] for key in needs.get(name.rpartition(".")[2], ())}
        rate = LearningRate(OptimiserSettings(lr=0.1, decay=name, decay_options=options), 12)
        assert all(0.0 <= rate.of(i) <= 0.1 + 1e-6 for i in range(12)), name


@pytest.mark.parametrize(
    ("text", "options"), [("", {}), ("momentum: 0.9, nesterov: true", {"momentum": 0.9, "nesterov": True})]
)
def test_options_are_read_from_a_line(text, options):
    assert read_options("options", text) == options


@pytest.mark.parametrize("text", ["momentum", "a: b}, {", "[" * 500, "!!python/name:os.system a", "&a [*a]", "a: 1, a"])
def test_a_line_that_says_no_options_is_refused(text):
    with pytest.raises(ValueError, match="'options' is .* Write it as 'momentum: 0.9, nesterov: true'."):
        read_options("options", text)


def test_the_settings_load_without_pytorchs_compiler():
    """It takes seconds, and ComfyUI loads them when it starts."""
    code = "import sys, disca.training.contract.settings; sys.exit('torch._dynamo' in sys.modules)"
    pack = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=pack, check=False).returncode == 0


def test_a_schedule_that_would_end_before_the_run_is_refused():
    settings = OptimiserSettings(
        decay="torch.optim.lr_scheduler.OneCycleLR", decay_options={"max_lr": 1e-3, "total_steps": 2}
    )
    with pytest.raises(ValueError, match="'total_steps' 2, but the run 4 iterations"):
        LearningRate(settings, 4)
