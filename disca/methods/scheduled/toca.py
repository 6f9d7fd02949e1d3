"""ToCa: attention gives its last answer once more; of the tokens, some go through the MLP, the others keep theirs."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...settings.fields import number
from ...settings.section import section
from ..seam.anchors import AtAnchors
from ..seam.cache import Cache
from ..seam.intervals import every, interval, warmup
from ..seam.method import MODULES, SITES, Compute, Context, Way, What
from ..seam.method import Tokens as Streams
from ..seam.whats import Reuse

RATIO = "Share of the tokens that are brought up to date in a cached step. 0: none, which is FORA."
SLOPE = "How much more of them the first block takes, and the last one less. 0: all blocks take the same share."
APART = 1_000_003  # steps and blocks are fewer: each pair draws for itself


@dataclass(frozen=True)
class Tokens(What):
    """Runs a share of the tokens through the module, and puts them into what is kept.

    The share is ratio · (1 + slope · (1 - 2 · depth)), depth 0 in the first block and 1 in the last. Which tokens is
    drawn for each step and block, and for all rows alike; scores of attention, as the paper has them, would need its
    matrix, which fast kernels never make.
    """

    ratio: float = 0.1
    slope: float = 0.5
    seed: int = 0
    renews = True

    def picks(self, tokens: int, context: Context) -> Tensor | None:
        """The tokens to run, ascending, one at least; None at ratio 0."""
        if not self.ratio:
            return None
        block, blocks = context["block"], context["blocks"]
        share = self.ratio * (1 + self.slope * (1 - 2 * block / max(blocks - 1, 1)))
        count = min(max(round(share * tokens), 1), tokens)
        drawn = torch.Generator().manual_seed((self.seed * APART + context["step"]) * APART + block)
        return torch.randperm(tokens, generator=drawn)[:count].sort().values

    def answer(self, given: Streams, kept: Streams, ages, compute: Compute | None, context: Context) -> Streams:
        """`compute` gives what the module makes of the tokens with these numbers, [B, n, h]."""
        (last,) = kept
        index = self.picks(last.shape[1], context)
        if index is None:
            return kept
        index = index.to(last.device)
        return (last.index_copy(1, index, compute(index).to(last.dtype)),)

    def renewed(self, made: Streams, kept: Streams) -> Sequence[Tensor]:
        return made


@section
class ToCa(Cache):
    """Attention as it was, and some of the tokens of each MLP anew."""

    name = "ToCa"
    title = "ToCa"
    source = "Zou et al. 2024, arXiv 2410.05317; tokens drawn at random, as in TaylorSeer's repository"
    scheduled = True
    presets = {"TaylorSeer repo": {"interval": 5, "warmup": 1, "ratio": 0.1, "slope": 0.5}}

    ratio: float = number(0.1, 0, 1, RATIO, 0.05)
    slope: float = number(0.5, 0, 1, SLOPE, 0.1)
    interval: int = interval(5)
    warmup: int = warmup(1)

    def rule(self) -> AtAnchors:
        return every(self.interval, self.warmup)

    def ways(self) -> tuple[Way, ...]:
        return (token_wise(self.ratio, self.slope),)


def token_wise(ratio: float, slope: float) -> Way:
    """Reuse where attention answers, a share of the tokens where an MLP or a whole block of one stream does."""
    tokens = Tokens(ratio, slope)
    others = {site: tokens for site in ("img_mlp", "txt_mlp", "all")}
    return Way(Reuse(), SITES, (*MODULES, "attn"), others)
