"""A training is a class and a line of the table; the loop, its checkpoints and parts know none by name."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(1, str(Path(__file__).parent))
from worlds import Points, Regression, after, settings

from disca.training import choose
from disca.training.contract.protocol import Trainable
from disca.training.contract.settings import CfgSettings
from disca.training.engine.loop import train
from disca.training.records.log import read_log
from disca.training.records.run_folder import RunFolder

ENGINE = Path(choose.__file__).parent / "engine"
NAMES = re.compile(r"\b(flow|cfg|meanflow|predictor|discriminator|gan\w*)\b", re.IGNORECASE)


class NewTraining(Regression):
    """The small real training as the table makes it, its critic with a learning rate of its own."""

    def __init__(self, settings, dataset, device):
        super().__init__(settings.seed)
        self.prepare(settings)
        self.parts["critic"] = Trainable(self.modules["critic"], replace(settings.optimizer, lr=3e-3, warmup=0))


@pytest.fixture(autouse=True)
def _table(monkeypatch):
    monkeypatch.setitem(choose.TRAININGS, "flow", NewTraining)
    monkeypatch.setattr(choose, "open_samples", lambda data: Points())


def test_a_class_and_a_line_train_log_and_load(tmp_path):
    run = settings(tmp_path)
    export = train(run, choose.chosen)
    assert read_log(RunFolder(tmp_path))[-1]["lr"] == {"network": 1e-2, "critic": 3e-3}
    loaded = choose.TRAININGS[run.algorithm].load(run.model, export)
    assert all(torch.isfinite(tensor).all() for tensor in loaded.values()) and "0.weight" in loaded


def test_a_training_says_what_may_change_when_its_run_goes_on(tmp_path):
    train(settings(tmp_path), choose.chosen, after(3))
    changed = settings(tmp_path, cfg=CfgSettings(guidance=(2.0, 3.0)))
    train(changed, choose.chosen)
    assert len(read_log(RunFolder(tmp_path))) == 8
    with pytest.raises(ValueError, match="of another run: 'predictor.gan_iterations' was 1000 and is 7"):
        train(replace(changed, predictor=replace(changed.predictor, gan_iterations=7)), choose.chosen)


@pytest.mark.parametrize("file", sorted(ENGINE.glob("*.py")), ids=lambda file: file.name)
def test_the_engine_knows_no_training_by_name(file):
    assert not NAMES.findall(file.read_text(encoding="utf-8"))
