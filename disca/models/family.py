"""The model families that DisCa knows: a row each, and all that tells them apart.

A new family is a row here. ComfyUI is asked for its classes only when they are needed, so that a command may list the
families before there is a ComfyUI.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn

from ..weights.predictor_layout import DOUBLE_STREAM, SINGLE_STREAM, PredictorLayout
from ..weights.predictor_spec import PredictorSpec
from .block_kind import BlockKey, BlockKind, BlockSize
from .predictor import DoubleStreamPredictor, SingleStreamPredictor


class Text(NamedTuple):
    """The shape of a text input."""

    dimensions: int
    width: int
    exact: bool = True  # False: what is wider is cut


class Published(NamedTuple):
    """The published network, and what it was published for."""

    weights: int
    block_weights: int  # of those, the blocks'
    tokens: int  # image and text, of the longest video


@dataclass(frozen=True)
class Family:
    """A family of models: what its networks consist of, and what ComfyUI calls what belongs to them."""

    layout: PredictorLayout  # of the Predictor's files
    predictor: Callable[[PredictorSpec, dict], nn.Module]  # a new one, with ComfyUI's type, device and operations
    kinds: tuple[BlockKind, ...]  # in the order they run; features are the tokens after the last one
    includes: Callable[[nn.Module], bool]  # whether a network is of this family
    model: str  # in comfy.supported_models
    latent: str  # in comfy.latent_formats
    text: str  # in comfy.sd.CLIPType
    made_of: Callable[[], type]  # ComfyUI's class of the network
    first_frame: bool  # whether the network has an input for one
    config: Mapping[str, Any] = field(repr=False)  # the published network, in ComfyUI's words
    published: Published | None
    widths: Callable[[nn.Module], tuple[int, int]]  # of a network's tokens, and the number of its heads
    texts: Callable[[nn.Module], dict[str, Text]]  # what a network reads of a conditioning, by ComfyUI's names
    caption_tokens: int  # of a caption's text encoder that the network was trained with
    patches: str = "img_in.proj.weight"  # [width, channels, *patch], makes tokens of patches
    text_tokens: tuple[str, ...] = ("context", "txt_byt5", "clip_fea")  # inputs that go through the blocks as tokens
    sizes: tuple[str, str] = ("hidden_size", "num_heads")  # width and heads, in ComfyUI's configuration
    r_in: str = "time_r_in"  # a MeanFlow network's embedder of r

    @property
    def name(self) -> str:
        """What files and settings call it."""
        return self.layout.family

    @property
    def title(self) -> str:
        """What users call it."""
        return self.layout.title

    def takes_r(self, network: nn.Module) -> bool:
        """Whether the network is told where a step ends."""
        return getattr(network, self.r_in, None) is not None

    def blocks(self, network: nn.Module) -> list[BlockKey]:
        """The keys of a network's blocks, in the order they run."""
        return [(kind.key, i) for kind in self.kinds for i in range(len(kind.of(network)))]

    @property
    def prefixes(self) -> tuple[str, ...]:
        """What the names of all weights of blocks begin with."""
        return tuple(f"{kind.attribute}." for kind in self.kinds)

    def sized(self, width: int, heads: int, counts: Sequence[int]) -> dict[str, int]:
        """ComfyUI's configuration of a network of that width and heads, with so many blocks of each kind."""
        names = (*self.sizes, *(kind.count for kind in self.kinds))
        return dict(zip(names, (width, heads, *counts), strict=True))

    def last_kind(self, network: nn.Module) -> BlockKind:
        """The kind that a network's blocks end with."""
        return [kind for kind in self.kinds if kind.of(network)][-1]

    def kind(self, block: BlockKey) -> BlockKind:
        """The kind of a block."""
        return next(kind for kind in self.kinds if kind.key == block[0])

    def module(self, network: nn.Module, block: BlockKey) -> nn.Module:
        """The block of that key."""
        return self.kind(block).of(network)[block[1]]

    def comfy_config(self, **changes):
        """ComfyUI's configuration of the published network, with these changes."""
        import comfy.supported_models

        return getattr(comfy.supported_models, self.model)({**self.config, **changes})

    def network(self, operations=None, **changes) -> nn.Module:
        """A bare network like the published one but for these changes, in fp32; by default of layers that cast."""
        import comfy.ops

        settings = {"dtype": torch.float32, "operations": operations or comfy.ops.manual_cast}
        return self.made_of()(**{**self.config, **changes}, **settings)

    def latent_format(self):
        """ComfyUI's description of the family's latents."""
        import comfy.latent_formats

        return getattr(comfy.latent_formats, self.latent)()

    def clip_type(self):
        """ComfyUI's name for the text encoders."""
        import comfy.sd

        return comfy.sd.CLIPType[self.text]


