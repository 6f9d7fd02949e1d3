"""What a newcomer sees of a template before touching it: whole preset names, results that nothing covers, the note."""

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.browser

PACK = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted(path.stem for path in (PACK / "example_workflows").glob("*.json"))
SMALL, LARGE = {"width": 1600, "height": 900}, {"width": 1920, "height": 1080}
CUT = """() => [...document.querySelectorAll("[data-node-id] *")]
  .filter(e => e.children.length === 0 && /^HunyuanVideo .* steps/.test(e.innerText) && e.scrollWidth > e.clientWidth)
  .map(e => e.innerText)"""
COVERED = """results => {
  const map = document.querySelector("[data-testid=minimap-container]").getBoundingClientRect()
  const {scale, offset} = app.canvas.ds
  const page = app.canvas.canvas.getBoundingClientRect()
  return app.graph.nodes.filter(node => results.includes(node.type)).filter(node => {
    const right = page.left + (node.pos[0] + node.size[0] + offset[0]) * scale
    const bottom = page.top + (node.pos[1] + node.size[1] + offset[1]) * scale
    return right > map.left && bottom > map.top
  }).map(node => node.title || node.type)
}"""
SCROLLED = """() => [...document.querySelectorAll(".comfy-markdown .tiptap, .comfy-markdown-content")]
  .filter(e => e.scrollHeight > e.clientHeight + 1).length"""


def read(name: str) -> dict:
    """The shipped workflow of that name."""
    return json.loads((PACK / "example_workflows" / f"{name}.json").read_text(encoding="utf-8"))


def note(name: str) -> str:
    """What the workflow's note says."""
    return next(node["widgets_values"][0] for node in read(name)["nodes"] if node["type"] == "MarkdownNote")


def test_the_minimap_covers_no_film(page):
    page.open(**{"Comfy.Minimap.Visible": True})
    covered = {}
    for name in WORKFLOWS:
        for size in (SMALL, LARGE):
            page.page.set_viewport_size(size)
            page.load(read(name), name)
            covered[name, size["width"]] = page.evaluate(COVERED, ["SaveAnimatedWEBP", "SaveVideo"])
    assert not any(covered.values()), covered


def test_no_preset_is_cut_off(page):
    page.open(vue_nodes=True)  # draws less of a value than the classic canvas
    for name in WORKFLOWS:
        page.load(read(name), name)
        assert page.evaluate(CUT) == [], name


def test_a_note_is_seen_without_scrolling(ui):
    for name in WORKFLOWS:
        ui.load(read(name), name)
        assert ui.evaluate(SCROLLED) == 0, name


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_note_says_by_its_headings_what_to_do_and_where_the_licence_ends(name):
    headings = [line for line in note(name).splitlines() if line.startswith("# ")]
    assert any("Press Run" in line or "press Run" in line for line in headings)
    files = [file for node in read(name)["nodes"] for file in node.get("properties", {}).get("models", ())]
    assert not files or any("EU, UK or South Korea" in line for line in headings)
