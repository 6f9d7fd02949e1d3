"""The file of a sample: its tensors, and in the header the shapes of those that are all zeros."""

import json
from hashlib import sha256
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load
from torch import Tensor

from ...messages import cause, quoted
from .index import File, Item, require_item
from .tensors import file_hash, write_tensors

ZEROS = "zeros"
REBUILD = "Copy it again, or delete it and run the builder, which makes it anew."

Sample = dict[str, Tensor]  # latent [C, T, H, W], context [L, D], and what else the network is given, without a batch


def write_sample(path: Path, sample: Sample) -> None:
    """The file of a sample; tensors of zeros are noted in it, not stored."""
    stored = {name: tensor for name, tensor in sample.items() if name == "latent" or tensor.any()}
    zeros = {name: tuple(tensor.shape) for name, tensor in sample.items() if name not in stored}
    write_tensors(path, stored, {ZEROS: json.dumps(zeros)})


def read_item(path: Path, key: str) -> Item:
    """What the index says of a sample's file; ValueError if it is none that an index can hold."""
    try:
        with safe_open(path, framework="pt") as file:
            zeros = json.loads(file.metadata()[ZEROS])
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
        item = Item(key, path.stat().st_size, file_hash(path), {**shapes, **zeros}, tuple(zeros))
        require_item(item)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"{quoted(path)} cannot be a sample of a dataset ({cause(error)}).") from None
    return item


def read_sample(path: Path, item: Item) -> Sample:
    """The sample in a file; ValueError in a sentence if it is not what the index says."""
    sample = read_tensors(path, item.file)
    found = {name: tuple(tensor.shape) for name, tensor in sample.items()}
    if wrong := {name for name in item.shapes.keys() - item.zeros if found.get(name) != item.shapes[name]}:
        name = min(wrong)
        raise ValueError(
            f"{quoted(path)} is damaged: {quoted(name)} has the shape {quoted(found.get(name))}, "
            f"not {quoted(item.shapes[name])} as the index says. {REBUILD}"
        )
    zeros = {name: torch.zeros(item.shapes[name], dtype=sample["latent"].dtype) for name in item.zeros}
    return {name: zeros[name] if name in zeros else sample[name] for name in item.shapes}


def read_tensors(path: Path, file: File) -> Sample:
    """All tensors of a file, which must have the bytes that the index says."""
    try:
        content = path.read_bytes()
        if sha256(content).hexdigest() != file.sha256:
            raise ValueError("its SHA-256 is not the one in the index")
        return load(content)
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise ValueError(f"{quoted(path)} is damaged ({cause(error)}). {REBUILD}") from None
