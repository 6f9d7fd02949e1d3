"""Blocks of one kind: how a network's forward calls them, and what they give."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

BlockKey = tuple[str, int]  # a block's key in ComfyUI's patches_replace


@dataclass(frozen=True)
class BlockKind:
    """The blocks of one kind: where a network has them, and how one is called with what ComfyUI gives a handler."""

    key: str  # in patches_replace
    attribute: str  # of the network
    streams: tuple[str, ...]  # the handler's arguments that are tokens: they go in first, and come out changed
    context: Mapping[str, str]  # the handler's other arguments -> the block's parameters
    made_of: Callable[[], type]  # ComfyUI's class of them
    sites: tuple[str, ...] = ()  # modules inside one that `standins` can watch and answer
    joined: tuple[str, ...] = ()  # the streams in the order in which they become the next kind's one

    def of(self, network: nn.Module) -> list[nn.Module]:
        """The network's blocks of this kind."""
        return list(getattr(network, self.attribute))

    def tokens(self, args: Mapping) -> list[Tensor]:
        """The tokens among a handler's arguments."""
        return [args[name] for name in self.streams]

    def arguments(self, args: Mapping) -> dict[str, Any]:
        """The rest of what a block is given, by the names of its own parameters."""
        return {parameter: args[name] for name, parameter in self.context.items()}

    def answer(self, tokens: Iterable[Tensor]) -> dict[str, Tensor]:
        """What a handler gives back."""
        return dict(zip(self.streams, tokens, strict=True))

    def run(self, block: nn.Module, args: Mapping) -> dict[str, Tensor]:
        """One block, as ComfyUI's own forward calls it."""
        out = block(*self.tokens(args), **self.arguments(args), transformer_options=args["transformer_options"])
        return self.answer([out] if isinstance(out, Tensor) else out)
