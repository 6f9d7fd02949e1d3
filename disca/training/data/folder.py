"""The clips in a user's folder, each with its caption; whatever else lies there is named and left."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from unicodedata import category, normalize

from ...messages import quoted
from .account import Account, UnusableError

VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".gif")
CAPTION_BYTES = 2**16  # text encoders read some thousand characters
UNSEEN = {"Cc", "Cf", "Mn", "Zl", "Zp", "Zs"}  # Unicode's categories of what shows nothing by itself
MADE_BY_PROGRAMS = {  # beside all whose names begin with a dot
    "@eadir", "#recycle", "$recycle.bin", "__macosx", "lost+found", "system volume information",
    "desktop.ini", "ehthumbs.db", "thumbs.db",
}  # fmt: skip


class Clip(NamedTuple):
    """A video or picture, and what it shows in words."""

    path: Path
    name: str  # its path within the folder, fit to be written as UTF-8
    caption: str


def find_clips(folder: str, account: Account | None = None) -> list[Clip]:
    """The videos and pictures in the folder and its subfolders, by name, each with the text of its .txt file.

    What is left out is in the account; ValueError if nothing remains.
    """
    account = account or Account()
    root = Path(os.path.abspath(Path(folder).expanduser()))  # a relative name with a colon would be a protocol's
    if not os.path.isdir(root):
        raise ValueError(f"There is no folder {quoted(folder)}. Give the one that holds the videos and their captions.")
    clips = [clip for paths in _folders(root, account) for clip in _clips(paths, root, account)]
    if not clips and account.left_out:
        raise ValueError(f"No video in {quoted(folder)} can be used.\n" + "\n".join(account.faults()))
    if not clips:
        raise ValueError(f"{quoted(folder)} holds no videos or pictures ({', '.join(VIDEOS + PICTURES)}).")
    return sorted(clips, key=lambda clip: clip.path)


def _folders(root: Path, account: Account) -> Iterator[list[Path]]:
    """The files of each folder, once: links to folders are followed when all that lies in the root itself is read."""
    seen, real, waiting, links = set(), os.path.realpath(root), [root], []
    while waiting or links:
        place = waiting.pop() if waiting else links.pop()
        if os.path.realpath(place) in seen:
            account.pass_over(_name(place, root), "links to folders that are read already")
            continue
        seen.add(os.path.realpath(place))
        if place.is_symlink() and not _within(os.path.realpath(place), real):
            account.change(_name(place, root), "links out of the folder, followed", quoted(os.path.realpath(place)))
        files, folders = _contents(place, root, account)
        above = [path for path in folders if path.is_symlink() and _within(real, os.path.realpath(path))]
        for path in above:
            account.pass_over(_name(path, root), "links that lead back up")
        links += [path for path in folders if path.is_symlink() and path not in above]
        waiting += [path for path in folders if not path.is_symlink()]
        yield files


def _contents(place: Path, root: Path, account: Account) -> tuple[list[Path], list[Path]]:
    """The files and the folders in a folder, without what programs put there for themselves."""
    try:
        paths = sorted(place.iterdir())
    except OSError as error:
        account.leave_out(UnusableError(quoted(_name(place, root)), "cannot be opened", quoted(error.strerror)))
        return [], []
    programs = {path for path in paths if path.name.startswith(".") or path.name.casefold() in MADE_BY_PROGRAMS}
    for path in sorted(programs):
        account.pass_over(_name(path, root), "hidden or made by other programs")
    users = [path for path in paths if path not in programs]
    # Path's own questions raise an error where a link's target has too long a name
    return [path for path in users if not os.path.isdir(path)], [path for path in users if os.path.isdir(path)]


def _clips(paths: list[Path], root: Path, account: Account) -> Iterator[Clip]:
    """The clips among the files of one folder."""
    texts = [path for path in paths if path.suffix.lower() == ".txt"]
    videos = [path for path in paths if path.suffix.lower() in VIDEOS]
    stems = {_stem(path) for path in videos}
    pictures = [path for path in paths if path.suffix.lower() in PICTURES]
    thumbnails = [path for path in pictures if _stem(path) in stems]
    clips = [*videos, *(path for path in pictures if _stem(path) not in stems)]
    sharing, captions = Counter(map(_stem, clips)), defaultdict(list)
    for path in thumbnails:
        account.pass_over(_name(path, root), "pictures beside a video of the same name")
    for path in texts:
        captions[_stem(path)].append(path)
        if _stem(path) not in sharing:
            account.pass_over(_name(path, root), "captions without a video")
    for path in sorted(set(paths).difference(texts, videos, pictures)):
        account.pass_over(_name(path, root), "files of other kinds")
    for path in clips:
        if sharing[_stem(path)] > 1:
            account.change(_name(path, root), "clips that share their name and caption")
        try:
            yield Clip(path, _name(path, root), _caption(path, captions[_stem(path)], root))
        except UnusableError as fault:
            account.leave_out(fault)


def _caption(clip: Path, found: list[Path], root: Path) -> str:
    """The clip's caption, in one of the texts of its name; UnusableError if none can be read."""
    name = _name(clip, root)
    if not os.path.isfile(clip):
        raise UnusableError(quoted(name), "is not a file, or a link that leads nowhere")
    if not found:
        raise UnusableError(
            quoted(name), "has no caption", f"there is no {quoted(_name(clip.with_suffix('.txt'), root))}"
        )
    path = next((path for path in found if path.stem == clip.stem), found[0])
    if path.is_symlink() and not _is_shared(path, root):
        raise UnusableError(quoted(name), "has a caption that is a link out of the folder")
    if not os.path.isfile(path):
        raise UnusableError(quoted(name), "has a caption that is not a file")
    return _text(path, name)


def _text(path: Path, name: str) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(CAPTION_BYTES + 1)
        if len(content) > CAPTION_BYTES:
            raise UnusableError(quoted(name), "has too long a caption", f"more than {CAPTION_BYTES:,} bytes")
        text = content.decode("utf-8-sig").strip()
    except OSError as error:
        raise UnusableError(quoted(name), "has a caption that cannot be read", quoted(error.strerror)) from error
    except UnicodeDecodeError as error:
        raise UnusableError(
            quoted(name), "has a caption that is not UTF-8 text", f"save {quoted(path.name)} as UTF-8"
        ) from error
    if "\0" in text:  # UTF-16 without its mark
        raise UnusableError(quoted(name), "has a caption that is not UTF-8 text", f"save {quoted(path.name)} as UTF-8")
    if all(category(letter) in UNSEEN for letter in text):
        raise UnusableError(quoted(name), "has an empty caption")
    return text


def _stem(path: Path) -> str:
    """A name without its ending: macOS takes accents apart, other systems do not."""
    return normalize("NFC", path.stem)


def _name(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix().encode("utf-8", "backslashreplace").decode()


def _is_shared(path: Path, root: Path) -> bool:
    """Whether a link leads to what lies in the root, or in a linked folder that it is in itself."""
    places = [place for place in path.parents if root in (place, *place.parents)]
    return any(_within(os.path.realpath(path), os.path.realpath(place)) for place in places)


def _within(path: str, folder: str) -> bool:
    return os.path.normcase(path) == os.path.normcase(folder) or Path(folder) in Path(path).parents
