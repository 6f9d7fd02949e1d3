"""The speed-up that a run should have had by its operations, to stand beside the one that was measured."""

from collections.abc import Sequence
from statistics import mean
from typing import TYPE_CHECKING

from torch import Tensor

from ...host.running.run import KEY
from ...methods.seam.method import Method
from ...methods.seam.when import FULL
from ...models.checks import family_of_model
from ...models.predictor import Predictor
from ...report import Report
from .cost import NOTHING, Cost, Shape, cached_step, full_step, predictor

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher


def speed_up(shape: Shape, method: Method, report: Report, sigmas: Sequence[float], compute: Cost = NOTHING) -> float:
    """Operations of the run's calls had each been full, over those that were made; `compute` as in `cached_step`.

    Calls are those that the report counts: also those in full that were to be cached.
    """
    full, cached = full_step(shape).products, cached_call(shape, method, sigmas, compute)
    in_full = report.full + report.fallbacks.total()
    made = in_full * full + (report.predicted + report.rejected) * cached
    return (in_full + report.predicted) * full / made


def cached_call(shape: Shape, method: Method, sigmas: Sequence[float], compute: Cost = NOTHING) -> float:
    """Operations of a cached call, the mean over the run's; where the plan is not known, over the ways."""
    plan = method.when.plan(sigmas)
    planned = [(way, step) for step, way in enumerate(plan or ()) if way != FULL]
    steps = planned or [(way, 1) for way in range(len(method.ways))]
    return mean(cached_step(shape, method, way, step, compute).products for way, step in steps)


def speed_up_of_run(
    model: "ModelPatcher", positive: list, latent: Tensor, sigmas: Sequence[float], report: Report
) -> float | None:
    """The same of a run of a MODEL; None if it has no method."""
    attachment = model.get_attachment(KEY)
    if attachment is None or attachment.method is None:
        return None
    text = max(entry[0].shape[1] for entry in positive)
    shape = Shape(family_of_model(model), tuple(latent.shape), text, loaded=model.model.diffusion_model)
    return speed_up(shape, attachment.method, report, sigmas, own_network(shape, model))


def own_network(shape: Shape, model: "ModelPatcher") -> Cost:
    """What a Predictor beside the MODEL takes in a cached call; LESA's experts take next to nothing."""
    networks = [each.model for each in model.get_additional_models_with_key(KEY)]
    found = next((network for network in networks if isinstance(network, Predictor)), None)
    return NOTHING if found is None else predictor(shape, len(found.blocks), found.features)
