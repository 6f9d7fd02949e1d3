"""YAML into `Settings`, strictly: every mistake is named with its file and line."""

import difflib
import math
import os
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import yaml
from yaml import MappingNode, Node, ScalarNode, SequenceNode

from ..messages import cause, listing, quoted
from .settings import SECTION_PRESETS, Settings

WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
TAGS = {"bool": "true or false", "int": "a whole number", "float": "a number", "null": "nothing", "str": "a text"}


class Source(NamedTuple):
    """The file being read."""

    path: str

    def error(self, node: Node, told: str) -> ValueError:
        """An error that says where the node stands."""
        return ValueError(f"{cause(os.path.basename(self.path))}, line {node.start_mark.line + 1:d}: {told}")


def read(file: str | os.PathLike) -> Settings:
    """The settings of a YAML file; ValueError names file and line."""
    source = Source(os.path.abspath(file))
    if not os.path.isfile(source.path):
        raise ValueError(f"There is no file {quoted(source.path)}. Name the YAML file of the run.")
    try:
        with open(source.path, encoding="utf-8") as stream:
            root = yaml.compose(stream, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1:d}" if error.problem_mark else ""
        raise ValueError(
            f"{cause(os.path.basename(source.path))}{line}: this is not YAML: {cause(error.problem)}."
        ) from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{cause(os.path.basename(source.path))} is not a YAML text file: {cause(error)}.") from error
    if root is None:
        raise ValueError(f"{cause(os.path.basename(source.path))} is empty. Describe the run in it.")
    return _section(source, root, Settings, "the run")


def _section(source: Source, node: Node, kind: type, name: str) -> Any:
    entries = _entries(source, node, name)
    known = {entry.name: entry for entry in fields(kind)}
    for key, (key_node, _) in entries.items():
        if key not in known:
            raise source.error(key_node, f"{quoted(key)} is not a key of {name}. {_suggest(key, known)}")
    types = get_type_hints(kind)
    values = {key: _value(source, entry, types[key], known[key], key) for key, (_, entry) in entries.items()}
    for key, entry in known.items():
        if key not in values and entry.default is MISSING and entry.default_factory is MISSING:
            raise source.error(node, f"{name} needs the key {quoted(key)}.")
    presets = SECTION_PRESETS.get(kind, {})
    preset = presets.get(values.get("preset", known["preset"].default), {}) if presets else {}
    try:
        return kind(**preset | values)
    except ValueError as error:
        raise source.error(node, cause(error)) from error


def _entries(source: Source, node: Node, name: str) -> dict[str, tuple[Node, Node]]:
    if not isinstance(node, MappingNode):
        raise source.error(node, f"{name} must be written as 'key: value' lines, but {_found(node)} stands here.")
    entries = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, ScalarNode):
            raise source.error(key_node, f"a key of {name} must be one word.")
        if key_node.value in entries:
            raise source.error(key_node, f"{quoted(key_node.value)} is there twice. Remove one of them.")
        entries[key_node.value] = (key_node, value_node)
    return entries


def _value(source: Source, node: Node, kind: Any, entry: Field, key: str) -> Any:
    if is_dataclass(kind):
        return _section(source, node, kind, quoted(key))
    if get_origin(kind) is Literal:
        if not isinstance(node, ScalarNode) or node.value not in get_args(kind):
            raise source.error(node, f"{quoted(key)} must be one of {listing(get_args(kind))}, not {_found(node)}.")
        return node.value
    if get_origin(kind) is tuple:
        return _sequence(source, node, get_args(kind), entry, key)
    value = _scalar(source, node, kind, key)
    if "path" in entry.metadata:
        return _path(source, node, value, entry, key)
    _check_range(source, node, value, entry, key)
    return value


def _sequence(source: Source, node: Node, kinds: tuple, entry: Field, key: str) -> tuple:
    repeated = kinds[-1] is Ellipsis
    wanted = "a list" if repeated else f"a list of {len(kinds)}"
    if not isinstance(node, SequenceNode) or (not repeated and len(node.value) != len(kinds)):
        raise source.error(node, f"{quoted(key)} must be {wanted}, such as [1, 2], not {_found(node)}.")
    values = tuple(_scalar(source, item, kinds[0], key) for item in node.value)
    for item, value in zip(node.value, values, strict=True):
        _check_range(source, item, value, entry, key)
    return values


def _scalar(source: Source, node: Node, kind: type, key: str) -> Any:
    tag = node.tag.rsplit(":", 1)[-1]
    if isinstance(node, ScalarNode):
        if kind is str and tag == "str":
            return node.value
        if kind is bool and tag == "bool":
            return yaml.SafeLoader.bool_values[node.value.lower()]
        if kind is int and tag == "int":
            return int(yaml.safe_load(node.value))
        if kind is float and (tag in ("int", "float") or (tag == "str" and node.style is None)):
            value = _float(node.value)
            if math.isfinite(value):
                return value
    raise source.error(node, f"{quoted(key)} must be {WORDS[kind]}, not {_found(node)}.")


def _float(text: str) -> float:
    try:
        return float(text.replace("_", ""))  # YAML 1.1 takes 1e-4, without a point, for a text
    except ValueError:
        return math.nan


def _check_range(source: Source, node: Node, value: Any, entry: Field, key: str) -> None:
    least, most = entry.metadata.get("least"), entry.metadata.get("most")
    if least is not None and value < least:
        raise source.error(node, f"{quoted(key)} is {quoted(value)}, but must be at least {quoted(least)}.")
    if most is not None and value > most:
        raise source.error(node, f"{quoted(key)} is {quoted(value)}, but must be at most {quoted(most)}.")


def _path(source: Source, node: Node, value: str, entry: Field, key: str) -> str:
    if not value:
        if entry.default is MISSING:
            raise source.error(node, f"{quoted(key)} is empty. Name a path.")
        return value
    if "://" in value:
        return value
    absolute = os.path.normpath(os.path.join(os.path.dirname(source.path), os.path.expanduser(value)))
    if entry.metadata["exists"] and not os.path.exists(absolute):
        raise source.error(
            node, f"{quoted(key)} is {quoted(value)}, but there is nothing at {quoted(absolute)}. Correct the path."
        )
    return absolute


def _found(node: Node) -> str:
    if isinstance(node, MappingNode):
        return "a group of keys"
    if isinstance(node, SequenceNode):
        return f"a list of {len(node.value)}"
    kind = TAGS.get(node.tag.rsplit(":", 1)[-1], "a value")
    return f"{quoted(node.value)} ({kind})" if node.value else kind


def _suggest(key: str, known: dict[str, Field]) -> str:
    near = difflib.get_close_matches(key, known, n=1)
    return f"Did you mean {quoted(near[0])}?" if near else f"Its keys are {listing([*known], 20)}."
