"""python -m disca.training.build: encodes a folder of videos and captions into a dataset.

    python -m disca.training.build --videos clips --out dataset --model 1.5 --vae hunyuanvideo15_vae_fp16.safetensors \\
        --text-encoders qwen_2.5_vl_7b_fp8_scaled.safetensors byt5_small_glyphxl_fp16.safetensors

Beside each video lies its caption, a text file of the same name; what cannot be used is left out and named. Run it in
the pack's folder, with ComfyUI's Python. ComfyUI is at COMFYUI_PATH, or where the pack lies in its custom_nodes.
Stopped at any moment, the same command goes on where it was; run again later, it encodes only what is new.
"""

import argparse
import logging
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ..messages import quoted
from ..models.family import FAMILIES
from .console import speak
from .data.account import Account, UnusableError
from .data.clips import Cut
from .data.dataset import DatasetWriter
from .data.folder import Clip, find_clips
from .data.recipe import Recipe, keys_there
from .data.windows import KINDS, Windows
from .network.comfy import choose_device, prepare_comfy

if TYPE_CHECKING:
    from .network.encoder import Encoder, Text

AT_ONCE = 32  # captions are encoded so many at a time, for the text encoder and the VAE may not fit on a card together

log = logging.getLogger(__name__)


class BuildResult(NamedTuple):
    """What a run of the builder did."""

    samples: int  # in the whole dataset
    encoded: int  # in this run
    account: Account  # what was left out and what was changed, in this run


