"""YAML into `Settings`, strictly: every mistake is named with its file and line."""

import difflib
import math
import os
import re
from contextlib import suppress
from dataclasses import MISSING, Field, asdict, fields, is_dataclass
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import yaml
from yaml import MappingNode, Node, ScalarNode, SequenceNode

from ...limits import LONGEST_NAME
from ...messages import cause, listing, quoted
from .fields import require_setting
from .settings import SECTION_PRESETS, Settings

WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
TAGS = {"bool": "true or false", "int": "a whole number", "float": "a number", "null": "nothing", "str": "a text"}

MOST_LETTERS = 1_000_000
DEEPEST = 20


class Source(NamedTuple):
    """The file being read."""

    path: str

    @property
    def label(self) -> str:
        """What to call it in a message."""
        return cause(os.path.basename(self.path))

    def error(self, node: Node | yaml.Event | None, told: str) -> ValueError:
        """An error that says where the node stands."""
        line = f", line {node.start_mark.line + 1:d}" if node else ""
        return ValueError(f"{self.label}{line}: {told}")


def read_settings(file: str | os.PathLike) -> Settings:
    """The run that a YAML file describes; ValueError names file and line of what is wrong in it."""
    source = Source(os.path.abspath(file))
    if not os.path.isfile(source.path):
        raise ValueError(f"There is no file {quoted(source.path)}. Name the YAML file of the run.")
    root = _compose(source)
    if root is None:
        raise ValueError(f"{source.label} is empty. Describe the run in it.")
    return _section(source, root, Settings, "the run")


def write_settings(settings: Settings, file: str | os.PathLike) -> None:
    """Writes a YAML file that reads back as the same settings; it appears whole or not at all."""
    aside = f"{os.fspath(file)}.partial"
    with open(aside, "w", encoding="utf-8") as out:
        yaml.safe_dump(_plain(asdict(settings)), out, sort_keys=False, allow_unicode=True)
    os.replace(aside, file)


def _compose(source: Source) -> Node | None:
    """The file as YAML's nodes; ValueError unless it is YAML, and no larger or deeper than a run's description is."""
    try:
        with open(source.path, encoding="utf-8") as stream:
            text = stream.read(MOST_LETTERS + 1)
        if len(text) > MOST_LETTERS:
            raise source.error(None, f"it has more than {MOST_LETTERS:,} characters. Describe only the run in it.")
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent):
                raise source.error(event, "an alias stands here. Write the value itself.")
            if depth > DEEPEST:
                raise source.error(event, f"more than {DEEPEST} groups or lists stand in one another.")
        return yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1:d}" if error.problem_mark else ""
        raise ValueError(f"{source.label}{line}: this is not YAML: {cause(error.problem)}.") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{source.label} is not a YAML text file: {cause(error)}.") from error


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
        value = node.value if isinstance(node, ScalarNode) else None
        if value not in get_args(kind):
            raise source.error(node, f"{quoted(key)} must be one of {listing(get_args(kind))}, not {_found(node)}.")
        return value
    read = _sequence if get_origin(kind) is tuple else _scalar
    value = read(source, node, kind, key)
    try:
        require_setting(entry, kind, value)
    except ValueError as error:
        raise source.error(node, cause(error)) from None
    return _path(source, node, value, entry, key) if "path" in entry.metadata else value


def _sequence(source: Source, node: Node, kind: Any, key: str) -> tuple:
    kinds = get_args(kind)
    repeated = kinds[-1] is Ellipsis
    wanted = "a list" if repeated else f"a list of {len(kinds)}"
    if not isinstance(node, SequenceNode) or (not repeated and len(node.value) != len(kinds)):
        raise source.error(node, f"{quoted(key)} must be {wanted}, such as [1, 2], not {_found(node)}.")
    return tuple(_scalar(source, item, kinds[0], key) for item in node.value)


def _scalar(source: Source, node: Node, kind: type, key: str) -> Any:
    tag = node.tag.rsplit(":", 1)[-1]
    if isinstance(node, ScalarNode):
        if kind is str and tag == "str":
            return node.value
        if kind is bool and tag == "bool" and node.value.lower() in yaml.SafeLoader.bool_values:
            return yaml.SafeLoader.bool_values[node.value.lower()]
        if kind is int and tag == "int":
            with suppress(ValueError):  # a tag of the file's own, on no number; or thousands of digits
                return yaml.SafeLoader("").construct_yaml_int(node)
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


def _path(source: Source, node: Node, value: str, entry: Field, key: str) -> str:
    if not value:
        if entry.default is MISSING:
            raise source.error(node, f"{quoted(key)} is empty. Name a path.")
        return value
    if "://" in value:
        return value
    if any(len(os.fsencode(part)) > LONGEST_NAME for part in re.split(r"[/\\]", value)):
        raise source.error(node, f"{quoted(key)} has a name of more than {LONGEST_NAME} bytes in it. Shorten it.")
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


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return list(value) if isinstance(value, tuple) else value
