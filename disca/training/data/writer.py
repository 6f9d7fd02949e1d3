"""Makes a dataset, sample by sample; a kill at any moment costs the one at hand."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from ...files import ASIDE
from ...limits import require_here
from ...messages import cause, quoted
from ...models.family import FAMILIES
from ..records.lock import FolderLock
from .index import INDEX, KEY, NULL, SAMPLES, File, Index, Item, index_text, read_index, sample_name
from .sample import read_item, write_sample
from .tensors import file_hash, write_aside, write_tensors

log = logging.getLogger(__name__)


class DatasetWriter:
    """A dataset's folder, opened to add samples; as a context it finishes the dataset if its block ends without error.

    One writer at a time, else FolderInUseError. Interrupted and run again, it gives the bytes of an unbroken run: what
    is not in the index yet is taken when its key is asked for, and the index is in the order of keys.
    """

    def __init__(self, path: str, encoder: str, family: str, null: dict[str, Tensor] | None = None):
        require_here("the dataset", path)
        self._folder = Path(path).expanduser()
        self._lock = FolderLock(self._folder, "This dataset", "built")
        self._lock.acquire()
        try:
            self._index = _continued(self._folder, encoder, family)
            _make_folder(self._folder / SAMPLES)
            self._items = {item.key: item for item in self._index.items}
            self._claims: dict[str, list[str]] = {}  # source -> keys, of this run
            self._pruned = False
            self.replaced: list[str] = []  # sources whose samples went for others, once the dataset is finished
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
        path = self._folder / NULL
        write_tensors(path, tensors)
        self._index = replace(self._index, null=File(NULL, path.stat().st_size, file_hash(path)))
        self._write_index()

    def __contains__(self, key: str) -> bool:
        return key in self._items or self._finds(key)

    def __len__(self) -> int:
        return len(self._items)

    def add(self, key: str, sample: dict[str, Tensor], caption: str = "", source: str = "") -> None:
        """Stores a sample under its key, unless it is there, and claims the key for the source."""
        if not KEY.fullmatch(key):
            raise ValueError(
                f"{quoted(key)} cannot be the key of a sample: use up to 100 small letters, digits and dashes."
            )
        if key not in self._items:
            path = self._folder / sample_name(key)
            _make_folder(path.parent)
            write_sample(path, sample)
            self._items[key] = read_item(path, key)
        self.claim([key], caption, source)

    def claim(self, keys: list[str], caption: str, source: str) -> None:
        """Says what the samples of these keys are made from now: clips are renamed, and their captions changed.

        When the dataset is finished, samples that the source had under other keys go unless another source claims them.
        """
        for key in keys:
            item = self._items[key]
            self._items[key] = item._replace(caption=caption or item.caption, source=item.source or source)
        if source:
            self._claims[source] = keys

    def prune(self, keys: set[str]) -> int:
        """Leaves out all samples but these, and says how many went; what builds left that did not end goes too."""
        before = len(self._items)
        self._items = {key: item for key, item in self._items.items() if key in keys}
        self._pruned = True
        return before - len(self._items)

    def close(self) -> None:
        """Writes the index, and then removes the files of samples that left it."""
        before, self._items = self._items, self._claimed()
        dropped = sorted(before.keys() - self._items)
        self.replaced = list(dict.fromkeys(before[key].source for key in dropped))
        self._index = replace(self._index, items=tuple(self._items[key] for key in sorted(self._items)))
        self._write_index()
        for path in self._unlisted() if self._pruned else [self._folder / sample_name(key) for key in dropped]:
            with suppress(OSError):  # in use on Windows: it goes when the dataset is pruned again
                path.unlink()

    def __enter__(self) -> "DatasetWriter":
        return self

    def __exit__(self, error: object, *_: object) -> None:
        try:
            if error is None:
                self.close()
        finally:
            self._lock.release()

    def _finds(self, key: str) -> bool:
        """Whether a build that did not end left the sample, which is then taken."""
        path = self._folder / sample_name(key)
        if not KEY.fullmatch(key) or not path.is_file():
            return False
        try:
            self._items[key] = read_item(path, key)
        except ValueError as error:
            log.warning("%s It is made anew.", cause(error))
        return key in self._items

    def _claimed(self) -> dict[str, Item]:
        """The items with their sources of this run, without those whose source has another sample now."""
        claims = reversed(self._claims.items())  # the first of equal clips wins
        sources = {key: source for source, keys in claims for key in keys}
        return {
            key: item._replace(source=sources.get(key, item.source))
            for key, item in self._items.items()
            if key in sources or item.source not in self._claims
        }

    def _unlisted(self) -> list[Path]:
        """The files of samples, whole or not, that are not in the dataset; nobody else's."""
        found = {path: path.name.split(".")[0] for path in self._folder.glob(f"{SAMPLES}/*/*") if path.is_file()}
        return [
            path
            for path, key in found.items()
            if key not in self._items
            and KEY.fullmatch(key)
            and path.relative_to(self._folder).as_posix().removesuffix(ASIDE) == sample_name(key)
        ]

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
    items = tuple(item for item in index.items if _is_there(folder, item.file))
    if lost := len(index.items) - len(items):
        log.warning("%d samples are missing or damaged, and have to be encoded again.", lost)
    null = index.null if index.null and _is_there(folder, index.null) else None
    if null and file_hash(folder / NULL) != null.sha256:
        null = None  # small enough to be read whole, and made again
    return replace(index, null=null, items=items)


def _make_folder(path: Path) -> None:
    with _in_place(path):
        path.mkdir(exist_ok=True)


@contextmanager
def _in_place(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(
            f"{quoted(path)} cannot be used ({cause(error)}). Take away what is in its place, or choose another folder."
        ) from None


def _is_there(folder: Path, file: File) -> bool:
    path = folder / file.name
    return path.is_file() and path.stat().st_size == file.size
