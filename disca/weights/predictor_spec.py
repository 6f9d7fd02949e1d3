"""What a Predictor is, and the weights that it must have."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from .files import Shape
from .predictor_layout import LAYOUTS, linear

AGES_IN, AGES_HIDDEN = 96, 64  # widths of what tells a Predictor of two features how old they are
AGES_MARK = "ages.vec.0.weight"  # which only such a file has


@dataclass(frozen=True)
class PredictorSpec:
    """What a Predictor is: read from its tensors, but for its form and origin, which only metadata can tell."""

    family: str  # a key of LAYOUTS
    width: int
    depth: int
    heads: int
    mlp_ratio: float
    residual: bool = False  # adds to the cached features instead of giving new ones
    features: int = 1  # of so many full steps it sees the features: 1 or 2
    base_model: str = ""
    training: Mapping = field(default_factory=dict)

    @property
    def form(self) -> str:
        """Its name in settings and files."""
        return "two" if self.features > 1 else "residual" if self.residual else "authors"

    @property
    def described(self) -> str:
        """What it is, in a message."""
        return f"a {LAYOUTS[self.family].title} Predictor (width {self.width:d}, {self.depth:d} blocks)"


def published_shapes(spec: PredictorSpec) -> dict[str, Shape]:
    """The keys and shapes of the Predictor's weights, in the authors' merged layout."""
    layout, shapes = LAYOUTS[spec.family], {}
    for fusion in layout.fusions:
        shapes |= linear(f"{fusion}.0", spec.width, 2 * spec.width) | linear(f"{fusion}.2", spec.width, spec.width)
        if spec.features > 1:
            shapes[f"{fusion}.change.weight"] = (spec.width, spec.width)
    if spec.features > 1:
        for mlp in ("vec", *(f"damping.{i:d}" for i in range(len(layout.fusions)))):
            shapes |= linear(f"ages.{mlp}.0", AGES_HIDDEN, AGES_IN) | linear(f"ages.{mlp}.2", spec.width, AGES_HIDDEN)
    for i in range(spec.depth):
        shapes |= {f"{layout.blocks}.{i}.{key}": shape for key, shape in layout.block(spec).items()}
    return shapes
