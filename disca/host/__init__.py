"""All that knows ComfyUI's inside: loading, one sampling run, handlers on blocks, attaching to a MODEL.

Nodes take a room from here when they run, as `host.loading`: what ComfyUI has no more is missed then, not at start-up.
"""

from importlib import import_module
from types import ModuleType

from ..messages import quoted
from . import compat


def __getattr__(name: str) -> ModuleType:
    if name not in compat.COSTS:
        raise AttributeError(f"module '{__name__}' has no attribute {quoted(name)}")
    compat.require(name)
    return import_module(f".{name}", __name__)
