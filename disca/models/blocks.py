"""The handler on each of a network's blocks: the one seam at which sampling and training take a hand in a network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from .family import BlockKey, BlockKind, Family

CALL = "disca_call"  # key in transformer_options: the Call that the blocks belong to
HIDDEN = ("patches", "patches_replace", CALL)  # of the options: meant for the model's blocks, not for a method's

Args = Mapping[str, Any]  # what ComfyUI gives a handler
Out = dict[str, Tensor]


@dataclass(frozen=True)
class Place:
    """A block's key, its kind, and where it stands."""

    key: BlockKey
    kind: BlockKind
    first: bool  # of all blocks
    begins: bool  # the last stream, whose end is the features
    ends: bool

    def context(self, args: Args) -> dict[str, Any]:
        """What a method's own network is given besides tokens."""
        options = {key: value for key, value in args["transformer_options"].items() if key not in HIDDEN}
        return {**self.kind.arguments(args), "transformer_options": options}


class Call(Protocol):
    """One pass through a network, and what becomes of its blocks."""

    def through(self, place: Place, args: Args, block: Callable[[Args], Out]) -> Out:
        """What comes out of the block: its own output, what is made in its place, or its input."""
        ...


@dataclass(frozen=True)
class BlockHandler:
    """Replaces one block; `inner` is the handler that another node had put there before."""

    place: Place
    inner: Callable | None = None

    def __call__(self, args: dict, extra: dict) -> Out:
        def block(args: Args) -> Out:
            return self.inner(args, extra) if self.inner else extra["original_block"](args)

        call: Call | None = args.get("transformer_options", {}).get(CALL)
        return block(args) if call is None else call.through(self.place, args, block)


def places_of(family: Family, network: nn.Module) -> list[Place]:
    """Where each of a network's blocks stands, in the order they run."""
    blocks, last = family.blocks(network), family.last_kind(network)
    return [
        Place(
            block,
            family.kind(block),
            first=block == blocks[0],
            begins=block == (last.key, 0),
            ends=block == blocks[-1],
        )
        for block in blocks
    ]
