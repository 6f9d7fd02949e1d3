"""Reads the index of a dataset: a file from outside, of which nothing is taken for granted."""

import json
import re
from collections.abc import Collection
from math import prod
from typing import Any

from ...limits import require_choice, require_number, require_text
from ...messages import cause, listing, quoted
from ...models.family import FAMILIES
from ...weights.files import Shape
from .shards import FORMAT, NULL, SHARD, Index, Item, Part

MOST_BYTES = 2**30  # of an index: some million samples
MOST_FILE = 2**50
MOST_SIDE = 2**24  # of a tensor
MOST_TENSORS, MOST_SIDES = 32, 8
NEEDED = {"latent": 4, "context": 2}  # tensors that every sample has -> dimensions
MOST_ZEROS = 16  # times the latent's elements, or MOST_SIDE, may a tensor have that is made and not stored
HASH = re.compile(r"[0-9a-f]{64}")


def read_index(text: str | bytes, where: str) -> Index:
    """The index in a JSON text; ValueError in a sentence if it is none, or one of another format."""
    try:
        if len(text) > MOST_BYTES:
            raise ValueError(f"it has {len(text)} bytes, at most {MOST_BYTES} are read")
        content = json.loads(text)
        found = content["format"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(
            f"{quoted(where)} is not the index of a dataset ({cause(error)}). Run the builder into a new folder."
        ) from None
    if found != FORMAT:
        raise ValueError(
            f"{quoted(where)} is a dataset of format {quoted(found)}, and format {FORMAT} is needed. "
            "Run the builder of this version into a new folder, or update the pack if the dataset is the newer one."
        )
    try:
        return _index(content)
    except ValueError as error:
        raise ValueError(
            f"{quoted(where)} is damaged ({cause(error)}). Copy it again, or run the builder again."
        ) from None


def require_item(item: Item) -> None:
    """ValueError in a sentence unless an index can hold the item."""
    _item(json.loads(json.dumps(item._asdict())), {item.shard}, {})


def _index(content: dict) -> Index:
    _require_keys("the index", content, ("family", "encoder", "null", "shards", "items"))
    require_choice("family", content["family"], list(FAMILIES))
    require_text("encoder", content["encoder"])
    null = None if content["null"] is None else _part(content["null"], NULL)
    shards = tuple(_part(part, SHARD) for part in _list("shards", content["shards"]))
    names, seen = {part.name for part in shards}, {}
    items = tuple(_item(item, names, seen) for item in _list("items", content["items"]))
    return Index(content["family"], content["encoder"], null, shards, items)


def _part(content: Any, name: str | re.Pattern) -> Part:
    _require_keys("a file", content, Part._fields)
    require_text("name", content["name"])
    if not re.fullmatch(name, content["name"]):  # an index must not reach files outside its folder
        raise ValueError(f"a file is named {quoted(content['name'])}")
    require_number("size", content["size"], True, 0, MOST_FILE)
    _require_hash(content["sha256"])
    return Part(**content)


def _item(content: Any, shards: Collection[str], seen: dict[tuple, dict[str, Shape]]) -> Item:
    _require_keys("an item", content, Item._fields)
    for name in ("key", "shard", "caption", "source"):
        require_text(name, content[name])
    if content["shard"] not in shards:
        raise ValueError(f"item {quoted(content['key'])} is in {quoted(content['shard'])}, which is not listed")
    _require_hash(content["sha256"])
    shapes = _shapes(content["shapes"])
    shapes = seen.setdefault(tuple(shapes.items()), shapes)  # one dict for all items of the same shapes
    zeros = _list("zeros", content["zeros"])
    for name in zeros:
        require_choice("zeros", name, shapes.keys() - {"latent"})
        if prod(shapes[name]) > max(MOST_SIDE, MOST_ZEROS * prod(shapes["latent"])):
            raise ValueError(f"{quoted(name)} of {quoted(shapes[name])} zeros is larger than a sample can be")
    return Item(**{**content, "shapes": shapes, "zeros": tuple(zeros)})


def _shapes(content: Any) -> dict[str, Shape]:
    if not isinstance(content, dict) or len(content) > MOST_TENSORS:
        raise ValueError(f"the shapes of an item are {quoted(content)}")
    for name, shape in content.items():
        require_text("a tensor's name", name)
        if len(_list("shapes", shape)) > MOST_SIDES:
            raise ValueError(f"{quoted(name)} has {len(shape)} dimensions")
        for side in shape:
            require_number(name, side, True, 0, MOST_SIDE)
    for name, dimensions in NEEDED.items():
        if len(content.get(name, ())) != dimensions or not all(content[name]):
            raise ValueError(
                f"an item's {quoted(name)} is {quoted(content.get(name))}, but must have {dimensions} dimensions"
            )
    return {name: tuple(shape) for name, shape in content.items()}


def _require_keys(what: str, content: Any, keys: Collection[str]) -> None:
    if not isinstance(content, dict) or not content.keys() >= set(keys):
        raise ValueError(f"{what} must have {listing(list(keys))}, but is {quoted(content)}")
    if extra := sorted(content.keys() - set(keys) - {"format"}):
        raise ValueError(f"{what} has {quoted(extra[0])}, which is not known")


def _require_hash(value: Any) -> None:
    if not isinstance(value, str) or not HASH.fullmatch(value):
        raise ValueError(f"'sha256' is {quoted(value)}, but must be 64 digits and letters a to f")


def _list(name: str, value: Any) -> list:
    if not isinstance(value, list):
        raise ValueError(f"{quoted(name)} is {quoted(value)}, but must be a list")
    return value
