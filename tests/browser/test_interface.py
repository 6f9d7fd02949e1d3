"""What users see: the shipped workflows, templates, help pages and translations in the real interface."""

import json
import urllib.request
from itertools import combinations
from pathlib import Path
from urllib.parse import quote

import comfyui_version
import pytest

from disca.host.compat import TESTED

pytestmark = pytest.mark.browser

PACK = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted(path.stem for path in (PACK / "example_workflows").glob("*.json"))
CHINESE = json.loads((PACK / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
NODE_IDS = sorted(CHINESE)
GROWN = {"prompts"}  # inputs that grow: the interface numbers them, and has no texts for each

SEARCHES = {  # what a newcomer types, and a node that must be found
    "hunyuan": "DisCa Load MeanFlow Model",
    "hunyuanvideo": "DisCa Load MeanFlow Model",
    "hunyuan video": "DisCa Sample",
    "faster": "DisCa Apply Predictor",
    "speed": "DisCa Apply Predictor",
    "teacache": "DisCa Apply Cache",
    "taylorseer": "DisCa Apply Cache",
    "few steps": "DisCa Load MeanFlow Model",
    "turbo": "DisCa Load MeanFlow Model",
    "fp8": "DisCa Load MeanFlow Model",
    "distilled": "DisCa Load MeanFlow Model",
    "sampler": "DisCa Sample",
    "lora training": "DisCa Train MeanFlow",
}
FOUND = "() => [...document.querySelectorAll('[role=option]')].map(e => e.innerText.split('\\n')[0])"
TITLED = """names => {
  const titles = [...document.querySelectorAll("[role=dialog] h3")].map(title => title.innerText)
  return names.every(name => titles.includes(name))
}"""
COLOURS = """() => {
  const types = ["DISCA_PREDICTOR", "DISCA_SCHEDULE", "MODEL"]
  const style = getComputedStyle(document.documentElement)
  return [
    types.map(type => app.canvas.default_connection_color_byType[type]),
    types.map(type => LGraphCanvas.link_type_colors[type]),
    types.map(type => style.getPropertyValue(`--color-datatype-${type}`)),
  ]
}"""
BOXES = """(nodes2) => app.graph.nodes.map(node => {
  const drawn = nodes2 && document.querySelector(`[data-node-id="${node.id}"]`)
  const size = drawn ? [drawn.offsetWidth, drawn.offsetHeight] : [node.size[0], node.size[1] + 30]
  return [node.title, node.pos[0], node.pos[1] - 30, ...size]
})"""
ONLY = """type => {
  // clear() would give the new node the id of an old one, whose widgets Nodes 2.0 remembers
  for (const item of [...app.graph.nodes, ...app.graph.groups]) app.graph.remove(item)
  app.graph.add(LiteGraph.createNode(type))
}"""
SELECT = "() => { app.canvas.deselectAll(); app.canvas.selectItems([app.graph.nodes[0]]) }"
HELP = ".node-help-content"
SMALL = {"width": 1600, "height": 900}  # the help panel is narrowest here
CUT_OFF = """page => {
  const right = page.getBoundingClientRect().left + page.clientWidth + 1
  const wide = [...page.querySelectorAll("*")].filter(e => e.getBoundingClientRect().right > right)
  return [...wide.map(e => e.innerText), ...(page.scrollWidth > page.clientWidth ? ["text"] : [])]
}"""
LABELS = """() => {
  const node = app.graph.nodes[0]
  const widgets = node.widgets?.filter(w => !["control_after_generate", "fixed"].includes(w.name)) ?? []
  return {
    inputs: Object.fromEntries(node.inputs.map(input => [input.name, input.localized_name])),
    widgets: Object.fromEntries(widgets.map(w => [w.name, w.label])),
    advanced: widgets.filter(w => w.options.advanced).map(w => w.label),
  }
}"""


def read(name: str) -> dict:
    """The shipped workflow of that name."""
    return json.loads((PACK / "example_workflows" / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", WORKFLOWS)
def test_workflow_opens_and_sends_the_committed_prompt(ui, shoot, name):
    ui.load(read(name), name)
    ui.fit()
    shoot(f"{name}_{ui.renderer}")
    assert ui.unknown_types() == []
    committed = json.loads((PACK / "tests" / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
    sent = ui.prompt()
    if comfyui_version.__version__ != TESTED:
        sent, committed = in_common(sent, committed), in_common(committed, sent)
    assert sent == committed
    assert ui.errors == []


def in_common(prompt: dict, other: dict) -> dict:
    """The prompt without inputs of ComfyUI's own nodes that the other has not: its versions differ in them."""
    cut = {}
    for key, node in prompt.items():
        others = other.get(key, node)["inputs"]
        ours = node["class_type"].startswith("Disca")
        inputs = {name: value for name, value in node["inputs"].items() if ours or name in others}
        cut[key] = {**node, "inputs": inputs}
    return cut


@pytest.mark.parametrize("size", [(1600, 900), (1920, 1080)], ids=["small", "large"])
def test_workflows_open_large_enough_for_their_text(ui, shoot, size):
    ui.page.set_viewport_size({"width": size[0], "height": size[1]})
    for name in WORKFLOWS:
        ui.load(read(name), name)
        shoot(f"{name}_opened_{ui.renderer}_{size[0]}")
        assert ui.evaluate("() => app.canvas.low_quality") is False, name  # the classic canvas would draw no text


def test_our_sockets_and_links_have_colours_of_their_own(ui, shoot):
    ui.load(read(WORKFLOWS[1]), WORKFLOWS[1])
    shoot(f"colours_{ui.renderer}")
    for colours in ui.evaluate(COLOURS):
        assert all(colours) and len(set(colours)) == len(colours), colours


@pytest.mark.parametrize("name", WORKFLOWS)
def test_no_node_covers_another(ui, name):
    ui.load(read(name), name)
    boxes = ui.evaluate(BOXES, ui.renderer == "nodes2")
    assert not [(a[0], b[0]) for a, b in combinations(boxes, 2) if overlap(a, b)]


def overlap(a: list, b: list) -> bool:
    """Whether two boxes (title, x, y, width, height) share more than their borders."""
    return all(a[i] + 1 < b[i] + b[i + 2] and b[i] + 1 < a[i] + a[i + 2] for i in (1, 2))


def test_templates_are_listed_with_thumbnails(server, ui, shoot):
    assert sorted(server.get("/workflow_templates")["ComfyUI-DisCa"]) == WORKFLOWS
    ui.evaluate("() => { app.extensionManager.command.execute('Comfy.BrowseTemplates') }")
    ui.page.get_by_text("ComfyUI-DisCa", exact=True).first.click()
    pictures = ui.page.get_by_role("dialog").locator("img")
    pictures.nth(len(WORKFLOWS) - 1).wait_for()
    widths = pictures.evaluate_all("all => Promise.all(all.map(i => i.decode().then(() => i.naturalWidth)))")
    shoot(f"templates_{ui.renderer}")
    ui.page.keyboard.press("Escape")
    assert len(widths) == len(WORKFLOWS) and min(widths) > 0


@pytest.mark.parametrize("ui", [False], ids=["classic"], indirect=True)  # the dialog is the same in both
@pytest.mark.parametrize(("words", "found"), [("disca", WORKFLOWS), ("quickstart", WORKFLOWS[:1])])
def test_a_search_finds_templates(ui, words, found):
    ui.open()  # anew: a dialog that is still closing has a field for searches too
    ui.evaluate("() => { app.extensionManager.command.execute('Comfy.BrowseTemplates') }")
    ui.page.get_by_role("dialog").get_by_placeholder("Search").fill(words)
    ui.page.wait_for_function(TITLED, arg=found)
    ui.page.keyboard.press("Escape")


def test_templates_in_order_of_their_names_begin_with_the_quickstart():
    assert "Quickstart" in WORKFLOWS[0]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_template_and_thumbnail_are_served(server, name):
    address = f"{server.url}/api/workflow_templates/ComfyUI-DisCa/{quote(name)}"
    with urllib.request.urlopen(f"{address}.json") as answer:
        assert json.load(answer) == read(name)
    with urllib.request.urlopen(f"{address}.jpg") as answer:
        assert answer.read() == (PACK / "example_workflows" / f"{name}.jpg").read_bytes()


@pytest.mark.parametrize("ui", [False], ids=["classic"], indirect=True)  # the dialog is the same in both
def test_what_newcomers_search_for_finds_our_nodes(ui, shoot):
    ui.evaluate("() => { app.extensionManager.command.execute('Workspace.SearchBox.Toggle') }")
    box = ui.page.get_by_placeholder("Add a node")
    for words, wanted in SEARCHES.items():
        box.fill(words)
        ui.page.wait_for_function(f"name => ({FOUND})().includes(name)", arg=wanted)
        shoot(f"search_{words}")
    ui.page.keyboard.press("Escape")


@pytest.mark.parametrize("ui", [False], ids=["classic"], indirect=True)  # the panel is the same in both
@pytest.mark.parametrize("node_id", NODE_IDS)
def test_help_page_shows_its_text_and_picture(ui, shoot, node_id):
    open_help(ui, node_id)
    shoot(f"help_{node_id}")
    require_help(ui, ui.evaluate("() => app.graph.nodes[0].title"))
    assert ui.errors == []


@pytest.mark.parametrize("nodes2", [False, True], ids=["classic", "nodes2"])
def test_nodes_are_in_chinese(page, shoot, nodes2):
    page.open(locale="zh", vue_nodes=nodes2)
    for node_id, texts in CHINESE.items():
        page.evaluate(ONLY, node_id)
        page.fit(scale=1.0)
        shoot(f"zh_{node_id}_{'nodes2' if nodes2 else 'classic'}")
        labels = require_chinese_labels(page, node_id)
        assert page.evaluate("() => app.graph.nodes[0].title") == texts["display_name"]
        if nodes2:
            drawn = page.page.locator("[data-node-id]").inner_text()
            assert all(text in drawn for text in (texts["display_name"], *labels)), drawn
    assert page.errors == []


@pytest.mark.parametrize("plan", ["preset", "interval", "anchors"])
def test_inputs_of_every_plan_are_in_chinese(page, plan):
    page.open(locale="zh")
    page.evaluate(ONLY, "DiscaCacheSchedule")
    page.evaluate("plan => { app.graph.nodes[0].widgets[0].value = plan }", plan)
    assert len(require_chinese_labels(page, "DiscaCacheSchedule")) > 1


def test_help_page_is_in_chinese(page, shoot):
    page.open(locale="zh")
    for node_id, texts in CHINESE.items():
        open_help(page, node_id)
        shoot(f"zh_help_{node_id}")
        require_help(page, texts["display_name"])


def require_chinese_labels(ui, node_id: str) -> list[str]:
    """The labels that the node shows, all of its inputs and widgets having their Chinese ones."""
    found = ui.evaluate(LABELS)
    names = {key: text["name"] for key, text in CHINESE[node_id]["inputs"].items()}
    inputs, widgets = (
        {key: label for key, label in found[kind].items() if key.partition(".")[0] not in GROWN}
        for kind in ("inputs", "widgets")
    )
    for labels in (inputs, widgets):
        assert labels == {key: names[key.replace(".", "_")] for key in labels}
    return [label for label in inputs.values() if label not in found["advanced"]]


def open_help(ui, node_id: str) -> None:
    """Shows one node of that type, and its help page in the panel at the right."""
    ui.page.set_viewport_size(SMALL)
    ui.evaluate(ONLY, node_id)
    ui.fit(scale=1.0)
    ui.evaluate(SELECT)
    button = ui.page.locator('[data-testid="info-button"]')
    button.wait_for()
    button.click()
    ui.page.locator(HELP).locator("h1").wait_for()
    ui.settle()


def require_help(ui, title: str) -> None:
    """The open help page is headed so, shows its picture, and is not cut off at the right."""
    shown = ui.page.locator(HELP)
    assert shown.locator("h1").inner_text() == title
    assert shown.locator("img").evaluate("i => i.decode().then(() => i.naturalWidth)") > 0
    assert shown.evaluate(CUT_OFF) == []
