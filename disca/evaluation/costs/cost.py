"""What a step costs, in floating-point operations and bytes, from shapes alone: in full and by any cache.

A multiplication with its addition is two operations; those of products and attentions count, as everywhere, and what is
done number by number does not. `host/counting.py` runs the real networks and finds the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, prod

import torch
from torch import nn

from ...host.running.memory import bytes_held
from ...messages import quoted
from ...methods.seam.method import ATTENTION, OUTPUT, SITES, Method, Way
from ...methods.seam.when import AFTER_FIRST, FULL
from ...models.blocks import Place, places_of
from ...models.family import Family

SOFTMAX = 5  # operations for each score of attention: the greatest, minus it, e to that, their sum, over it
QKV, PROJECTION, MLP = 6, 2, 16  # operations of a token in a block's layers, in squared widths
JOINED = 18  # of a block of one stream without queries, keys and values: both layers of its MLP, and the projection
REFINERS, REFINER = 2, "txt_in.individual_token_refiner.blocks"  # of the text, before the blocks
BYTES = 2  # of a number in 16 bits


def latent_shape(family: Family, width: int, height: int, frames: int) -> tuple[int, ...]:
    """The latent [C, T, H, W] of a video of so many pixels and frames; ValueError if it is too small for one."""
    form = family.latent_format()
    space, time = form.spacial_downscale_ratio, form.temporal_downscale_ratio
    shape = (form.latent_channels, (frames - 1) // time + 1, height // space, width // space)
    if 0 in shape:
        raise ValueError(
            f"A video of {width:d}x{height:d}, {frames:d} frames is too small. Take {space:d} pixels at least."
        )
    return shape


@dataclass(frozen=True)
class Shape:
    """A network and a video for it: a latent [1, C, T, H, W] and so many tokens of text."""

    family: Family
    latent: tuple[int, ...]
    text: int
    changes: tuple[tuple[str, object], ...] = ()  # to the published network, in ComfyUI's words
    loaded: nn.Module | None = None  # a network that is there, in place of the published one
    extra: tuple[tuple[str, int], ...] = ()  # embedder and tokens of other inputs that go through the blocks as text

    @cached_property
    def network(self) -> nn.Module:
        """The network; the published one has no memory for its weights."""
        if self.loaded is not None:
            return self.loaded
        with torch.device("meta"):
            return self.family.network(**dict(self.changes))

    @cached_property
    def places(self) -> list[Place]:
        """Its blocks."""
        return places_of(self.family, self.network)

    @property
    def width(self) -> int:
        """Of a token."""
        return self.family.widths(self.network)[0]

    @property
    def heads(self) -> int:
        """Of an attention."""
        return self.family.widths(self.network)[1]

    @property
    def image(self) -> int:
        """Tokens of the video."""
        return prod(ceil(side / part) for side, part in zip(self.latent[2:], self.network.patch_size, strict=True))

    @property
    def tokens(self) -> int:
        """Tokens of video and text."""
        return self.image + self.texts

    @property
    def texts(self) -> int:
        """Tokens that go through the blocks beside the video's."""
        return self.text + sum(count for _, count in self.extra)

    def tokens_of(self, site: str) -> int:
        """Tokens that a site inside a block makes."""
        return {"img": self.image, "txt": self.texts}.get(site.partition("_")[0], self.tokens)


@dataclass(frozen=True)
class Cost:
    """What a step takes."""

    products: float = 0.0  # operations of products and attentions
    scores: float = 0.0  # numbers that a softmax is taken of

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.products + other.products, self.scores + other.scores)

    def times(self, count: float) -> "Cost":
        """Of so many."""
        return Cost(count * self.products, count * self.scores)

    @property
    def with_softmax(self) -> float:
        """Operations, those of softmax among them: as the paper's figure for a full step has them."""
        return self.products + SOFTMAX * self.scores


NOTHING = Cost()


def full_step(shape: Shape) -> Cost:
    """The whole network."""
    return sum((block(shape, place) for place in shape.places), around(shape))


def block(shape: Shape, place: Place) -> Cost:
    """A block of all tokens."""
    size, streams = place.kind.size, len(place.kind.streams)
    modulation = size.weights - size.passed * streams
    products = 2.0 * (size.passed * shape.tokens + modulation) * shape.width**2
    return Cost(products) + attention(shape)


