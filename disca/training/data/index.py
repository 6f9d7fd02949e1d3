"""The index of a dataset: what is in it, in JSON. It comes from outside: nothing that is read is taken for granted."""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from hashlib import sha256
from math import prod
from typing import Any, NamedTuple

from ...limits import require_choice, require_number, require_text
from ...messages import cause, listing, quoted
from ...models.family import FAMILIES
from ...weights.files import Shape

FORMAT = 2
INDEX = "index.json"
NULL = "null.safetensors"
SAMPLES = "samples"
MOST_BYTES = 2**30  # of an index: some million samples
MOST_FILE = 2**32  # of a sample: several times the longest clip that is encoded
MOST_SIDE = 2**24  # of a tensor
MOST_TENSORS, MOST_SIDES = 32, 8
NEEDED = {"latent": 4, "context": 2}  # tensors that every sample has -> dimensions
MOST_ZEROS = 16  # times the latent's elements, or MOST_SIDE, may a tensor have that is made and not stored
HASH = re.compile(r"[0-9a-f]{64}")
KEY = re.compile(r"[a-z0-9_-]{1,100}")  # names a file that is in its folder, and no other's in capitals


class File(NamedTuple):
    """A file of the dataset, by its path from the dataset's folder, and what must be in it."""

    name: str
    size: int
    sha256: str


class Item(NamedTuple):
    """One sample: its file, and what it was made from."""

    key: str  # hash of the video, its caption, the cut and the encoder; and which of the video's clips it is
    size: int
    sha256: str
    shapes: dict[str, Shape]
    zeros: tuple[str, ...]  # tensors without a value other than zero: made, not stored
    caption: str = ""
    source: str = ""

    @property
    def file(self) -> File:
        """Where its tensors are."""
        return File(sample_name(self.key), self.size, self.sha256)


@dataclass(frozen=True)
class Index:
    """The whole of index.json."""

    family: str
    encoder: str
    null: File | None = None
    items: tuple[Item, ...] = ()

    @property
    def fingerprint(self) -> str:
        """A hash of what is trained on."""
        content = [self.family, self.encoder, [[item.key, item.sha256] for item in self.items]]
        return sha256(json.dumps(content).encode()).hexdigest()


def sample_name(key: str) -> str:
    """The sample's file, in a folder with few others."""
    return f"{SAMPLES}/{key[:2]}/{key}.safetensors"


def index_text(index: Index) -> str:
    """The index as JSON."""
    content = {
        "format": FORMAT,
        "family": index.family,
        "encoder": index.encoder,
        "null": index.null and index.null._asdict(),
        "items": [item._asdict() for item in index.items],
    }
    return json.dumps(content, ensure_ascii=False, indent=0)


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
    _item(json.loads(json.dumps(item._asdict())), {})


def _index(content: dict) -> Index:
    _require_keys("the index", content, ("family", "encoder", "null", "items"))
    require_choice("family", content["family"], list(FAMILIES))
    require_text("encoder", content["encoder"])
    null = None if content["null"] is None else _null(content["null"])
    seen = {}
    items = tuple(_item(item, seen) for item in _list("items", content["items"]))
    if len({item.key for item in items}) < len(items):
        raise ValueError("two items have the same key")
    return Index(content["family"], content["encoder"], null, items)


def _null(content: Any) -> File:
    _require_keys("a file", content, File._fields)
    if content["name"] != NULL:
        raise ValueError(f"a file is named {quoted(content['name'])}")
    _require_bytes(content)
    return File(**content)


def _item(content: Any, seen: dict[tuple, dict[str, Shape]]) -> Item:
    _require_keys("an item", content, Item._fields)
    for name in ("key", "caption", "source"):
        require_text(name, content[name])
    if not KEY.fullmatch(content["key"]):  # an index must not reach files outside its folder
        raise ValueError(f"{quoted(content['key'])} cannot be the key of an item")
    _require_bytes(content)
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


def _require_bytes(content: dict) -> None:
    require_number("size", content["size"], True, 0, MOST_FILE)
    if not isinstance(content["sha256"], str) or not HASH.fullmatch(content["sha256"]):
        raise ValueError(f"'sha256' is {quoted(content['sha256'])}, but must be 64 digits and letters a to f")


def _list(name: str, value: Any) -> list:
    if not isinstance(value, list):
        raise ValueError(f"{quoted(name)} is {quoted(value)}, but must be a list")
    return value
