"""Attaching DisCa to a MODEL: a handler on each block, wrappers around sampling, the Predictor beside the model."""

import inspect
import logging
from collections.abc import Hashable
from dataclasses import dataclass

from comfy.model_patcher import ModelPatcher, create_model_options_clone
from comfy.patcher_extension import WrappersMP, get_all_callbacks

from ..report import Report
from ..schedule import EVERY_STEP, MAX_CACHE_AGE, Schedule, oldest_features
from . import blocks, progress, samplers
from .features import FeatureStore
from .loading import LoadedPredictor
from .model import require_channels, require_match, require_meanflow, require_no_foreign_cache
from .run import CONTROLNET, FOREIGN_BLOCKS, MULTI_GPU, OTHER_MODEL, Call, Condition, Evaluation, Run

KEY = "disca"  # of our attachment, wrappers, additional model, and of the Run in transformer_options
EVALUATION = "disca_evaluation"  # key in transformer_options
ON_REPORT = "disca_on_report"  # callback type: called with the Report when a run has ended

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Attachment:
    """What a patched MODEL carries from run to run: settings, no state."""

    schedule: Schedule = EVERY_STEP
    cache_device: str = "auto"


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
    wrappers = {
        WrappersMP.OUTER_SAMPLE: _outer_sample,
        WrappersMP.CALC_COND_BATCH: _calc_cond_batch,
        WrappersMP.DIFFUSION_MODEL: _diffusion_model,
    }
    for level, wrapper in wrappers.items():
        model.remove_wrappers_with_key(level, KEY)
        model.add_wrapper_with_key(level, KEY, wrapper)
    return model


def _outer_sample(executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
    """One sampling run: checks that it can be right, gives it fresh state, reports, and lets the state go."""
    guider = executor.class_obj
    original = guider.model_options
    require_no_foreign_cache(original["transformer_options"])
    require_channels(guider.model_patcher, noise)
    run = _new_run(guider.model_patcher, sampler, sigmas.float().tolist())
    guider.model_options = create_model_options_clone(original)
    guider.model_options["transformer_options"][KEY] = run
    try:
        samples = executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
    finally:
        guider.model_options = original
        run.store.clear()
    _tell(run.finish(), original["transformer_options"])
    return samples


def _new_run(model: ModelPatcher, sampler, sigmas: list[float]) -> Run:
    attachment: Attachment = model.get_attachment(KEY)
    predictors = model.get_additional_models_with_key(KEY)
    steps = len(sigmas) - 1
    schedule = attachment.schedule if predictors and steps > 0 else EVERY_STEP
    anchors = schedule.of(steps)
    predictor = predictors[0].model if predictors else None
    run = Run(sigmas, anchors, model.model.diffusion_model, predictor, FeatureStore(attachment.cache_device))
    step, age = oldest_features(anchors, sigmas)
    warnings = [samplers.require_keeps_r(sampler)]
    if age > MAX_CACHE_AGE:
        warnings.append(
            f"step {step} predicts from features {age:.2f} older in sigma, predictors are trained for {MAX_CACHE_AGE}; "
            "put an anchor before it"
        )
    run.report.warnings += [warning for warning in warnings if warning]
    for warning in run.report.warnings:
        logger.warning("DisCa: %s", warning)
    return run


def _calc_cond_batch(executor, model, conds, x_in, timestep, model_options):
    """Decides once for all conditions of an evaluation, before ComfyUI batches them by free memory."""
    options = model_options.get("transformer_options", {})
    run: Run | None = options.get(KEY)
    if run is None:
        return executor(model, conds, x_in, timestep, model_options)
    sigma = float(timestep[0])
    window = _window_of(options)
    keys: dict[Condition, Hashable] = {}
    active = []
    for index, entries in enumerate(conds):
        for cond in entries or ():
            key = (index, cond["uuid"], window, x_in.device)
            keys[index, cond["uuid"]] = key
            if cond.get("timestep_end", 0.0) <= sigma <= cond.get("timestep_start", float("inf")):
                active.append(key)
    blocked = MULTI_GPU if "multigpu_clones" in model_options else None
    if model.diffusion_model is not run.network:
        blocked = OTHER_MODEL
    evaluation = run.evaluate(sigma, keys, active, blocked)
    options = {**options, EVALUATION: evaluation}
    return executor(model, conds, x_in, timestep, {**model_options, "transformer_options": options})


def _diffusion_model(executor, *args, **kwargs):
    """Counts and times one network call, and tells the blocks what to do in it."""
    bound = inspect.signature(executor.original).bind(*args, **kwargs)
    options = bound.arguments["transformer_options"]
    evaluation: Evaluation | None = options.get(EVALUATION)
    if evaluation is None:
        return executor(*args, **kwargs)
    blocked = None
    if bound.arguments.get("control") is not None:
        blocked = CONTROLNET
    elif not blocks.handlers_are_ours(options, executor.class_obj):
        blocked = FOREIGN_BLOCKS
    call = Call(evaluation, list(zip(options["cond_or_uncond"], options["uuids"], strict=True)), blocked)
    bound.arguments["transformer_options"] = {**options, blocks.CALL: call}
    with evaluation.run.counted(call, bound.arguments["x"].device):
        out = executor(*bound.args, **bound.kwargs)
    progress.show_counts(evaluation.run.report)
    return out


def _window_of(options: dict) -> Hashable:
    window = options.get("context_window")
    return None if window is None else (getattr(window, "dim", None), *map(int, window.index_list))


def _tell(report: Report, options: dict) -> None:
    logger.info("%s", report)
    progress.show(str(report))
    for callback in get_all_callbacks(ON_REPORT, options):
        callback(report)
