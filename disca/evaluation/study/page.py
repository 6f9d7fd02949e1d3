"""The page of a study: a table of means, a chart, and the videos side by side, in one file as long as they fit."""

import base64
import io
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from statistics import mean, stdev

from ...files import replacing
from ..side_by_side.chart import chart
from ..side_by_side.rows import Row, pareto_front
from ..side_by_side.table import HEADINGS, LEGEND, caption, figures
from .records import Case, Record, Records
from .settings import StudySettings

MOST_EMBEDDED = 256 * 2**20  # bytes of videos; further ones are linked
MEANS = ("full_calls", "cached_calls", "seconds", "measured", "theory", "error")
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem; color: #222; background: #fff }
table { border-collapse: collapse } th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid #ddd }
th:nth-child(2), td:nth-child(2) { text-align: left; white-space: nowrap } tr.best { background: #e8f4ea }
.wide { overflow-x: auto } .videos { display: flex; flex-wrap: wrap; gap: 1rem } figure { margin: 0; width: 20rem }
video { width: 100%; background: #000 } figcaption { font-size: 14px } img { max-width: 100%; width: 60rem }
"""


def write_page(path: Path, settings: StudySettings, cases: Sequence[Sequence[Case]], records: Records) -> Path:
    """Writes it, of what is there so far; gives where."""
    groups = [[records.of[case] for case in row if case in records.of] for row in cases]
    found = [record for group in groups for record in group]
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' content='width=device-width'>",
        f"<title>Methods compared</title><style>{STYLE}</style><h1>Methods compared</h1>",
        f"<p>{escape(_asked(settings, cases, groups))}</p>",
        *_summary(found),
        *_listed("Failed", (_failure(record) for record in found if not record.row.came)),
        *_listed("Notes", dict.fromkeys(note for record in found for note in _notes(record))),
        *_videos(groups, records),
    ]
    with replacing(path) as aside:
        aside.write_text("\n".join(parts), encoding="utf-8", errors="xmlcharrefreplace")
    return path


def _asked(settings: StudySettings, cases: Sequence[Sequence[Case]], groups: Sequence[Sequence[Record]]) -> str:
    prompts = len({row[0].scene for row in cases})
    count = f"prompts: {prompts:d}, seeds: {len(settings.seeds):d}"
    begun = sum(1 for group in groups if group)
    so_far = f"; begun with {begun:d} of {len(cases):d}" if begun < len(cases) else ""
    guided = f", cfg {settings.cfg:g}" if settings.cfg != 1.0 else ""
    model = Path(settings.model).name
    return f"{model}: {settings.steps:d} steps at shift {settings.shift:g}{guided}; {count}{so_far}."


def means(records: Sequence[Record]) -> list[tuple[Row, list[Record]]]:
    """A row of means for each method that came, with its records, in the order in which they are first met."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        if record.row.came:
            groups.setdefault(record.row.text, []).append(record)
    return [(_mean([record.row for record in group]), group) for group in groups.values()]


def _mean(rows: Sequence[Row]) -> Row:
    averages = {name: mean(getattr(row, name) for row in rows) for name in MEANS}
    return Row(rows[0].text, bytes_held=max(row.bytes_held for row in rows), **averages)


def _summary(records: Sequence[Record]) -> Iterator[str]:
    found = means(records)
    if not found:
        yield "<p>Nothing is there yet.</p>"
        return
    rows = [row for row, _ in found]
    names = list(dict.fromkeys(name for record in records for name in record.filmed.metrics))
    headings = [escape(each) for each in (*HEADINGS, "±", "runs", *names)]
    yield "<div class='wide'><table><tr>" + "".join(f"<th>{each}</th>" for each in headings) + "</tr>"
    most = max(len(group) for _, group in found)
    best = pareto_front([row for row, group in found if len(group) == most])
    for number, (row, group) in enumerate(found):
        cells = [f"{number:d}", row.text, *figures(row), f"{_spread([each.row.error for each in group]):.2g}"]
        cells += [f"{len(group):d}"]
        cells += [_metric(group, name) for name in names]
        kind = " class='best'" if row in best else ""
        yield f"<tr{kind}>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"
    said = (
        f"Means over runs. {LEGEND} The best of those that were run on all are green. Further measures are of videos."
    )
    yield f"</table></div><p>{escape(said)}</p>{_picture(rows)}"


def _metric(group: Sequence[Record], name: str) -> str:
    values = [record.filmed.metrics[name] for record in group if name in record.filmed.metrics]
    return f"{mean(values):.4g}" if values else ""


def _spread(values: Sequence[float]) -> float:
    return stdev(values) if len(values) > 1 else 0.0


def _picture(rows: Sequence[Row]) -> str:
    out = io.BytesIO()
    chart(rows).save(out, "PNG")
    return f"<img alt='error against speed-up' src='{_data('image/png', out.getvalue())}'>"


def _failure(record: Record) -> str:
    case = record.case
    return f"{case.prompt}, seed {case.seed:d}, {record.row.text}: {record.row.problem}"


def _notes(record: Record) -> Iterator[str]:
    yield from (f"{record.row.text}: {note}" for note in record.row.notes)
    yield from record.filmed.missing


def _listed(title: str, lines: Iterable[str]) -> Iterator[str]:
    items = [f"<li>{escape(line)}</li>" for line in lines]
    if items:
        yield f"<h2>{title}</h2><ul>{''.join(items)}</ul>"


def _videos(groups: Sequence[Sequence[Record]], records: Records) -> Iterator[str]:
    room = MOST_EMBEDDED
    for group in groups:
        shown = [record for record in group if records.video_file(record.case).is_file()]
        if not shown:
            continue
        yield f"<h2>{escape(shown[0].case.prompt)}, seed {shown[0].case.seed:d}</h2><div class='videos'>"
        for record in shown:
            path = records.video_file(record.case)
            room -= path.stat().st_size
            source = _data("video/mp4", path.read_bytes()) if room >= 0 else f"videos/{path.name}"
            yield (
                f"<figure><video src='{source}' autoplay loop muted playsinline controls></video>"
                f"<figcaption>{escape(caption(record.row))}</figcaption></figure>"
            )
        yield "</div>"


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
