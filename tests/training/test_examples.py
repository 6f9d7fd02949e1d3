"""The YAML files that ship: each reads, once the files it names are there."""

import shutil
from pathlib import Path

import pytest
import yaml

from disca.training.settings import read_settings

FOLDER = Path(__file__).resolve().parents[2] / "training"
EXAMPLES = sorted(FOLDER.rglob("*.yaml"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: str(path.relative_to(FOLDER)))
def test_it_describes_a_run(example, tmp_path):
    place = tmp_path / "a" / "b"
    place.mkdir(parents=True)
    copy = Path(shutil.copy(example, place))
    written = yaml.safe_load(copy.read_text())
    named = written["model"].get("path", "")
    if named:
        (place / named).parent.mkdir(parents=True, exist_ok=True)
        (place / named).touch()
    if "://" not in written["data"]["path"]:
        (place / written["data"]["path"]).mkdir(parents=True)
    settings = read_settings(copy)
    assert settings.algorithm == written["algorithm"] and settings.total > 0


def test_the_toy_chain_hands_each_result_to_the_next():
    stages = ("base", "cfg", "meanflow", "predictor")
    runs = [yaml.safe_load((FOLDER / "toy" / f"{stage}.yaml").read_text()) for stage in stages]
    for before, after in zip(runs, runs[1:], strict=False):
        assert after["model"]["path"] == f"{before['out']}/export/model.safetensors"
