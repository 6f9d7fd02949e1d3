"""Items that wait for their shard: each a file of its own, named by its place in the order and its key."""

import re
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from .index import require_item
from .shards import Item, sample_hash, write_tensors

OURS = re.compile(r"\d{9}-.*\.safetensors(\.part)?")


def write_item(folder: Path, number: int, key: str, sample: dict[str, Tensor], caption: str, source: str) -> Path:
    """The file of an item; tensors of zeros are noted in it, not stored."""
    stored = {name: tensor for name, tensor in sample.items() if name == "latent" or tensor.any()}
    shapes = {name: ",".join(map(str, tensor.shape)) for name, tensor in sample.items() if name not in stored}
    path = folder / f"{number:09}-{key}.safetensors"
    facts = {"caption": caption, "source": source, **{f"zeros/{name}": shape for name, shape in shapes.items()}}
    write_tensors(path, stored, facts, lasting=False)  # one cut short by a power cut is found and made again
    return path


def number_of(path: Path) -> int:
    """Its place in the order."""
    return int(path.name[:9])


def key_of(path: Path) -> str:
    """The key of its item."""
    return path.stem[10:]


def is_ours(path: Path) -> bool:
    """Whether the file is one that waits, whole or not."""
    return OURS.fullmatch(path.name) is not None and path.is_file()


def is_whole(path: Path) -> bool:
    """Whether the file can be read, and what it holds can stand in the index."""
    try:
        require_item(read_item(path, "")[0])
    except (SafetensorError, OSError, ValueError, KeyError):
        return False
    return True


def read_item(path: Path, shard: str) -> tuple[Item, dict[str, Tensor]]:
    """The item, as the index will have it in this shard, and its tensors."""
    with safe_open(path, framework="pt") as file:
        sample = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        facts = file.metadata() or {}
    shapes = {name: tuple(tensor.shape) for name, tensor in sample.items()}
    zeros = {
        name.removeprefix("zeros/"): tuple(map(int, shape.split(",")))
        for name, shape in facts.items()
        if "zeros/" in name
    }
    item = Item(
        key_of(path), shard, shapes | zeros, tuple(zeros), sample_hash(sample), facts["caption"], facts["source"]
    )
    return item, sample
