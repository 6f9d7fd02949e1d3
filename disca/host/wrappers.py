"""The wrappers around sampling: a run on its outside, a decision for each evaluation, a count for each network call."""

import inspect
import logging
from collections.abc import Hashable
from dataclasses import dataclass

import torch
from comfy.model_patcher import ModelPatcher, create_model_options_clone
from comfy.patcher_extension import WrappersMP, get_all_callbacks
from torch._dynamo import OptimizedModule

from ..report import Report
from ..schedule import EVERY_STEP, MAX_CACHE_AGE, Schedule, oldest_features
from . import blocks, progress, samplers
from .features import FeatureStore
from .model import require_channels, require_no_foreign_cache
from .run import (
    CONTROLNET,
    FOREIGN_ATTENTION,
    FOREIGN_BLOCKS,
    KEY,
    MULTI_GPU,
    ON_REPORT,
    OTHER_MODEL,
    Call,
    Condition,
    Evaluation,
    Run,
)

EVALUATION = "disca_evaluation"  # key in transformer_options
WHOLE_MODEL_COMPILED = "torch.compile of the whole model is left out, compile its blocks instead"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Attachment:
    """What a patched MODEL carries from run to run: settings, no state."""

    schedule: Schedule = EVERY_STEP
    cache_device: str = "auto"


def outer_sample(executor, noise, latent_image, sampler, sigmas, *args, **kwargs):
    """One sampling run: checks that it can be right, gives it fresh state, reports, and lets the state go."""
    guider = executor.class_obj
    original = guider.model_options
    require_no_foreign_cache(original["transformer_options"])
    require_channels(guider.model_patcher, noise)
    run = _new_run(guider.model_patcher, sampler, sigmas.float().tolist())
    guider.model_options = create_model_options_clone(original)
    guider.model_options["transformer_options"][KEY] = run
    _put_innermost(guider.model_options["transformer_options"]["wrappers"][WrappersMP.APPLY_MODEL])
    try:
        samples = executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
    finally:
        guider.model_options = original
        run.store.clear()
    _tell(run.finish(), original["transformer_options"])
    return samples


def _put_innermost(wrappers: dict[str, list]) -> None:
    """Calls our wrapper of this level last, when others have put compiled networks in their place."""
    wrappers[KEY] = wrappers.pop(KEY)


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
            f"step {step:d} predicts from features {age:.2f} older in sigma, predictors are trained for "
            f"{MAX_CACHE_AGE}; put an anchor before it"
        )
    run.report.warnings += [warning for warning in warnings if warning]
    for warning in run.report.warnings:
        logger.warning("DisCa: %s", warning)
    return run


def calc_cond_batch(executor, model, conds, x_in, timestep, model_options):
    """Decides once for all conditions of an evaluation, before ComfyUI batches them by free memory."""
    options = model_options.get("transformer_options", {})
    run: Run | None = options.get(KEY)
    if run is None:
        return executor(model, conds, x_in, timestep, model_options)
    sigma, window = float(timestep[0]), _window_of(options)
    blocked = MULTI_GPU if "multigpu_clones" in model_options else None
    if model.diffusion_model is not run.network:
        blocked = OTHER_MODEL
    strengths = {
        Condition(index, cond["uuid"], window, x_in.device): _strengths(model, cond, timestep, model_options)
        for index, entries in enumerate(conds)
        for cond in entries or ()
        if cond.get("timestep_end", 0.0) <= sigma <= cond.get("timestep_start", float("inf"))
    }
    options = {**options, EVALUATION: run.evaluate(sigma, strengths, blocked)}
    return executor(model, conds, x_in, timestep, {**model_options, "transformer_options": options})


def apply_model(executor, *args, **kwargs):
    """Runs a network that is compiled as a whole eagerly.

    Such code is kept without guards on `transformer_options`: it would not notice that blocks are replaced. Compiled
    blocks stay compiled.
    """
    if not isinstance(executor.class_obj.diffusion_model, OptimizedModule):
        return executor(*args, **kwargs)
    arguments = inspect.signature(executor.original).bind(*args, **kwargs).arguments
    run: Run | None = arguments.get("transformer_options", {}).get(KEY)
    if run is not None and WHOLE_MODEL_COMPILED not in run.report.warnings:
        run.report.warnings.append(WHOLE_MODEL_COMPILED)
        logger.warning("DisCa: %s", WHOLE_MODEL_COMPILED)
    with torch.compiler.set_stance("force_eager"):
        return executor(*args, **kwargs)


def diffusion_model(executor, *args, **kwargs):
    """Counts and times one network call, and tells the blocks what to do in it."""
    bound = inspect.signature(executor.original).bind(*args, **kwargs)
    options = bound.arguments["transformer_options"]
    evaluation: Evaluation | None = options.get(EVALUATION)
    if evaluation is None:
        return executor(*args, **kwargs)
    device, window = options["sigmas"].device, _window_of(options)
    ids = zip(options["cond_or_uncond"], options["uuids"], strict=True)
    conditions = [Condition(index, uuid, window, device) for index, uuid in ids]
    call = Call(evaluation, conditions, _blocked(executor.class_obj, options, bound.arguments.get("control")))
    bound.arguments["transformer_options"] = {**options, blocks.CALL: call}
    with evaluation.run.counted(call, device):
        out = executor(*bound.args, **bound.kwargs)
    progress.show_counts(evaluation.run.report)
    return out


def _blocked(network, options: dict, control) -> str | None:
    """Why this call may not be predicted: another node has a part in it that the Predictor was not made for."""
    if control is not None:
        return CONTROLNET
    if not blocks.handlers_are_ours(options, network):
        return FOREIGN_BLOCKS
    patches = options.get("patches", {})
    return FOREIGN_ATTENTION if any(patches.get(name) for name in ("attn1_patch", "attn1_output_patch")) else None


def _strengths(model, cond: dict, timestep, model_options: dict) -> tuple[float, ...]:
    """A condition's LoRA strengths at this time; ComfyUI would set them only when it comes to the condition."""
    hooks = cond.get("hooks")
    if hooks is None:
        return ()
    model.current_patcher.prepare_hook_patches_current_keyframe(timestep, hooks, model_options)
    return tuple(hook.strength for hook in hooks.hooks)


def _window_of(options: dict) -> Hashable:
    window = options.get("context_window")
    return None if window is None else (getattr(window, "dim", None), *map(int, window.index_list))


def _tell(report: Report, options: dict) -> None:
    logger.info("%s", report)
    progress.show(str(report))
    for callback in get_all_callbacks(ON_REPORT, options):
        callback(report)
