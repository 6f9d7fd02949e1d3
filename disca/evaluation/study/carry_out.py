"""A study from its settings to its page: runs, then videos and their measures, each written down when it is there."""

import json
import logging
import math
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image
from torch import Tensor

from ...host.attach import plain
from ...host.comparing import Asked, Interrupted, Runs
from ...messages import cause, quoted
from ...models.checks import family_of_model
from ...models.loading import load_either, load_predictor
from ...training.algorithms.preview_files import colours
from ...training.network.sample_prompts import file_print
from ...training.network.vae import Decoder, free_models
from ...training.records.lock import FolderLock
from ...training.records.preview_video import write_video
from ..side_by_side.entries import Entry
from ..side_by_side.rows import ALL_IN_FULL, Reference, Row, row_of, run_entry
from ..side_by_side.table import caption
from ..videos.comparison import compared
from ..videos.metrics import Metric
from .page import write_page
from .records import Case, Line, Records
from .scenes import Scene, scenes_of
from .settings import StudySettings

if TYPE_CHECKING:
    from ..side_by_side.entries import Learned

LEAST_SIDE = 128  # pixels of a video in rough colours

log = logging.getLogger(__name__)


def carry_out(settings: StudySettings) -> Path:
    """All runs and videos that are not there yet; gives the page. An interrupt loses none that is done."""
    folder = Path(settings.out)
    with FolderLock(folder, "This study", "made"):
        model = load_either(settings.model)
        predictor = load_predictor(settings.predictor) if settings.predictor else None
        entries = settings.entries()
        for entry in entries:
            entry.require(settings.steps, predictor)
        scenes = scenes_of(model, settings)
        records = Records(folder, _key(settings, model))
        cases = [_cases(number, scene, seed, entries) for number, scene in enumerate(scenes) for seed in settings.seeds]
        try:
            with torch.inference_mode():
                _sample(model, predictor, settings, scenes, entries, records)
                _decode(model, settings, cases, records)
        finally:
            page = write_page(folder / "index.html", settings, cases, records)
    return page


def _cases(number: int, scene: Scene, seed: int, entries: Sequence[Entry]) -> list[Case]:
    """Of one prompt and seed, that with every step in full first."""
    return [Case(scene.name, number, seed, text) for text in (ALL_IN_FULL, *(entry.text for entry in entries))]


def _sample(model, predictor: "Learned | None", settings: StudySettings, scenes, entries, records: Records) -> None:
    warm = False
    for number, scene in enumerate(scenes):
        for seed in settings.seeds:
            first, *cases = _cases(number, scene, seed, entries)
            missing = [each for each in zip(cases, entries, strict=True) if not records.done(each[0])]
            if not missing and records.done(first):
                continue
            asked = Asked(
                scene.positive, {"samples": scene.latent}, seed, settings.steps, settings.shift, scene.negative,
                settings.cfg,
            )  # fmt: skip
            runs = Runs(model, asked, settings.steps * (2 + len(missing)))
            if not warm:
                runs.warm_up()
            warm = True
            reference = _reference(runs, first, records)
            for case, entry in missing:
                _run(runs, case, entry, predictor, reference, records)


def _reference(runs: Runs, case: Case, records: Records) -> Reference:
    """The run with every step in full, as it was kept or made now."""
    if records.done(case):
        return Reference(records.latent(case), records.lines[case].row.seconds)
    ran = runs.run(plain(runs.model), runs.asked.steps)
    reference = Reference(ran.inside, ran.report.seconds)
    records.keep(case, ran.inside)
    _note(records, Line(case, row_of(case.method, ran, reference, 1.0)))
    return reference


def _run(runs: Runs, case: Case, entry: Entry, predictor, reference: Reference, records: Records) -> None:
    try:
        ran, theory = run_entry(runs, entry, predictor)
    except Interrupted:
        raise
    except Exception as error:  # whatever it is: the other runs are worth having
        runs.free()
        row = Row(entry.text, problem=cause(error) or type(error).__name__)
    else:
        records.keep(case, ran.inside)
        row = row_of(entry.text, ran, reference, theory)
    _note(records, Line(case, row))


def _note(records: Records, line: Line) -> None:
    records.add(line)
    log.info("%s, seed %s: %s", cause(line.case.prompt), quoted(line.case.seed), caption(line.row))


def _decode(model, settings: StudySettings, cases: Sequence[Sequence[Case]], records: Records) -> None:
    """Makes videos of latents, and measures those that are not measured."""
    network, family = model.model.diffusion_model, family_of_model(model).name
    decoder = None
    if settings.vae:
        free_models()
        decoder = Decoder(settings.vae, family)
    for first, *others in cases:
        done = [case for case in (first, *others) if records.done(case)]
        if all(records.video_file(case).exists() and (case == first or records.lines[case].metrics) for case in done):
            continue
        videos = {case: _frames(records.latent(case), network, decoder) for case in done}
        for case, video in videos.items():
            write_video(records.video_file(case), _pictures(video))
            if case != first:
                line = records.lines[case]
                records.add(Line(case, line.row, _measured(videos[first], video)))
        log.info("%s, seed %s: %d videos", cause(first.prompt), quoted(first.seed), len(videos))
    free_models()


def _measured(reference: Tensor, video: Tensor) -> dict[str, float]:
    found = compared(reference, video).found
    return {each.name: each.overall for each in found if isinstance(each, Metric)}


def _frames(latent: Tensor, network, decoder: Decoder | None) -> Tensor:
    """The video [T, H, W, 3] of a latent [1, C, T, H, W]."""
    if decoder is not None:
        return decoder.frames(latent[0])
    video = colours(latent.float().cpu(), network)[0].permute(1, 2, 3, 0)
    times = math.ceil(LEAST_SIDE / min(video.shape[1:3]))
    return video.repeat_interleave(times, 1).repeat_interleave(times, 2).clamp(0.0, 1.0)


def _pictures(video: Tensor) -> Iterator[Image.Image]:
    """Its frames, of an even size as H.264 needs it."""
    high, wide = (side - side % 2 for side in video.shape[1:3])
    for frame in video[:, :high, :wide]:
        yield Image.fromarray((frame.clamp(0.0, 1.0) * 255.0).round().byte().numpy())


def _key(settings: StudySettings, model) -> str:
    """What lines must have in common to stand in one table: the model, its Predictor, and how runs are made."""
    files = [file_print(path) for path in (settings.model, settings.predictor) if path]
    run = [settings.steps, settings.shift, settings.cfg, settings.guidance, family_of_model(model).name]
    size = [settings.width, settings.height, settings.frames] if settings.prompts else [settings.data]
    return sha256(json.dumps([files, run, size]).encode()).hexdigest()[:16]
