"""What other packs have put on a MODEL, by name."""

import inspect
import re
from collections.abc import Callable
from functools import partial
from types import MethodType

from torch import nn

from ....messages import quoted
from ....models.family import Family

OURS = __name__.removesuffix(".host.running.observation.others")
CORE = re.compile(r"(comfy|comfy_extras|comfy_api|torch)(\.|$)")
FOLDERS = r"[/\\]"


def origin_of(thing: object) -> str:
    """The module and name of what another pack made, from its folder on: 'ComfyUI-Pack.nodes.wrapper'."""
    module, name = _made_in(thing)
    return quoted(f"{re.split(FOLDERS, module)[-1]}.{name}")


def foreign_block(family: Family, network: nn.Module) -> str | None:
    """The name of what stands among the network's blocks and is none of ComfyUI's; compiled blocks are."""
    for kind in family.kinds:
        for block in kind.of(network):
            module = getattr(block, "_orig_mod", block)
            if not isinstance(module, kind.made_of()):
                return origin_of(module)
    return None


def on_the_way(model_options: dict, network: nn.Module) -> list[str]:
    """The names of other packs' functions between the sampler and the network's blocks."""
    options = model_options.get("transformer_options", {})
    levels = options.get("wrappers", {}).values()
    things = [wrapper for by_key in levels for wrappers in by_key.values() for wrapper in wrappers]
    handlers = options.get("patches_replace", {}).get("dit", {}).values()
    things += [getattr(handler, "inner", None) or handler for handler in handlers]
    things += [value for value in model_options.values() if callable(value)]
    things += [value for value in vars(network).values() if inspect.isroutine(value)]  # a forward that was replaced
    return list(dict.fromkeys(origin_of(thing) for thing in things if _is_foreign(thing)))


def _is_foreign(thing: object) -> bool:
    module, _ = _made_in(thing)
    return not CORE.match(module) and not f"{module}.".startswith(f"{OURS}.")


def _made_in(thing: object) -> tuple[str, str]:
    while isinstance(thing, partial | MethodType):
        thing = thing.func if isinstance(thing, partial) else thing.__func__
    made: Callable | type = thing if hasattr(thing, "__qualname__") else type(thing)
    return str(made.__module__), made.__qualname__.replace("<locals>.", "")
