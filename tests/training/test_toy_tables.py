"""The toy's judge, and the parts of benchmarks/toy_tables.py that measure and print, in short."""

import importlib
import sys
from pathlib import Path

import pytest
import small_networks
import torch
from comfy.cli_args import args
from torch import Tensor, nn

from disca.meanflow import shifted_sigmas
from disca.models.loading import load_either, load_predictor
from disca.schedule import Anchors, Interval
from disca.toy import WEIGHTS, world
from disca.toy.judge import NAMES, SIZES, Judge, JudgeSettings, blurred, judge_in, semantic_score, train_judge
from disca.training.algorithms.sampling import mean_velocity, sample

FIRST = 900_000
SHORT = JudgeSettings(iterations=50, batch=32, width=32, noise=0.0, blur=0.0)


@pytest.fixture(scope="module")
def tables():
    """The command as a module; ComfyUI is as before afterwards."""
    before = args.use_pytorch_cross_attention
    folder = str(Path(__file__).resolve().parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    with small_networks.training_mode():
        yield importlib.import_module("toy_tables")
    sys.path.remove(folder)
    args.use_pytorch_cross_attention = before


@pytest.fixture(scope="module")
def bench(tables):
    """The weights that ship, on two prompts, before a judge that has learnt nothing."""
    students = {tables.TEACHER: "cfg", tables.STUDENT: "meanflow"}
    loaded = {name: load_either(str(WEIGHTS / f"{stage}.safetensors")) for name, stage in students.items()}
    predictor = load_predictor(str(WEIGHTS / "predictor.safetensors"))
    prompts = tables.Prompts(FIRST, 2, tables.toy_world.GUIDANCE)
    return tables.Bench(loaded, {tables.OWN: predictor}, prompts, Judge(32).eval(), fine=2)


class Oracle(nn.Module):
    """Says of every video what it was told."""

    def __init__(self, attributes: Tensor):
        super().__init__()
        self.attributes = attributes

    def forward(self, video: Tensor) -> tuple[Tensor, ...]:
        pairs = zip(self.attributes.unbind(-1), SIZES, strict=True)
        return tuple(nn.functional.one_hot(right, size).float() for right, size in pairs)


def test_the_score_is_the_share_of_objects_whose_attribute_is_the_prompts():
    attributes = world.random_scenes(FIRST, 4).attributes
    asked, video = attributes.clone(), torch.zeros(4, 3, world.FRAMES, world.SIZE, world.SIZE)
    asked[0, 1, 2] = (asked[0, 1, 2] + 1) % SIZES[2]
    score = semantic_score(Oracle(attributes), video, asked)
    assert score == {name: pytest.approx(87.5 if name == "direction" else 100.0) for name in NAMES}


def test_a_short_training_teaches_the_judge_colours_which_an_untrained_one_guesses():
    scenes = world.random_scenes(FIRST, 256)
    true, asked = world.pictures(scenes), scenes.attributes
    guessed = semantic_score(Judge(SHORT.width).eval(), true, asked)["colour"]
    assert guessed < 30.0
    assert semantic_score(train_judge(SHORT), true, asked)["colour"] > guessed + 20.0


def test_a_judge_is_trained_once_for_its_settings(tmp_path):
    settings = JudgeSettings(iterations=2, batch=4, width=8)
    first, again = judge_in(tmp_path, settings), judge_in(tmp_path, settings)
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    judge_in(tmp_path, JudgeSettings(iterations=3, batch=4, width=8))
    assert len([*tmp_path.iterdir()]) == 2


def test_blur_leaves_what_is_even_and_is_nothing_at_no_radius():
    video = world.pictures(world.random_scenes(FIRST, 2))
    radius = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1, 1)
    spread = blurred(video, radius)
    torch.testing.assert_close(spread[0], video[0])
    assert spread[1].std() < 0.9 * video[1].std()
    even = torch.full_like(video, 0.3)
    torch.testing.assert_close(blurred(even, radius), even)


def test_a_row_with_every_step_in_full_is_the_plain_run_and_costs_its_steps(tables, bench):
    figures = bench.figures(tables.Row("all", tables.STUDENT, 3, tables.Predicted(tables.OWN, Interval(1, warmup=1))))
    assert (figures.full, figures.to_whole) == (3, 0.0)
    assert figures.cost == pytest.approx(3.0)
    assert figures.equal_calls == figures.equal_cost


def test_a_cached_row_stands_beside_plain_runs_of_as_many_calls_and_of_the_same_cost(tables, bench):
    row = tables.Row("half", tables.STUDENT, 6, tables.Predicted(tables.OWN, Anchors((0, 2, 4))))
    figures = bench.figures(row)
    assert (figures.full, figures.equal_calls.steps, figures.equal_cost.steps) == (3, 3, round(figures.cost))
    assert 3.0 < figures.cost < 6.0
    assert 0.0 < figures.to_whole < figures.equal_calls.to_whole


def test_guidance_by_two_conditions_costs_two_calls_a_step(tables, bench):
    assert bench.cost(tables.Row("base", tables.BASE, 50, scale=3.0)) == 100.0


def test_every_row_can_be_had_and_its_seeds_become_a_mean_and_a_deviation(tables):
    known = {*tables.STUDENTS, *tables.PREDICTORS}
    rows = [row for _, rows in tables.TABLES.values() for row in rows]
    assert all(tables.needs(row) <= known for row in rows)
    seeds = [tables.Figures(8, 12.8, 0.1, each, 60.0 + each, (1.0, 2.0, 3.0, 4.0)) for each in (1.0, 3.0)]
    *_, line = tables.lines(rows[:1], {rows[0]: seeds})
    assert "2.0000 ± 1.4142" in line and "62.0 ± 1.4" in line and "1, 2, 3, 4" in line


def test_the_model_of_4_steps_learns_what_20_steps_come_to_five_at_a_time(tables):
    four = importlib.import_module("toy_four_steps")
    settings = four.variant_settings("as long as the Predictor", 0)
    dataset, _ = four.open_samples(settings)
    training = four.FourSteps(settings, dataset, torch.device("cpu"))
    batch = {name: value[None] for name, value in dataset[0].items()} | {"index": torch.tensor([0])}
    noise = torch.randn(batch["latent"].shape, generator=torch.Generator().manual_seed(0))
    condition = {"context": batch["context"], "y": batch["y"], "guidance": torch.tensor([3.0])}
    states = training._states(noise, condition)
    assert len(states) == 5 and torch.equal(states[0], noise)
    u = mean_velocity(training.networks.teaching, condition)
    torch.testing.assert_close(states[-1], sample(u, noise, shifted_sigmas(20, 1.0)))
    losses = [loss.value.item() for loss in training.losses(batch, 0)]
    assert len(losses) == 4 and all(0.0 < loss < 1.0 for loss in losses)
