"""Writes the example workflows, their API forms and their thumbnails: `$PYTHON scripts/build_workflows.py`.

The graphs are described below; ComfyUI's own interface turns them into workflow files. Needs what
`set_up_tests` in scripts/environment.sh gives.
"""

import json
import re
import sys
import tempfile
import uuid
from pathlib import Path
from typing import NamedTuple

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent))
from comfy_server import PACK, Server, serve
from frontend import Interface, interface, place_model
from graph_parts import COMPARE, METHODS, QUICKSTART, TRAINING, Graph, Node
from graphs import GRAPHS
from graphs_caches import COMPARED
from graphs_compare import FILM
from graphs_toy import RESULTS, run_toy
from graphs_training import CLIPS
from thumbnails import draw_thumbnail

WORKFLOWS = PACK / "example_workflows"
API_FORMS = PACK / "tests" / "workflows"
TRAINED = PACK / "disca" / "toy" / "weights" / "predictor-preview.png"
BYPASSED = 4  # LGraphEventMode
TITLE_BAR = 30  # pixels that a node's title takes above its position
GAP = 60  # between two nodes; Nodes 2.0 draws them higher than the classic canvas does
PADDING = 20  # inside a group
GROUP_TITLE = 40
GROUP_COLOR = "#3f789e"

SIZES = """async (api) => {
  await app.loadApiJson(api, "")
  return app.graph.nodes.map(n => [String(n.id), [...n.computeSize()]])
}"""
PLACE = """(nodes) => {
  for (const [id, {pos, size, mode, properties}] of Object.entries(nodes)) {
    const node = app.graph.getNodeById(id)
    node.pos = pos
    node.setSize(size)
    node.mode = mode
    Object.assign(node.properties, properties)
    const control = node.widgets?.find(w => w.name === "control_after_generate")
    if (control) control.value = "fixed"
  }
}"""
DECORATE = """({note, groups}) => {
  const written = LiteGraph.createNode("MarkdownNote")
  app.graph.add(written)
  written.title = note.title
  written.pos = note.pos
  written.setSize(note.size)
  written.widgets[0].value = note.text
  for (const {title, bounding, color} of groups) {
    const group = new LiteGraph.LGraphGroup(title)
    group.configure({title, bounding, color, font_size: 24, flags: {}})
    app.graph.add(group)
  }
}"""


class Box(NamedTuple):
    """Where a node goes."""

    pos: tuple[float, float]
    size: tuple[float, float]


def build(ui: Interface, graph: Graph) -> dict:
    """The graph as a workflow that the interface wrote, left open in it."""
    groups = place(ui, graph)
    note = {"title": "Read me", "text": graph.note, "pos": (0, 0), "size": graph.note_size}
    ui.evaluate(DECORATE, {"note": note, "groups": groups})
    workflow = ui.evaluate("() => app.graph.serialize()")
    workflow["id"] = str(uuid.uuid5(uuid.NAMESPACE_URL, graph.name))
    del workflow["extra"]["ds"]  # without a saved view the interface shows the whole graph
    return workflow


def place(ui: Interface, graph: Graph, gap: float = GAP) -> list[dict]:
    """Opens the graph's nodes in the interface, each in its place; gives the groups that belong around them."""
    boxes, groups = lay_out(graph, dict(ui.evaluate(SIZES, api_of(graph))), gap)
    ids = ids_of(graph)
    nodes = {
        ids[node.name]: {
            **boxes[node.name]._asdict(),
            "mode": BYPASSED if node.name in graph.bypassed else 0,
            "properties": properties_of(ui, node),
        }
        for node in graph.nodes
    }
    ui.evaluate(PLACE, nodes)
    return groups


def api_of(graph: Graph) -> dict:
    """The graph in API form, as far as its description goes: the interface adds nothing but defaults."""
    ids = ids_of(graph)
    return {
        ids[node.name]: {
            "class_type": node.type,
            "inputs": {
                key: [ids[value[0]], value[1]] if isinstance(value, tuple) else value
                for key, value in node.inputs.items()
            },
            **({"_meta": {"title": node.title}} if node.title else {}),
        }
        for node in graph.nodes
    }


