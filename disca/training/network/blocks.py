"""ComfyUI's blocks, made fit for gradients: out of place, recomputed in backward, their outputs at hand.

The blocks add into their inputs (`img += ...`). With gradients that raises; where they are recomputed it is worse, the
recomputation starts from the changed input and the gradient is silently wrong. ComfyUI's own forward stays in use: the
blocks are handed tensors whose `+=` makes a new tensor.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...methods.seam.method import FIRST
from ...models.blocks import CALL, Args, BlockHandler, Out, Place, places_of
from ...models.family import BlockKey, family_of
from .offload import offloaded_activations

Answer = Callable[[Sequence[Tensor], dict[str, Any]], Sequence[Tensor]]  # tokens and context of a pass -> features


class OutOfPlace(Tensor):
    """A tensor whose `+=` makes a new one; every other operation on it gives a plain tensor."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    def __iadd__(self, other: Tensor) -> "OutOfPlace":
        return (self.as_subclass(Tensor) + other).as_subclass(OutOfPlace)


def make_out_of_place(blocks: Iterable[nn.Module]) -> None:
    """From now on these blocks leave their inputs as they are."""
    for block in blocks:
        block.register_forward_pre_hook(_guard_tokens)
        block.register_forward_hook(_plain_outputs)


class Pass(NamedTuple):
    """What one pass through the network keeps: the features, and the image tokens after the tapped blocks."""

    features: list[Tensor]
    taps: list[Tensor]


@dataclass
class TrainingCall:
    """One pass through the network while training: in full, or with an answer in place of the blocks."""

    answer: Answer | None = None
    tapped: frozenset[BlockKey] = frozenset()
    recomputed: bool = True
    offloaded: bool = False  # what is kept for recomputation waits on the host
    kept: Pass = field(default_factory=lambda: Pass([], []))

    def through(self, place: Place, args: Args, block: Callable[[Args], Out]) -> Out:
        """What comes out of the block: its output, the answer, or its input where the answer came before."""
        if self.answer is None:
            out = block(args)
            if place.ends:
                self.kept.features.extend(out[name] for name in place.kind.streams)
            return out
        tokens = place.kind.tokens(args)
        if FIRST in place.answers:
            tokens = self._answered(tokens, place.context(args))
        return place.kind.answer(tokens)

    def handed_over(self) -> Pass:
        """What the pass kept, which this call has no more."""
        kept, self.kept = self.kept, Pass([], [])
        return kept

    def _answered(self, tokens: Sequence[Tensor], context: dict) -> Sequence[Tensor]:
        """The answer, recomputed in backward as the blocks are."""
        if self.recomputed and torch.is_grad_enabled():
            return checkpoint(self.answer, tokens, context, use_reentrant=False)
        return self.answer(tokens, context)


@dataclass(frozen=True)
class TrainedBlock:
    """Runs one block, recomputed in backward. It holds the block itself: ComfyUI's closure names the loop's last."""

    place: Place
    module: nn.Module

    def __call__(self, args: dict, extra: dict) -> Out:
        call: TrainingCall = args["transformer_options"][CALL]
        run = self.place.kind.run
        if call.recomputed and torch.is_grad_enabled():
            # tensors by position: only those are saved as inputs, which may then wait on the host
            tensors = {name: value for name, value in args.items() if isinstance(value, Tensor)}
            rest = {name: value for name, value in args.items() if name not in tensors}
            with offloaded_activations() if call.offloaded else nullcontext():
                out = checkpoint(
                    _by_position, run, self.module, tuple(tensors), rest, *tensors.values(), use_reentrant=False
                )
        else:
            out = run(self.module, args)
        if self.place.key in call.tapped:
            call.kept.taps.append(self.place.kind.image(args, out))
        return out


def training_handlers(network: nn.Module) -> dict[BlockKey, BlockHandler]:
    """Block replacements for training: inference's handlers around blocks that gradients may pass."""
    family = family_of(network)
    return {
        place.key: BlockHandler(place, TrainedBlock(place, family.module(network, place.key)))
        for place in places_of(family, network)
    }


def _by_position(run: Callable, block: nn.Module, names: tuple[str, ...], rest: dict, *tensors: Tensor) -> dict:
    return run(block, rest | dict(zip(names, tensors, strict=True)))


def _guard_tokens(block: nn.Module, args: tuple) -> tuple:
    """Tokens are handed over by position, all else by name."""
    return tuple(a.as_subclass(OutOfPlace) if isinstance(a, Tensor) else a for a in args)


def _plain_outputs(block: nn.Module, args: tuple, out: Tensor | tuple) -> Tensor | tuple:
    if isinstance(out, Tensor):
        return out.as_subclass(Tensor)
    return tuple(tensor.as_subclass(Tensor) for tensor in out)
