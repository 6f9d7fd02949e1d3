"""The Predictor: a two-block network that turns the features of the last anchor step into those of the current one.

Its layout is the authors' (DisCa, section 3.3): a fusion MLP mixes the current embeddings with the cached features,
then a few of the transformer's own blocks run over the mixture, with the current time embedding. The blocks and the
linear layer are handed in. The authors' form answers with the features, the residual one with what is to be added to
the cached ones. Either may be of two features: it sees those of the anchor before as well, and learns how much of the
change between them goes on.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..weights.predictor_spec import AGES_HIDDEN, AGES_IN

MakeBlock = Callable[[], nn.Module]
Linear = Callable[..., nn.Module]

Change = tuple[Tensor | None, Tensor | None]  # of a stream's features between two anchors, and the share that goes on

NO_CHANGE: Change = (None, None)
NUMBERS = 3  # that a Predictor of two features is told
WAVES = AGES_IN // (2 * NUMBERS)  # sine and cosine of each number, at frequencies from 1 to 100 a unit of sigma


class FusionMLP(nn.Module):
    """Linear(2h -> h), SiLU, Linear(h -> h) over [now ‖ cached]; the first weight is in two halves: nothing to join.

    Of two features, one more linear layer reads the change since the anchor before.
    """

    def __init__(self, width: int, linear: Linear, features: int = 1):
        super().__init__()
        self.now = linear(width, width)
        self.cached = linear(width, width, bias=False)
        self.out = linear(width, width)
        self.change = linear(width, width, bias=False) if features > 1 else None

    def forward(self, now: Tensor, cached: Tensor, change: Tensor | None = None) -> Tensor:
        hidden = self.now(now) + self.cached(cached)
        if change is not None:
            hidden = hidden + self.change(change)
        hidden = self.out(nn.functional.silu(hidden))
        if hidden.dtype == torch.float16:  # as the blocks do: half precision overflows on outlier tokens
            hidden = torch.nan_to_num(hidden, nan=0.0, posinf=65504, neginf=-65504)
        return hidden


class Ages(nn.Module):
    """What a Predictor of two features makes of (t, age of the cached features, distance to those before them).

    An addition to the blocks' vector, and for each stream the share [B, 1, h] of the last change that goes on. Sums of
    waves stand for the three numbers, all in sigma.
    """

    def __init__(self, width: int, streams: int, linear: Linear):
        super().__init__()
        self.vec = _mlp(width, linear)
        self.damping = nn.ModuleList(_mlp(width, linear) for _ in range(streams))

    def forward(self, times: Tensor, vec: Tensor) -> tuple[Tensor, list[Tensor]]:
        """`times` [B, 3]; the vector [B, h], or [B, n, h] where parts of a video have their own, with the addition."""
        angles = times.float()[..., None] * torch.logspace(0, 2, WAVES, device=times.device)
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1).flatten(1).to(vec.dtype)
        added, *shares = (mlp(waves)[:, None] for mlp in (self.vec, *self.damping))
        return vec + (added if vec.ndim > 2 else added[:, 0]), shares


def _mlp(width: int, linear: Linear) -> nn.Module:
    return nn.Sequential(linear(AGES_IN, AGES_HIDDEN), nn.SiLU(), linear(AGES_HIDDEN, width))


class Predictor(nn.Module):
    """What the Predictors of all families have in common; `times` and `before` are for those of two features.

    Without `before`, the features of the anchor before, one of two features goes by the last ones alone.
    """

    def __init__(self, width: int, streams: int, linear: Linear, residual: bool, features: int):
        super().__init__()
        self.residual, self.features = residual, features
        self.ages = Ages(width, streams, linear) if features > 1 else None

    def _second(
        self, cached: list[Tensor], vec: Tensor, before: list[Tensor] | None, times: Tensor | None
    ) -> tuple[Tensor, list[Change]]:
        """The vector that is told the ages, and each stream's last change; one of one feature leaves all as it is."""
        if self.ages is None:
            return vec, [NO_CHANGE] * len(cached)
        vec, shares = self.ages(times, vec)
        if not before:
            return vec, [NO_CHANGE] * len(cached)
        changes = [now - then for now, then in zip(cached, before, strict=True)]
        return vec, list(zip(changes, shares, strict=True))

    def _answer(self, x: Tensor, cached: Tensor, change: Tensor | None, share: Tensor | None) -> Tensor:
        x = cached + x if self.residual else x
        return x if change is None else torch.addcmul(x, share, change)


class SingleStreamPredictor(Predictor):
    """HunyuanVideo 1.0: all tokens in one stream, single-stream blocks."""

    def __init__(
        self, width: int, depth: int, block: MakeBlock, linear: Linear, residual: bool = False, features: int = 1
    ):
        super().__init__(width, 1, linear, residual, features)
        self.fusion_mlp = FusionMLP(width, linear, features)
        self.mm_single_blocks = nn.ModuleList(block() for _ in range(depth))

    @property
    def blocks(self) -> nn.ModuleList:
        """Its transformer blocks, under the name they have in either family."""
        return self.mm_single_blocks

    def forward(
        self,
        x: Tensor,
        cached: Tensor,
        vec: Tensor,
        pe: Tensor,
        before: list[Tensor] | None = None,
        times: Tensor | None = None,
        **context,
    ) -> Tensor:
        """Predicted features [B, L, h] of the tokens x [B, L, h]; `context` goes to the blocks."""
        vec, ((change, share),) = self._second([cached], vec, before, times)
        x = self.fusion_mlp(x, cached, change)
        for block in self.mm_single_blocks:
            x = block(x, vec=vec, pe=pe, **context)
        return self._answer(x, cached, change, share)


class DoubleStreamPredictor(Predictor):
    """HunyuanVideo 1.5: image and text tokens apart, double-stream blocks."""

    def __init__(
        self, width: int, depth: int, block: MakeBlock, linear: Linear, residual: bool = False, features: int = 1
    ):
        super().__init__(width, 2, linear, residual, features)
        self.fusion_mlp_img = FusionMLP(width, linear, features)
        self.fusion_mlp_txt = FusionMLP(width, linear, features)
        self.double_blocks = nn.ModuleList(block() for _ in range(depth))

    @property
    def blocks(self) -> nn.ModuleList:
        """Its transformer blocks, under the name they have in either family."""
        return self.double_blocks

    def forward(
        self,
        img: Tensor,
        txt: Tensor,
        cached_img: Tensor,
        cached_txt: Tensor,
        vec: Tensor,
        pe: Tensor,
        before: list[Tensor] | None = None,
        times: Tensor | None = None,
        **context,
    ) -> tuple[Tensor, Tensor]:
        """Predicted image and text features, each shaped as its tokens; `context` goes to the blocks."""
        vec, (image, text) = self._second([cached_img, cached_txt], vec, before, times)
        img = self.fusion_mlp_img(img, cached_img, image[0])
        txt = self.fusion_mlp_txt(txt, cached_txt, text[0])
        for block in self.double_blocks:
            img, txt = block(img, txt, vec=vec, pe=pe, **context)
        return self._answer(img, cached_img, *image), self._answer(txt, cached_txt, *text)
