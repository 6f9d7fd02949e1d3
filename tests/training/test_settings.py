"""A run's YAML file: what it means, and where it is wrong."""

import math
from collections.abc import Iterator
from dataclasses import is_dataclass, replace
from typing import get_args, get_origin

import pytest
from pydantic.fields import FieldInfo

from disca.settings.fields import fields_of, limits_of
from disca.training.contract.method_settings import CfgSettings, PairSettings, PredictorSettings
from disca.training.contract.settings import DataSettings, LoraSettings, OptimiserSettings, PreviewSettings, Settings
from disca.training.contract.yaml_settings import read_settings, write_settings


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
    assert run.predictor.adaptive == run.meanflow.adaptive == run.meanflow.share_r_equals_t == 0.0
    assert run.predictor.gan_ramp == run.predictor.gan_cap == run.meanflow.cap == 0.0, "nothing that the paper has not"


def test_numbers_may_be_written_without_a_point(written):
    assert read_settings(written(RUN + "optimizer:\n  lr: 1e-4\n  ema: 0\n")).optimizer.lr == 1e-4


def test_settings_read_back_as_they_were_written(written, tmp_path):
    settings = read_settings(written(RUN + "seed: 3\npreview:\n  seeds: [4, 5]\npredictor:\n  preset: paper\n"))
    write_settings(settings, tmp_path / "copy.yaml")
    assert read_settings(tmp_path / "copy.yaml") == settings


@pytest.mark.parametrize(
    "line, told",
    [
        ("sede: 3", "line 5: 'sede' is not a key of the run. Did you mean 'seed'?"),
        ("seed: three", "line 5: 'seed' is 'three', but must be a whole number."),
        ("seed: 1.5", "line 5: 'seed' is 1.5, but must be a whole number."),
        ("seed: -1", "line 5: 'seed' is -1, but must be at least 0."),
        ("seed: 1\nseed: 2", "line 6: 'seed' is there twice."),
        ("optimizer:\n  lr: .nan", "line 6: 'lr' is nan, but must be a finite number."),
        ("optimizer:\n  betas: [0.9]", "line 6: 'betas' is [0.9], but must be a list of 2 numbers."),
        ("optimizer:\n  betas: [0.9, 2]", "line 6: 'betas' is 2, but must be at most 0.99999."),
        ("memory:\n  recompute_blocks: 1", "line 6: 'recompute_blocks' is 1, but must be true or false."),
        ("meanflow: 3", "line 5: 'meanflow' is 3, but must be written as 'key: value' lines."),
        (
            "predictor:\n\n  form: other",
            "line 7: 'form' is 'other', but must be one of 'two', 'residual' or 'authors'.",
        ),
        ("predictor:\n  pairs:\n    lines: 1", "line 7: 'lines' is not a key of 'pairs'. Did you mean 'line'?"),
        ("predictor:\n  pairs: {line: 0}", "line 6: the shares of line, trajectory and cached pairs are all 0."),
        ("model:\n  path: none.safetensors", "line 6: 'path' is 'none.safetensors', but there is nothing at"),
        ("model:\n  path:", "line 6: 'path' is None, but must be a text."),
        ("model: [", "line 6: this is not YAML"),
        ("seed: !!int '[1, 2]'", "line 5: 'seed' is '[1, 2]', but must be a whole number."),
        ("seed: !!int '" + "9" * 5000 + "'", "line 5: 'seed' is '999"),
        ("seed: " + "9" * 30, "line 5: 'seed' is 999999999999999999999999999999, but must be at most 4294967295."),
        (
            "memory:\n  recompute_blocks: !!bool maybe",
            "line 6: 'recompute_blocks' is 'maybe', but must be true or false.",
        ),
        ("optimizer:\n  lr: 1e400", "line 6: 'lr' is inf, but must be a finite number."),
        ("optimizer:\n  betas: [1, 1]", "line 6: 'betas' is 1, but must be at most 0.99999."),
        ("optimizer:\n  ema: 1", "line 6: 'ema' is 1, but must be at most 0.99999."),
        ("cfg:\n  guidance: [8, 1]", "line 6: 'guidance' goes from 8 down to 1. Write the smaller number first."),
        ("cfg:\n  guidance: [.nan, 1]", "line 6: 'guidance' is nan, but must be a finite number."),
        ('model:\n  path: "a\\0b"', "line 6: 'path' is 'a\\x00b', with characters in it that no file can hold."),
        ('model:\n  toy: "\\uD800"', "line 6: "),
        ("data: &group\n  path: videos", "line 5: 'data' is there twice."),
        ("cfg: &a {}\nmeanflow: *a", "line 6: an alias stands here."),
        ("seed: " + "[" * 3000, "line 5: more than 20 groups or lists stand in one another."),
        ("seed: " + "{a: " * 3000, "line 5: more than 20 groups or lists stand in one another."),
        ("preview:\n  seeds: [" + "1, " * 100 + "1]", "line 6: 'seeds' is "),
        ("preview:\n  prompts: a cat", "line 6: 'prompts' is 'a cat', but must be a list."),
        ("preview:\n  prompts: [" + "a cat, " * 10_000 + "]", "line 6: 'prompts' is ['a cat', 'a cat', 'a cat', "),
        ("preview:\n  prompts: [" + "cat " * 10_000 + "]", "line 6: 'prompts' is 'cat cat"),
        ("preview:\n  prompts: [3]", "line 6: 'prompts' is 3, but must be a text."),
        ("preview:\n  prompts: [a cat]", "line 6: 'prompts' has texts, but 'text_encoders' names no "),
        ("preview:\n  text_encoders: [none.safetensors]", "line 6: 'text_encoders' is 'none.safetensors', but there "),
        ("preview:\n  text_encoders: [a, a, a, a, a]", "line 6: 'text_encoders' is "),
        ("preview:\n  vae: none.safetensors", "line 6: 'vae' is 'none.safetensors', but there is nothing at"),
        ("preview:\n  frames: 24", "line 6: 'frames' is 24, but must be 4n + 1 or 0. Set 25, for example."),
        ("preview:\n  width: 850", "line 6: 'width' is 850, but must be a multiple of 16."),
        ("preview:\n  height: 8192", "line 6: 'height' is 8192, but must be at most 4096."),
        ("preview:\n  seeds: []", "line 6: 'seeds' is [], but must be a list of at least 1."),
    ],
)
def test_mistakes_are_named_with_their_line(written, line, told):
    with pytest.raises(ValueError) as error:
        read_settings(written(RUN + line + "\n"))
    assert "run.yaml, " + told in str(error.value)


