"""What is made of rows: the Pareto front, the table, the chart, and a study's means."""

import pytest
from PIL import Image

from disca.training.network.comfy import prepare_comfy

prepare_comfy("cpu")

from disca.evaluation.side_by_side.chart import BEST, LINE, OTHER, PLOT, WIDTH, chart  # noqa: E402
from disca.evaluation.side_by_side.rows import MethodComparison, Row, pareto_front  # noqa: E402
from disca.evaluation.side_by_side.table import HEADINGS, markdown  # noqa: E402
from disca.evaluation.study.page import means  # noqa: E402
from disca.evaluation.study.records import Case, Record  # noqa: E402

FULL = Row("every step in full")
NEAR, FAST = Row("near", measured=2.0, error=0.001), Row("fast", measured=4.0, error=0.1)
SLOWER, FARTHER = Row("slower", measured=1.5, error=0.001), Row("farther", measured=2.0, error=0.002)
FAILED = Row("a|b", problem="no room")


def test_the_front_is_what_no_other_beats_in_both_the_fastest_first():
    assert pareto_front([FULL, NEAR, SLOWER, FARTHER, FAST, FAILED]) == [FAST, NEAR, FULL]


def test_of_equal_rows_the_front_has_the_first():
    twin = Row("twin", measured=NEAR.measured, error=NEAR.error)
    assert pareto_front([NEAR, twin]) == [NEAR] and pareto_front([twin, NEAR]) == [twin]


def test_a_row_that_failed_is_never_on_the_front():
    assert pareto_front([FAILED]) == []


def test_the_table_has_a_cell_for_each_heading_and_says_what_failed():
    noted = Row("noted", notes=("2 in full: ControlNet",))
    lines = markdown(MethodComparison([FULL, FAST, FAILED, noted], interrupted=True)).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert all(row.replace("\\|", "").count("|") == len(HEADINGS) + 1 for row in rows)
    assert rows[3].startswith("| 1 best | fast | 0 | 0 | 0 | 4.00x | 1.00x |") and "a\\|b" in rows[4]
    assert lines[-3:] == [
        "2 failed: no room",
        "3: 2 in full: ControlNet",
        "Interrupted: methods that are not in the table were not run.",
    ]


def test_the_chart_has_a_line_for_each_row_and_dots_of_the_best_in_their_colour():
    rows = [FULL, NEAR, FARTHER, FAILED]
    picture = chart(rows)
    assert picture.size == (WIDTH, PLOT + LINE * (len(rows) + 2))
    legend = [picture.getpixel((20, PLOT + LINE * (number + 1) + LINE // 2)) for number in range(3)]
    assert legend == [_rgb(BEST), _rgb(BEST), _rgb(OTHER)]


def _rgb(colour: str) -> tuple[int, ...]:
    return Image.new("RGB", (1, 1), colour).getpixel((0, 0))


@pytest.mark.parametrize("rows", [[FULL], [FAILED], [], [Row("all alike", measured=0.5)], [FULL] * 40])
def test_a_chart_of_any_rows_is_a_picture(rows):
    assert chart(rows).size[0] == WIDTH


def test_means_are_over_what_came_of_each_method():
    def record(seed: int, row: Row) -> Record:
        return Record(Case("prompt", 0, seed, row.text), row)

    rows = [
        Row("a", error=0.1, bytes_held=2),
        Row("b", error=1.0),
        Row("a", error=0.3, bytes_held=5),
        Row("b", problem="x"),
    ]
    (a, of_a), (b, of_b) = means([record(seed, row) for seed, row in enumerate(rows)])
    assert (a.text, a.error, a.bytes_held, len(of_a)) == ("a", pytest.approx(0.2), 5, 2)
    assert (b.text, b.error, len(of_b)) == ("b", 1.0, 1)
