"""The page of a study: a table of means, a chart, and the videos side by side; one file that needs no other."""

import base64
import io
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from statistics import mean, stdev

from ...files import replacing
from ..side_by_side.chart import chart
from ..side_by_side.rows import Row, on_the_line
from ..side_by_side.table import caption
from .records import Case, Line, Records
from .settings import StudySettings

MOST_EMBEDDED = 256 * 2**20  # bytes of videos; further ones are linked
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem; color: #222; background: #fff }
table { border-collapse: collapse } th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #ddd }
th:nth-child(2), td:nth-child(2) { text-align: left; white-space: nowrap } tr.best { background: #e8f4ea }
.wide { overflow-x: auto }
.videos { display: flex; flex-wrap: wrap; gap: 1rem } figure { margin: 0; width: 20rem }
video { width: 100%; background: #000 } figcaption { font-size: 14px } img { max-width: 100%; width: 60rem }
"""
READ = (
    "Means over all prompts and seeds. Error: squared distance of the latent to that with every step in full, relative "
    "to it; 0.0001 is 1 % off. Green: no other is both faster and nearer. By operations: the speed-up that those of "
    "products and attentions speak for. Measures compare videos with those of every step in full."
)


def write_page(path: Path, settings: StudySettings, cases: Sequence[Sequence[Case]], records: Records) -> Path:
    """Writes it, of what is there so far; gives where."""
    lines = [[records.lines[case] for case in row if case in records.lines] for row in cases]
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' content='width=device-width'>",
        f"<title>Methods compared</title><style>{STYLE}</style><h1>Methods compared</h1>",
        f"<p>{escape(_asked(settings, lines))}</p>",
        *_summary([line for row in lines for line in row]),
        *_failures(lines),
        *_videos(lines, records),
    ]
    with replacing(path) as aside:
        aside.write_text("\n".join(parts), encoding="utf-8", errors="xmlcharrefreplace")
    return path


def _asked(settings: StudySettings, lines: Sequence[Sequence[Line]]) -> str:
    begun = sum(1 for row in lines if row)
    model = Path(settings.model).name
    of = f"{begun:d} of {len(lines):d} prompts and seeds" if begun < len(lines) else f"{begun:d} prompts and seeds"
    guided = f", cfg {settings.cfg:g}" if settings.cfg != 1.0 else ""
    return f"{model}: {settings.steps:d} steps at shift {settings.shift:g}{guided}; {of}."


def means(lines: Sequence[Line]) -> list[tuple[Row, list[Line]]]:
    """A row of means for each method that came, with its lines, in the order in which they are first met."""
    groups: dict[str, list[Line]] = {}
    for line in lines:
        if line.row.came:
            groups.setdefault(line.row.text, []).append(line)
    return [(_mean([line.row for line in group]), group) for group in groups.values()]


def _mean(rows: Sequence[Row]) -> Row:
    def of(name: str) -> float:
        return mean(getattr(row, name) for row in rows)

    return Row(
        rows[0].text,
        full=of("full"),
        answered=of("answered"),
        seconds=of("seconds"),
        measured=of("measured"),
        theory=of("theory"),
        held=max(row.held for row in rows),
        error=of("error"),
    )


def _summary(lines: Sequence[Line]) -> Iterator[str]:
    found = means(lines)
    if not found:
        yield "<p>Nothing is there yet.</p>"
        return
    best = on_the_line([row for row, _ in found])
    names = list(dict.fromkeys(name for line in lines for name in line.metrics))
    heads = ["", "method", "full", "cached", "seconds", "speed-up", "by operations", "MB kept", "error", "&plusmn;"]
    heads += [escape(name) for name in names]
    yield "<div class='wide'><table><tr>" + "".join(f"<th>{head}</th>" for head in heads) + "</tr>"
    for number, (row, group) in enumerate(found):
        cells = [f"{number:d}", escape(row.text), f"{row.full:.3g}", f"{row.answered:.3g}", f"{row.seconds:.3g}"]
        cells += [f"{row.measured:.2f}x", f"{row.theory:.2f}x", f"{row.held / 1e6:.1f}", f"{row.error:.3g}"]
        cells += [f"{_spread([line.row.error for line in group]):.2g}", *(_metric(group, name) for name in names)]
        yield f"<tr{' class=best' if row in best else ''}>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"
    yield f"</table></div><p>{escape(READ)}</p>{_picture([row for row, _ in found])}"


def _metric(group: Sequence[Line], name: str) -> str:
    values = [line.metrics[name] for line in group if name in line.metrics]
    return f"{mean(values):.4g}" if values else ""


def _spread(values: Sequence[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


def _picture(rows: Sequence[Row]) -> str:
    out = io.BytesIO()
    chart(rows).save(out, "PNG")
    return f"<img alt='error against speed-up' src='data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}'>"


def _failures(lines: Sequence[Sequence[Line]]) -> Iterator[str]:
    failed = [line for row in lines for line in row if not line.row.came]
    if failed:
        yield "<h2>Failed</h2><ul>"
        yield from (
            f"<li>{escape(line.case.prompt)}, seed {line.case.seed:d}, {escape(line.row.text)}: "
            f"{escape(line.row.problem)}</li>"
            for line in failed
        )
        yield "</ul>"


def _videos(lines: Sequence[Sequence[Line]], records: Records) -> Iterator[str]:
    room = MOST_EMBEDDED
    for row in lines:
        shown = [line for line in row if records.video_file(line.case).is_file()]
        if not shown:
            continue
        yield f"<h2>{escape(shown[0].case.prompt)}, seed {shown[0].case.seed:d}</h2><div class='videos'>"
        for line in shown:
            path = records.video_file(line.case)
            room -= path.stat().st_size
            source = _data(path) if room >= 0 else f"videos/{path.name}"
            yield (
                f"<figure><video src='{source}' autoplay loop muted playsinline controls></video>"
                f"<figcaption>{escape(caption(line.row))}</figcaption></figure>"
            )
        yield "</div>"


def _data(path: Path) -> str:
    return f"data:video/mp4;base64,{base64.b64encode(path.read_bytes()).decode()}"