def ids_of(graph: Graph) -> dict[str, str]:
    """Node ids by name, counted in the order of the description."""
    return {node.name: str(number) for number, node in enumerate(graph.nodes, 1)}


def lay_out(graph: Graph, sizes: dict[str, list[float]], gap: float) -> tuple[dict[str, Box], list[dict]]:
    """A box for each node, and the groups around them, from left to right after the note."""
    ids = ids_of(graph)
    boxes: dict[str, Box] = {}
    groups = []
    left, bottom = graph.note_size[0] + 2 * PADDING, 0.0
    for group in graph.groups:
        right = left + PADDING
        for column in group.columns:
            top = GROUP_TITLE
            width = max(group.width, *(node.width for node in column))
            for node in column:
                height = max(sizes[ids[node.name]][1], node.height)
                boxes[node.name] = Box((right, top), (width, height))
                top += height + TITLE_BAR + gap
            bottom = max(bottom, top - TITLE_BAR - gap)
            right += width + 2 * PADDING
        groups.append({"title": group.title, "left": left, "width": right - PADDING - left, "color": GROUP_COLOR})
        left = right
    top = -TITLE_BAR - PADDING
    for group in groups:
        group["bounding"] = (group.pop("left"), top, group.pop("width"), bottom + PADDING - top)
    return boxes, groups


def properties_of(ui: Interface, node: Node) -> dict:
    """What tells other installations where the node and its files come from."""
    ours = node.type.startswith("Disca")
    version = pack_version() if ours else ui.server.get("/system_stats")["system"]["comfyui_version"]
    models = {"models": [model._asdict() for model in node.models]} if node.models else {}
    return {"cnr_id": "disca" if ours else "comfy-core", "ver": version, **models}


def pack_version() -> str:
    """The version in pyproject.toml."""
    return re.search(r'^version = "(.+)"', (PACK / "pyproject.toml").read_text(), re.MULTILINE)[1]


def write(path: Path, content: dict) -> None:
    """Writes JSON as it is committed."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def results_of(graph: Graph, server: Server) -> dict[str, Image.Image] | None:
    """Pictures of what the graph gives, where it can be had on this machine."""
    if graph.name == QUICKSTART:
        return {RESULTS[name]: frames[2] for name, frames in run_toy(server).items()}
    if graph.name == COMPARE:
        return {COMPARED[name]: frames[2] for name, frames in run_toy(server, COMPARE, COMPARED).items()}
    if graph.name == METHODS:
        videos = run_toy(server, METHODS, [FILM])[FILM][2]
        charts = sorted((server.base / "temp").glob("*.png"), key=lambda path: path.stat().st_mtime)
        with Image.open(charts[-1]) as chart:
            return {"the videos": videos, "speed and distance": chart.convert("RGB")}
    if graph.name == TRAINING:
        with Image.open(TRAINED) as preview:
            halves = [(0, top, preview.width // 2, top + preview.height // 2) for top in (0, preview.height // 2)]
            return dict(zip(("all steps in full", "with the Predictor"), map(preview.crop, halves), strict=True))
    return None


def main() -> None:
    """Writes all files."""
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        (base / "input" / CLIPS).mkdir(parents=True)
        for graph in GRAPHS:
            for model in (model for node in graph.nodes for model in node.models):
                place_model(base, model._asdict())
        with serve(base) as server, interface(server) as ui:
            ui.open()
            for graph in GRAPHS:
                write(WORKFLOWS / f"{graph.name}.json", build(ui, graph))
                write(API_FORMS / f"{graph.name}.json", ui.prompt())
                draw_thumbnail(graph.thumbnail, WORKFLOWS / f"{graph.name}.jpg", results_of(graph, server))
                print(graph.name)


if __name__ == "__main__":
    main()
