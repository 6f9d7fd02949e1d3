"""What does not work when a name of ComfyUI's inside is gone; `comfy_names` lists those that DisCa uses.

A name that is gone takes away what needs it and nothing else: a MODEL runs natively, a node says what it cannot do.
`tests/comfy/test_renamed.py` renames each of them, and finds names that are used but not listed.
"""

import logging
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import CodeType, ModuleType

from ..messages import listing, quoted
from .comfy_names import CAME_WITH, NEEDS

TESTED = "0.30.0"  # the ComfyUI that the tests run
LOST_WITHOUT = {  # room -> what does not work without it
    "loading": "DisCa cannot load weights. Use core's Load Diffusion Model, and core's samplers with euler",
    "lora": "DisCa cannot load a LoRA. Use core's LoraLoaderModelOnly",
    "dcm": "DisCa cannot load DCM's experts, and core cannot either",
    "attach": "every step runs in full, without a Predictor or a cache",
    "sampling": "DisCa cannot sample. Use SamplerCustomAdvanced with core's sampler euler",
    "calibration": "DisCa cannot calibrate. Choose a published calibration in DisCa Apply Cache",
    "finding": "DisCa cannot find a schedule. Take a preset in DisCa Cache Schedule",
    "comparing": "DisCa cannot compare methods. Compare the reports of DisCa Sample",
    "speed": "attention and compilation stay as they are",
    "training": "DisCa cannot train from a graph. Train with python -m disca.training",
    "datasets": "DisCa cannot build a dataset from a graph. Build it with python -m disca.training.build",
    "toy": "the toy world cannot be shown",
}
ROOMS = {  # room -> its module in this pack
    "loading": "models.loading",
    "lora": "models.lora",
    "dcm": "models.dcm",
    "attach": "host.attach",
    "sampling": "host.sampling",
    "calibration": "host.calibrating",
    "finding": "host.finding.find",
    "comparing": "evaluation.side_by_side.compare",
    "speed": "host.speed",
    "training": "server.training",
    "datasets": "server.datasets",
    "toy": "server.toy",
}
IMPORTS = {
    "calibration": ("attach", "sampling"),
    "dcm": ("loading", "lora"),
    "finding": ("attach", "sampling"),
    "comparing": ("attach", "sampling"),
    "training": ("loading", "lora"),
    "toy": ("loading",),
}  # room -> others that it takes with it
logger = logging.getLogger(__name__)


@cache
def missing(*rooms: str) -> tuple[str, ...]:
    """The names that the rooms need and this ComfyUI has not."""
    rooms = ("model", *rooms, *(other for room in rooms for other in IMPORTS.get(room, ())))
    names = [name for room in rooms for module, needed in NEEDS[room].items() for name in _lacks(module, *needed)]
    return tuple(dict.fromkeys(names))


def room(name: str) -> ModuleType:
    """The module of a room, imported when a node runs; ValueError if this ComfyUI has not what it needs.

    So a name that is gone breaks no import of the nodes, and what is missing is said where it is missed.
    """
    require(name)
    return import_module(f"...{ROOMS[name]}", __name__)


def require(room: str) -> None:
    """ValueError that says what is missing for the room, if anything is."""
    if problem := lack(room):
        raise ValueError(problem)


def native(*rooms: str) -> bool:
    """Whether something is missing for the rooms, so that the MODEL has to stay as it is; that is logged."""
    if problem := lack(*rooms):
        logger.warning("DisCa: %s", problem)
    return problem is not None


def lack(*rooms: str) -> str | None:
    """What is missing for the rooms and what is lost without it, in a sentence; None if nothing is."""
    from comfyui_version import __version__

    if not (names := missing(*rooms)):
        return None
    return (
        f"This ComfyUI ({__version__}) has no {listing(names)}, so {LOST_WITHOUT[rooms[0]]}. "
        f"Update DisCa, which was made for ComfyUI {TESTED}, or report this at the address in its README."
    )


def _lacks(name: str, attributes: str, words: str) -> list[str]:
    try:
        module = import_module(name)
    except ImportError:
        return [name]
    lacking = [path for path in attributes.split() if not _has(module, path)]
    found = _words(module.__spec__.loader.get_code(name)) if words else set()
    return [f"{name}.{path}" for path in lacking] + [
        f"{quoted(word)} in {name}" for word in words.split() if word not in found and _there(CAME_WITH.get(word, name))
    ]


def _there(name: str) -> bool:
    return find_spec(name) is not None


def _has(thing: ModuleType | type, path: str) -> bool:
    for name in path.split("."):
        thing = getattr(thing, name, None)
    return thing is not None


def _words(code: CodeType) -> set[str]:
    """The names and texts in the code, and in that of its functions and classes."""
    words = {*code.co_names, *code.co_varnames}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            words |= _words(constant)
        words.update(
            text for text in (constant if isinstance(constant, tuple) else [constant]) if isinstance(text, str)
        )
    return words
