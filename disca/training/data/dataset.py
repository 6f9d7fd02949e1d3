"""The samples that are trained on: random access to a dataset, and batches of equal shapes."""

import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ...messages import cause, quoted
from ...models.family import FAMILIES
from .index import read_index
from .order import order
from .remote import RemoteFolder
from .shards import INDEX, REBUILD, Index, Item, Part, file_hash, sample_hash
from .writer import DatasetWriter

__all__ = [
    "TEXT",
    "Batch",
    "Dataset",
    "DatasetWriter",
    "Sample",
    "collate",
    "open_dataset",
    "order",
    "require_fits",
    "unconditional",
]

CACHE_BYTES = 200 * 2**30
OPEN_SHARDS = 32
TEXT = ("context", "y", "txt_byt5", "attention_mask")  # what a caption becomes; the rest comes from the video

Sample = dict[str, Tensor]  # latent [C, T, H, W], context [L, D], and what else the network is given, without a batch
Batch = dict[
    str, Tensor
]  # the same with a batch dimension, and index [B]: each sample's position in the whole training


class Dataset:
    """Encoded videos and captions, one sample per index."""

    def __init__(self, index: Index, locate: Callable[[Part], Path]):
        self.index = index
        self.null = self._read_null(locate)  # see `unconditional`
        self._parts = {part.name: part for part in index.shards}
        self._locate = locate
        self._open = OrderedDict()
        self._lock = threading.Lock()

    @property
    def family(self) -> str:
        """The model family it was encoded for: "1.0" or "1.5"."""
        return self.index.family

    @property
    def encoder(self) -> str:
        """The fingerprint of the encoders that made it."""
        return self.index.encoder

    @property
    def fingerprint(self) -> str:
        """A hash of all samples and their order."""
        return self.index.fingerprint

    def __len__(self) -> int:
        return len(self.index.items)

    def __getitem__(self, i: int) -> Sample:
        item = self.index.items[i]
        sample = self._read(item)
        for name in item.zeros:
            sample[name] = torch.zeros(item.shapes[name], dtype=sample["latent"].dtype)
        return sample

    def name(self, i: int) -> str:
        """What to call a sample in a message."""
        item = self.index.items[i]
        return f"{quoted(item.source or item.key)} in {quoted(item.shard)}"

    def _read(self, item: Item) -> Sample:
        names = [name for name in item.shapes if name not in item.zeros]
        try:
            with self._lock:
                file = self._file(item.shard)
                sample = {name: file.get_tensor(f"{item.key}/{name}").clone() for name in names}
        except SafetensorError as error:
            raise ValueError(
                f"{quoted(item.shard)} is damaged at item {quoted(item.key)} ({cause(error)}). {REBUILD}"
            ) from error
        if wrong := next((name for name in names if tuple(sample[name].shape) != item.shapes[name]), None):
            raise ValueError(
                f"{quoted(item.shard)} is damaged at item {quoted(item.key)}: {quoted(wrong)} has the shape "
                f"{quoted(list(sample[wrong].shape))}, not {quoted(list(item.shapes[wrong]))} as the index says. "
                f"{REBUILD}"
            )
        if sample_hash(sample) != item.sha256:
            raise ValueError(
                f"{quoted(item.shard)} is damaged: item {quoted(item.key)} is not what was written. {REBUILD}"
            )
        return sample

    def _file(self, shard: str) -> object:
        if shard not in self._open:
            self._open[shard] = safe_open(self._locate(self._parts[shard]), framework="pt")
            if len(self._open) > OPEN_SHARDS:
                self._open.popitem(last=False)
        self._open.move_to_end(shard)
        return self._open[shard]

    def _read_null(self, locate: Callable[[Part], Path]) -> Sample:
        if self.index.null is None:
            return {}
        path = locate(self.index.null)
        if file_hash(path) != self.index.null.sha256:
            raise ValueError(f"{quoted(path)} is damaged: its SHA-256 is not the one in the index. {REBUILD}")
        try:
            with safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a dict)
        except SafetensorError as error:
            raise ValueError(f"{quoted(path)} is no safetensors file ({cause(error)}). {REBUILD}") from error


