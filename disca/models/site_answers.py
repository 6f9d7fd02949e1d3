"""Answers at the sites of a block: the functions that a stand-in has in place of the block's own modules."""

from collections.abc import Callable, Mapping
from copy import copy
from typing import Any, Protocol

from torch import Tensor, nn

from .linear_rows import has_plain_rows, rows_from

ATTENTION = ("img_attn", "txt_attn")  # the sites of one attention
DOUBLE_NORMS = {"img_attn": "img_norm1", "txt_attn": "txt_norm1", "img_mlp": "img_norm2", "txt_mlp": "txt_norm2"}

Module = Callable[[Tensor], Tensor]
Compute = Callable[[Tensor], Tensor]  # indices of tokens [n] -> what the real module makes of these, [B, n, h]
Attend = Callable[..., Tensor]  # called as ComfyUI's attention override
Children = dict[str, Any]  # of the copy that stands in for a block
Answered = tuple[Children, Attend | None]  # and what is called for attention, where it is answered


class SiteAnswer(Protocol):
    """What a site gives in place of what its module would make. The block does not write to it."""

    reads: bool  # whether it looks at what goes in; else that is made for one token only

    def picks(self, tokens: int) -> Tensor | None:
        """Which tokens of so many are made anew, as indices [n] for all rows; for none None, and no empty tensor.

        Only `all` is asked, before its answer, if it reads: attention and MLP of these tokens go into the real module.
        """
        ...

    def __call__(self, given: Tensor, compute: Compute | None) -> Tensor:
        """What would come out, [B, L, h], of what goes in.

        `compute` is the real module: at an MLP for any tokens, at `all` for those that were picked, and None if none
        were. None at attention, where a token's result depends on all tokens.
        """
        ...


def answer_double(block: nn.Module, answers: Mapping[str, SiteAnswer], written: bool) -> Answered:
    """For a block of two streams; `written`: it writes to what its modules give, so that it is given copies."""
    children = {}
    for site, answer in answers.items():
        module = getattr(block, site)
        if not answer.reads:
            name = DOUBLE_NORMS[site]
            children[name] = _of_a_token(getattr(block, name))
        if site in ATTENTION:
            answered = _Attention(answer, written)
            children[site] = twin(module, qkv=answered.qkv, norm=_no_norm, proj=answered.proj)
        else:
            children[site] = _mlp(module, answer, written)
    return children, _no_attention if ATTENTION[0] in answers else None


class _Attention:
    """One stream's answer: asked for where it goes in, given where it comes out."""

    def __init__(self, answer: SiteAnswer, written: bool):
        self._answer, self._written, self._made = answer, written, Held()

    def qkv(self, x: Tensor) -> Tensor:
        self._made.tensor = self._answer(x, None)
        return x.new_zeros(len(x), 1, 3 * x.shape[-1])  # a token: of none, the heads could not be told apart

    def proj(self, _: Tensor) -> Tensor:
        return _own(self._made.take(), self._written)


def _mlp(module: Module, answer: SiteAnswer, written: bool) -> Module:
    return lambda x: _own(answer(x, lambda index: module(x[:, index])), written)


def answer_single(block: nn.Module, answers: Mapping[str, SiteAnswer], written: bool) -> Answered:
    """For a block of one stream."""
    if not answers:
        return {}, None
    joined = _Joined(block, answers, written)
    children = {"linear1": joined.linear1, "norm": _no_norm, "hidden_size": joined.width}
    if "all" in answers:
        children["linear2"] = joined.linear2
        if not answers["all"].reads:
            children["pre_norm"] = _of_a_token(block.pre_norm)
    return children, joined.attend


class _Joined:
    """The answers of a block whose attention and MLP have their layers in common.

    Where `linear1` can leave out the rows of queries, keys and values, it keeps one of each for every head, and the
    stand-in's hidden size is the number of heads: so ComfyUI's forward finds heads of width 1 in front of the MLP.
    """

    def __init__(self, block: nn.Module, answers: Mapping[str, SiteAnswer], written: bool):
        self._block, self._answers, self._written = block, answers, written
        self._given, self._attention, self._index = Held(), Held(), None
        self.width = block.num_heads if has_plain_rows(block.linear1) else block.hidden_size

    def linear1(self, x: Tensor) -> Tensor:
        if "all" in self._answers:
            answer = self._answers["all"]
            self._given.tensor, self._index = x, answer.picks(x.shape[1]) if answer.reads else None
            if self._index is None:
                return x.new_zeros(len(x), 1, 3 * self.width + self._block.mlp_hidden_dim_first)
        self._attention.tensor = self._attended(x)
        x, block = x if self._index is None else x[:, self._index], self._block
        if self.width == block.hidden_size:
            return block.linear1(x)
        return rows_from(block.linear1, 3 * (block.hidden_size - self.width), x)

    def _attended(self, x: Tensor) -> Tensor:
        if "attn" not in self._answers:
            raise ValueError("The site 'all' picks tokens, but 'attn' gives no attention for them. Answer 'attn' too.")
        made = self._answers["attn"](x, None)
        return made if self._index is None else made[:, self._index]

    def attend(self, attend: Attend, q: Tensor, k: Tensor, v: Tensor, heads: int, **options) -> Tensor:
        made = self._attention.take()
        return _no_attention(attend, q, k, v, heads) if made is None else made

    def linear2(self, joined: Tensor) -> Tensor:
        compute = None if self._index is None else lambda index: self._block.linear2(joined)
        return _own(self._answers["all"](self._given.take(), compute), self._written)


def _of_a_token(norm: Module) -> Module:
    return lambda x: norm(x[:, :1])


def _no_attention(attend: Attend, q: Tensor, k: Tensor, v: Tensor, heads: int, **options) -> Tensor:
    return v.transpose(1, 2).flatten(2)


def _no_norm(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return q, k


def _own(made: Tensor, written: bool) -> Tensor:
    return made.clone() if written else made


class Held:
    """A tensor, from when it is there until it is wanted."""

    def __init__(self):
        self.tensor: Tensor | None = None

    def take(self) -> Tensor | None:
        tensor, self.tensor = self.tensor, None
        return tensor

    def into(self, module: Module) -> Module:
        """The module, what goes into which is held."""

        def run(x: Tensor) -> Tensor:
            self.tensor = x
            return module(x)

        return run


def twin(module: nn.Module, **changes) -> nn.Module:
    """A shallow copy with other attributes, which go before the modules that both have in common."""
    twin = copy(module)
    vars(twin).update(changes)
    return twin
