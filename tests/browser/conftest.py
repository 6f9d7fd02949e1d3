"""One server and one browser page for the tests of what users see.

Of module scope: while Playwright's browser is open, no other test can run an event loop.
"""

import json
import os
import sys
from pathlib import Path

import pytest

PACK = Path(__file__).resolve().parents[2]
sys.path.append(str(PACK / "scripts"))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A running ComfyUI with an empty file in place of every model that a shipped workflow names."""
    if not os.environ.get("CHROMIUM"):
        pytest.skip("CHROMIUM is not set: install Chromium and run scripts/test.sh")
    from comfy_server import serve
    from frontend import place_files

    base = tmp_path_factory.mktemp("comfyui")
    (base / "input" / "my_clips").mkdir(parents=True)
    for path in (PACK / "example_workflows").glob("*.json"):
        place_files(base, json.loads(path.read_text()))
    with serve(base) as server:
        yield server


@pytest.fixture(scope="module")
def page(server):
    """The interface in a browser, not yet opened."""
    from frontend import interface

    with interface(server, width=1920, height=1080) as ui:
        yield ui


@pytest.fixture(scope="module", params=[False, True], ids=["classic", "nodes2"])
def ui(page, request):
    """The interface, opened in English with each of its two renderers."""
    page.open(vue_nodes=request.param)
    page.renderer = "nodes2" if request.param else "classic"
    return page


@pytest.fixture
def shoot(page, tmp_path):
    """Writes a screenshot of that name into DISCA_SCREENSHOTS, or where pytest keeps its files."""
    folder = Path(os.environ.get("DISCA_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return lambda name: page.page.screenshot(path=folder / f"{name}.png")
