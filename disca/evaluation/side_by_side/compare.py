"""A list of methods on one MODEL, prompt and seed: a table, a chart, and the latents with their names."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from PIL import Image

from ...host.comparing import Runs, RunSettings
from ...host.running import progress
from ...meanflow import shifted_sigmas
from .chart import chart
from .entries import Entry, read_entries
from .rows import MethodComparison, compare, expected_steps, require_attachable
from .table import caption, markdown

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

    from ...models.checks import Learned

__all__ = ["Compared", "RunSettings", "compare_methods", "read_entries"]

logger = logging.getLogger(__name__)


class Compared(NamedTuple):
    """The table in Markdown, the chart, and for each run that came its LATENT and its name with its figures."""

    table: str
    chart: Image.Image
    latents: list[dict]
    names: list[str]


def compare_methods(
    model: "ModelPatcher", settings: RunSettings, entries: Sequence[Entry], predictor: "Learned | None"
) -> Compared:
    """All of the list; ValueError before any run if one of them cannot be run so."""
    for entry in entries:
        entry.require_steps(settings.steps)
        entry.require_predictor(predictor)
        require_attachable(model, entry, predictor, shifted_sigmas(settings.steps, settings.shift).tolist())
    runs = Runs(model, settings, expected_steps(entries, settings.steps))
    found = compare(runs, entries, predictor, _show)
    names = [f"{number:d} {caption(row)}" for number, row in enumerate(found.rows) if row.came]
    return Compared(markdown(found), chart(found.rows), found.latents, names)


def _show(found: MethodComparison) -> None:
    """What is there so far, on the node and in the log."""
    lines = [caption(row) for row in found.rows]
    logger.info("DisCa: %s", lines[-1])
    progress.show(progress.LINE_BREAK.join(lines))
