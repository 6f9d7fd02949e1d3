"""The YAML files that ship: each reads, once the files it names are there."""

import shutil
from pathlib import Path

import pytest
import yaml

from disca.toy import WEIGHTS
from disca.training.contract.reference import reference
from disca.training.contract.yaml_settings import read_settings
from disca.training.toy_chain import STAGES, stage_settings

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
    assert settings.algorithm == written["algorithm"]


def test_the_file_of_all_settings_is_what_the_command_prints_and_reads_back_as_the_defaults(tmp_path):
    text = (FOLDER / "all_settings.yaml").read_text(encoding="utf-8")
    assert text == reference(), "run: python -m disca.training --reference > training/all_settings.yaml"
    (tmp_path / "data" / "my_dataset").mkdir(parents=True)
    (tmp_path / "run.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "short.yaml").write_text("algorithm: predictor\nout: runs/my_run\ndata: {path: data/my_dataset}\n")
    assert read_settings(tmp_path / "run.yaml") == read_settings(tmp_path / "short.yaml")


def test_a_stage_of_the_toy_chain_alone_starts_from_the_shipped_weights():
    for before, stage in zip(STAGES, STAGES[1:], strict=False):
        assert stage_settings(stage, 0, Path("any"), {}).model.path == str(WEIGHTS / f"{before}.safetensors")


def test_the_toy_chain_hands_each_result_to_the_next(tmp_path):
    for before, stage in zip(STAGES, STAGES[1:], strict=False):
        settings = stage_settings(stage, 5, tmp_path, {before: tmp_path / "made.safetensors"})
        assert settings.model.path == str(tmp_path / "made.safetensors")
        assert (settings.seed, settings.out) == (5, str(tmp_path / stage))
