"""DisCa Apply Cache in the interface: what each choice shows, and that a workflow keeps it."""

import pytest

from disca.methods import METHODS
from disca.settings.fields import fields_of

pytestmark = pytest.mark.browser

ADD = """() => {
  for (const item of [...app.graph.nodes, ...app.graph.groups]) app.graph.remove(item)
  app.graph.add(LiteGraph.createNode("DiscaApplyCache"))
}"""
CHOOSE = "([name, value]) => { app.graph.nodes[0].widgets.find(w => w.name === name).value = value }"
SHOWN = """() => Object.fromEntries(
  app.graph.nodes[0].widgets.map(w => [w.name, {value: w.value, options: w.options?.values, tooltip: w.tooltip}])
)"""
CUT = """() => [...document.querySelectorAll("[data-node-id] *")]
  .filter(e => e.children.length === 0 && e.innerText && e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0)
  .map(e => e.innerText)"""
LISTS = {"ratios", "coefficients"}  # settings that no widget shows
METHOD, PRESET = "method", "method.preset"
OFFERED = [name for name in METHODS if name != "LESA"]  # which answers with a network of its own


@pytest.fixture
def node(ui):
    """The interface with the node alone."""
    ui.evaluate(ADD)
    ui.fit(scale=1.0)
    return ui


def choose(ui, method: str, preset: str, **settings) -> dict:
    """What the node shows with that choice."""
    for name, value in {METHOD: method, PRESET: preset}.items():
        ui.evaluate(CHOOSE, [name, value])
    for name, value in settings.items():
        ui.evaluate(CHOOSE, [f"{PRESET}.{name}", value])
    ui.settle()
    return ui.evaluate(SHOWN)


def test_a_method_shows_its_presets_and_custom_its_settings_with_tooltips(node):
    assert node.evaluate(SHOWN)[METHOD]["options"] == OFFERED
    for name in OFFERED:
        cache = METHODS[name]
        for preset in cache.presets:
            shown = choose(node, name, preset)
            assert shown[PRESET]["options"] == [*cache.presets, "custom"]
            assert not [key for key in shown if key.startswith(f"{PRESET}.")]
        shown = choose(node, name, "custom")
        settings = {key.removeprefix(f"{PRESET}."): one for key, one in shown.items() if key.startswith(f"{PRESET}.")}
        wanted = {key: (f.default, f.description) for key, f in fields_of(cache).items() if key not in LISTS}
        assert {key: (one["value"], one["tooltip"]) for key, one in settings.items()} == wanted
    assert node.errors == []


def test_no_preset_is_cut_off_at_the_nodes_own_size(node):
    if node.renderer == "classic":
        pytest.skip("the canvas draws more of a value than Nodes 2.0 does")
    for name in OFFERED:
        for preset in METHODS[name].presets:
            choose(node, name, preset)
            assert preset not in node.evaluate(CUT), (name, preset)


def test_a_reopened_workflow_has_the_values_it_was_saved_with(node, shoot):
    choose(node, "SpeCa", "custom", fewest=7, error="L2", threshold=0.35)
    sent = node.prompt()
    node.load(node.evaluate("() => app.graph.serialize()"), "saved")
    node.fit(scale=1.0)
    shoot(f"apply_cache_{node.renderer}")
    (inputs,) = (entry["inputs"] for entry in node.prompt().values())
    assert node.prompt() == sent
    assert (inputs[f"{PRESET}.fewest"], inputs[f"{PRESET}.error"], inputs[f"{PRESET}.threshold"]) == (7, "L2", 0.35)
