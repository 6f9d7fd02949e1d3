"""A run's videos under the names by which VBench finds them: `{prompt}-{index}.mp4`.

VBench asks for a standard prompt's video by exactly that name. A prompt that cannot be a file's name gets another one,
and stands in `prompts.json`, which VBench takes as its --prompt_file.
"""

import hashlib
import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from ...files import ASIDE, replacing
from ...messages import listing, quoted
from .scores import read_json, read_text

SAMPLES = 5  # videos of a prompt that VBench looks for
MOST_BYTES = 255  # of a file's name, on most disks
NOT_IN_NAMES = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f\ud800-\udfff]')  # on one system or another
VIDEO = ".mp4"
VIDEOS, PROMPTS = "videos", "prompts.json"  # apart: VBench takes the first file among the videos for one of them


class Named(NamedTuple):
    """A video, its prompt, and its name for VBench."""

    video: Path
    prompt: str
    name: str


def named(rows: Iterable[tuple[Path, str]]) -> list[Named]:
    """Names for videos and their prompts, numbered prompt by prompt; ValueError for a video that is not there."""
    seen: Counter[str] = Counter()
    found = []
    for video, prompt in rows:
        prompt = prompt.strip()
        if not prompt:
            raise ValueError(f"{quoted(video)} has an empty prompt. Give the text it was made from.")
        found.append(Named(video, prompt, name_of(prompt, seen[prompt])))
        seen[prompt] += 1
    if not found:
        raise ValueError("There is no video to name. Give a prompt, and a video of it, at least.")
    _require_videos([one.video for one in found])
    return found


def name_of(prompt: str, index: int) -> str:
    """VBench's name; where a disk could not hold it, one that is the prompt's alone."""
    end = f"-{index:d}{VIDEO}"
    allowed = NOT_IN_NAMES.sub("_", prompt)
    if allowed == prompt and len((prompt + end).encode()) <= MOST_BYTES:
        return prompt + end
    end = f"~{hashlib.sha256(prompt.encode(errors='surrogatepass')).hexdigest()[:8]}{end}"
    return allowed.encode()[: MOST_BYTES - len(end)].decode(errors="ignore") + end


def notes(videos: Sequence[Named]) -> Iterator[str]:
    """What VBench will not find, or not look at."""
    counts = Counter(one.prompt for one in videos)
    if changed := [prompt for prompt in counts if name_of(prompt, 0) != f"{prompt}-0{VIDEO}"]:
        yield f"not a file name, so changed, {_prompts(changed)}"
        yield f"run VBench on these with --mode custom_input --prompt_file {PROMPTS}"
    if few := [prompt for prompt, count in counts.items() if count < SAMPLES]:
        yield f"fewer than the {SAMPLES:d} videos that VBench asks for, {_prompts(few)}"
    if many := [prompt for prompt, count in counts.items() if count > SAMPLES]:
        yield f"more than the {SAMPLES:d} videos that VBench's standard mode looks at, {_prompts(many)}"
    folded = Counter(prompt.casefold() for prompt in counts)
    if alike := [prompt for prompt in counts if folded[prompt.casefold()] > 1]:
        yield f"apart by capitals only, which not every disk keeps, {_prompts(alike)}"


def write(videos: Sequence[Named], out: Path) -> None:
    """Links or copies every video, and writes what was made of which prompt, into a folder that is new or empty."""
    folder = out / VIDEOS
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise ValueError(f"{quoted(folder)} is not empty, and VBench takes all that is in it. Give another folder.")
        for one in videos:
            _place(one, folder / one.name)
        with replacing(out / PROMPTS) as path:
            path.write_text(json.dumps({one.name: one.prompt for one in videos}, indent=1), encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{quoted(out)} could not be written ({quoted(error.strerror)}).") from None


def rows_of(folder: Path, prompts: Path, samples: int = SAMPLES) -> list[tuple[Path, str]]:
    """The videos of a folder with their prompts: as a JSON file says, or in order, so many for each line of a text."""
    if prompts.suffix == ".json":
        return [(folder / file, _prompt(prompts, file, prompt)) for file, prompt in read_json(prompts).items()]
    lines = [line.strip() for line in read_text(prompts).split("\n") if line.strip()]
    videos = _in_order(folder)
    if len(videos) != samples * len(lines):
        raise ValueError(
            f"{quoted(folder)} has {len(videos):d} videos, but {len(lines):d} prompts of {samples:d} videos each make "
            f"{samples * len(lines):d}. Give --samples, or a JSON file of "
            '{"video": "prompt"}, so that no video goes under another\'s prompt.'
        )
    return [(video, lines[place // samples]) for place, video in enumerate(videos)]


def _in_order(folder: Path) -> list[Path]:
    """The videos by name, numbers in it as numbers."""
    if not folder.is_dir():
        raise ValueError(f"There is no folder {quoted(folder)}. Give the one with the videos.")

    def order(path: Path) -> list[tuple[int, str]]:
        return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name)]

    return sorted((path for path in folder.iterdir() if path.is_file() and path.suffix == VIDEO), key=order)


def _prompt(path: Path, file: str, prompt: object) -> str:
    if not isinstance(prompt, str):
        raise ValueError(f"{quoted(path)} has {quoted(prompt)} for {quoted(file)}, where its prompt is needed.")
    return prompt


def _prompts(prompts: Sequence[str]) -> str:
    return f"{len(prompts):d} {'prompt' if len(prompts) == 1 else 'prompts'}: {listing(prompts)}"


def _require_videos(videos: Sequence[Path]) -> None:
    if missing := [video for video in videos if not os.path.isfile(video)]:
        raise ValueError(
            f"{len(missing):d} of {len(videos):d} videos are not there: {listing(missing)}. "
            "Make them first, or take them off the list."
        )
    if others := [video for video in videos if video.suffix != VIDEO]:
        raise ValueError(f"{listing(others)}: VBench's names end in {VIDEO}. Convert what is not to MP4.")


def _place(one: Named, target: Path) -> None:
    """Under another name on the same disk, which takes no room; else a copy. What is there is not written over."""
    if target.exists():
        raise ValueError(
            f"The video of {quoted(one.prompt)} would be {quoted(target.name)}, which another prompt has already: this "
            "disk keeps no capitals apart. Give a folder on one that does."
        )
    try:
        os.link(one.video.resolve(), target)
    except OSError:  # another disk, or one without links
        aside = target.with_name(ASIDE)  # the name itself may be as long as names can be
        shutil.copyfile(one.video, aside)
        os.replace(aside, target)
