"""The samples that are trained on: random access to a dataset, and batches of equal shapes."""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from ...messages import cause, quoted
from ...models.family import FAMILIES
from .index import INDEX, File, Index, read_index
from .order import order
from .remote import RemoteFolder
from .sample import REBUILD, Sample, read_sample, read_tensors
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
    "without_caption",
]

CACHE_BYTES = 200 * 2**30
TEXT = ("context", "y", "txt_byt5", "attention_mask")  # what a caption becomes; the rest comes from the video

Batch = dict[str, Tensor]  # samples with a batch dimension, and index [B]: the position of each in the whole training


class Dataset:
    """Encoded videos and captions, one sample per index."""

    def __init__(self, index: Index, locate: Callable[[File], Path]):
        self.index, self._locate = index, locate
        self.null = read_tensors(locate(index.null), index.null) if index.null else {}  # see `unconditional`

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
        """A hash of all samples."""
        return self.index.fingerprint

    def __len__(self) -> int:
        return len(self.index.items)

    def __getitem__(self, i: int) -> Sample:
        item = self.index.items[i]
        return read_sample(self._locate(item.file), item)

    def name(self, i: int) -> str:
        """What to call a sample in a message."""
        item = self.index.items[i]
        return f"{quoted(item.source or item.key)} in {quoted(item.file.name)}"


def open_dataset(path: str, cache: str = "", cache_bytes: int = CACHE_BYTES) -> Dataset:
    """The dataset in a folder, or at an fsspec url with copies of its files in `cache`, checked as far as is cheap."""
    if "://" in path:
        remote = RemoteFolder(path, cache, cache_bytes)
        index = read_index(_index_bytes(lambda: remote.read(INDEX), path), f"{path}/{INDEX}")
        return Dataset(_not_empty(index, path), remote.locate)
    folder = Path(path).expanduser()
    index = read_index(_index_bytes((folder / INDEX).read_bytes, path), str(folder / INDEX))
    for item in index.items:
        _local(folder, item.file)
    return Dataset(_not_empty(index, path), lambda file: _local(folder, file))


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
    size, device = len(batch["latent"]), batch["latent"].device
    return without_caption(
        batch, {name: tensor.to(device).expand(size, *tensor.shape) for name, tensor in null.items()}
    )


def without_caption(sample: Sample, null: Sample) -> Sample:
    """The sample, or batch, with the text of the empty caption; a first frame stays."""
    return {name: tensor for name, tensor in sample.items() if name not in TEXT} | null


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


def _local(folder: Path, file: File) -> Path:
    path = folder / file.name
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ValueError(f"{quoted(path)} is missing, though the index lists it ({cause(error)}). {REBUILD}") from None
    if size != file.size:
        raise ValueError(
            f"{quoted(path)} is cut short or changed: it has {size:,} bytes, {file.size:,} are needed. {REBUILD}"
        )
    return path
