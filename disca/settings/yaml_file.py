"""A YAML file that describes a section of settings, read strictly: every mistake is named with its file and line."""

import os
import re
from collections.abc import Iterator
from typing import Any, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError
from yaml import MappingNode, Node, ScalarNode, SequenceNode

from ..messages import cause, quoted
from .fields import FOLDER
from .mistakes import Keys, first_mistake

MOST_LETTERS = 1_000_000
DEEPEST = 20

T = TypeVar("T")


class Loader(yaml.SafeLoader):
    """YAML, but that 1e-4 is a number without a point too."""


Loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$"), None)


def read_section(file: str | os.PathLike, kind: type[T], what: str = "run") -> T:
    """What a YAML file describes, a run or `what` else; ValueError names file and line of what is wrong in it."""
    path = os.path.abspath(file)
    if not os.path.isfile(path):
        raise ValueError(f"There is no file {quoted(path)}. Name the YAML file of the {cause(what)}.")
    source = _Source(path)
    root = source.compose()
    if root is None:
        raise ValueError(f"{source.label} is empty. Describe the {cause(what)} in it.")
    values = source.value(root)
    try:
        return TypeAdapter(kind).validate_python(values, context={FOLDER: os.path.dirname(path)})
    except ValidationError as error:
        place, sentence, by_key = first_mistake(error, kind)
        raise source.error(source.node(place, by_key), cause(sentence)) from None


class _Source:
    """The file being read, and where in it everything stands."""

    def __init__(self, path: str):
        self._path = path
        self._keys: dict[Keys, Node] = {}
        self._values: dict[Keys, Node] = {}

    @property
    def label(self) -> str:
        """What to call it in a message."""
        return cause(os.path.basename(self._path))

    def error(self, node: Node | yaml.Event, sentence: str) -> ValueError:
        """An error that says where the node stands."""
        return ValueError(f"{self.label}, line {node.start_mark.line + 1:d}: {sentence}")

    def node(self, place: Keys, by_key: bool) -> Node:
        """What stands at the place, or its key; of what is not there, the group that lacks it."""
        nodes = self._keys if by_key else self._values
        while place not in nodes:
            place = place[:-1]
        return nodes[place]

    def value(self, node: Node, place: Keys = ()) -> Any:
        """What the node means."""
        self._values[place] = node
        if isinstance(node, MappingNode):
            return dict(self._entries(node, place))
        if isinstance(node, SequenceNode):
            return [self.value(entry, (*place, i)) for i, entry in enumerate(node.value)]
        try:
            return Loader("").construct_object(node)
        except (ArithmeticError, AttributeError, LookupError, ValueError, yaml.YAMLError):
            return node.value  # thousands of digits, or a tag of the file's own that does not fit

    def _entries(self, node: MappingNode, place: Keys) -> Iterator[tuple[str, Any]]:
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                raise self.error(key, "a key must be one word.")
            inner = (*place, key.value)
            if inner in self._keys:
                raise self.error(key, f"{quoted(key.value)} is there twice. Remove one of them.")
            self._keys[inner] = key
            yield key.value, self.value(value, inner)

    def compose(self) -> Node | None:
        """The file as YAML's nodes; ValueError unless it is YAML, no larger or deeper than a run's description is."""
        try:
            with open(self._path, encoding="utf-8") as stream:
                text = stream.read(MOST_LETTERS + 1)
            if len(text) > MOST_LETTERS:
                raise ValueError(
                    f"{self.label}: it has more than {MOST_LETTERS:,} characters. Describe only the run in it."
                )
            self._require_shallow(text)
            return yaml.compose(text, Loader=Loader)
        except yaml.MarkedYAMLError as error:
            line = f", line {error.problem_mark.line + 1:d}" if error.problem_mark else ""
            raise ValueError(f"{self.label}{line}: this is not YAML: {cause(error.problem)}.") from error
        except (UnicodeDecodeError, yaml.YAMLError) as error:
            raise ValueError(f"{self.label} is not a YAML text file: {cause(error)}.") from error

    def _require_shallow(self, text: str) -> None:
        depth = 0
        for event in yaml.parse(text, Loader=Loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent):
                raise self.error(event, "an alias stands here. Write the value itself.")
            if depth > DEEPEST:
                raise self.error(event, f"more than {DEEPEST} groups or lists stand in one another.")
