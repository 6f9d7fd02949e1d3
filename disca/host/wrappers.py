"""The wrappers around sampling: a run on its outside, a decision for each evaluation, a count for each network call."""

import inspect
import logging
from collections.abc import Hashable
from dataclasses import dataclass

import torch
from comfy.model_patcher import ModelPatcher, create_model_options_clone
from comfy.patcher_extension import WrappersMP, get_all_callbacks
from torch._dynamo import OptimizedModule

from ..messages import listing
from ..models.checks import require_channels, require_conditioning, require_no_foreign_cache, require_sigmas
from ..report import Report
from ..schedule import EVERY_STEP, MAX_CACHE_AGE, Schedule, oldest_features
from . import blocks, progress, samplers
from .features import FeatureStore
from .observation import others
from .observation.observed import Observed, r_of
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
NO_PREDICTOR = "no Predictor is on the model"
ALL_ANCHORS = "every step is an anchor"
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
    require_channels(guider.model_patcher, noise)
    require_conditioning(guider.model_patcher, guider.conds)
    require_sigmas(sigmas)
    arguments = inspect.signature(executor.original).bind(noise, latent_image, sampler, sigmas, *args, **kwargs)
    masked = arguments.arguments.get("denoise_mask") is not None
    run = _new_run(guider.model_patcher, original, sampler, sigmas.float().tolist(), masked)
    guider.model_options = create_model_options_clone(original)
    guider.model_options["transformer_options"][KEY] = run
    levels = guider.model_options["transformer_options"]["wrappers"]
    _put_innermost(levels[WrappersMP.APPLY_MODEL])
    _put_outermost(levels[WrappersMP.PREDICT_NOISE])
    try:
        samples = executor(noise, latent_image, sampler, sigmas, *args, **kwargs)
    finally:
        guider.model_options = original
        run.store.clear()
    run.finite.look(None, "the sampled latent", samples)
    _judge(run, original, sampler)
    _tell(run.finish(), original["transformer_options"])
    return samples


def _put_innermost(wrappers: dict[str, list]) -> None:
    """Calls our wrapper of this level last, when others have put compiled networks in their place."""
    wrappers[KEY] = wrappers.pop(KEY)


def _put_outermost(wrappers: dict[str, list]) -> None:
    """Calls our wrapper of this level first: it sees what the sampler gets, whoever answers."""
    rest = {key: wrappers.pop(key) for key in [*wrappers] if key != KEY}
    wrappers.update(rest)


def _new_run(model: ModelPatcher, options: dict, sampler, sigmas: list[float], masked: bool) -> Run:
    attachment: Attachment = model.get_attachment(KEY)
    predictors = model.get_additional_models_with_key(KEY)
    if predictors:
        require_no_foreign_cache(options["transformer_options"])
    steps = len(sigmas) - 1
    schedule = attachment.schedule if predictors and steps > 0 else EVERY_STEP
    anchors = schedule.of(steps)
    predictor = predictors[0].model if predictors else None
    store, observed = FeatureStore(attachment.cache_device), Observed(samplers.name_of(sampler), masked)
    run = Run(sigmas, anchors, model.model.diffusion_model, predictor, store, observed)
    if steps > 0 and len(anchors) == steps:
        run.report.only_full = ALL_ANCHORS if predictors else NO_PREDICTOR
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
    active = {
        Condition(index, cond["uuid"], window, x_in.device): cond
        for index, entries in enumerate(conds)
        for cond in entries or ()
        if cond.get("timestep_end", 0.0) <= sigma <= cond.get("timestep_start", float("inf"))
    }
    filled = {key.index for key in active}
    idle = any(entries is not None and index not in filled for index, entries in enumerate(conds))
    run.reach.expect(sigma, [key.anywhere for key, cond in active.items() if "default" not in cond], idle)
    strengths = {key: _strengths(model, cond, timestep, model_options) for key, cond in active.items()}
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


def predict_noise(executor, x, timestep, model_options, *args, **kwargs):
    """Sees what the sampler asks and what it gets."""
    options = model_options.get("transformer_options", {})
    run: Run | None = options.get(KEY)
    if run is None:
        return executor(x, timestep, model_options, *args, **kwargs)
    t = float(timestep[0])  # read before the network is queued: reading waits for the GPU
    r = r_of(t, options.get("sample_sigmas"))
    x_0 = executor(x, timestep, model_options, *args, **kwargs)
    run.observed.saw(t, r, x, x_0)
    return x_0


def diffusion_model(executor, *args, **kwargs):
    """Counts and times one network call, and tells the blocks what to do in it."""
    bound = inspect.signature(executor.original).bind(*args, **kwargs)
    options = bound.arguments["transformer_options"]
    evaluation: Evaluation | None = options.get(EVALUATION)
    if evaluation is None:
        return executor(*args, **kwargs)
    network, device, window = executor.class_obj, options["sigmas"].device, _window_of(options)
    ids = zip(options["cond_or_uncond"], options["uuids"], strict=True)
    conditions = [Condition(index, uuid, window, device) for index, uuid in ids]
    if evaluation.reason == OTHER_MODEL:
        call = Call(evaluation, conditions, None)
    else:
        stand_in, count = others.stand_in(network), len(blocks.blocks_of(network))
        blocked = _blocked(network, options, bound.arguments.get("control"), stand_in)
        call = Call(evaluation, conditions, blocked, count)
        if stand_in:
            evaluation.run.alarm(
                f"{stand_in} stands in for the transformer's blocks: what it leaves out is not counted"
            )
        bound.arguments["transformer_options"] = blocks.watched(options, network, call)
    _look_at_inputs(call, bound.arguments, network)
    with evaluation.run.counted(call, device):
        out = executor(*bound.args, **bound.kwargs)
    call.look("the network's output", out)
    progress.show_counts(evaluation.run.report)
    return out


def _look_at_inputs(call: Call, arguments: dict, network) -> None:
    """What comes in from outside; masks may hold -inf."""
    for name, value in arguments.items():
        if isinstance(value, torch.Tensor) and name != "x" and not name.endswith("mask"):
            call.look("the conditioning", value)
    channels = getattr(network, "out_channels", None)
    call.look("the latent", arguments["x"][:, :channels])
    call.look("the image conditioning", arguments["x"][:, channels:] if channels else arguments["x"][:, :0])


def _blocked(network, options: dict, control, stand_in: str | None) -> str | None:
    """Why this call may not be predicted: another node has a part in it that the Predictor was not made for."""
    if control is not None:
        return CONTROLNET
    if stand_in:
        return f"{stand_in} stands in for blocks"
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


def _judge(run: Run, options: dict, sampler) -> None:
    """What the run turned out to be, where it was not what was asked for: said first in the report, and logged."""
    unreached = run.reach.told()
    run.alarm(unreached)
    if unreached and (names := others.on_the_way(options, run.network)):
        run.alarm(f"other nodes on this MODEL: {listing(names, 3, str)}")
    run.alarm(run.reach.told_idle())
    run.alarm(None if samplers.extrapolates(sampler) else run.observed.told())
    run.alarm(run.finite.told())
    for alarm in run.report.alarms:
        logger.warning("DisCa: %s", alarm)


def _tell(report: Report, options: dict) -> None:
    logger.info("DisCa: %s", "; ".join(report.lines))
    progress.show(progress.LINE_BREAK.join(report.short))
    for callback in get_all_callbacks(ON_REPORT, options):
        callback(report)
