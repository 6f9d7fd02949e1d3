"""Several datasets as one, samples held out, captions dropped, and the loss on what was held out."""

import math
import sys
from collections import Counter
from pathlib import Path

import pytest
import small_networks
import torch

sys.path.insert(1, str(Path(__file__).parent))
from worlds import Points, Regression, given, settings

from disca.toy.dataset import ToyDataset
from disca.toy.network import new_network
from disca.training.choose import chosen, open_samples
from disca.training.contract.method_settings import PredictorSettings
from disca.training.contract.settings import (
    DataSettings,
    ModelSettings,
    Settings,
    SourceSettings,
    ValidationSettings,
)
from disca.training.contract.times import Draws
from disca.training.data.mixture import Source, mixed
from disca.training.engine.distributed import Processes
from disca.training.engine.feed import Feed
from disca.training.engine.loop import train
from disca.training.engine.validation import Validation
from disca.training.network.export import export_network
from disca.training.network.roles import add_embedder
from disca.training.records.curves import curves
from disca.training.records.log import read_log
from disca.training.records.run_folder import RunFolder

CPU = torch.device("cpu")
ALONE = Processes(0, 1, CPU)


class Numbers:
    """A dataset of numbers from a first one on."""

    family, encoder = "1.5", "an encoder"

    def __init__(self, first: int, length: int, encoder: str = "an encoder"):
        self.first, self.length, self.encoder = first, length, encoder
        self.fingerprint = f"{first} {length}"
        self.null = {"context": torch.zeros(1, 2)}

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        return {"latent": torch.tensor([self.first + i]), "context": torch.ones(3, 2), "concat": torch.ones(1)}

    def name(self, i: int) -> str:
        return f"number {self.first + i:d}"


def contents(samples) -> list[int]:
    return [int(samples[i]["latent"]) for i in range(len(samples))]


def test_an_epoch_has_each_sample_as_often_as_its_dataset_says():
    samples, held_out = mixed([Source(Numbers(0, 4)), Source(Numbers(100, 2), 3)], 0, 0)
    assert Counter(contents(samples)) == {0: 1, 1: 1, 2: 1, 3: 1, 100: 3, 101: 3} and held_out is None
    assert samples.name(len(samples) - 1) == "number 101"


def test_what_is_held_out_is_trained_on_nowhere_and_is_the_same_by_the_same_seed():
    sources = [Source(Numbers(0, 7), 2), Source(Numbers(100, 5), 3)]
    (samples, held_out), again = mixed(sources, 4, seed=3), mixed(sources, 4, seed=3)
    assert len(set(contents(held_out))) == 4
    assert set(contents(samples)) | set(contents(held_out)) == {*range(7), *range(100, 105)}
    assert not set(contents(samples)) & set(contents(held_out))
    assert contents(again[1]) == contents(held_out) != contents(mixed(sources, 4, seed=4)[1])


def test_one_dataset_as_it_is_stays_what_it_was():
    dataset = Numbers(0, 4)
    assert mixed([Source(dataset)], 0, 0) == (dataset, None)


def test_the_fingerprint_tells_of_repeats_and_of_what_is_held_out():
    first, second = Numbers(0, 4), Numbers(100, 2)
    found = [
        mixed([Source(first), Source(second)], 0, 0)[0].fingerprint,
        mixed([Source(first), Source(second, 2)], 0, 0)[0].fingerprint,
        mixed([Source(first), Source(second)], 1, 0)[0].fingerprint,
        mixed([Source(second), Source(first)], 0, 0)[0].fingerprint,
    ]
    assert len(set(found)) == 4


def test_repeats_that_would_fill_memory_are_refused():
    with pytest.raises(ValueError, match="are 1,000,000,000 samples, more than 100,000,000.* Repeat less"):
        mixed([Source(ToyDataset(), 1000)], 0, 0)


def test_a_validation_ends_when_the_training_is_to(tmp_path):
    answers = iter([False, False, True])
    training, chosen = Regression(), settings(tmp_path, batch=1)
    training.prepare(chosen)
    validation = Validation(training, Points(), chosen, None, ALONE)
    assert validation.loss() is not None
    seen = len(training.seen)
    assert validation.loss(lambda: next(answers)) is None
    assert len(training.seen) == seen + 2, "two batches of one sample"


@pytest.mark.parametrize("held_out", [6, 7])
def test_a_validation_that_empties_the_training_set_is_refused(held_out):
    with pytest.raises(ValueError, match=f"validation.samples is {held_out}, but there are 6 samples in all"):
        mixed([Source(Numbers(0, 6), 5)], held_out, 0)


def test_datasets_of_other_encoders_are_not_mixed():
    with pytest.raises(ValueError, match="by the encoder 'another'; data.path is for '1.5', by 'an encoder'"):
        mixed([Source(Numbers(0, 4)), Source(Numbers(9, 4, "another"))], 0, 0)


def test_settings_mix_the_toy_world_with_itself():
    data = DataSettings("toy://shapes", more=(SourceSettings("toy://shapes", 2),))
    samples, held_out = open_samples(Settings("flow", "out", data, validation=ValidationSettings(samples=5)))
    assert len(held_out) == 5
    assert 3 * len(ToyDataset()) - 10 <= len(samples) <= 3 * len(ToyDataset()) - 5, "each leaves one or two places"


