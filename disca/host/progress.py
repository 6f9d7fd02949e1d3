"""Text and a bar on the node that is running, in the graph."""

import sys

import comfy.utils
from comfy import model_management
from comfy_execution.utils import get_executing_context

from ..rehearsal import Calls
from ..report import Report

LINE_BREAK = "  \n"  # Nodes 2.0 takes the text for Markdown, where a line break alone is none


def show(text: str) -> None:
    """Puts the text on the node that is running; nothing happens outside a prompt."""
    context = get_executing_context()
    if context is None:
        return
    server = getattr(getattr(sys.modules.get("server"), "PromptServer", None), "instance", None)
    if hasattr(server, "send_progress_text"):
        server.send_progress_text(text, context.node_id)


def show_counts(report: Report) -> None:
    """The counts so far, in one line."""
    show(report.counts)


class CallBar:
    """A bar for calls of a network; told of each, it ends what makes them when the user interrupts."""

    FULL = 20  # answered calls that take about as long as one in full

    def __init__(self, expected: Calls):
        self._expected, self._done = self._length(expected), 0
        self._bar = comfy.utils.ProgressBar(self._expected)

    def __call__(self, calls: Calls) -> None:
        """All that were made so far."""
        model_management.throw_exception_if_processing_interrupted()
        self._done = self._length(calls)
        self._expected = max(self._expected, self._done)
        self._bar.update_absolute(self._done, self._expected)

    def _length(self, calls: Calls) -> int:
        return self.FULL * calls.full + calls.answered
