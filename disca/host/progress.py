"""Text on the node that is running, in the graph."""

import sys

from comfy_execution.utils import get_executing_context

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
