"""How the videos of a folder become samples, and under which keys."""

import json
from collections.abc import Callable
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from .account import Account
from .clips import Cut, find_windows, read_windows
from .folder import Clip
from .tensors import file_hash
from .windows import MOST_CLIPS
from .writer import DatasetWriter

if TYPE_CHECKING:
    from ..network.encoder import Encoder, Text

READING = 2  # counts the ways in which clips were read: a sample that was read otherwise is another sample


class Recipe(NamedTuple):
    """How videos become samples. A video has a key, and each of its samples one that is made of it."""

    encoder: "Encoder"
    cut: Cut
    first_frame: bool

    def key(self, clip: Clip) -> str | None:
        """A hash of all that makes the video's samples; None if the file cannot be opened."""
        encoder = self.encoder.fingerprint
        try:
            content = [file_hash(clip.path), clip.caption, str(self.cut), self.first_frame, encoder, READING]
        except OSError:  # not ours to read, or gone since
            return None
        return sha256(json.dumps(content).encode()).hexdigest()[:32]

    def source(self, clip: Clip) -> str:
        """The clip's name, and how it is cut: a clip may be in a dataset in several sizes."""
        return " ".join([clip.name, str(self.cut), *["first frame"] * self.first_frame])

    def add(
        self, writer: DatasetWriter, key: str, clip: Clip, text: "Text", account: Account, step: Callable[[], object]
    ) -> tuple[list[str], int]:
        """Encodes the samples of a video that the dataset lacks, with a step after each; all keys, and how many it was.

        UnusableError if the video cannot be used, before a sample is made if a look at its frames shows it.
        """
        windows = find_windows(clip, self.cut)
        if len(windows) > MOST_CLIPS:
            account.change(clip.name, f"videos of more than {MOST_CLIPS:d} clips, of which the first are taken")
        windows = windows[:MOST_CLIPS]
        keys = [_sample_key(key, number, number == len(windows)) for number in range(1, len(windows) + 1)]
        there = [found for found in keys if found in writer]
        missing, changes = [place for place, found in enumerate(keys) if found not in there], {}
        footages = read_windows(clip, self.cut, [windows[place] for place in missing])
        for place, footage in zip(missing, footages, strict=True):
            writer.add(keys[place], self.encoder.sample(footage.pixels, text, self.first_frame))
            there.append(keys[place])
            writer.claim([*there], clip.caption, self.source(clip))
            changes |= footage.changes
            step()
        for change, detail in changes.items():
            account.change(clip.name, change, detail)
        if text.cut:
            account.change(clip.name, "captions longer than the model reads, without their ends")
        return keys, len(missing)


def keys_there(writer: DatasetWriter, key: str) -> list[str]:
    """The keys of a video's samples, none unless the dataset has them all: the last one's says that it is the last."""
    keys = []
    for number in range(1, MOST_CLIPS + 1):
        if (last := _sample_key(key, number, True)) in writer:
            return [*keys, last]
        keys.append(_sample_key(key, number, False))
        if keys[-1] not in writer:
            break
    return []


def _sample_key(key: str, number: int, last: bool) -> str:
    return key if last and number == 1 else f"{key}-{number:d}" + "-last" * last
