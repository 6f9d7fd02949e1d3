"""A study from its settings to its page: runs, then videos, each written down when it is there."""

import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ...host.comparing import Interrupted, Runs, RunSettings
from ...messages import cause, quoted
from ...models.loading import load_either, load_predictor
from ...toy.dataset import TOY
from ...training.network.sample_prompts import file_print
from ...training.records.lock import FolderLock
from ...training.records.preview_video import FPS
from ..side_by_side.entries import NEED_A_FILE, Entry
from ..side_by_side.rows import ALL_IN_FULL, Reference, Row, attempt, expected_steps, failed, full_run
from ..side_by_side.table import caption
from .films import Films, write_prompts
from .page import write_page
from .records import Case, Record, Records
from .scenes import Scene, scenes_of
from .settings import StudySettings

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher

    from ...models.checks import Learned

TOY_RATE = 4  # of its six frames, so that one sees them move

log = logging.getLogger(__name__)


def carry_out(settings: StudySettings) -> Path:
    """All runs and videos that are not there yet; gives the page. An interrupt loses none that is done."""
    folder = Path(settings.out)
    with FolderLock(folder, "This study", "made"):
        study = Study(settings, folder)
        try:
            with torch.inference_mode():
                study.run()
                study.film()
        finally:
            write_prompts(folder / "prompts", study.cases, study.records)
            page = write_page(folder / "index.html", settings, study.cases, study.records)
    return page


class Study:
    """A study at work: its model, prompts and methods, and what is written down."""

    def __init__(self, settings: StudySettings, folder: Path):
        self._settings, self._entries = settings, settings.entries()
        self._model: ModelPatcher = load_either(settings.model)
        self._predictor: Learned | None = load_predictor(settings.predictor) if settings.predictor else None
        for entry in self._entries:
            entry.require_predictor(self._predictor)
        self._predictor_print = file_print(settings.predictor) if settings.predictor else ""
        self._scenes = scenes_of(self._model, settings)
        self.records = Records(folder, *_keys(settings, self._model))
        self.cases = [self._cases(scene, seed) for scene in self._scenes for seed in settings.seeds]
        self._scene_of = {scene.digest: scene for scene in self._scenes}

    def run(self) -> None:
        """The runs that are not there yet."""
        warm = False
        for first, *cases in self.cases:
            missing = [
                (case, entry)
                for case, entry in zip(cases, self._entries, strict=True)
                if not self.records.is_done(case)
            ]
            if not missing and self.records.is_done(first):
                continue
            runs = self._runs(first, [entry for _, entry in missing])
            if not warm:
                runs.warm_up()
                warm = True
            reference = self._reference(runs, first)
            for case, entry in missing if reference else ():
                row, result = attempt(runs, entry, self._predictor, reference)
                self._note(case, row, None if result is None else result.model_latent)

    def film(self) -> None:
        """The videos that are not there yet, and their measures."""
        films = Films(self._model, self._settings.vae, TOY_RATE if self._settings.data == TOY else FPS)
        for first, *cases in self.cases:
            films.make(first, cases, self.records)

    def _cases(self, scene: Scene, seed: int) -> list[Case]:
        """Of one prompt and seed, that with every step in full first."""
        first = Case(scene.name, scene.digest, seed, ALL_IN_FULL)
        return [first] + [
            replace(first, method=entry.text, predictor=self._predictor_print if entry.name in NEED_A_FILE else "")
            for entry in self._entries
        ]

    def _runs(self, case: Case, entries: Sequence[Entry]) -> Runs:
        given, scene = self._settings, self._scene_of[case.scene]
        latent = {"samples": scene.latent}
        settings = RunSettings(scene.positive, latent, case.seed, given.steps, given.shift, scene.negative, given.cfg)
        return Runs(self._model, settings, expected_steps(entries, given.steps))

    def _reference(self, runs: Runs, case: Case) -> Reference | None:
        """The run with every step in full; None if it fails. One that was kept is made again, to be timed now."""
        try:
            row, result, reference = full_run(runs)
        except Interrupted:
            raise
        except Exception as error:  # other prompts and seeds are worth having
            self._note(case, failed(runs, case.method, error), None)
            return None
        if self.records.is_done(case):
            return Reference(self.records.latent(case), reference.seconds)
        self._note(case, row, result.model_latent)
        return reference

    def _note(self, case: Case, row: Row, latent: torch.Tensor | None) -> None:
        """Writes down what came of a run, its latent before the line that names it."""
        if latent is not None:
            self.records.keep(case, latent)
        self.records.add(Record(case, row))
        log.info("%s, seed %s: %s", cause(case.prompt), quoted(case.seed), caption(row))


def _keys(settings: StudySettings, model: "ModelPatcher") -> tuple[str, str]:
    """What runs must have in common to stand in one table, and what their videos must."""
    device = torch.cuda.get_device_name(model.load_device) if model.load_device.type == "cuda" else model.load_device
    run = [settings.steps, settings.shift, settings.cfg, settings.guidance, str(device)]
    made_by = [file_print(settings.model), str(model.model.get_dtype_inference()), *run]
    return hash_of(made_by), hash_of([file_print(settings.vae) if settings.vae else "rough colours"])


def hash_of(content: list) -> str:
    """Sixteen hexadecimal digits."""
    return sha256(json.dumps(content).encode()).hexdigest()[:16]
