"""The layouts of Predictor files, as the authors publish them: keys, shapes, and where a file tells its sizes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .files import Shape

if TYPE_CHECKING:
    from .predictor_spec import PredictorSpec

Shapes = dict[str, Shape]


@dataclass(frozen=True)
class PredictorLayout:
    """How the Predictors of one model family are kept in files."""

    family: str  # its name in files and settings
    title: str  # of the family
    fusions: tuple[str, ...]  # the fusion MLPs; the first weight of the first one marks a file
    blocks: str
    block: Callable[["PredictorSpec"], Shapes]  # the weights of a block
    mlp: str  # of a block: the weight whose rows are the MLP's width, and `others` times the network's
    others: int
    norm: str  # of a block: the weight whose rows are a head's width

    @property
    def mark(self) -> str:
        """The key that every such file has, and no other."""
        return f"{self.fusions[0]}.0.weight"

    @property
    def size_keys(self) -> tuple[str, str, str]:
        """The keys whose rows tell a Predictor's width, its MLP's and its heads'."""
        return f"{self.fusions[0]}.2.weight", f"{self.blocks}.0.{self.mlp}", f"{self.blocks}.0.{self.norm}"


def _single_block(spec: "PredictorSpec") -> Shapes:
    width, head, mlp = spec.width, spec.width // spec.heads, int(spec.width * spec.mlp_ratio)
    return {
        **linear("linear1", 3 * width + mlp, width),
        **linear("linear2", width, width + mlp),
        **linear("modulation.linear", 3 * width, width),
        "q_norm.weight": (head,),
        "k_norm.weight": (head,),
    }


def _double_block(spec: "PredictorSpec") -> Shapes:
    width, head, mlp = spec.width, spec.width // spec.heads, int(spec.width * spec.mlp_ratio)
    shapes = {}
    for stream in ("img", "txt"):
        shapes |= {
            **linear(f"{stream}_mod.linear", 6 * width, width),
            **linear(f"{stream}_attn_qkv", 3 * width, width),
            **linear(f"{stream}_attn_proj", width, width),
            **linear(f"{stream}_mlp.fc1", mlp, width),
            **linear(f"{stream}_mlp.fc2", width, mlp),
            f"{stream}_attn_q_norm.weight": (head,),
            f"{stream}_attn_k_norm.weight": (head,),
        }
    return shapes


def linear(key: str, outputs: int, inputs: int) -> Shapes:
    """The weights of a linear layer."""
    return {f"{key}.weight": (outputs, inputs), f"{key}.bias": (outputs,)}


SINGLE_STREAM = PredictorLayout(
    family="1.0",
    title="HunyuanVideo 1.0",
    fusions=("fusion_mlp",),
    blocks="mm_single_blocks",
    block=_single_block,
    mlp="linear1.weight",
    others=3,
    norm="k_norm.weight",
)
DOUBLE_STREAM = PredictorLayout(
    family="1.5",
    title="HunyuanVideo 1.5",
    fusions=("fusion_mlp_img", "fusion_mlp_txt"),
    blocks="double_blocks",
    block=_double_block,
    mlp="img_mlp.fc1.weight",
    others=0,
    norm="img_attn_k_norm.weight",
)
LAYOUTS = {layout.family: layout for layout in (SINGLE_STREAM, DOUBLE_STREAM)}
