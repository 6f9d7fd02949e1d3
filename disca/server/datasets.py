"""Datasets built from the graph, in the server itself."""

import comfy.model_management
import comfy.utils

from ..host.running.progress import show
from ..messages import quoted
from .folders import new_dataset_folder, videos_folder


def build_dataset(
    videos: str,
    name: str,
    family: str,
    vae,
    clip,
    clip_vision,
    cut: tuple[int, int, tuple[int, ...], float, bool],
    windows: tuple[str, int, int],
    first_frame: bool,
    prune: bool,
    strict: bool,
) -> str:
    """Encodes a folder of ComfyUI's input folder into the dataset of this name; says what was done."""
    from ..training.build import build_dataset
    from ..training.data.clips import Cut
    from ..training.data.windows import Windows
    from ..training.network.encoder import Encoder, model_without_weights

    wanted = Cut(*cut, Windows(*windows))
    encoder = Encoder(model_without_weights(family), vae, clip, clip_vision)
    bar = comfy.utils.ProgressBar(1)

    def progress(done: int, total: int) -> None:
        bar.update_absolute(done, total)
        show(f"{done:d} of {total} videos")
        comfy.model_management.throw_exception_if_processing_interrupted()

    out = new_dataset_folder(name)
    built = build_dataset(videos_folder(videos), out, encoder, wanted, first_frame, prune, strict, progress)
    lines = [f"{quoted(out)} holds {built.samples:d} samples, {built.encoded:d} of them new."]
    return "\n".join(lines + built.account.lines())
