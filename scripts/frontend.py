"""ComfyUI's interface in Chromium, for the scripts that draw with it and the browser tests."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from comfy_server import Server

READY = """() => {
  try { return window.app.vueAppReady && app.extensionManager && app.graph.nodes.length > 0 } catch { return false }
}"""  # the first graph comes last, and reading it earlier throws
UNKNOWN = "() => app.graph.nodes.filter(n => !(n.type in LiteGraph.registered_node_types)).map(n => n.type)"
SETTLE = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
QUIET = {
    "Comfy.TutorialCompleted": True,  # else a new user's first page is the template dialog
    "Comfy.Workflow.Persist": False,
    "Comfy.Minimap.Visible": False,
    "Comfy.RightSidePanel.IsOpen": False,
    "Comfy.Graph.CanvasInfo": False,
}


class Interface:
    """One page of the interface; `errors` are the uncaught ones of its scripts."""

    def __init__(self, page, server: Server):
        self.page, self.server = page, server
        self.errors: list[str] = []
        page.set_default_timeout(600_000)  # machines may be busy
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def open(self, locale: str = "en", vue_nodes: bool = False, **settings) -> None:
        """Loads the page with these settings, and waits until it is ready."""
        choice = {"Comfy.Locale": locale, "Comfy.VueNodes.Enabled": vue_nodes}
        for key, value in {**QUIET, **choice, **settings}.items():
            self.server.post(f"/settings/{key}", value)
        self.page.goto(self.server.url, wait_until="domcontentloaded")
        self.page.wait_for_function(READY)

    def evaluate(self, script: str, argument=None):
        """What the script gives in the page."""
        return self.page.evaluate(script, argument)

    def load(self, workflow: dict, name: str) -> None:
        """Opens a workflow, as if the user had chosen it."""
        self.evaluate("([workflow, name]) => app.loadGraphData(workflow, true, true, name)", [workflow, name])
        self.settle()

    def prompt(self) -> dict:
        """The open workflow in API form, as the queue button would send it."""
        return self.evaluate("async () => (await app.graphToPrompt()).output")

    def unknown_types(self) -> list[str]:
        """Types of nodes in the open workflow that no node definition knows."""
        return self.evaluate(UNKNOWN)

    def fit(self, scale: float | None = None, margin: float = 40.0) -> None:
        """Shows the whole graph below the top bar, at this scale or the largest that fits."""
        for _ in range(5):  # the interface may still be moving the view of a graph that it has just opened
            wanted = self.evaluate(FIT, {"scale": scale, "margin": margin})
            self.settle()
            if self.evaluate(VIEW) == wanted:
                return

    def picture(self, path: Path, margin: float = 24.0) -> None:
        """Writes what is drawn of the graph, as the view shows it, without the panels around it."""
        left, top, right, bottom = self.evaluate(EXTENT)
        clip = {"x": left - margin, "y": top - margin, "width": right - left + 2 * margin}
        self.page.screenshot(path=path, clip={**clip, "height": bottom - top + 2 * margin})

    def settle(self) -> None:
        """Waits for what was asked to be drawn."""
        self.evaluate(SETTLE)
        self.page.wait_for_timeout(150)


BOX = "n => [n.pos[0], n.pos[1] - 30, n.size[0], n.size[1] + 30]"  # its own is not up to date outside the view
FIT = """({scale, margin}) => {
  const boxes = [...app.graph.nodes.map(BOX), ...app.graph.groups.map(g => g._bounding)]
  const left = Math.min(...boxes.map(b => b[0])) - margin, top = Math.min(...boxes.map(b => b[1])) - margin
  const width = Math.max(...boxes.map(b => b[0] + b[2])) + margin - left
  const height = Math.max(...boxes.map(b => b[1] + b[3])) + margin - top
  const view = {x: 70, y: 90, width: innerWidth - 70, height: innerHeight - 90}
  const ds = app.canvas.ds
  ds.scale = scale ?? Math.min(view.width / width, view.height / height, 1)
  ds.offset[0] = (view.x + view.width / 2) / ds.scale - left - width / 2
  ds.offset[1] = (view.y + view.height / 2) / ds.scale - top - height / 2
  app.canvas.setDirty(true, true)
  return [ds.scale, ...ds.offset]
}""".replace("BOX", BOX)
VIEW = "() => [app.canvas.ds.scale, ...app.canvas.ds.offset]"
EXTENT = """() => {
  const boxes = [...app.graph.nodes.map(BOX), ...app.graph.groups.map(g => g._bounding)]
  const {scale, offset} = app.canvas.ds
  const page = app.canvas.canvas.getBoundingClientRect()
  const x = value => page.left + (value + offset[0]) * scale, y = value => page.top + (value + offset[1]) * scale
  return [
    x(Math.min(...boxes.map(b => b[0]))), y(Math.min(...boxes.map(b => b[1]))),
    x(Math.max(...boxes.map(b => b[0] + b[2]))), y(Math.max(...boxes.map(b => b[1] + b[3]))),
  ]
}""".replace("BOX", BOX)


@contextmanager
def interface(server: Server, width: int = 1600, height: int = 900, pixel_ratio: float = 1.0) -> Iterator[Interface]:
    """A browser with one page of that size; `open` it to load the interface."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=os.environ["CHROMIUM"], args=["--no-sandbox"])
        page = browser.new_page(
            viewport={"width": width, "height": height}, device_scale_factor=pixel_ratio, reduced_motion="reduce"
        )
        yield Interface(page, server)
        browser.close()


def place_files(base: Path, workflow: dict) -> None:
    """Puts ComfyUI's example image and an empty file for every model of the workflow where lists find them."""
    for node in workflow["nodes"]:
        for model in node.get("properties", {}).get("models", ()):
            place_model(base, model)
    (base / "input").mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(os.environ["COMFYUI_PATH"]) / "input" / "example.png", base / "input")


def place_model(base: Path, model: dict) -> None:
    """Puts an empty file where this entry of a node's `models` belongs."""
    path = base / "models" / model["directory"] / model["name"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
