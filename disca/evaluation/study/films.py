"""Latents of a study made into videos, and measured against those with every step in full."""

import json
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from torch import Tensor

from ...files import replacing
from ...messages import cause, quoted
from ...models.checks import family_of_model
from ...training.algorithms.preview_files import colours
from ...training.network.vae import Decoder, free_models
from ...training.records.preview_video import FPS, write_video
from ..vbench.names import NOT_IN_NAMES
from ..videos.comparison import compared
from ..videos.metrics import Metric
from .records import Case, Filmed, Records

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

LEAST_SIDE = 128  # pixels of a video in rough colours
MOST_LETTERS = 100  # of a method in a file's name

log = logging.getLogger(__name__)


class Films:
    """Makes videos: by the VAE in a file, which is loaded when the first is asked for, or in rough colours."""

    def __init__(self, model: "ModelPatcher", vae: str, rate: int = FPS):
        """`rate` is of frames a second."""
        self._model, self._vae, self._rate = model, vae, rate
        self._decoder: Decoder | None = None

    def make(self, first: Case, others: Sequence[Case], records: Records) -> None:
        """The videos of one prompt and seed that are not there yet; one at a time is held beside the first."""
        wanted = [case for case in (first, *others) if records.is_done(case)]
        missing = [case for case in wanted if not records.is_filmed(case)]
        if not missing:
            return
        reference = self._frames(records.latent(first))
        for case in missing:
            try:
                video = reference if case == first else self._frames(records.latent(case))
                write_video(records.video_file(case), _pictures(video), self._rate)
                filmed = Filmed(records.film_key) if case == first else _filmed(records.film_key, reference, video)
            except Exception as error:  # whatever it is: the other videos are worth having
                filmed = Filmed(missing=(f"no video of {cause(case.method)}: {cause(error)}",))
            records.add(replace(records.of[case], filmed=filmed))
        log.info("%s, seed %s: %d videos", cause(first.prompt), quoted(first.seed), len(missing))

    def _frames(self, latent: Tensor) -> Tensor:
        """The video [T, H, W, 3] of a latent [1, C, T, H, W]."""
        if self._vae:
            return self._loaded().frames(latent[0])
        video = colours(latent.float().cpu(), self._model.model.diffusion_model)[0].permute(1, 2, 3, 0)
        times = math.ceil(LEAST_SIDE / min(video.shape[1:3]))
        return video.repeat_interleave(times, 1).repeat_interleave(times, 2).clamp(0.0, 1.0)

    def _loaded(self) -> Decoder:
        if self._decoder is None:
            free_models()
            self._decoder = Decoder(self._vae, family_of_model(self._model).name)
        return self._decoder


def write_prompts(folder: Path, cases: Sequence[Sequence[Case]], records: Records) -> None:
    """A file of {"video": "prompt"} for each method, as `vbench-names` takes it; the first has every step in full."""
    folder.mkdir(exist_ok=True)
    for number, group in enumerate(zip(*cases, strict=True)):
        prompts = {records.video_file(case).name: case.prompt for case in group if records.is_filmed(case)}
        name = f"{number:d} {cause(NOT_IN_NAMES.sub('_', group[0].method)[:MOST_LETTERS])}.json"
        with replacing(folder / name) as aside:
            aside.write_text(json.dumps(prompts, indent=1), encoding="utf-8")


def _filmed(key: str, reference: Tensor, video: Tensor) -> Filmed:
    found = compared(reference, video).found
    metrics = {each.name: each.overall for each in found if isinstance(each, Metric)}
    return Filmed(key, metrics, tuple(each.line for each in found if not isinstance(each, Metric)))


def _pictures(video: Tensor) -> Iterator[Image.Image]:
    """Its frames, of an even size as H.264 needs it."""
    high, wide = (side - side % 2 for side in video.shape[1:3])
    for frame in video[:, :high, :wide]:
        yield Image.fromarray((frame.clamp(0.0, 1.0) * 255.0).round().byte().numpy())
