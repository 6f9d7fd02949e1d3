"""A real ComfyUI at COMFYUI_PATH, on the CPU, ahead of the pack on the path: both have a package named nodes."""

import os
import sys
from pathlib import Path

import pytest

PACK = Path(__file__).resolve().parents[1]
COMFYUI = os.environ.get("COMFYUI_PATH")
LONGEST = (  # files of few tests and many seconds: begun last, one would run on alone
    "test_soak.py",
    "test_random_prompts.py",
    "test_processes.py",
    "test_renamed.py",
    "test_server.py",
    "test_toy_weights.py",
    "test_interface.py",
    "test_training_nodes.py",
    "test_toy.py",
    "test_compile.py",
    "test_load_memory.py",
)

if COMFYUI:
    sys.path.insert(0, COMFYUI)
    import utils.extra_config  # noqa: F401 (as main.py: an older ComfyUI then puts comfy/, with its utils.py, ahead)

    from disca.training.network.comfy import prepare_comfy

    prepare_comfy("cpu", training=False)


def pytest_addoption(parser):
    told = "in full: soak (200 prompts), random prompts (1,000), fuzz (2,000 files, 5 minutes of coverage), renaming"
    parser.addoption("--full", action="store_true", help=told)
    parser.addoption("--reference", metavar="FOLDER", help="of tests/comfy/reference.py")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))
    if not COMFYUI:
        for item in items:
            if "pure" not in item.path.parts:
                item.add_marker(pytest.mark.skip(reason="COMFYUI_PATH is not set"))


@pytest.fixture(autouse=True)
def _seeded():
    import torch

    torch.manual_seed(0)


@pytest.fixture(scope="module")
def one_thread():
    """More threads are slower over small networks and files, above all on a busy machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
