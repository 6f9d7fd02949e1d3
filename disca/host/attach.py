"""Attaching a method to a MODEL: a handler on each block, wrappers around sampling, the method's network beside it."""

from dataclasses import replace

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP

from ..messages import quoted
from ..methods.scheduled.disca import disca
from ..methods.scheduled.lesa import LesaCache, in_its_runs
from ..methods.seam.anchors import AtAnchors
from ..methods.seam.method import SITES, Method
from ..methods.seam.when import MODULATED, Rule
from ..models.checks import Learned, LoadedLesa, LoadedPredictor, family_of_model, require_match, require_meanflow
from ..schedule import Anchors, Schedule
from .running import blocks, wrappers
from .running.outer import Attachment, outer_sample
from .running.run import KEY

LEVELS = {
    WrappersMP.OUTER_SAMPLE: outer_sample,
    WrappersMP.PREDICT_NOISE: wrappers.predict_noise,
    WrappersMP.CALC_COND_BATCH: wrappers.calc_cond_batch,
    WrappersMP.APPLY_MODEL: wrappers.apply_model,
    WrappersMP.DIFFUSION_MODEL: wrappers.diffusion_model,
}


def attach_predictor(
    model: ModelPatcher, predictor: Learned, schedule: Schedule, cache_device: str = "auto"
) -> ModelPatcher:
    """A clone of the MODEL that runs the transformer on the schedule's anchors and the Predictor on the other steps."""
    if isinstance(predictor, LoadedPredictor):
        require_meanflow(model)
        require_match(model, predictor.spec)
    return attach(model, _answered_by(predictor, AtAnchors(schedule)), cache_device, predictor.patcher)


def _answered_by(predictor: Learned, rule: Rule) -> Method:
    """The method whose answers the Predictor gives."""
    if isinstance(predictor, LoadedLesa):
        return in_its_runs(LesaCache().method(rule), predictor.spec.steps, predictor.spec.shift)
    return disca(rule, predictor.spec.features)


def attach(
    model: ModelPatcher, method: Method, cache_device: str = "auto", compute: ModelPatcher | None = None
) -> ModelPatcher:
    """A clone of the MODEL that runs by the method, in place of any earlier one; `compute` is its own network."""
    require_fits(model, method)
    if compute is None and method.computes:
        raise ValueError(f"{quoted(method.name)} answers with a network of its own, but none is given. Give it one.")
    model = _wrap(model, Attachment(method, cache_device))
    model.set_additional_models(KEY, [compute] if compute else [])
    blocks.add_handlers(model)
    return model


def require_fits(model: ModelPatcher, method: Method) -> None:
    """ValueError unless the method finds in the MODEL's blocks what it answers or looks at."""
    family = family_of_model(model)
    kinds = [kind for kind in family.kinds if kind.of(model.model.diffusion_model)]
    wanted = [{*way.sites} for way in method.ways if way.where == SITES]
    looks = MODULATED in (*method.when.looks, *method.when.sees)
    blind = looks and not kinds[0].sites  # what the first block reads
    if blind or any(not sites & {*kind.sites} for sites in wanted for kind in kinds):
        raise ValueError(
            f"{quoted(method.name)} looks inside blocks, which it cannot in those of {family.title}. "
            "Choose a method that takes blocks as a whole, such as 'TaylorSeer-Lite'."
        )


def with_counters(model: ModelPatcher) -> ModelPatcher:
    """A clone of the MODEL whose runs are counted and timed; one that has a method keeps it."""
    require_meanflow(model)
    return model.clone() if model.get_attachment(KEY) else _wrap(model, Attachment())


def plain(model: ModelPatcher) -> ModelPatcher:
    """A clone of the MODEL that runs in full, whatever was on it, its runs counted and timed."""
    model = _wrap(model, Attachment())
    model.set_additional_models(KEY, [])
    return model


def with_anchors(model: ModelPatcher, anchors: tuple[int, ...]) -> ModelPatcher:
    """A clone of the MODEL whose method runs in full in these steps, whatever its own rule was."""
    attachment = model.get_attachment(KEY)
    return _wrap(model, replace(attachment, method=attachment.method.at(AtAnchors(Anchors(anchors)))))


def without_method(model: ModelPatcher) -> ModelPatcher:
    """A clone of the MODEL that runs natively, with our handlers on its blocks."""
    model = model.clone()
    for level in LEVELS:
        model.remove_wrappers_with_key(level, KEY)
    blocks.add_handlers(model)
    return model


def _wrap(model: ModelPatcher, attachment: Attachment) -> ModelPatcher:
    model = model.clone()
    model.set_attachments(KEY, attachment)
    for level, wrapper in LEVELS.items():
        model.remove_wrappers_with_key(level, KEY)
        model.add_wrapper_with_key(level, KEY, wrapper)
    return model
