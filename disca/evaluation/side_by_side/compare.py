"""A list of methods on one MODEL, prompt and seed: a table, a chart, and the latents with their names."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

from ...host.comparing import Asked, Runs
from ...host.running import progress
from .chart import chart
from .entries import Entry, read_entries
from .rows import Comparison, compare
from .table import caption, markdown

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

    from .entries import Learned

__all__ = ["Asked", "Compared", "compare_methods", "read_entries"]

logger = logging.getLogger(__name__)


class Compared(NamedTuple):
    """What came of it."""

    table: str
    chart: Image.Image
    latents: list[dict]
    names: list[str]


def compare_methods(
    model: "ModelPatcher", asked: Asked, entries: Sequence[Entry], predictor: "Learned | None"
) -> Compared:
    """All of the list; ValueError before any run if one of them cannot be run so."""
    for entry in entries:
        entry.require(asked.steps, predictor)
    expected = 1 + asked.steps + sum(entry.steps or asked.steps for entry in entries)
    found = compare(Runs(model, asked, expected), entries, predictor, _show)
    came = [(number, row) for number, row in enumerate(found.rows) if row.came]
    names = [f"{number:d} {caption(row)}" for number, row in came]
    return Compared(markdown(found), chart(found.rows), found.latents, names)


def _show(found: Comparison) -> None:
    """What is there so far, on the node and in the log."""
    lines = [caption(row) for row in found.rows]
    logger.info("DisCa: %s", lines[-1])
    progress.show(progress.LINE_BREAK.join(lines))
