"""The rows of a comparison as text: a Markdown table, what is to be known of rows, and which of them to take."""

from collections.abc import Iterator

from .rows import Comparison, Row, on_the_line

HEAD = "| | method | full | cached | seconds | speed-up | by operations | MB kept | error |"
RULE = "| --- " * (HEAD.count("|") - 1) + "|"
READ = (
    "Error: squared distance of the latent to that with every step in full, relative to it; 0.0001 is 1 % off. Best: "
    "no other here is both faster and nearer. Speed-up: of the time in the network; by operations: what those of its "
    "products and attentions speak for."
)


def markdown(found: Comparison) -> str:
    """All of it: a Markdown table, then what is to be known of rows."""
    best = on_the_line(found.rows)
    lines = [HEAD, RULE, *(_line(number, row, row in best) for number, row in enumerate(found.rows))]
    return "\n".join([*lines, "", *_after(found)])


def _line(number: int, row: Row, best: bool) -> str:
    name = row.text.replace("|", "\\|")
    if not row.came:
        return f"| {number:d} | {name} | failed, see below" + " |" * (HEAD.count("|") - 3)
    cells = [f"{number:d}{' best' if best else ''}", name, f"{row.full:d}", f"{row.answered:d}", f"{row.seconds:.3g}"]
    cells += [f"{row.measured:.2f}x", f"{row.theory:.2f}x", f"{row.held / 1e6:.1f}", error_of(row)]
    return f"| {' | '.join(cells)} |"


def error_of(row: Row) -> str:
    """The error, in three digits."""
    return f"{row.error:.3g}"


def _after(found: Comparison) -> Iterator[str]:
    yield READ
    for number, row in enumerate(found.rows):
        if not row.came:
            yield f"{number:d} failed: {row.problem}"
        yield from (f"{number:d}: {note}" for note in row.notes)
    if found.interrupted:
        yield "Interrupted: methods that are not in the table were not run."


def caption(row: Row) -> str:
    """The row in a few words."""
    return f"{row.text}: {row.measured:.1f}x, error {error_of(row)}" if row.came else f"{row.text}: failed"
