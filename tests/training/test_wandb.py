"""A run of Weights & Biases beside a training's: one that goes on is the same there."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(1, str(Path(__file__).parent))
from worlds import after, run

from disca.training.contract.settings import LogSettings, PreviewSettings

LOG = LogSettings(wandb="a project")


@pytest.fixture
def runs(monkeypatch):
    """What the package is asked for: the options of each run, and what is sent to it."""
    found = []

    class Run:
        def __init__(self, **options):
            self.options, self.sent, self.ended = options, {}, False
            found.append(self)

        def log(self, scalars, step):
            self.sent.setdefault(step, {}).update(scalars)

        def finish(self):
            self.ended = True

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=Run))
    return found


def test_a_run_that_goes_on_is_the_same_one_there_and_has_every_iteration(runs, tmp_path):
    run(tmp_path, log=LOG, stop=after(3))
    run(tmp_path, log=LOG)
    first, second = (one.options["id"] for one in runs)
    assert first == second and len(first) == 16
    assert all(one.options["project"] == "a project" and one.options["resume"] == "allow" for one in runs)
    assert [sorted(one.sent) for one in runs] == [[1, 2, 3], [4, 5, 6, 7, 8]]
    assert all(one.ended for one in runs)


def test_losses_previews_and_settings_are_sent(runs, tmp_path):
    run(tmp_path, log=LOG, preview=PreviewSettings(every=4))
    (one,) = runs
    assert {"loss/network", "lr/network", "previews/this to that"} <= one.sent[4].keys()
    assert one.options["config"]["optimizer"]["lr"] > 0


def test_nothing_is_sent_unless_a_project_is_named(runs, tmp_path):
    run(tmp_path)
    assert not runs and not (tmp_path / "wandb_id.txt").exists()


def test_a_damaged_id_is_made_anew(runs, tmp_path):
    (tmp_path / "wandb_id.txt").write_text("../../elsewhere")
    run(tmp_path, log=LOG)
    assert runs[0].options["id"] == (tmp_path / "wandb_id.txt").read_text() != "../../elsewhere"


def test_without_the_package_the_run_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(RuntimeError, match="pip install wandb"):
        run(tmp_path, log=LOG)


def test_who_is_not_logged_in_is_told_what_to_do(monkeypatch, tmp_path):
    def refuse(**options):
        raise OSError("no API key")

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=refuse))
    with pytest.raises(RuntimeError, match="no run for the project 'a project' .no API key.*wandb login"):
        run(tmp_path, log=LOG)
