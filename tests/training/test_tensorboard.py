"""The log for TensorBoard: all figures where its package is installed, one line that says so where it is not."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(1, str(Path(__file__).parent))
from worlds import after, run

from disca.training.contract.settings import PreviewSettings

MODULE = "torch.utils.tensorboard"


@pytest.fixture
def written(monkeypatch):
    """What is handed to each of PyTorch's writers: the first step that it takes over, and its scalars."""
    writers = []

    class Writer:
        def __init__(self, folder, purge_step):
            self.first, self.scalars, self.open = purge_step, {}, True
            writers.append(self)

        def add_scalar(self, tag, value, step):
            self.scalars[tag, step] = value

        def flush(self):
            pass

        def close(self):
            self.open = False

    monkeypatch.setitem(sys.modules, MODULE, SimpleNamespace(SummaryWriter=Writer))
    return writers


def test_a_resumed_run_takes_over_from_its_first_iteration(written, tmp_path):
    run(tmp_path, stop=after(3))
    run(tmp_path)
    assert [writer.first for writer in written] == [1, 4]
    steps = [sorted(step for tag, step in writer.scalars if tag == "loss/network") for writer in written]
    assert steps == [[1, 2, 3], [4, 5, 6, 7, 8]]
    assert not any(writer.open for writer in written)


def test_parts_bands_rates_and_previews_are_written(written, tmp_path):
    run(tmp_path, preview=PreviewSettings(every=4))
    (writer,) = written
    tags = {tag for tag, _ in writer.scalars}
    assert {"loss/critic", "loss by t/network 0.25-0.50", "lr/network", "gradient norm/critic", "extra/guess"} <= tags
    previews = {step: value for (tag, step), value in writer.scalars.items() if tag == "previews/this to that"}
    assert previews == {0: 0.25, 4: 0.25, 8: 0.25}


def test_without_the_package_a_line_says_that_there_are_no_files(monkeypatch, tmp_path, caplog):
    monkeypatch.setitem(sys.modules, MODULE, None)
    caplog.set_level("INFO")
    run(tmp_path)
    assert len([message for message in caplog.messages if "the package tensorboard is not installed" in message]) == 1
    assert not (tmp_path / "tensorboard").exists()


def test_tensorboard_reads_what_is_written(tmp_path):
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    run(tmp_path)
    (file,) = (tmp_path / "tensorboard").iterdir()
    events = list(loader.EventFileLoader(str(file)).Load())
    assert [event.step for event in events for value in event.summary.value if value.tag == "loss/network"] == [
        *range(1, 9)
    ]
