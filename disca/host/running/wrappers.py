"""The wrappers within a sampling run: an evaluation of all conditions, a look at the sampler, each network call."""

import inspect
import logging
from collections.abc import Hashable

import torch
from torch._dynamo import OptimizedModule

from ...models.family import Family, family_of
from . import blocks, progress
from .call import Call, ConditionKey, Evaluation
from .observation import others
from .observation.observed import r_of
from .run import KEY, OTHER_MODEL, Run

CONTROLNET = "ControlNet residuals"
FOREIGN_BLOCKS = "another node replaces blocks"
FOREIGN_ATTENTION = "another node patches attention"
MULTI_GPU = "multi-GPU split"
EVALUATION = "disca_evaluation"  # key in transformer_options
WHOLE_MODEL_COMPILED = "torch.compile of the whole model is left out, compile its blocks instead"

logger = logging.getLogger(__name__)


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
        ConditionKey(index, cond["uuid"], window, x_in.device): cond
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
    """Counts and times one network call, and tells the blocks what to do in it; again where a draft was rejected."""
    bound = inspect.signature(executor.original).bind(*args, **kwargs)
    options = bound.arguments["transformer_options"]
    evaluation: Evaluation | None = options.get(EVALUATION)
    if evaluation is None:
        return executor(*args, **kwargs)
    call = _call(evaluation, executor.class_obj, bound.arguments)
    _look_at_inputs(call, bound.arguments, executor.class_obj)
    out = _answered(executor, bound, options, evaluation, call)
    if call.rejected:
        call = call.again()
        out = _answered(executor, bound, options, evaluation, call)
    call.look("the network's output", out)
    progress.show_counts(evaluation.run.report)
    return out


def _call(evaluation: Evaluation, network, arguments: dict) -> Call:
    options = arguments["transformer_options"]
    device, window = options["sigmas"].device, _window_of(options)
    ids = zip(options["cond_or_uncond"], options["uuids"], strict=True)
    conditions = [ConditionKey(index, uuid, window, device) for index, uuid in ids]
    latent = arguments["x"][:, : getattr(network, "out_channels", None)]
    if evaluation.reason == OTHER_MODEL:
        return Call(evaluation, conditions, latent, None)
    family = family_of(network)
    foreign = others.foreign_block(family, network)
    if foreign:
        evaluation.run.alarm(f"{foreign} stands in for the transformer's blocks: what it leaves out is not counted")
    blocked = f"{foreign} stands in for blocks" if foreign else None
    inside = evaluation.run.method is not None and evaluation.run.method.looks_inside
    blocked = blocked or _blocked(family, network, options, arguments.get("control"), inside)
    return Call(evaluation, conditions, latent, blocked, len(family.blocks(network)))


def _answered(executor, bound: inspect.BoundArguments, options: dict, evaluation: Evaluation, call: Call):
    """One call of the network, with blocks that are watched if they are ours."""
    network = executor.class_obj
    if evaluation.reason != OTHER_MODEL:
        bound.arguments["transformer_options"] = blocks.watched(options, family_of(network), network, call)
    with evaluation.run.counted(call, options["sigmas"].device):
        return call.output(executor(*bound.args, **bound.kwargs))


def _look_at_inputs(call: Call, arguments: dict, network) -> None:
    """What comes in from outside; masks may hold -inf."""
    for name, value in arguments.items():
        if isinstance(value, torch.Tensor) and name != "x" and not name.endswith("mask"):
            call.look("the conditioning", value)
    channels = getattr(network, "out_channels", None)
    call.look("the latent", arguments["x"][:, :channels])
    call.look("the image conditioning", arguments["x"][:, channels:] if channels else arguments["x"][:, :0])


def _blocked(family: Family, network, options: dict, control, inside: bool) -> str | None:
    """Why the method may not answer this call: another node has a part in it that no method knows of."""
    if control is not None:
        return CONTROLNET
    if not blocks.handlers_are_ours(options, family, network) or (inside and not blocks.are_own(family, network)):
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
