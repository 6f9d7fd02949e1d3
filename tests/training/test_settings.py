"""A run's YAML file: what it means, and where it is wrong."""

import pytest

from disca.training.settings import PairSettings, PredictorSettings, read_settings, write_settings


@pytest.fixture
def written(tmp_path):
    """Writes a YAML file beside a dataset and gives its path."""
    (tmp_path / "videos").mkdir()

    def write(text: str):
        file = tmp_path / "run.yaml"
        file.write_text(text)
        return file

    return write


RUN = """algorithm: predictor
out: results
data:
  path: videos
"""


def test_paths_are_relative_to_the_file(written, tmp_path):
    settings = read_settings(written(RUN))
    assert (settings.out, settings.data.path) == (str(tmp_path / "results"), str(tmp_path / "videos"))


def test_what_is_not_written_is_the_default(written):
    assert read_settings(written(RUN)).predictor == PredictorSettings()


def test_keys_win_over_the_preset(written):
    predictor = read_settings(written(RUN + "predictor:\n  form: residual\n  preset: paper\n")).predictor
    assert (predictor.form, predictor.lr_discriminator) == ("residual", 1e-2)


def test_pairs_that_are_not_named_have_no_share(written):
    assert read_settings(written(RUN + "predictor:\n  pairs: {line: 1}\n")).predictor.pairs == PairSettings(line=1.0)


def test_the_papers_presets_are_the_papers(written):
    run = read_settings(written(RUN + "predictor: {preset: paper}\nmeanflow: {preset: paper}\n"))
    assert (run.predictor.pairs, run.predictor.form) == (PairSettings(line=1.0), "authors")
    assert run.predictor.adaptive == run.meanflow.adaptive == run.meanflow.anchor == 0.0


def test_numbers_may_be_written_without_a_point(written):
    assert read_settings(written(RUN + "optimiser:\n  lr: 1e-4\n  ema: 0\n")).optimiser.lr == 1e-4


def test_settings_read_back_as_they_were_written(written, tmp_path):
    settings = read_settings(written(RUN + "seed: 3\npreview:\n  seeds: [4, 5]\npredictor:\n  preset: paper\n"))
    write_settings(settings, tmp_path / "copy.yaml")
    assert read_settings(tmp_path / "copy.yaml") == settings


@pytest.mark.parametrize(
    "line, told",
    [
        ("sede: 3", "line 5: 'sede' is not a key of the run. Did you mean 'seed'?"),
        ("seed: three", "line 5: 'seed' must be a whole number, not 'three' (a text)."),
        ("seed: 1.5", "line 5: 'seed' must be a whole number, not '1.5' (a number)."),
        ("seed: -1", "line 5: 'seed' is -1, but must be at least 0."),
        ("seed: 1\nseed: 2", "line 6: 'seed' is there twice."),
        ("optimiser:\n  lr: .nan", "line 6: 'lr' must be a number"),
        ("optimiser:\n  betas: [0.9]", "line 6: 'betas' must be a list of 2"),
        ("optimiser:\n  betas: [0.9, 2]", "line 6: 'betas' is 2.0, but must be at most 1."),
        ("memory:\n  checkpoint: 1", "line 6: 'checkpoint' must be true or false, not '1' (a whole number)."),
        (
            "meanflow: 3",
            "line 5: 'meanflow' must be written as 'key: value' lines, but '3' (a whole number) stands here.",
        ),
        ("predictor:\n\n  form: other", "line 7: 'form' must be one of 'residual', 'authors', not 'other' (a text)."),
        ("predictor:\n  pairs:\n    lines: 1", "line 7: 'lines' is not a key of 'pairs'. Did you mean 'line'?"),
        ("predictor:\n  pairs: {line: 0}", "line 6: the shares of line, trajectory and cached pairs are all 0."),
        ("model:\n  path: none.safetensors", "line 6: 'path' is 'none.safetensors', but there is nothing at"),
        ("model:\n  path:", "line 6: 'path' must be a text, not nothing."),
        ("model: [", "line 6: this is not YAML"),
    ],
)
def test_mistakes_are_named_with_their_line(written, line, told):
    with pytest.raises(ValueError) as error:
        read_settings(written(RUN + line + "\n"))
    assert "run.yaml, " + told in str(error.value)


def test_a_missing_key_is_named_with_the_line_of_its_group(written):
    with pytest.raises(ValueError, match="run.yaml, line 4: 'data' needs the key 'path'"):
        read_settings(written("algorithm: flow\nout: results\ndata:\n  batch: 1\n"))


def test_a_file_that_is_not_there_or_not_text_is_refused(written, tmp_path):
    with pytest.raises(ValueError, match="There is no file"):
        read_settings(tmp_path / "other.yaml")
    with pytest.raises(ValueError, match="run.yaml is empty"):
        read_settings(written(""))
    (tmp_path / "run.yaml").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(ValueError, match="run.yaml"):
        read_settings(tmp_path / "run.yaml")
