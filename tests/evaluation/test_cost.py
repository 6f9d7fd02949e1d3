"""What steps cost by the formulas is what is counted on the real networks, and what the paper says of them."""

from dataclasses import replace

import pytest

from disca.evaluation.__main__ import main
from disca.evaluation.costs import cost, cost_table, published
from disca.host.counting import Counter
from disca.methods import METHODS

FEW = {"1.0": (("depth", 1), ("depth_single_blocks", 2)), "1.5": (("depth", 3),)}  # of full width and length
EVERY_WAY = ("DisCa, two features", "reuse", "EasyCache", "First-Block-Cache", "FORA", "DuCa", "PAB", "Delta-DiT")
NAMES = [*cost_table.COMPUTE, *(name for name in METHODS if name != "LESA")]
CASES = [("1.0", name) for name in NAMES] + [("1.5", name) for name in EVERY_WAY]


def counter_of(shape):
    """What counts its steps."""
    return Counter(shape.family, shape.latent, shape.text, **dict(shape.changes))


@pytest.fixture(scope="module")
def small():
    """Shapes of few blocks and what counts them, by family."""
    shapes = {family: replace(cost_table.shape_of(family), changes=few) for family, few in FEW.items()}
    return {family: (shape, counter_of(shape)) for family, shape in shapes.items()}


@pytest.mark.parametrize("family", ["1.0", "1.5"])
def test_a_full_step_of_the_published_network_takes_what_is_counted(family):
    shape = cost_table.shape_of(family)
    (counted,) = counter_of(shape).steps(None, 1)
    assert counted == pytest.approx(cost.full_step(shape).products, rel=1e-6)


@pytest.mark.parametrize(("family", "name"), CASES)
def test_a_cached_step_takes_what_is_counted(family, name, small):
    shape, counter = small[family]
    method, compute = {name: rest for name, *rest in cost_table.methods(shape)}[name]
    if name == "SpeCa":
        compute = cost.NOTHING  # by a list it checks nothing
    for way in range(len(method.ways)):
        steps = cost_table.steps_to(method, way)
        counted = counter.steps(method, steps)[-1]
        assert counted == pytest.approx(cost.cached_step(shape, method, way, steps - 1, compute).products, rel=1e-6)


def test_every_method_is_in_the_table():
    names = [name for name, *_ in cost_table.methods(cost_table.shape_of("1.5"))]
    assert names == NAMES, "LESA's experts are of their own training's size"


@pytest.mark.parametrize("row", [*published.rows()], ids=lambda row: row.name)
def test_the_papers_figure_is_ours_within_three_thousandths_or_it_is_said_why_not(row):
    assert abs(row.apart) < 0.003 if row.ours is not None else row.reason


def test_a_predicted_step_takes_what_the_paper_says():
    assert published.predicted_share() == pytest.approx(0.0343, abs=5e-5)


def test_a_run_whose_steps_are_decided_on_the_way_has_no_cost_before_it():
    shape = replace(cost_table.shape_of("1.5"), changes=FEW["1.5"])
    with pytest.raises(ValueError, match="decided while it runs. Give it a list"):
        cost.run(shape, METHODS["EasyCache"]().method(), [1.0, 0.5, 0.0])


def test_the_command_prints_the_table_of_a_size(capsys):
    assert main(["cost", "--family", "1.5", "--size", "1280x720x121"]) == 0
    title, full, *_ = capsys.readouterr().out.splitlines()
    assert title == "HunyuanVideo 1.5, latent 31x45x80, 112,600 tokens"
    assert full.startswith("a full step: 6,2")


@pytest.mark.parametrize("size", ["1280x720", "0x8x1", "848x480x0", "8x8x8x8", "wide"])
def test_a_size_that_is_none_is_refused_with_an_example(size, capsys):
    with pytest.raises(SystemExit):
        main(["cost", "--size", size])
    assert "is not WIDTHxHEIGHTxFRAMES, such as 848x480x121" in capsys.readouterr().err


@pytest.mark.parametrize("size", ["8x480x121", "20x7x1"])
def test_a_size_of_no_token_is_refused(size, caplog):
    assert main(["cost", "--size", size]) == 2
    assert "is too small" in caplog.text
