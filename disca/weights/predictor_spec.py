"""What a Predictor is, and the weights that it must have."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from .files import Shape

FAMILIES = {"1.0": "HunyuanVideo 1.0", "1.5": "HunyuanVideo 1.5"}


@dataclass(frozen=True)
class PredictorSpec:
    """What a Predictor is: read from its tensors, but for its form and origin, which only metadata can tell."""

    family: str  # a key of FAMILIES
    width: int
    depth: int
    heads: int
    mlp_ratio: float
    residual: bool = False  # adds to the cached features instead of giving new ones
    base_model: str = ""
    training: Mapping = field(default_factory=dict)

    @property
    def described(self) -> str:
        """What it is, in a message."""
        return f"a {FAMILIES[self.family]} Predictor (width {self.width:d}, {self.depth:d} blocks)"


def published_shapes(spec: PredictorSpec) -> dict[str, Shape]:
    """The keys and shapes of the Predictor's weights, in the authors' merged layout."""
    fusions, blocks, block = {
        "1.0": (("fusion_mlp",), "mm_single_blocks", _single_block),
        "1.5": (("fusion_mlp_img", "fusion_mlp_txt"), "double_blocks", _double_block),
    }[spec.family]
    shapes = {}
    for fusion in fusions:
        shapes |= _linear(f"{fusion}.0", spec.width, 2 * spec.width) | _linear(f"{fusion}.2", spec.width, spec.width)
    for i in range(spec.depth):
        shapes |= {f"{blocks}.{i}.{key}": shape for key, shape in block(spec).items()}
    return shapes


def _single_block(spec: PredictorSpec) -> dict[str, Shape]:
    width, head, mlp = spec.width, spec.width // spec.heads, int(spec.width * spec.mlp_ratio)
    return {
        **_linear("linear1", 3 * width + mlp, width),
        **_linear("linear2", width, width + mlp),
        **_linear("modulation.linear", 3 * width, width),
        "q_norm.weight": (head,),
        "k_norm.weight": (head,),
    }


def _double_block(spec: PredictorSpec) -> dict[str, Shape]:
    width, head, mlp = spec.width, spec.width // spec.heads, int(spec.width * spec.mlp_ratio)
    shapes = {}
    for stream in ("img", "txt"):
        shapes |= {
            **_linear(f"{stream}_mod.linear", 6 * width, width),
            **_linear(f"{stream}_attn_qkv", 3 * width, width),
            **_linear(f"{stream}_attn_proj", width, width),
            **_linear(f"{stream}_mlp.fc1", mlp, width),
            **_linear(f"{stream}_mlp.fc2", width, mlp),
            f"{stream}_attn_q_norm.weight": (head,),
            f"{stream}_attn_k_norm.weight": (head,),
        }
    return shapes


def _linear(key: str, outputs: int, inputs: int) -> dict[str, Shape]:
    return {f"{key}.weight": (outputs, inputs), f"{key}.bias": (outputs,)}
