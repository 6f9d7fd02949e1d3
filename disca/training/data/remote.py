"""A dataset elsewhere: its files are fetched through fsspec, checked, and kept in a folder of limited size."""

import os
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from threading import get_ident

from ...messages import cause, quoted
from .index import File
from .tensors import file_hash

COPIES = "[0-9a-f]" * 16 + "/**/*.safetensors"  # in a cache, of all datasets; nobody else's files
STEPS = 100  # of the limit: after each of them the cache is looked through


class RemoteFolder:
    """The files of a dataset at an fsspec url, with copies in a local cache."""

    def __init__(self, url: str, cache: str, limit: int):
        if not cache:
            raise ValueError(
                f"{quoted(url)} is not on this machine: set data.cache to a folder that can hold copies of its files."
            )
        self._files, self._root = _file_system(url)
        self._url, self._limit = url.rstrip("/"), limit
        self._room = 0  # bytes that fit before the cache is looked through again
        self._cache = Path(cache).expanduser()
        self._folder = self._cache / sha256(self._url.encode()).hexdigest()[:16]
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(
                f"{quoted(self._folder)} cannot be made ({cause(error)}). "
                "Take away what is in its place, or set data.cache to another folder."
            ) from None

    def read(self, name: str) -> bytes:
        """A small file's bytes, always fetched anew."""
        return self._files.cat_file(f"{self._root}/{name}")

    def locate(self, file: File) -> Path:
        """The file's copy, fetched if it is not there; ValueError if what comes is not what the index says."""
        path = self._folder / file.name
        if not (path.is_file() and path.stat().st_size == file.size):
            self._fetch(file, path)
        os.utime(path)
        return path

    def _fetch(self, file: File, path: Path) -> None:
        self._make_room(file)
        aside = path.with_name(f"{path.name}.{os.getpid()}-{get_ident()}.part")  # others may fetch the same file
        for _ in range(2):
            self._receive(file, aside)
            size, found = aside.stat().st_size, file_hash(aside)
            if found == file.sha256:
                os.replace(aside, path)
                return
            aside.unlink()
        raise ValueError(
            f"{quoted(f'{self._url}/{file.name}')} came twice with {size:,} bytes and SHA-256 {quoted(found[:12])}; "
            f"{file.size:,} bytes and {quoted(file.sha256[:12])} are needed. Upload it again from where the dataset "
            "was built."
        )

    def _receive(self, file: File, place: Path) -> None:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            self._files.get_file(f"{self._root}/{file.name}", str(place))
        except Exception as error:  # fsspec's file systems raise their own
            place.unlink(missing_ok=True)
            raise ValueError(
                f"{quoted(f'{self._url}/{file.name}')} cannot be fetched ({cause(error)}). "
                "Check the connection, and that the cache has room."
            ) from error

    def _make_room(self, file: File) -> None:
        """Drops the copies used least recently, of any dataset in this cache, until the new one fits and a few more."""
        self._room -= file.size
        if self._room >= 0:
            return
        copies, step = _copies(self._cache), self._limit // STEPS
        total = sum(size for _, size, _ in copies) + file.size
        full = total > self._limit
        for _, size, path in copies:
            if not full or total <= self._limit - step:
                break
            with suppress(OSError):  # on Windows a file in use stays; it goes the next time
                path.unlink(missing_ok=True)
                total -= size
        self._room = min(self._limit - total, step)


def _copies(cache: Path) -> list[tuple[float, int, Path]]:
    """When each was used last, its bytes and its place, in that order."""
    found = []
    for path in cache.glob(COPIES):
        with suppress(OSError):  # dropped by another process meanwhile
            entry = path.stat()
            found.append((entry.st_mtime, entry.st_size, path))
    return sorted(found)


def _file_system(url: str) -> tuple:
    try:
        import fsspec

        return fsspec.core.url_to_fs(url.rstrip("/"))
    except ImportError as error:
        raise ValueError(
            f"{quoted(url)} cannot be read: {cause(error)}. Install it with pip into ComfyUI's Python."
        ) from error
    except ValueError as error:
        raise ValueError(
            f"{quoted(url)} cannot be read: {cause(error)}. Give a folder or a url that fsspec knows."
        ) from error