@pytest.mark.parametrize("out", ['"a\\0b"', "x" * 300, "a/" + "x" * 300 + "/b"])
def test_an_output_that_no_disk_can_hold_is_refused_with_its_line(written, out):
    with pytest.raises(ValueError, match=r"run.yaml, line 2: 'out' (is|has)"):
        read_settings(written(RUN.replace("results", out)))


@pytest.mark.parametrize("url", ["http://host/data", "s3://bucket/run", "hf://datasets/a/b"])
@pytest.mark.parametrize(("line", "key"), [("out: ", "out"), ("  cache: ", "cache"), ("model:\n  path: ", "path")])
def test_only_a_dataset_may_be_elsewhere(written, url, line, key):
    text = RUN.replace("out: results\n", "") if key == "out" else RUN
    with pytest.raises(ValueError, match=f"run.yaml, line [456]: '{key}' is '{url}'.* is not on this machine"):
        read_settings(written(text + line + url + "\n"))
    assert read_settings(written(RUN.replace("videos", url))).data.path == url


def test_a_file_that_is_too_large_to_describe_a_run_is_refused(written):
    with pytest.raises(ValueError, match="run.yaml: it has more than 1,000,000 characters"):
        read_settings(written(RUN + "#" * 1_000_001))


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


@pytest.mark.parametrize(
    "make",
    [
        lambda: OptimiserSettings(lr=math.nan),
        lambda: OptimiserSettings(betas=(0.9, math.inf)),
        lambda: OptimiserSettings(betas=(0.9,)),
        lambda: OptimiserSettings(name="sgd"),
        lambda: replace(OptimiserSettings(), clip=-1.0),
        lambda: CfgSettings((8.0, 1.0)),
        lambda: CfgSettings((1.0, math.nan)),
        lambda: PairSettings(line=math.inf),
        lambda: PreviewSettings(shift=math.nan),
        lambda: PreviewSettings(steps=2.5),
        lambda: PreviewSettings(steps=True),
        lambda: PreviewSettings(shift=10**400),
        lambda: PreviewSettings(steps=10**400),
        lambda: DataSettings(path="a\0b"),
        lambda: DataSettings(path="\ud800"),
        lambda: DataSettings(path="videos", batch=10**6),
        lambda: Settings("predictor", "out", DataSettings("videos"), seed=10**30),
    ],
)
def test_settings_that_no_run_could_have_cannot_be_made_anywhere(make):
    with pytest.raises(ValueError, match="is .*but must be|with characters in it|goes from 8 down to 1") as error:
        make()
    str(error.value).encode("utf-8")


