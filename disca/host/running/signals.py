"""What a row may be decided by, made for all rows of a call at once and only if somebody looks."""

from collections.abc import Callable, Sequence
from contextlib import suppress

from torch import Tensor, nn

from ...methods.seam.when import AFTER_FIRST, ENTERING, LATENT, MODULATED
from ...models.block_kind import BlockKind
from ...models.blocks import Args, Out, Place
from ...models.standins import answering


class Signals:
    """The signals of one call; what is kept of them nobody writes to."""

    def __init__(self, place: Place, args: Args, block: Callable[[Args], Out], latent: Tensor, modulated: Callable):
        """`place` is the first block's, `block` runs it; `modulated` says what its attention reads."""
        self._place, self._args, self._block, self._modulated = place, args, block, modulated
        self.image_tokens = args[place.kind.streams[0]].shape[1]
        self.after_first: Out | None = None  # of the first block, if it had to run
        self._found: dict[tuple[str, int], Tensor] = {}  # for each row by its place in the batch
        self.put(LATENT, range(len(latent)), latent)

    def look(self, number: int, name: str) -> Tensor:
        """The signal of a row; blocks must not have run yet unless it was looked at before."""
        if (name, number) not in self._found:
            tensor = self._made(name)
            self.put(name, range(len(tensor)), tensor)
        return self._found[name, number]

    def prepare(self, name: str) -> None:
        """Makes the signal before blocks run, if that is where it comes from."""
        if name in (ENTERING, MODULATED, AFTER_FIRST):
            self.look(0, name)

    def put(self, name: str, rows: Sequence[int], tensor: Tensor) -> None:
        """What is seen of these rows of the batch."""
        self._found.update({(name, row): part for row, part in zip(rows, tensor, strict=True)})

    def _made(self, name: str) -> Tensor:
        place, args = self._place, self._args
        if name == ENTERING:
            return args[place.kind.streams[0]].clone()
        if name == MODULATED:
            return self._modulated(place, args)
        assert name == AFTER_FIRST, name
        self.after_first = self._block(_copied(place, args))
        return self.after_first[place.kind.streams[0]].clone()


def _copied(place: Place, args: Args) -> Args:
    """The arguments with tokens that may be written to."""
    return {**args, **{name: args[name].clone() for name in place.kind.streams}}


class _Enough(Exception):
    """Ends a block's forward where it has made what is looked for."""


class _Looking:
    """At a site, notes what goes in and ends the forward there."""

    reads = True

    def __init__(self):
        self.seen: list[Tensor] = []

    def picks(self, tokens: int) -> None:
        """No tokens."""

    def __call__(self, given: Tensor, compute: None) -> Tensor:
        self.seen.append(given)
        raise _Enough


def modulated(block: nn.Module, kind: BlockKind, args: Args) -> Tensor:
    """What the block's attention reads of the image tokens: its own forward so far, which has written to nothing."""
    looking = _Looking()
    attention = [site for site in kind.sites if site.endswith("attn")]  # that of the image first
    with suppress(_Enough):
        kind.run(answering(block, kind, dict.fromkeys(attention, looking)), args)
    return looking.seen[0]
