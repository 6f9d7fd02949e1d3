"""The table of what steps cost: every method of one shape, and the paper's figures beside ours."""

from collections.abc import Iterator

from ...host.counting import Counter
from ...methods import METHODS
from ...methods.scheduled.disca import disca
from ...methods.seam.anchors import AtAnchors
from ...methods.seam.method import Method
from ...models.family import FAMILIES
from ...schedule import Anchors
from . import published
from .cost import NOTHING, Cost, Shape, block, cached_step, full_step, held, latent_shape, predictor
from .published import TERA

SIZES = {"1.0": ((704, 704, 129), 256), "1.5": ((848, 480, 121), 1000)}  # pixels and tokens of text
EIGHT = 8  # of 20 steps in full, for the speed-up in the table
STEPS = 20
LONG = 8  # steps of a run in which every way comes up
COMPUTE = {"DisCa": 1, "DisCa, two features": 2}  # features that the Predictor sees


def shape_of(family: str, size: tuple[int, int, int] | None = None, text: int | None = None) -> Shape:
    """A family's network and a video of WIDTH, HEIGHT, FRAMES; ValueError if it is too small."""
    row, (usual, tokens) = FAMILIES[family], SIZES[family]
    latent = (1, *latent_shape(row, *(size or usual)))
    return Shape(row, latent, tokens if text is None else text)


def lines(shape: Shape, count: bool = False) -> Iterator[str]:
    """A line for each method: a cached step, its share of a full one, the speed-up with 8 of 20 in full, bytes kept."""
    full, counter = full_step(shape), Counter(shape.family, shape.latent, shape.text) if count else None
    frames, height, width = shape.latent[2:]
    yield f"{shape.family.title}, latent {frames:d}x{height:d}x{width:d}, {shape.tokens:,} tokens"
    yield f"a full step: {full.products / TERA:,.2f} T" + (
        f", counted {counter.steps(None, 1)[0] / TERA:,.2f} T" if counter else ""
    )
    yield f"{'':22s} {'cached step':>12s} {'of a full one':>14s} {'8 of 20':>8s} {'GB kept':>8s}" + "  counted" * count
    for name, method, compute in methods(shape):
        for way in range(len(method.ways)):
            cached = cached_step(shape, method, way, compute=compute)
            speed = STEPS / (EIGHT + (STEPS - EIGHT) * cached.products / full.products)
            title = f"{name}, by turns {way + 1:d}" if len(method.ways) > 1 else name
            said = (
                f"{title:22s} {cached.products / TERA:10,.2f} T {cached.products / full.products:13.2%} {speed:7.2f}x"
            )
            yield f"{said} {held(shape, method) / 1e9:8.2f}" + (
                f"  {_counted(counter, method, way)}{_of_the_check(method, compute)}" if counter else ""
            )


def methods(shape: Shape) -> Iterator[tuple[str, Method, Cost]]:
    """Every method, full in as many first steps as it needs, and what its own network or its rule's check takes."""
    for name, features in COMPUTE.items():
        rule = AtAnchors(Anchors(tuple(range(features))))
        yield name, disca(rule, features), predictor(shape, features=features)
    rule = AtAnchors(Anchors((0,)))
    for name, cache in METHODS.items():
        if not (method := cache().method(rule)).computes:
            yield name, method, block(shape, shape.places[-1]) if cache().rule().checks else NOTHING


def paper() -> Iterator[str]:
    """Table 7 of the paper, and what the formulas say."""
    yield f"\nthe paper's Table 7, in T: a predicted step is {published.predicted_share():.2%} of a full one (3.43 %)"
    for row in published.rows():
        said = row.reason if row.ours is None else f"{row.ours:12,.2f}  {row.apart:+.2%}"
        yield f"{row.name:30s} {row.paper:12,.2f}  {said}"


def _counted(counter: Counter, method: Method, way: int) -> str:
    return f"{counter.steps(method, steps_to(method, way))[-1] / TERA:,.2f} T"


def _of_the_check(method: Method, compute: Cost) -> str:
    """What a rule's check adds, which looks at numbers and cannot be run on tensors without memory."""
    return "" if method.computes or compute == NOTHING else f" and {compute.products / TERA:,.2f} T of the check"


def steps_to(method: Method, way: int) -> int:
    """The fewest steps of a run whose last one is answered in that way."""
    plan = method.when.plan([1.0 - step / LONG for step in range(LONG + 1)])
    return plan.index(way) + 1
