"""ComfyUI's blocks, made fit for gradients: out of place, recomputed in backward, their outputs at hand.

The blocks add into their inputs (`img += ...`). With gradients that raises; under checkpointing it is worse, the
recomputation starts from the changed input and the gradient is silently wrong. ComfyUI's own forward stays in use: the
blocks are handed tensors whose `+=` makes a new tensor.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ...host.blocks import CALL, Block, BlockHandler, blocks_of
from .offload import offloaded_activations

BLOCKS = {"double_block": "double_blocks", "single_block": "single_blocks"}


class OutOfPlace(Tensor):
    """A tensor whose `+=` makes a new one; every other operation on it gives a plain tensor."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    def __iadd__(self, other: Tensor) -> "OutOfPlace":
        return (self.as_subclass(Tensor) + other).as_subclass(OutOfPlace)


def make_out_of_place(blocks: Iterable[nn.Module]) -> None:
    """From now on these blocks leave their inputs as they are."""
    for block in blocks:
        block.register_forward_pre_hook(_guard_inputs, with_kwargs=True)
        block.register_forward_hook(_plain_outputs)


class Pass(NamedTuple):
    """What one pass through the network keeps: the features, and the image tokens after the tapped blocks."""

    features: list[Tensor]
    taps: list[Tensor]


@dataclass
class TrainingCall:
    """One pass through the network while training: in full, or with the Predictor in place of the blocks."""

    rule: nn.Module | None = None  # the Predictor, or what stands for it
    cached: Sequence[Tensor] = ()
    tapped: frozenset[Block] = frozenset()
    checkpointed: bool = True
    offloaded: bool = False  # what is kept for recomputation waits on the host
    kept: Pass = field(default_factory=lambda: Pass([], []))

    @property
    def predict(self) -> bool:
        return self.rule is not None

    @property
    def predictor(self) -> Callable:
        """The rule, recomputed in backward as the blocks are."""
        if self.checkpointed and torch.is_grad_enabled():
            return partial(checkpoint, self.rule, use_reentrant=False)
        return self.rule

    def begin(self, img: Tensor, txt: Tensor) -> None:
        """Sees the inputs of the first block: any are right here."""

    def features(self, device: torch.device) -> Sequence[Tensor]:
        """The features to predict from."""
        return self.cached

    def keep_features(self, tensors: Sequence[Tensor]) -> None:
        """Takes the features of a full pass."""
        self.kept.features.extend(tensors)


@dataclass(frozen=True)
class TrainedBlock:
    """Runs one block, recomputed in backward. It holds the block itself: ComfyUI's closure names the loop's last."""

    key: Block
    module: nn.Module

    def __call__(self, args: dict, extra: dict) -> dict:
        call: TrainingCall = args["transformer_options"][CALL]
        run = _run_double if "txt" in args else _run_single
        if call.checkpointed and torch.is_grad_enabled():
            # tensors by position: only those are saved as inputs, which may then wait on the host
            tensors = {name: value for name, value in args.items() if isinstance(value, Tensor)}
            rest = {name: value for name, value in args.items() if name not in tensors}
            with offloaded_activations() if call.offloaded else nullcontext():
                out = checkpoint(
                    _by_position, run, self.module, tuple(tensors), rest, *tensors.values(), use_reentrant=False
                )
        else:
            out = run(self.module, args)
        if self.key in call.tapped:
            call.kept.taps.append(
                out["img"] if "txt" in out else out["img"][:, args["transformer_options"]["img_slice"][0] :]
            )
        return out


def training_handlers(network: nn.Module) -> dict[Block, BlockHandler]:
    """Block replacements for training: inference's handlers around blocks that gradients may pass."""
    blocks = blocks_of(network)
    stream = blocks[-1][0]
    return {
        block: BlockHandler(
            first=block == blocks[0],
            predicts=block == (stream, 0),
            keeps=block == blocks[-1],
            inner=TrainedBlock(block, module_of(network, block)),
        )
        for block in blocks
    }


def module_of(network: nn.Module, block: Block) -> nn.Module:
    """The block of that key."""
    return getattr(network, BLOCKS[block[0]])[block[1]]


def _by_position(run: Callable, block: nn.Module, names: tuple[str, ...], rest: dict, *tensors: Tensor) -> dict:
    return run(block, rest | dict(zip(names, tensors, strict=True)))


def _run_double(block: nn.Module, args: dict) -> dict:
    names = ("img", "txt", "vec", "pe", "modulation_dims_img", "modulation_dims_txt", "transformer_options")
    img, txt = block(**{name: args[name] for name in names}, attn_mask=args["attention_mask"])
    return {"img": img, "txt": txt}


def _run_single(block: nn.Module, args: dict) -> dict:
    names = ("vec", "pe", "modulation_dims", "transformer_options")
    return {"img": block(args["img"], **{name: args[name] for name in names}, attn_mask=args["attention_mask"])}


def _guard_inputs(block: nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    guarded = {name: kwargs[name].as_subclass(OutOfPlace) for name in ("img", "txt", "x") if name in kwargs}
    return tuple(a.as_subclass(OutOfPlace) if isinstance(a, Tensor) else a for a in args), kwargs | guarded


def _plain_outputs(block: nn.Module, args: tuple, out: Tensor | tuple) -> Tensor | tuple:
    if isinstance(out, Tensor):
        return out.as_subclass(Tensor)
    return tuple(tensor.as_subclass(Tensor) for tensor in out)
