"""Makes a dataset, item by item; a kill at any moment costs the item at hand."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from ...limits import require_here
from ...messages import cause, quoted
from ...models.family import FAMILIES
from ..records.lock import FolderLock
from . import pending
from .index import read_index
from .shards import (
    INDEX,
    NULL,
    SHARD,
    Index,
    Item,
    Part,
    file_hash,
    index_text,
    part_of,
    write_aside,
    write_tensors,
)

SHARD_BYTES = 256 * 2**20
KEY = re.compile(r"[A-Za-z0-9._-]{1,100}")

log = logging.getLogger(__name__)


class DatasetWriter:
    """A dataset's folder, opened to add items; as a context it finishes the dataset when its block ends without error.

    One writer at a time, else FolderInUseError. Items wait as files of their own in pending/ until they
    fill a shard. Interrupted and run again, it gives the bytes of an unbroken run.
    """

    def __init__(
        self,
        path: str,
        encoder: str,
        family: str,
        null: dict[str, Tensor] | None = None,
        shard_bytes: int = SHARD_BYTES,
    ):
        require_here("the dataset", path)
        self._folder = Path(path).expanduser()
        self._pending = self._folder / "pending"
        self._shard_bytes = shard_bytes
        self._lock = FolderLock(self._folder, "This dataset", "built")
        self._lock.acquire()
        try:
            with _in_place(self._pending):
                self._pending.mkdir(exist_ok=True)
            self._index = _continued(self._folder, encoder, family)
            self._keys = {item.key for item in self._index.items}
            self._claims: dict[str, str] = {}  # source -> key, of this run
            self.replaced: list[str] = []  # sources whose items went for others, once the dataset is finished
            self._waiting = self._found_waiting()
            self._waiting_bytes = sum(path.stat().st_size for path in self._waiting)
            if null is not None and not self.has_null:
                self.write_null(null)
        except BaseException:
            self._lock.release()
            raise

    @property
    def has_null(self) -> bool:
        """Whether the conditioning of the empty caption is there."""
        return self._index.null is not None

    def write_null(self, tensors: dict[str, Tensor]) -> None:
        """Stores the conditioning of the empty caption, once for the whole dataset."""
        write_tensors(self._folder / NULL, tensors)
        self._index = replace(self._index, null=part_of(self._folder / NULL))
        self._write_index()

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, key: str, sample: dict[str, Tensor], caption: str = "", source: str = "") -> None:
        """Stores a sample under its key, unless it is there, and claims the key for the source."""
        if not KEY.fullmatch(key):
            raise ValueError(
                f"{quoted(key)} cannot be the key of an item: use up to 100 letters, digits, dots and dashes."
            )
        if source:
            self.claim(key, source)
        if key in self._keys:
            return
        number = pending.number_of(self._waiting[-1]) + 1 if self._waiting else 0
        path = pending.write_item(self._pending, number, key, sample, caption, source)
        self._waiting.append(path)
        self._waiting_bytes += path.stat().st_size
        self._keys.add(key)
        if self._waiting_bytes >= self._shard_bytes:
            self._write_shard()

    def claim(self, key: str, source: str) -> None:
        """Says what the sample of this key is made from now: clips are renamed, and their captions changed.

        When the dataset is finished, items that the source had under other keys go, unless another source claims them.
        """
        self._claims[source] = key

    def prune(self, keys: set[str]) -> int:
        """Leaves out all items but these, and says how many went."""
        self._write_shard()
        items = tuple(item for item in self._index.items if item.key in keys)
        gone = len(self._index.items) - len(items)
        self._index = replace(self._index, items=items)
        self._keys = {item.key for item in items}
        return gone

    def close(self) -> None:
        """Writes what waits as the last shard, and removes shards that no item is in."""
        self._write_shard()
        items = self._claimed()
        used = {item.shard for item in items}
        self._keys = {item.key for item in items}
        self.replaced = [item.source for item in self._index.items if item.key not in self._keys]
        shards = tuple(part for part in self._index.shards if part.name in used)
        self._index = replace(self._index, items=items, shards=shards)
        self._write_index()
        for path in self._folder.glob("shard-*.safetensors"):
            if path.name not in used and SHARD.fullmatch(path.name) and path.is_file():
                path.unlink()
        with suppress(OSError):  # somebody else's file in it
            self._pending.rmdir()

    def __enter__(self) -> "DatasetWriter":
        return self

    def __exit__(self, error: object, *_: object) -> None:
        try:
            if error is None:
                self.close()
        finally:
            self._lock.release()

    def _found_waiting(self) -> list[Path]:
        waiting = []
        for path in sorted(filter(pending.is_ours, self._pending.iterdir())):
            key = pending.key_of(path)
            if path.suffix == ".safetensors" and key not in self._keys and pending.is_whole(path):
                waiting.append(path)
                self._keys.add(key)
            else:
                path.unlink()
        return waiting

    def _write_shard(self) -> None:
        if not self._waiting:
            return
        number = max((int(part.name[6:12]) for part in self._index.shards), default=-1) + 1
        path = self._folder / f"shard-{number:06}.safetensors"
        tensors, items = {}, []
        for waiting in self._waiting:
            item, sample = pending.read_item(waiting, path.name)
            items.append(item)
            tensors |= {f"{item.key}/{name}": tensor for name, tensor in sample.items()}
        write_tensors(path, tensors)
        self._append(part_of(path), items)
        for waiting in self._waiting:
            waiting.unlink()
        self._waiting, self._waiting_bytes = [], 0

    def _append(self, part: Part, items: list[Item]) -> None:
        self._index = replace(self._index, shards=(*self._index.shards, part), items=(*self._index.items, *items))
        self._write_index()

    def _claimed(self) -> tuple[Item, ...]:
        """The items with their sources of this run, without those whose source has another sample now."""
        sources = {key: source for source, key in reversed(self._claims.items())}  # the first of equal clips
        return tuple(
            item._replace(source=sources.get(item.key, item.source))
            for item in self._index.items
            if item.key in sources or item.source not in self._claims
        )

    def _write_index(self) -> None:
        text = index_text(self._index)
        write_aside(self._folder / INDEX, lambda path: path.write_text(text, encoding="utf-8"))


def _continued(folder: Path, encoder: str, family: str) -> Index:
    """The index in the folder without what is no longer whole, or an empty one."""
    if not (folder / INDEX).exists():
        return Index(family, encoder)
    with _in_place(folder / INDEX):
        content = (folder / INDEX).read_bytes()
    index = read_index(content, str(folder / INDEX))
    if (index.family, index.encoder) != (family, encoder):
        raise ValueError(
            f"{quoted(folder)} was built for {FAMILIES[index.family].title} with the encoder "
            f"{quoted(index.encoder[:12])}; this is {FAMILIES[family].title} with "
            f"{quoted(encoder[:12])}. Use the models it was built with, or "
            "another folder."
        )
    shards = tuple(part for part in index.shards if _is_there(folder, part))
    names = {part.name for part in shards}
    items = tuple(item for item in index.items if item.shard in names)
    if len(shards) < len(index.shards):
        log.warning("%d items of missing or damaged shards have to be encoded again.", len(index.items) - len(items))
    null = index.null if index.null and _is_there(folder, index.null) else None
    if null and file_hash(folder / NULL) != null.sha256:
        null = None  # small enough to be read whole, and made again
    return replace(index, null=null, shards=shards, items=items)


@contextmanager
def _in_place(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{quoted(path)} cannot be used ({cause(error)}). Take away what is in its place, or choose another folder."
        ) from None


def _is_there(folder: Path, part: Part) -> bool:
    path = folder / part.name
    return path.is_file() and path.stat().st_size == part.size