def build_dataset(
    videos: str,
    out: str,
    encoder: "Encoder",
    cut: Cut,
    first_frame: bool = False,
    prune: bool = False,
    strict: bool = False,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> BuildResult:
    """Encodes what is in the folder `videos` and not yet in the dataset `out`; `progress` may raise after each sample.

    With `prune`, samples whose video, caption or cut is no longer asked for leave the dataset, if no clip was left out:
    its sample may be among them. A clip that cannot be used is left out; with `strict` it ends the build.
    """
    if first_frame and not FAMILIES[encoder.family].first_frame:
        raise ValueError(f"{FAMILIES[encoder.family].title} has no input for a first frame. Build without it.")
    recipe, account, keys, encoded = Recipe(encoder, cut, first_frame), Account(), {}, 0
    clips = _usable(videos, account, strict)
    with DatasetWriter(out, encoder.fingerprint, encoder.family) as writer:
        if not writer.has_null:
            writer.write_null(encoder.null())
        for done, (key, clip, text) in enumerate(_with_texts(clips, writer, recipe), start=1):
            try:
                if key in keys:
                    account.pass_over(clip.name, "the same as another clip, caption included")
                keys[key], new = _add(writer, recipe, key, clip, text, account, partial(progress, done - 1, len(clips)))
                encoded += new
            except UnusableError as fault:
                if strict:
                    raise
                account.leave_out(fault)
            progress(done, len(clips))
        if prune:
            _prune(writer, set(chain(*keys.values())), videos, account)
        if not len(writer):
            raise ValueError("None of the videos could be used.\n" + "\n".join(account.faults()))
    for source in writer.replaced:
        account.change(source, "samples replaced by another clip or caption of the same name")
    return BuildResult(len(writer), encoded, account)


def _add(
    writer: DatasetWriter,
    recipe: Recipe,
    key: str | None,
    clip: Clip,
    text: "Text | None",
    account: Account,
    step: Callable[[], object],
) -> tuple[list[str], int]:
    """The keys of a video's samples, which may be in the dataset under another name, and how many had to be encoded."""
    if key is None:
        raise UnusableError(quoted(clip.name), "cannot be opened")
    if text is not None:
        return recipe.add(writer, key, clip, text, account, step)
    there = keys_there(writer, key)
    if there:
        writer.claim(there, clip.caption, recipe.source(clip))
    return there, 0


def _prune(writer: DatasetWriter, keys: set[str], videos: str, account: Account) -> None:
    if account.left_out:
        account.change(videos, "folders with clips left out, for which nothing was pruned")
    else:
        writer.prune(keys)


def main(arguments: list[str]) -> int:
    """The command; 0 if a dataset was made, 2 if what was given does not allow it, 130 if it was interrupted."""
    options = _parser().parse_args(arguments)
    speak()
    try:
        windows = Windows(options.clips, options.stride, options.count)
        cut = Cut(options.width, options.height, tuple(options.frames), options.fps, options.buckets, windows)
        _usable(options.videos, Account(), options.strict)  # what is wrong there is said before models are loaded
        encoder = _load_encoder(options)
        with tqdm(unit="video") as bar, logging_redirect_tqdm():
            built = build_dataset(
                options.videos, options.out, encoder, cut, options.first_frame, options.prune, options.strict,
                partial(_show, bar),
            )  # fmt: skip
    except (ValueError, RuntimeError, OSError) as error:
        log.error("%s", error, exc_info=log.isEnabledFor(logging.DEBUG))
        return 2
    except KeyboardInterrupt:
        log.info("Interrupted. The same command goes on from here.")
        return 130
    for line in built.account.lines():
        log.warning("%s", line)
    log.info(f"{quoted(options.out)} holds {built.samples:d} samples, {built.encoded:d} of them new.")
    return 0


def _usable(videos: str, account: Account, strict: bool) -> list[Clip]:
    clips = find_clips(videos, account)
    if strict and account.left_out:
        raise ValueError("\n".join(account.faults()))
    return clips


def _with_texts(
    clips: list[Clip], writer: DatasetWriter, recipe: Recipe
) -> Iterator[tuple[str | None, Clip, "Text | None"]]:
    """Each clip with its key and its encoded caption, which is None if it is in the dataset already.

    A file that cannot be opened has no key.
    """
    for start in range(0, len(clips), AT_ONCE):
        keyed = [(recipe.key(clip), clip) for clip in clips[start : start + AT_ONCE]]
        texts = {key: recipe.encoder.text(clip.caption) for key, clip in keyed if key and not keys_there(writer, key)}
        yield from ((key, clip, texts.pop(key, None)) for key, clip in keyed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m disca.training.build",
        description=__doc__.split("build: ")[1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    size, windows = Cut(), Windows()
    parser.add_argument("--videos", required=True, help="folder with videos or pictures and their captions")
    parser.add_argument("--out", required=True, help="folder of the dataset, made or continued")
    parser.add_argument("--model", choices=FAMILIES, default="1.5", help="HunyuanVideo to train (default %(default)s)")
    parser.add_argument("--vae", required=True, help="the model's VAE, a .safetensors file")
    parser.add_argument("--text-encoders", required=True, nargs="+", help="its text encoders, .safetensors files")
    parser.add_argument("--clip-vision", default="", help="SigLIP, for image to video with 1.5")
    parser.add_argument("--first-frame", action="store_true", help="for image to video: first frames as conditions")
    parser.add_argument("--width", type=int, default=size.width)
    parser.add_argument("--height", type=int, default=size.height)
    parser.add_argument(
        "--buckets", action="store_true", help="sizes of about width x height by each clip's shape, not one for all"
    )
    parser.add_argument(
        "--frames", type=int, nargs="+", default=size.lengths, help="4n + 1; of several the longest that a video has"
    )
    parser.add_argument("--fps", type=float, default=size.fps, help="default %(default)s; 0 takes every frame")
    parser.add_argument("--clips", choices=KINDS, default=windows.kind, help="of a video: where in it (default first)")
    parser.add_argument("--stride", type=int, default=windows.stride, help="frames from one clip to the next, in slide")
    parser.add_argument("--count", type=int, default=windows.count, help="clips of a video, in uniform")
    parser.add_argument("--prune", action="store_true", help="delete samples that are not in the folder of videos")
    parser.add_argument("--strict", action="store_true", help="end at a clip that cannot be used, not leave it out")
    parser.add_argument("--cpu", action="store_true", help="encode on the CPU")
    return parser


def _load_encoder(options: argparse.Namespace) -> "Encoder":
    for path in [options.vae, *options.text_encoders, *filter(None, [options.clip_vision])]:
        if not path.lower().endswith((".safetensors", ".sft")) or not Path(path).is_file():
            raise ValueError(f"{quoted(path)} is not a .safetensors file that is there. Give the path of one.")
    prepare_comfy(choose_device("cpu" if options.cpu else "auto").type, training=False)
    from .network.encoder import load_encoder

    return load_encoder(options.model, options.vae, options.text_encoders, options.clip_vision)


def _show(bar: tqdm, done: int, total: int) -> None:
    bar.total = total
    bar.update(done - bar.n)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
