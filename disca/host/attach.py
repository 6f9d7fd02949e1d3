"""Attaching DisCa to a MODEL: a handler on each block, wrappers around sampling, the Predictor beside the model."""

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP

from ..models.checks import LoadedPredictor, require_match, require_meanflow
from ..schedule import Schedule
from . import blocks, wrappers
from .run import KEY
from .wrappers import Attachment


def attach_predictor(
    model: ModelPatcher, predictor: LoadedPredictor, schedule: Schedule, cache_device: str = "auto"
) -> ModelPatcher:
    """A clone of the MODEL that runs the transformer on the schedule's anchors and the Predictor on the other steps."""
    require_meanflow(model)
    require_match(model, predictor.spec)
    model = _wrap(model, Attachment(schedule, cache_device))
    model.set_additional_models(KEY, [predictor.patcher])
    blocks.add_handlers(model)
    return model


def watch(model: ModelPatcher) -> ModelPatcher:
    """A clone of the MODEL whose runs are counted and timed; one that has a Predictor keeps it."""
    require_meanflow(model)
    return model.clone() if model.get_attachment(KEY) else _wrap(model, Attachment())


def _wrap(model: ModelPatcher, attachment: Attachment) -> ModelPatcher:
    model = model.clone()
    model.set_attachments(KEY, attachment)
    levels = {
        WrappersMP.OUTER_SAMPLE: wrappers.outer_sample,
        WrappersMP.PREDICT_NOISE: wrappers.predict_noise,
        WrappersMP.CALC_COND_BATCH: wrappers.calc_cond_batch,
        WrappersMP.APPLY_MODEL: wrappers.apply_model,
        WrappersMP.DIFFUSION_MODEL: wrappers.diffusion_model,
    }
    for level, wrapper in levels.items():
        model.remove_wrappers_with_key(level, KEY)
        model.add_wrapper_with_key(level, KEY, wrapper)
    return model
