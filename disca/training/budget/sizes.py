"""The sizes of a training: a network's widths and counts, and the tokens that go through it at once."""

from dataclasses import dataclass, replace
from math import prod

from ...models.block_kind import BlockKind
from ...models.family import FAMILIES, Family
from ...toy.dataset import TOY, ToyDataset
from ..contract.settings import DataSettings, ModelSettings, Settings

HEAD = 128  # of every HunyuanVideo


@dataclass(frozen=True)
class Sizes:
    """A network and what goes through it at once."""

    family: Family
    width: int
    counts: tuple[int, ...]  # of the family's kinds of blocks
    weights: int
    block_weights: int  # of those, the blocks'
    tokens: int  # image and text
    batch: int = 1
    number: int = 2  # bytes of one in the network: bf16

    @property
    def kinds(self) -> list[tuple[BlockKind, int]]:
        """The kinds of blocks that the network has, and how many of each."""
        return [(kind, count) for kind, count in zip(self.family.kinds, self.counts, strict=True) if count]

    @property
    def blocks(self) -> int:
        """How many there are."""
        return sum(self.counts)

    @property
    def unit(self) -> float:
        """Bytes of one width of activations."""
        return float(self.number * self.tokens * self.width * self.batch)

    @property
    def positions(self) -> float:
        """Bytes of the rotary embedding: in fp32, for each token a 2x2 rotation of every pair of a head's numbers."""
        return 4.0 * 4 * (HEAD // 2) * self.tokens

    def fusion_weights(self, features: int) -> int:
        """A Predictor's, which join now and the cache: a squared width more in each stream for each feature."""
        last, _ = self.kinds[-1]
        return (2 + features) * self.width**2 * len(last.streams)

    @property
    def largest_block_weights(self) -> int:
        """Those of a block of the kind that has most."""
        return max(kind.size.weights for kind, _ in self.kinds) * self.width**2

    @property
    def last_block_weights(self) -> float:
        """Those of a block of the last kind, of which Predictors are made."""
        *others, (_, count) = self.kinds
        taken = sum(number * kind.size.weights for kind, number in others) * self.width**2
        return (self.block_weights - taken) / count

    def forward(self) -> tuple[float, float]:
        """Floating-point operations of all blocks: in linear layers, in attention."""
        return self._through(self.kinds)

    def predictor(self, depth: int, features: int) -> float:
        """Floating-point operations of a Predictor of so many blocks: what joins now and the cache, and these."""
        last, _ = self.kinds[-1]
        return sum(self._through([(last, depth)])) + 2 * (2 + features) * self.width**2 * self.tokens * self.batch

    def _through(self, kinds: list[tuple[BlockKind, int]]) -> tuple[float, float]:
        passed = sum(count * kind.size.passed for kind, count in kinds)
        linear, attention = 2 * passed * self.width**2, 4 * self.tokens * self.width * sum(count for _, count in kinds)
        return linear * self.tokens * self.batch, attention * self.tokens * self.batch


def _published(family: Family) -> Sizes:
    config, published = family.config, family.published
    counts = tuple(config[kind.count] for kind in family.kinds)
    return Sizes(family, config[family.sizes[0]], counts, published.weights, published.block_weights, published.tokens)


# At the sizes that they were published for.
PUBLISHED = {row.name: _published(row) for row in FAMILIES.values() if row.published}


def sizes_of_run(settings: Settings) -> Sizes:
    """The network that the settings name, and the longest sample of their dataset."""
    weights = _weight_shapes(settings.model)
    sizes = sizes_of(weights)
    patch = weights[sizes.family.patches][2:]
    tokens = max(_tokens(shapes, patch, sizes.family.text_tokens) for shapes in _sample_shapes(settings.data))
    number = {"bf16": 2, "fp32": 4}[settings.model.dtype]
    return replace(sizes, tokens=tokens, batch=settings.data.batch, number=number)


def sizes_of(weights: dict[str, tuple[int, ...]], tokens: int = 0) -> Sizes:
    """The sizes of a network from the shapes of its weights."""
    counts = {name: prod(shape) for name, shape in weights.items()}
    family = next(row for row in FAMILIES.values() if row.patches in weights)
    blocks = [{name.split(".")[1] for name in weights if name.startswith(prefix)} for prefix in family.prefixes]
    return Sizes(
        family,
        width=weights[family.patches][0],
        counts=tuple(map(len, blocks)),
        weights=sum(counts.values()),
        block_weights=sum(count for name, count in counts.items() if name.startswith(family.prefixes)),
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
    from ..data.dataset import open_dataset

    shapes = []
    for source in data.sources:
        if source.path == TOY:
            shapes.append({name: tuple(tensor.shape) for name, tensor in ToyDataset()[0].items()})
        else:
            shapes += [item.shapes for item in open_dataset(source.path, data.cache).index.items]
    return shapes


def _tokens(shapes: dict[str, tuple[int, ...]], patch: tuple[int, ...], texts: tuple[str, ...]) -> int:
    image = prod(size // by for size, by in zip(shapes["latent"][1:], patch, strict=True))
    return image + sum(shapes[name][0] for name in texts if name in shapes)
