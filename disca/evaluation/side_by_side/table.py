"""The rows of a comparison as text: a Markdown table, and what is to be known of rows."""

from collections.abc import Iterator

from .rows import MethodComparison, Row, pareto_front

HEADINGS = ("", "method", "full", "cached", "seconds", "speed-up", "by operations", "MB kept", "error")
LEGEND = (
    "Error: squared distance of the latent to that with every step in full, relative to it; 0.0001 is 1 % off. Best: "
    "no other here is both faster and nearer. Speed-up: of the time in the network; by operations: what those of its "
    "products and attentions speak for."
)


def markdown(found: MethodComparison) -> str:
    """All of it: a Markdown table, then what is to be known of rows."""
    best = pareto_front(found.rows)
    lines = [_cells(HEADINGS), _cells(["---"] * len(HEADINGS))]
    for number, row in enumerate(found.rows):
        mark = f"{number:d} best" if row in best else f"{number:d}"
        lines.append(_cells([mark, row.text.replace("|", "\\|"), *figures(row)]))
    return "\n".join([*lines, "", LEGEND, *_after(found)])


def _cells(cells: list[str] | tuple[str, ...]) -> str:
    return f"| {' | '.join(cells)} |"


def figures(row: Row) -> list[str]:
    """The row's cells after its text."""
    if not row.came:
        return ["failed, see below", *[""] * (len(HEADINGS) - 3)]
    return [
        f"{row.full_calls:.3g}",
        f"{row.cached_calls:.3g}",
        f"{row.seconds:.3g}",
        f"{row.measured:.2f}x",
        f"{row.theory:.2f}x",
        f"{row.bytes_held / 1e6:.1f}",
        error_of(row),
    ]


def error_of(row: Row) -> str:
    """The error, in three digits."""
    return f"{row.error:.3g}"


def caption(row: Row) -> str:
    """The row in a few words."""
    return f"{row.text}: {row.measured:.1f}x, error {error_of(row)}" if row.came else f"{row.text}: failed"


def _after(found: MethodComparison) -> Iterator[str]:
    for number, row in enumerate(found.rows):
        if not row.came:
            yield f"{number:d} failed: {row.problem}"
        yield from (f"{number:d}: {note}" for note in row.notes)
    if found.interrupted:
        yield "Interrupted: methods that are not in the table were not run."
