"""Blocks of one kind: how a network's forward calls them, and what they give."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, nn

BlockKey = tuple[str, int]  # a block's key in ComfyUI's patches_replace


class BlockSize(NamedTuple):
    """How large a block is, in its network's width."""

    weights: int  # in squared widths
    passed: int  # those of them that each token goes through
    adapted: int  # inputs and outputs of its linear layers, in widths: the weights of adapters of rank 1


@dataclass(frozen=True)
class BlockKind:
    """The blocks of one kind: where a network has them, and how one is called with what ComfyUI gives a handler."""

    key: str  # in patches_replace
    attribute: str  # of the network
    streams: tuple[str, ...]  # the handler's arguments that are tokens: they go in first, and come out changed
    context: Mapping[str, str]  # the handler's other arguments -> the block's parameters
    made_of: Callable[[], type]  # ComfyUI's class of them
    count: str  # how many there are, in ComfyUI's configuration
    size: BlockSize
    joined: bool = False  # the first stream has text before the image
    into_one: tuple[str, ...] = ()  # the streams in the order in which they become the next kind's one
    sites: tuple[str, ...] = ()  # modules inside one that `standins` can watch and answer

    def of(self, network: nn.Module) -> list[nn.Module]:
        """The network's blocks of this kind."""
        return list(getattr(network, self.attribute))

    def tokens(self, args: Mapping) -> list[Tensor]:
        """The tokens among a handler's arguments."""
        return [args[name] for name in self.streams]

    def arguments(self, args: Mapping) -> dict[str, Any]:
        """The rest of what a block is given, by the names of its own parameters."""
        return {parameter: args[name] for name, parameter in self.context.items()}

    def image(self, args: Mapping, out: Mapping[str, Tensor]) -> Tensor:
        """The image tokens [B, L, h] of what a handler gives back."""
        tokens = out[self.streams[0]]
        return tokens[:, args["transformer_options"]["img_slice"][0] :] if self.joined else tokens

    def answer(self, tokens: Iterable[Tensor]) -> dict[str, Tensor]:
        """What a handler gives back."""
        return dict(zip(self.streams, tokens, strict=True))

    def run(self, block: nn.Module, args: Mapping) -> dict[str, Tensor]:
        """One block, as ComfyUI's own forward calls it."""
        out = block(*self.tokens(args), **self.arguments(args), transformer_options=args["transformer_options"])
        return self.answer([out] if isinstance(out, Tensor) else out)