def open_dataset(path: str, cache: str = "", cache_bytes: int = CACHE_BYTES) -> Dataset:
    """The dataset in a folder, or at an fsspec url with copies of its shards in `cache`, checked as far as is cheap."""
    if "://" in path:
        remote = RemoteFolder(path, cache, cache_bytes)
        index = read_index(_index_bytes(lambda: remote.read(INDEX), path), f"{path}/{INDEX}")
        return Dataset(_not_empty(index, path), remote.locate)
    folder = Path(path).expanduser()
    index = read_index(_index_bytes((folder / INDEX).read_bytes, path), str(folder / INDEX))
    for part in index.shards:
        _local(folder, part)
    return Dataset(_not_empty(index, path), lambda part: _local(folder, part))


def collate(samples: list[Sample], positions: list[int]) -> list[Batch]:
    """Batches of samples with the same tensors and shapes, in the order in which a shape first comes."""
    groups = {}
    for sample, position in zip(samples, positions, strict=True):
        kind = tuple(sorted((name, tensor.shape, tensor.dtype) for name, tensor in sample.items()))
        groups.setdefault(kind, []).append((sample, position))
    return [
        {
            **{name: torch.stack([sample[name] for sample, _ in group]) for name in group[0][0]},
            "index": torch.tensor([position for _, position in group]),
        }
        for group in groups.values()
    ]


def unconditional(batch: Batch, null: Sample) -> Batch:
    """The batch with the text of the empty caption; first frames stay."""
    kept = {name: tensor for name, tensor in batch.items() if name not in TEXT}
    size, device = len(batch["latent"]), batch["latent"].device
    return kept | {name: tensor.to(device).expand(size, *tensor.shape) for name, tensor in null.items()}


def require_fits(dataset: Dataset, family: str, latent_channels: int, context_width: int, encoder: str = "") -> None:
    """ValueError in a sentence unless the samples are for this model, and from this encoder if one is given."""
    if dataset.family != family:
        raise ValueError(
            f"The dataset was built for {FAMILIES[dataset.family].title}, but the model is {FAMILIES[family].title}. "
            "Build one with the VAE and text encoders of this model."
        )
    if encoder and dataset.encoder != encoder:
        raise ValueError(
            f"The dataset was built with the encoder {quoted(dataset.encoder[:12])}, but {quoted(encoder[:12])} is "
            "in use here. "
            "Build one with the same VAE and text encoders."
        )
    for i, item in enumerate(dataset.index.items):
        found = item.shapes["latent"][0], item.shapes["context"][-1]
        if found != (latent_channels, context_width):
            raise ValueError(
                f"Sample {dataset.name(i)} has {found[0]:d} latent channels and text of width {found[1]:d}, but the "
                "model "
                f"takes {latent_channels:d} and {context_width:d}. Build it with this model's VAE and text encoders."
            )


def _index_bytes(read: Callable[[], bytes], path: str) -> bytes:
    try:
        return read()
    except (FileNotFoundError, NotADirectoryError):
        raise ValueError(
            f"There is no {INDEX} in {quoted(path)}, so it is not a dataset. Give the folder that the builder wrote."
        ) from None
    except Exception as error:  # fsspec's file systems raise their own
        raise ValueError(
            f"The {INDEX} in {quoted(path)} cannot be read ({cause(error)}). Give the folder that the builder wrote."
        ) from None


def _not_empty(index: Index, path: str) -> Index:
    if not index.items:
        raise ValueError(f"The dataset in {quoted(path)} holds no samples. Run the builder on a folder with videos.")
    return index


def _local(folder: Path, part: Part) -> Path:
    path = folder / part.name
    if not path.is_file():
        raise ValueError(f"{quoted(path)} is missing, though the index lists it. {REBUILD}")
    size = path.stat().st_size
    if size != part.size:
        raise ValueError(
            f"{quoted(path)} is cut short or changed: it has {size:,} bytes, {part.size:,} are needed. {REBUILD}"
        )
    return path
