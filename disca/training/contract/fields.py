"""Settings that check themselves: the same limits for a YAML file, a node's inputs and code."""

from dataclasses import Field, field, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ...limits import require_choice, require_flag, require_here, require_number, require_text
from ...messages import quoted

MANY = 10_000_000  # iterations
MOST_SEED = 0xFFFFFFFF  # of the nodes: what is drawn takes a million times as much and stays below 64 bits
MOST_LISTED = 64
LIMITS = ("least", "most", "below")


def number(default: Any, least: float, most: float, below: bool = False) -> Any:
    """A dataclass field whose value, or each of them, must lie in [least, most], or in [least, most) if `below`."""
    return field(default=default, metadata={"least": least, "most": most, "below": below})


def location(default: str | None = None, exists: bool = True, remote: bool = False) -> Any:
    """A dataclass field that is a path, relative to the YAML's folder; it `exists` before the run, or may be a url."""
    metadata = {"path": True, "exists": exists, "remote": remote}
    return field(metadata=metadata) if default is None else field(default=default, metadata=metadata)


class Checked:
    """Settings that cannot be made of values that no run could have, whoever makes them."""

    def __post_init__(self):
        kinds = get_type_hints(type(self))
        for entry in fields(self):
            require_setting(entry, kinds[entry.name], getattr(self, entry.name))


def require_setting(entry: Field, kind: Any, value: Any) -> None:
    """ValueError in a sentence unless the field may have the value."""
    name, limits = entry.name, {key: entry.metadata[key] for key in LIMITS if key in entry.metadata}
    if get_origin(kind) is Literal:
        require_choice(name, value, get_args(kind))
    elif get_origin(kind) is tuple:
        _require_numbers(name, get_args(kind), value, limits)
    elif kind in (int, float):
        require_number(name, value, kind is int, **limits)
    elif kind is bool:
        require_flag(name, value)
    elif kind is str:
        require_text(name, value)
        if not entry.metadata.get("remote", True):
            require_here(name, value)


def _require_numbers(name: str, kinds: tuple, value: Any, limits: dict[str, Any]) -> None:
    most = MOST_LISTED if kinds[-1] is Ellipsis else len(kinds)
    least = 1 if kinds[-1] is Ellipsis else len(kinds)
    if not isinstance(value, tuple) or not least <= len(value) <= most:
        raise ValueError(f"{quoted(name)} is {quoted(value)}, but must be a list of {least} to {most} numbers.")
    for one in value:
        require_number(name, one, kinds[0] is int, **limits)
