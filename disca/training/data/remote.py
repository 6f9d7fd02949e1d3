"""A dataset elsewhere: whole shards are fetched through fsspec, checked, and kept in a folder of limited size."""

import os
from hashlib import sha256
from pathlib import Path

from ...messages import cause, quoted
from .shards import Part, file_hash


class RemoteFolder:
    """The files of a dataset at an fsspec url, with copies in a local cache."""

    def __init__(self, url: str, cache: str, limit: int):
        if not cache:
            raise ValueError(
                f"{quoted(url)} is not on this machine: set data.cache to a folder that can hold copies of its shards."
            )
        self._files, self._root = _file_system(url)
        self._url, self._limit = url.rstrip("/"), limit
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

    def locate(self, part: Part) -> Path:
        """The file's copy, fetched if it is not there; ValueError if what comes is not what the index says."""
        path = self._folder / part.name
        if not (path.is_file() and path.stat().st_size == part.size):
            self._fetch(part, path)
        os.utime(path)
        return path

    def _fetch(self, part: Part, path: Path) -> None:
        self._make_room(part)
        aside = path.with_name(f"{path.name}.{os.getpid()}.part")  # several processes may fetch the same file
        for _ in range(2):
            self._receive(part, aside)
            size, found = aside.stat().st_size, file_hash(aside)
            if found == part.sha256:
                os.replace(aside, path)
                return
            aside.unlink()
        raise ValueError(
            f"{quoted(f'{self._url}/{part.name}')} came twice with {size:,} bytes and SHA-256 {quoted(found[:12])}; "
            f"{part.size:,} bytes and {quoted(part.sha256[:12])} are needed. Upload it again from where the dataset "
            "was built."
        )

    def _receive(self, part: Part, place: Path) -> None:
        try:
            self._files.get_file(f"{self._root}/{part.name}", str(place))
        except Exception as error:  # fsspec's file systems raise their own
            place.unlink(missing_ok=True)
            raise ValueError(
                f"{quoted(f'{self._url}/{part.name}')} cannot be fetched ({cause(error)}). "
                "Check the connection, and that the cache has room."
            ) from error

    def _make_room(self, part: Part) -> None:
        """Drops the copies used least recently, of any dataset in this cache, until the new one fits."""
        copies = sorted(self._cache.glob("*/*.safetensors"), key=lambda path: path.stat().st_mtime)
        total = sum(path.stat().st_size for path in copies) + part.size
        for path in copies:
            if total <= self._limit:
                return
            total -= path.stat().st_size
            try:
                path.unlink(missing_ok=True)
            except PermissionError:  # on Windows a file in use stays; it goes the next time
                total += path.stat().st_size


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