def settings_of(section: type) -> Iterator[tuple[str, FieldInfo]]:
    """All settings by their names, those of groups among them."""
    for name, field in fields_of(section).items():
        if is_dataclass(inner := (*get_args(field.annotation), field.annotation)[0]):
            yield from settings_of(inner)
        else:
            yield name, field


def kind(field: FieldInfo) -> type:
    """What the setting is, or what it is a list of."""
    is_list = get_origin(field.annotation) is tuple
    return FieldInfo.from_annotation(get_args(field.annotation)[0]).annotation if is_list else field.annotation


def test_every_number_of_the_settings_has_limits_and_every_setting_a_description():
    every = [*settings_of(Settings)]
    numbers = [field for _, field in every if kind(field) in (int, float)]
    assert len(numbers) > 35 and all(least < most for least, most in map(limits_of, numbers))
    assert [name for name, field in every if not field.description] == []


@pytest.mark.parametrize(
    "old, told",
    [
        ("optimiser: {lr: 1e-4}", "'optimiser' is not a key of the run. Did you mean 'optimizer'?"),
        ("memory: {checkpoint: true}", "'checkpoint' is not a key of 'memory'. Its keys are 'recompute_blocks',"),
        ("meanflow: {anchor: 0.5}", "'anchor' is not a key of 'meanflow'. Its keys are 'preset', 'R', 'share_r_"),
        ("meanflow: {preset: anchored}", "'preset' is 'anchored', but must be one of 'default' or 'paper'."),
        ("optimizer: {name: adamw8bit}", "'name' is 'adamw8bit', but must be one of 'adamw', 'adamw_8bit', "),
        ("dato:\n    path: videos\n", "'dato' is not a key of the run. Did you mean 'data'?"),
    ],
)
def test_a_word_that_is_none_is_answered_with_those_that_are(written, old, told):
    with pytest.raises(ValueError) as error:
        read_settings(written(RUN + old))
    assert f"run.yaml, line 5: {told}" in str(error.value)


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("{path: videos, repeat: 2}", "'repeat' is not a key of 'more'. Did you mean 'repeats'?"),
        ("{path: videos, repeats: 0}", "'repeats' is 0, but must be at least 1."),
        ("{repeats: 2}", "'more' needs the key 'path'."),
    ],
)
def test_a_mistake_in_a_list_of_sections_is_named(written, entry, told):
    with pytest.raises(ValueError) as error:
        read_settings(written(f"{RUN}  more: [{entry}]\n"))
    assert f"run.yaml, line 5: {told}" in str(error.value)


def test_a_key_that_is_misspelt_is_named_before_the_one_that_lacks(written):
    with pytest.raises(ValueError, match="run.yaml, line 1: 'algoritm' is not a key of the run."):
        read_settings(written(RUN.replace("algorithm", "algoritm")))


@pytest.mark.parametrize("tag", ["!!int ''", "!!timestamp '9'", "!!float x", "!!binary é", "!!python/name:os.system x"])
def test_a_tag_that_does_not_fit_is_no_error_of_ours(written, tag):
    with pytest.raises(ValueError, match="run.yaml, line 5: 'seed' is .* but must be a whole number."):
        read_settings(written(f"{RUN}seed: {tag}\n"))


@pytest.mark.parametrize("algorithm", ["flow", "predictor", "lesa"])
def test_a_lora_for_a_training_that_has_none_is_refused(algorithm):
    with pytest.raises(
        ValueError, match=f"lora.rank is 4, but algorithm: '{algorithm}' trains no LoRA. .* 'cfg'.*'meanflow'"
    ):
        Settings(algorithm, "out", DataSettings("toy://shapes"), lora=LoraSettings(rank=4))
