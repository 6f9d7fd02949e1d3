"""The paper's Table 7 beside what our formulas give: HunyuanVideo 1.0, 704x704, 129 frames, in 10^12 operations."""

from collections.abc import Iterator
from dataclasses import dataclass

from ...meanflow import shifted_sigmas
from ...methods import METHODS
from ...methods.scheduled.disca import disca
from ...methods.seam.anchors import AtAnchors
from ...methods.seam.method import Method
from ...models.family import FAMILIES
from ...schedule import PRESETS
from .cost import NOTHING, Cost, Shape, full_step, predictor, run

SHAPE = Shape(FAMILIES["1.0"], (1, 16, 33, 88, 88), 256)
SHIFT = 5.0
STEPS, DISTILLED = 50, 20  # of the original, and of Restricted MeanFlow
TERA = 1e12


@dataclass(frozen=True)
class Row:
    """A figure of the paper's, and ours; where ours is not to be had from shapes, why."""

    name: str
    paper: float
    ours: float | None = None
    reason: str = ""

    @property
    def apart(self) -> float | None:
        """Ours over the paper's, less 1."""
        return None if self.ours is None else self.ours / self.paper - 1.0


def rows() -> Iterator[Row]:
    """The table, in the paper's order."""
    full = full_step(SHAPE)
    yield Row("a full step", 3945.52, _tera(full))
    yield Row("50 steps with guidance", 394552.32, _tera(full.times(2 * STEPS)))
    yield Row("50 steps, guidance distilled", 197276.16, _tera(full.times(STEPS)))
    yield Row("Delta-DiT, N=5", 92068.57, _cached("Delta-DiT", interval=5))
    yield Row("Delta-DiT, N=8", 84178.00, _cached("Delta-DiT", interval=8))
    yield Row("PAB, N=5", 64688.07, _cached("PAB", interval=5))
    yield Row("PAB, N=8", 58058.68, reason="counts 8 steps in full, where every eighth of 50 is 7")
    yield Row("TeaCache, 0.15", 75350.10, reason="19.10 steps in full, a mean over prompts: it decides while it runs")
    yield Row("TeaCache, 0.4", 40779.21, reason="10.34 steps in full, a mean over prompts: it decides while it runs")
    yield Row("FORA, N=3", 78910.46, reason="counts 20 steps in full, where every third of 50 is 17")
    yield Row("FORA, N=6", 35509.71, _cached("FORA", interval=6))
    yield Row(
        "TaylorSeer, N=3", 78910.46, reason="counts 20 steps in full, where three and every third of the rest are 18"
    )
    yield Row("TaylorSeer, N=6", 43400.76, _cached("TaylorSeer", interval=6, warmup=4))
    for name, paper in (("N=2", 52239.36), ("N=3", 44619.05), ("N=4", 33188.56)):
        yield Row(f"DisCa, {name}", paper, _tera(_disca(name)))


def predicted_share() -> float:
    """A step of the authors' Predictor over a full one: 3.43 % in the paper."""
    return predictor(SHAPE).with_softmax / full_step(SHAPE).with_softmax


def _cached(name: str, **settings) -> float:
    return _tera(_of(METHODS[name](**settings).method(), STEPS))


def _disca(name: str) -> Cost:
    schedule = next(preset for preset in PRESETS.values() if preset.steps == DISTILLED and name in preset.name)
    return _of(disca(AtAnchors(schedule)), DISTILLED, predictor(SHAPE))


def _of(method: Method, steps: int, compute: Cost = NOTHING) -> Cost:
    return run(SHAPE, method, shifted_sigmas(steps, SHIFT).tolist(), compute)


def _tera(cost: Cost) -> float:
    return cost.with_softmax / TERA
