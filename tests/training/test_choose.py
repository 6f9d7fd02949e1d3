"""A training is a class, its line and what it costs; settings, loop, checkpoints and budget know none by name."""

import ast
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(1, str(Path(__file__).parent))
from worlds import Points, Regression, after, settings

from disca.training import choose
from disca.training.budget.memory import Job, operations
from disca.training.budget.sizes import PUBLISHED
from disca.training.contract.costs import COSTS, Cost
from disca.training.contract.protocol import Trainable
from disca.training.contract.settings import CfgSettings
from disca.training.engine.loop import train
from disca.training.records.log import read_log
from disca.training.records.run_folder import RunFolder

TRAINING = Path(choose.__file__).parent
ENGINE, BUDGET = sorted(TRAINING.glob("engine/*.py")), sorted(TRAINING.glob("budget/*.py"))
NAMES = re.compile(r"\b(flow|cfg|meanflow|predictor|discriminator|gan\w*)\b", re.IGNORECASE)


class NewTraining(Regression):
    """The small real training as the table makes it, its critic with a learning rate of its own."""

    def __init__(self, settings, dataset, device):
        super().__init__(settings.seed)
        self.prepare(settings)
        self.parts["critic"] = Trainable(self.modules["critic"], replace(settings.optimizer, lr=3e-3, warmup=0))


@pytest.fixture(autouse=True)
def _table(monkeypatch):
    monkeypatch.setitem(choose.TRAININGS, "new", NewTraining)
    monkeypatch.setitem(COSTS, "new", Cost(passes=1))
    monkeypatch.setattr(choose, "open_samples", lambda settings: (Points(), None))


def test_a_class_and_a_line_train_log_and_load(tmp_path):
    run = settings(tmp_path, algorithm="new")
    export = train(run, choose.chosen)
    assert read_log(RunFolder(tmp_path))[-1]["lr"] == {"network": 1e-2, "critic": 3e-3}
    loaded = choose.TRAININGS[run.algorithm].load(run.model, export)
    assert all(torch.isfinite(tensor).all() for tensor in loaded.values()) and "0.weight" in loaded


def test_a_training_says_what_may_change_when_its_run_goes_on(tmp_path):
    train(settings(tmp_path, algorithm="new"), choose.chosen, after(3))
    changed = settings(tmp_path, algorithm="new", cfg=CfgSettings(guidance=(2.0, 3.0)))
    train(changed, choose.chosen)
    assert len(read_log(RunFolder(tmp_path))) == 8
    with pytest.raises(ValueError, match="of another run: 'predictor.gan_iterations' was 100 and is 7"):
        train(replace(changed, predictor=replace(changed.predictor, gan_iterations=7)), choose.chosen)


def test_every_training_says_what_it_costs():
    assert list(COSTS) == list(choose.TRAININGS)


def test_a_run_is_planned_by_what_its_training_says():
    one_more = operations(PUBLISHED["1.5"], Job("new")) - operations(PUBLISHED["1.5"], Job("flow"))
    assert one_more == pytest.approx(sum(PUBLISHED["1.5"].forward()))


def test_a_name_that_no_training_has_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(
        ValueError, match="'algorithm' is 'nwe', but must be one of 'flow', .*, 'predictor', 'lesa', 'new'"
    ):
        settings(tmp_path, algorithm="nwe")


@pytest.mark.parametrize("file", ENGINE, ids=lambda file: file.name)
def test_the_engine_knows_no_training_by_name(file):
    assert not NAMES.findall(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize("file", BUDGET, ids=lambda file: file.name)
def test_the_budget_asks_no_training_for_its_name(file):
    texts = [node.value for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.Constant)]
    assert not {*COSTS} & {text for text in texts if isinstance(text, str)}
