"""The handler on each of a network's blocks: the one seam at which sampling and training take a hand in a network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..methods.seam.method import FIRST, LATE, SECOND
from .family import BlockKey, BlockKind, Family

CALL = "disca_call"  # key in transformer_options: the Call that the blocks belong to
HIDDEN = ("patches", "patches_replace", CALL)  # of the options: meant for the model's blocks, not for a method's

Args = Mapping[str, Any]  # what ComfyUI gives a handler
Out = dict[str, Tensor]


@dataclass(frozen=True)
class Place:
    """A block's key, its kind, and where it stands among the blocks and in each stretch of them."""

    key: BlockKey
    kind: BlockKind
    number: int  # in the order they run
    count: int  # of blocks
    middle: bool  # of those of the first kind
    inside: frozenset[str]  # stretches that it lies in
    starts: frozenset[str]  # those that begin with it
    answers: frozenset[str]  # those that are answered here: it is the first of theirs that lies in the last stream
    joined: tuple[str, ...]  # its streams in the order in which they come into the last one; () if they are the last

    @property
    def first(self) -> bool:
        """Whether it is the first of all blocks."""
        return self.number == 0

    @property
    def ends(self) -> bool:
        """Whether it is the last of all blocks, which gives the features."""
        return self.number == self.count - 1

    def context(self, args: Args) -> dict[str, Any]:
        """What a method's own network is given besides tokens."""
        options = {key: value for key, value in args["transformer_options"].items() if key not in HIDDEN}
        return {**self.kind.arguments(args), "transformer_options": options}

    def copied(self, args: Args) -> list[Tensor]:
        """Copies of the tokens that come in, in the streams in which features are: blocks write into their inputs."""
        if self.joined:
            return [torch.cat([args[name] for name in self.joined], dim=1)]
        return [tokens.clone() for tokens in self.kind.tokens(args)]

    def image(self, out: Out, length: int) -> Tensor:
        """The image tokens, so many, of what goes into the block or comes out: behind the text where both are one."""
        return out[self.kind.streams[0]][:, -length:]


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
    stream = blocks.index((last.key, 0))  # where the last one begins
    starts = {FIRST: 0, SECOND: min(1, len(blocks) - 1), LATE: stream or len(blocks) // 3}
    middle = len(family.kinds[0].of(network)) // 2
    return [
        Place(
            block,
            kind := family.kind(block),
            number,
            len(blocks),
            middle=number == middle,
            inside=frozenset(name for name, start in starts.items() if start <= number),
            starts=frozenset(name for name, start in starts.items() if start == number),
            answers=frozenset(name for name, start in starts.items() if max(start, stream) == number),
            joined=() if kind is last else kind.into_one,
        )
        for number, block in enumerate(blocks)
    ]
