"""The sizes of a training: a network's widths and counts, and the tokens that go through it at once."""

from dataclasses import dataclass, replace
from math import prod

from ...models.family import FAMILIES, Family
from ...toy.dataset import TOY, ToyDataset
from ..contract.settings import DataSettings, ModelSettings, Settings


@dataclass(frozen=True)
class Sizes:
    """A network and what goes through it at once."""

    width: int
    double: int
    single: int
    weights: int
    block_weights: int  # of those, the blocks'
    tokens: int  # image and text
    batch: int = 1

    @property
    def blocks(self) -> int:
        """How many there are."""
        return self.double + self.single

    @property
    def unit(self) -> float:
        """Bytes of one width of activations in bf16."""
        return 2.0 * self.tokens * self.width * self.batch

    def forward(self, blocks: int | None = None) -> tuple[float, float]:
        """Floating-point operations of so many blocks, by default all: in linear layers, in attention."""
        blocks = self.blocks if blocks is None else blocks
        each = 24 * self.width**2 * self.tokens, 4 * self.tokens**2 * self.width
        return each[0] * blocks * self.batch, each[1] * blocks * self.batch

    def predictor(self, depth: int) -> float:
        """Floating-point operations of a Predictor of so many blocks: what joins now and the cache, and these."""
        return sum(self.forward(depth)) + 6 * self.width**2 * self.tokens * self.batch


def _published(family: Family) -> Sizes:
    config, published = family.config, family.published
    counts = config["hidden_size"], config["depth"], config["depth_single_blocks"]
    return Sizes(*counts, published.weights, published.block_weights, published.tokens)


# At the sizes that they were published for.
PUBLISHED = {row.name: _published(row) for row in FAMILIES.values() if row.published}


def sizes_of_run(settings: Settings) -> Sizes:
    """The network that the settings name, and the longest sample of their dataset."""
    weights = _weight_shapes(settings.model)
    patch = weights["img_in.proj.weight"][2:]
    tokens = max(_tokens(shapes, patch) for shapes in _sample_shapes(settings.data))
    return replace(sizes_of(weights), tokens=tokens, batch=settings.data.batch)


def sizes_of(weights: dict[str, tuple[int, ...]], tokens: int = 0) -> Sizes:
    """The sizes of a network from the shapes of its weights."""
    counts = {name: prod(shape) for name, shape in weights.items()}
    kinds = tuple(dict.fromkeys(prefix for family in FAMILIES.values() for prefix in family.prefixes))
    blocks = {kind: {name.split(".")[1] for name in weights if name.startswith(kind)} for kind in kinds}
    return Sizes(
        width=weights["img_in.proj.weight"][0],
        double=len(blocks[kinds[0]]),
        single=len(blocks[kinds[1]]),
        weights=sum(counts.values()),
        block_weights=sum(count for name, count in counts.items() if name.startswith(kinds)),
        tokens=tokens,
    )


def _weight_shapes(model: ModelSettings) -> dict[str, tuple[int, ...]]:
    if not model.path:
        from ...toy.network import new_network

        state = new_network(model.toy, seed=0).state_dict()
        return {name: tuple(tensor.shape) for name, tensor in state.items()}
    from ...weights.files import open_weights
    from ...weights.transformer_file import transformer_weights

    return transformer_weights(open_weights(model.path)).shapes


def _sample_shapes(data: DataSettings) -> list[dict[str, tuple[int, ...]]]:
    if data.path == TOY:
        return [{name: tuple(tensor.shape) for name, tensor in ToyDataset()[0].items()}]
    from ..data.dataset import open_dataset

    return [item.shapes for item in open_dataset(data.path, data.cache).index.items]


def _tokens(shapes: dict[str, tuple[int, ...]], patch: tuple[int, ...]) -> int:
    image = prod(size // by for size, by in zip(shapes["latent"][1:], patch, strict=True))
    return image + sum(shapes[name][0] for name in ("context", "txt_byt5", "clip_fea") if name in shapes)