DOUBLE_BLOCKS = BlockKind(
    key="double_block",
    attribute="double_blocks",
    streams=("img", "txt"),
    context={
        "vec": "vec",
        "pe": "pe",
        "attention_mask": "attn_mask",
        "modulation_dims_img": "modulation_dims_img",
        "modulation_dims_txt": "modulation_dims_txt",
    },
    made_of=lambda: _flux("DoubleStreamBlock"),
    count="depth",
    size=BlockSize(weights=36, passed=12, adapted=32),
    into_one=("txt", "img"),
    sites=("img_attn", "txt_attn", "img_mlp", "txt_mlp"),
)
SINGLE_BLOCKS = BlockKind(
    key="single_block",
    attribute="single_blocks",
    streams=("img",),
    context={"vec": "vec", "pe": "pe", "attention_mask": "attn_mask", "modulation_dims": "modulation_dims"},
    made_of=lambda: _flux("SingleStreamBlock"),
    count="depth_single_blocks",
    size=BlockSize(weights=15, passed=12, adapted=14),
    joined=True,
    sites=("attn", "all"),
)
SHARED = {
    "image_model": "hunyuan_video",
    "mlp_ratio": 4.0,
    "axes_dim": [16, 56, 56],
    "theta": 256,
    "qkv_bias": True,
    "meanflow": True,
}


def _flux(name: str) -> type:
    from comfy.ldm.flux import layers

    return getattr(layers, name)


def _hunyuanvideo() -> type:
    from comfy.ldm.hunyuan_video.model import HunyuanVideo

    return HunyuanVideo


def _is_hunyuanvideo(network: nn.Module) -> bool:
    return isinstance(network, _hunyuanvideo()) and len(network.patch_size) == 3  # two in its image models


def _hunyuanvideo_texts(network: nn.Module) -> dict[str, Text]:
    params = network.params
    texts = {"cross_attn": Text(3, params.context_in_dim)}
    return texts if params.vec_in_dim is None else texts | {"pooled_output": Text(2, params.vec_in_dim, exact=False)}


def _single_stream_predictor(spec: PredictorSpec, settings: dict) -> nn.Module:
    def block() -> nn.Module:
        return _flux("SingleStreamBlock")(spec.width, spec.heads, spec.mlp_ratio, **settings)

    return SingleStreamPredictor(spec.width, spec.depth, block, _linear(settings), spec.residual, spec.features)


def _double_stream_predictor(spec: PredictorSpec, settings: dict) -> nn.Module:
    def block() -> nn.Module:
        return _flux("DoubleStreamBlock")(spec.width, spec.heads, spec.mlp_ratio, qkv_bias=True, **settings)

    return DoubleStreamPredictor(spec.width, spec.depth, block, _linear(settings), spec.residual, spec.features)


def _linear(settings: dict) -> Callable[..., nn.Module]:
    kept = {name: settings[name] for name in ("dtype", "device")}
    return lambda inputs, outputs, bias=True: settings["operations"].Linear(inputs, outputs, bias=bias, **kept)


HUNYUANVIDEO_10 = Family(
    layout=SINGLE_STREAM,
    predictor=_single_stream_predictor,
    kinds=(DOUBLE_BLOCKS, SINGLE_BLOCKS),
    includes=lambda network: _is_hunyuanvideo(network) and len(network.single_blocks) > 0,
    model="HunyuanVideo",
    latent="HunyuanVideo",
    text="HUNYUAN_VIDEO",
    made_of=_hunyuanvideo,
    first_frame=False,
    config=SHARED
    | {"in_channels": 16, "out_channels": 16, "patch_size": [1, 2, 2], "vec_in_dim": 768, "context_in_dim": 4096}
    | {"hidden_size": 3072, "num_heads": 24, "depth": 20, "depth_single_blocks": 40, "guidance_embed": True}
    | {"byt5": False, "vision_in_dim": None, "use_cond_type_embedding": False, "meanflow_sum": False},
    published=Published(12_831_242_304, 12_724_631_552, tokens=64_144),  # 704x704, 129 frames
    widths=lambda network: (network.hidden_size, network.num_heads),
    texts=_hunyuanvideo_texts,
    caption_tokens=256,
)
HUNYUANVIDEO_15 = Family(
    layout=DOUBLE_STREAM,
    predictor=_double_stream_predictor,
    kinds=(DOUBLE_BLOCKS, SINGLE_BLOCKS),
    includes=lambda network: _is_hunyuanvideo(network) and not len(network.single_blocks),
    model="HunyuanVideo15",
    latent="HunyuanVideo15",
    text="HUNYUAN_VIDEO_15",
    made_of=_hunyuanvideo,
    first_frame=True,
    config=SHARED
    | {"in_channels": 65, "out_channels": 32, "patch_size": [1, 1, 1], "vec_in_dim": None, "context_in_dim": 3584}
    | {"hidden_size": 2048, "num_heads": 16, "depth": 54, "depth_single_blocks": 0, "guidance_embed": False}
    | {"byt5": True, "vision_in_dim": 1152, "use_cond_type_embedding": True, "meanflow_sum": True},
    published=Published(8_331_330_848, 8_274_574_336, tokens=50_290),  # 848x480, 121 frames
    widths=lambda network: (network.hidden_size, network.num_heads),
    texts=_hunyuanvideo_texts,
    caption_tokens=1000,
)
FAMILIES = {family.name: family for family in (HUNYUANVIDEO_10, HUNYUANVIDEO_15)}


def family_of(network: nn.Module) -> Family | None:
    """The family of a network; None if it is of none that DisCa knows."""
    return next((family for family in FAMILIES.values() if family.includes(network)), None)
