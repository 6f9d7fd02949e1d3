"""The wrapper around a whole sampling run: checks that it can be right, gives it fresh state, reports, lets it go."""

import inspect
import logging
from dataclasses import dataclass

from comfy.model_patcher import ModelPatcher, create_model_options_clone
from comfy.patcher_extension import WrappersMP, get_all_callbacks

from ...messages import listing
from ...methods.seam.anchors import planned_in_full
from ...methods.seam.method import Method
from ...models.checks import (
    family_of_model,
    require_channels,
    require_conditioning,
    require_no_foreign_cache,
    require_sigmas,
)
from ...models.family import family_of
from ...report import Report
from ...schedule import first_steps
from ...schedule_file import other_method, require_fits
from . import progress, samplers
from .features import FeatureStore
from .memory import require_room
from .observation import others
from .observation.observed import Observed
from .run import KEY, ON_REPORT, Run

NO_METHOD = "neither a Predictor nor a cache is on the model"
ALL_FULL = "every step was to run in full"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Attachment:
    """What a patched MODEL carries from run to run: settings, no state."""

    method: Method | None = None
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
    if run.method is not None:
        cache_device = guider.model_patcher.get_attachment(KEY).cache_device
        require_room(guider.model_patcher, run.method, noise.shape, guider.conds, cache_device)
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
    _hand_on(run.finish(), original["transformer_options"])
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
    family, network = family_of_model(model), model.model.diffusion_model
    networks = model.get_additional_models_with_key(KEY)
    method = attachment.method if len(sigmas) > 1 else None
    if attachment.method is not None:
        require_no_foreign_cache(options["transformer_options"])
    if method is not None and (listing := method.when.listing()) is not None:
        require_fits(listing, family.title, sigmas)
    store, observed = FeatureStore(attachment.cache_device), Observed(samplers.name_of(sampler), masked)
    compute = networks[0].model if networks else None
    run = Run(sigmas, family, network, method, compute, store, observed)
    anchors = planned_in_full(method.when, sigmas) if method else frozenset()
    if method is None or (anchors is not None and len(anchors) == len(first_steps(sigmas))):
        run.report.only_full = ALL_FULL if attachment.method else NO_METHOD
    warnings = [samplers.require_keeps_r(sampler)] if family.takes_r(network) else []
    if method is not None:
        warnings += [method.notice(sigmas, family.name), other_method(method.when.listing(), method.name)]
    run.report.warnings += [warning for warning in warnings if warning]
    for warning in run.report.warnings:
        logger.warning("DisCa: %s", warning)
    return run


def _judge(run: Run, options: dict, sampler) -> None:
    """What the run turned out to be, where it was not what was asked for: said first in the report, and logged."""
    unreached = run.reach.problem()
    run.alarm(unreached)
    if unreached and (names := others.on_the_way(options, run.network)):
        run.alarm(f"other nodes on this MODEL: {listing(names, 3, str)}")
    run.alarm(run.reach.idle_problem())
    if family_of(run.network).takes_r(run.network) and not samplers.extrapolates(sampler):
        run.alarm(run.observed.problem())
    run.alarm(run.finite.problem())
    for alarm in run.report.alarms:
        logger.warning("DisCa: %s", alarm)


def _hand_on(report: Report, options: dict) -> None:
    logger.info("DisCa: %s", "; ".join(report.lines))
    progress.show(progress.LINE_BREAK.join(report.short))
    for callback in get_all_callbacks(ON_REPORT, options):
        callback(report)