def attention(shape: Shape) -> Cost:
    """Of all tokens to all, in all heads: scores, and sums of values weighed by them."""
    return Cost(4.0 * shape.tokens**2 * shape.width, float(shape.heads * shape.tokens**2))


def around(shape: Shape) -> Cost:
    """What runs before and after the blocks: embedders, the text's refiner, the final layer."""
    network, products = shape.network, 0.0
    rows = {"img_in": shape.image, "final_layer.linear": shape.image, "txt_in.input_embedder": shape.text}
    rows |= {f"{REFINER}.{i}.{part}": shape.text for i in range(REFINERS) for part in ("self_attn", "mlp")}
    rows |= dict(shape.extra)
    unused = ({"vision_in", "byt5_in"} - rows.keys()) | {*shape.family.prefixes}
    for name, weight in network.named_parameters():
        if weight.ndim > 1 and not name.startswith(tuple(unused)):
            count = next((rows[part] for part in rows if name.startswith(part)), 1)
            products += 2.0 * weight.numel() * count
    return Cost(products + REFINERS * 4.0 * shape.text**2 * shape.width, REFINERS * shape.heads * shape.text**2)


def predictor(shape: Shape, depth: int = 2, features: int = 1) -> Cost:
    """A Predictor of so many blocks: it joins now and the cached features, and runs the blocks on that."""
    joined = 2.0 * (2 + features) * shape.width**2 * shape.tokens
    return block(shape, shape.places[-1]).times(depth) + Cost(joined)


def cached_step(shape: Shape, method: Method, way: int = 0, step: int = 1, compute: Cost = NOTHING) -> Cost:
    """A step in which a way of the method stands in; `compute` is what its own network takes."""
    stands = method.ways[way]
    if stands.where == OUTPUT:  # embedders and final layer run all the same
        blocks = []
    elif stands.where == SITES:
        blocks = [answered(shape, place, stands, step) for place in shape.places]
    else:
        blocks = [block(shape, place) for place in shape.places if stands.where not in place.inside]
    looked = block(shape, shape.places[0]) if AFTER_FIRST in method.when.looks and not blocks else NOTHING
    checked = block(shape, shape.places[-1]) if method.when.checks else NOTHING
    return sum((*blocks, looked, checked, compute), around(shape))


def answered(shape: Shape, place: Place, way: Way, step: int) -> Cost:
    """A block whose sites are answered, a share of the tokens run where the answer picks them."""
    size, streams, width = place.kind.size, len(place.kind.streams), shape.width
    made = (size.weights - size.passed * streams) * 2.0  # the modulation, of one token
    if streams == 1:
        tokens = _picked(shape, place, way, "all", step) if "all" in way.sites else shape.tokens
        made += (JOINED + QKV * shape.heads / width) * tokens  # a row of each for every head is made all the same
        return Cost(made * width**2)
    for stream in ("img", "txt"):
        if f"{stream}_attn" not in way.sites:
            made += (QKV + PROJECTION) * shape.tokens_of(stream)
        mlp = f"{stream}_mlp"
        made += MLP * (_picked(shape, place, way, mlp, step) if mlp in way.sites else shape.tokens_of(mlp))
    rest = NOTHING if ATTENTION[0] in way.sites else attention(shape)
    return Cost(made * width**2) + rest


def _picked(shape: Shape, place: Place, way: Way, site: str, step: int) -> int:
    context = {"block": place.number, "blocks": place.count, "site": site, "step": step}
    picked = way.at(site).picks(shape.tokens_of(site), context)
    return 0 if picked is None else len(picked)


def run(shape: Shape, method: Method, sigmas: Sequence[float], compute: Cost = NOTHING) -> Cost:
    """A run of a method whose steps are known before; ValueError if they are not."""
    plan = method.when.plan(sigmas)
    if plan is None:
        raise ValueError(f"The steps of {quoted(method.name)} are decided while it runs. Give it a list of full steps.")
    steps = [
        full_step(shape) if way == FULL else cached_step(shape, method, way, step, compute)
        for step, way in enumerate(plan)
    ]
    return sum(steps, NOTHING)


def held(shape: Shape, method: Method) -> int:
    """Bytes that the method keeps in a run of one video and one condition, in 16 bits."""
    return bytes_held(method, shape.family, shape.network, torch.Size(shape.latent), shape.text, BYTES)