def test_lesa_which_learns_from_its_own_runs_holds_none_out():
    run = Settings("lesa", "out", DataSettings("toy://shapes"), validation=ValidationSettings(samples=5))
    with pytest.raises(ValueError, match="validation.samples is 5, but 'lesa' learns from runs"):
        open_samples(run)


def fed(dropout: float, positions: int = 400) -> list[int]:
    """How many tokens the captions of the first samples have."""
    feed = Feed(Numbers(0, 50), 1, ALONE, positions, 1, dropout)
    try:
        found = {place: batch["context"].shape[1] for batch in feed.take(0)[0] for place in batch["index"].tolist()}
    finally:
        feed.close()
    return [found[place] for place in range(positions)]


def test_the_share_of_captions_that_is_asked_for_is_dropped_the_same_ones_in_every_run():
    lengths = fed(0.25)
    assert lengths == fed(0.25)
    assert abs(lengths.count(1) / len(lengths) - 0.25) < 3 * math.sqrt(0.25 * 0.75 / len(lengths))
    assert set(fed(0.0)) == {3} and set(fed(1.0)) == {1}


def test_what_comes_from_the_video_stays_where_a_caption_is_dropped():
    feed = Feed(Numbers(0, 50), 1, ALONE, 4, 1, 1.0)
    try:
        ((batch,),) = feed.take(0)
    finally:
        feed.close()
    assert torch.equal(batch["concat"], torch.ones(4, 1)) and not batch["context"].any()


def test_seeds_share_no_numbers_in_runs_of_a_hundred_million_samples():
    """PyTorch's generator heeds 32 bits: a million places of seed 0 were once those of seed 1 from 0 on."""
    first, second = (Draws(seed, torch.tensor([place]), CPU).uniform() for seed, place in ((0, 1_000_003), (1, 0)))
    assert not torch.equal(first, second)
    golden = 0x9E3779B1
    apart = [min(k * golden % 2**32, -k * golden % 2**32) for k in range(1, 17)]
    assert min(apart) > 100_000_000


def run(folder: Path, held_out: int, **changes) -> list[dict]:
    """The log of a regression with some of its points held out."""
    validation = ValidationSettings(samples=held_out, every=2)
    samples, left = mixed([Source(Points())], held_out, 0)
    training = Regression()
    made = given(training, samples)
    train(settings(folder, validation=validation, **changes), lambda *asked: (*made(*asked), left))
    return read_log(RunFolder(folder))


def test_the_loss_on_held_out_samples_is_logged_when_it_is_due_and_at_the_end(tmp_path):
    lines = run(tmp_path, 3)
    due = [line["iteration"] for line in lines if "validation" in line["extra"]]
    assert due == [n for n in range(1, len(lines) + 1) if n % 2 == 0 or n == len(lines)]
    points = curves(lines)["network"]["validation"]
    assert [x for x, _ in points] == due and all(y > 0 for _, y in points)
    assert "validation" not in curves(lines)["critic"]


def test_validation_changes_nothing_of_the_training(tmp_path):
    samples, _ = mixed([Source(Points())], 3, 0)
    train(settings(tmp_path / "without"), given(Regression(), samples))
    without, validated = read_log(RunFolder(tmp_path / "without")), run(tmp_path / "with", 3)
    assert [line["loss"] for line in without] == [line["loss"] for line in validated]


def test_validation_takes_the_same_times_and_noise_each_time_and_the_average_of_the_weights():
    training = Regression()
    run = settings(Path("out"), validation=ValidationSettings(samples=3, draws=2))
    training.prepare(run)
    _, left = mixed([Source(Points())], 3, 0)
    validation = Validation(training, left, run, None, ALONE)
    assert validation.loss() == validation.loss()
    assert sorted(training.seen[: len(training.seen) // 2]) == list(range(6))


@pytest.mark.parametrize("algorithm", ["flow", "cfg", "meanflow", "predictor"])
def test_every_training_of_the_paper_validates(tmp_path, algorithm):
    with small_networks.training_mode():
        network = new_network("tiny", 0)
        add_embedder(network, "guidance_in")
        add_embedder(network, "time_r_in")
        (tmp_path / "base").mkdir()
        data = DataSettings("toy://shapes", batch=2)
        export_network(tmp_path / "base", network, {}, Settings("flow", str(tmp_path), data))
        run = Settings(
            algorithm,
            str(tmp_path / "run"),
            data,
            ModelSettings(str(tmp_path / "base" / "model.safetensors"), dtype="fp32"),
            iterations=2,
            predictor=PredictorSettings(mse_iterations=1, gan_iterations=1, full_steps=2),
            validation=ValidationSettings(samples=3, every=1, draws=1),
            device="cpu",
        )
        train(run, chosen)
    found = [line["extra"]["validation"] for line in read_log(RunFolder(tmp_path / "run"))]
    assert len(found) == 2 and all(math.isfinite(loss) for loss in found)
