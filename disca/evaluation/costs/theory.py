"""The speed-up that a run should have had by its operations, to stand beside the one that was measured."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ...host.running.run import KEY
from ...methods.seam.method import Method
from ...methods.seam.when import FULL
from ...models.checks import family_of_model
from ...models.predictor import Predictor
from ...report import Report
from .cost import NOTHING, Cost, Shape, block, cached_step, full_step, predictor

if TYPE_CHECKING:
    from comfy.model_patcher import ModelPatcher


COUNTED = ("1.0", "1.5")  # families that the formulas were held to counting for


def speed_up(
    shape: Shape, method: Method, report: Report, sigmas: Sequence[float], compute: Cost = NOTHING
) -> float | None:
    """Operations of the run had all of it been in full, over those that were made; None if none were.

    Counted are the rows of calls, which may part, or the calls themselves where something ran in full unplanned.
    `compute` is as in `cached_step`.
    """
    whole = full_step(shape).products
    if report.rows and not report.fallbacks:
        cached, in_full = (sum(kind) for kind in zip(*report.rows.values(), strict=True))
        again, again_in_full = report.rows_rejected
    else:
        cached, in_full = report.predicted, report.full + report.fallbacks.total()
        again, again_in_full = report.rejected, 0
    checks = block(shape, shape.places[-1]).products if method.when.checks else 0.0
    made = (in_full + again_in_full) * whole + (cached + again) * cached_call(shape, method, sigmas, compute)
    made -= report.rows_unchecked * checks
    return (in_full + cached) * whole / made if made else None


def cached_call(shape: Shape, method: Method, sigmas: Sequence[float], compute: Cost = NOTHING) -> float:
    """Operations of a cached call, the mean over the run's; where the plan is not known, over the ways."""
    plan = method.when.plan(sigmas)
    planned = [(way, step) for step, way in enumerate(plan or ()) if way != FULL]
    steps = planned or [(way, 1) for way in range(len(method.ways))]
    return mean(cached_step(shape, method, way, step, compute).products for way, step in steps)


def speed_up_of_run(
    model: "ModelPatcher", positive: list, latent: Tensor, sigmas: Sequence[float], report: Report
) -> float | None:
    """The same of a run of a MODEL; None if it has no method, or is of a family whose operations are not known."""
    attachment, family = model.get_attachment(KEY), family_of_model(model)
    if attachment is None or attachment.method is None or family.name not in COUNTED:
        return None
    network = model.model.diffusion_model
    text, extra = max((texts_of(network, tokens, options) for tokens, options, *_ in positive), key=lambda one: one[0])
    shape = Shape(family, tuple(latent.shape), text, loaded=network, extra=extra)
    return speed_up(shape, attachment.method, report, sigmas, own_network(shape, model))


def texts_of(network: nn.Module, tokens: Tensor, options: Mapping[str, Any]) -> tuple[int, tuple[tuple[str, int], ...]]:
    """Tokens of text in a conditioning, and those of the other inputs that go through the blocks beside them."""
    glyphs, seen = options.get("conditioning_byt5small"), options.get("clip_vision_output")
    given = {"byt5_in": glyphs, "vision_in": getattr(seen, "last_hidden_state", None)}
    extra = [(name, found.shape[1]) for name, found in given.items() if found is not None and getattr(network, name)]
    return tokens.shape[1], tuple(extra)


def own_network(shape: Shape, model: "ModelPatcher") -> Cost:
    """What a Predictor beside the MODEL takes in a cached call; LESA's experts take next to nothing."""
    networks = [each.model for each in model.get_additional_models_with_key(KEY)]
    found = next((network for network in networks if isinstance(network, Predictor)), None)
    return NOTHING if found is None else predictor(shape, len(found.blocks), found.features)
