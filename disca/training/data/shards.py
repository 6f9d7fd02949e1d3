"""What a dataset is on disk: safetensors shards, and one JSON index that says what is in them."""

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ...messages import cause, quoted
from ...weights.files import Shape

FORMAT = 1
INDEX = "index.json"
NULL = "null.safetensors"
SHARD = re.compile(r"shard-\d{6}\.safetensors")
REBUILD = "Copy it again, or delete it and run the builder, which encodes again only what was in it."


class Part(NamedTuple):
    """A file of the dataset, and what must be in it."""

    name: str
    size: int
    sha256: str


class Item(NamedTuple):
    """One sample: where it is, and what it was made from."""

    key: str  # hash of the video, its caption, the cut and the encoder
    shard: str
    shapes: dict[str, Shape]
    zeros: tuple[str, ...]  # tensors without a value other than zero: made, not stored
    sha256: str
    caption: str
    source: str


@dataclass(frozen=True)
class Index:
    """The whole of index.json."""

    family: str
    encoder: str
    null: Part | None = None
    shards: tuple[Part, ...] = ()
    items: tuple[Item, ...] = ()

    @property
    def fingerprint(self) -> str:
        """A hash of what is trained on and in which order; how it is spread over shards does not matter."""
        content = [self.family, self.encoder, [[item.key, item.sha256] for item in self.items]]
        return sha256(json.dumps(content).encode()).hexdigest()


def index_text(index: Index) -> str:
    """The index as JSON."""
    content = {
        "format": FORMAT,
        "family": index.family,
        "encoder": index.encoder,
        "null": index.null and index.null._asdict(),
        "shards": [part._asdict() for part in index.shards],
        "items": [item._asdict() for item in index.items],
    }
    return json.dumps(content, ensure_ascii=False, indent=0)


def part_of(path: Path) -> Part:
    """A file as the index describes it."""
    return Part(path.name, path.stat().st_size, file_hash(path))


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def sample_hash(sample: dict[str, Tensor]) -> str:
    """SHA-256 of a sample's names, types, shapes and values."""
    digest = sha256()
    for name, tensor in sorted(sample.items()):
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def write_tensors(
    path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None, lasting: bool = True
) -> None:
    """A safetensors file that is whole or not there; if it is lasting, after a power cut too."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_aside(path, lambda aside: save_file(whole, aside, metadata), lasting)


def write_aside(path: Path, write: Callable[[Path], object], lasting: bool = True) -> None:
    """Has `write` make the file under another name and renames it; OSError in a sentence if that fails."""
    aside = path.with_name(path.name + ".part")
    try:
        write(aside)
        if lasting:
            with aside.open("rb+") as file:
                os.fsync(file.fileno())
        os.replace(aside, path)
    except (OSError, SafetensorError) as error:
        aside.unlink(missing_ok=True)
        free = shutil.disk_usage(path.parent).free if path.parent.is_dir() else 0
        raise OSError(
            f"{quoted(path)} could not be written ({cause(error)}); {free:,} bytes are free there. "
            "What was written before is whole: make room, and run the same again to continue."
        ) from error
