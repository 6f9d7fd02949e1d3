"""The Predictor: a two-block network that turns the features of the last anchor step into those of the current one.

Its layout is the authors' (DisCa, section 3.3): a fusion MLP mixes the current embeddings with the cached features,
then a few of the transformer's own blocks run over the mixture, with the current time embedding. The blocks and the
linear layer are handed in. Two forms: the authors' answers with the features, the residual one with what is to be
added to the cached ones.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

MakeBlock = Callable[[], nn.Module]
Linear = Callable[..., nn.Module]


class FusionMLP(nn.Module):
    """Linear(2h -> h), SiLU, Linear(h -> h) over [now ‖ cached]; the first weight is in two halves: nothing to join."""

    def __init__(self, width: int, linear: Linear):
        super().__init__()
        self.now = linear(width, width)
        self.cached = linear(width, width, bias=False)
        self.out = linear(width, width)

    def forward(self, now: Tensor, cached: Tensor) -> Tensor:
        hidden = self.out(nn.functional.silu(self.now(now) + self.cached(cached)))
        if hidden.dtype == torch.float16:  # as the blocks do: half precision overflows on outlier tokens
            hidden = torch.nan_to_num(hidden, nan=0.0, posinf=65504, neginf=-65504)
        return hidden


class SingleStreamPredictor(nn.Module):
    """HunyuanVideo 1.0: all tokens in one stream, single-stream blocks."""

    def __init__(self, width: int, depth: int, block: MakeBlock, linear: Linear, residual: bool = False):
        super().__init__()
        self.residual = residual
        self.fusion_mlp = FusionMLP(width, linear)
        self.mm_single_blocks = nn.ModuleList(block() for _ in range(depth))

    @property
    def blocks(self) -> nn.ModuleList:
        """Its transformer blocks, under the name they have in either family."""
        return self.mm_single_blocks

    def forward(self, x: Tensor, cached: Tensor, vec: Tensor, pe: Tensor, **context) -> Tensor:
        """Predicted features [B, L, h] of the tokens x [B, L, h]; `context` goes to the blocks."""
        x = self.fusion_mlp(x, cached)
        for block in self.mm_single_blocks:
            x = block(x, vec=vec, pe=pe, **context)
        return cached + x if self.residual else x


class DoubleStreamPredictor(nn.Module):
    """HunyuanVideo 1.5: image and text tokens apart, double-stream blocks."""

    def __init__(self, width: int, depth: int, block: MakeBlock, linear: Linear, residual: bool = False):
        super().__init__()
        self.residual = residual
        self.fusion_mlp_img = FusionMLP(width, linear)
        self.fusion_mlp_txt = FusionMLP(width, linear)
        self.double_blocks = nn.ModuleList(block() for _ in range(depth))

    @property
    def blocks(self) -> nn.ModuleList:
        """Its transformer blocks, under the name they have in either family."""
        return self.double_blocks

    def forward(
        self, img: Tensor, txt: Tensor, cached_img: Tensor, cached_txt: Tensor, vec: Tensor, pe: Tensor, **context
    ) -> tuple[Tensor, Tensor]:
        """Predicted image and text features, each shaped as its tokens; `context` goes to the blocks."""
        img = self.fusion_mlp_img(img, cached_img)
        txt = self.fusion_mlp_txt(txt, cached_txt)
        for block in self.double_blocks:
            img, txt = block(img, txt, vec=vec, pe=pe, **context)
        return (cached_img + img, cached_txt + txt) if self.residual else (img, txt)
