"""Handlers on a MODEL's blocks, and what each call sees of them."""

from collections.abc import Callable
from dataclasses import dataclass

from comfy.model_patcher import ModelPatcher
from torch import nn

from ...models.blocks import CALL, BlockHandler, places_of
from ...models.checks import family_of_model
from ...models.family import BlockKey, Family
from ...models.standins import has_sites
from .call import NO_OPTIONS, Call


@dataclass(frozen=True)
class WatchedBlock:
    """Stands before a block's handler in one call: counts whether the block runs, and hands on the call.

    Nodes that bring a forward of their own call handlers without transformer_options, or none of them.
    """

    call: Call
    key: BlockKey
    first: bool
    handler: Callable | None  # ours or another node's

    def __call__(self, args: dict, extra: dict) -> dict:
        if "transformer_options" not in args:
            if self.first:
                self.call.run_natively(NO_OPTIONS)
            args = {**args, "transformer_options": {CALL: self.call}}
        original = extra["original_block"]

        def counted(args: dict) -> dict:
            self.call.ran.add(self.key)
            return original(args)

        return self.handler(args, {**extra, "original_block": counted}) if self.handler else counted(args)


def handlers_of(options: dict) -> dict[BlockKey, Callable]:
    """The block replacements in model or transformer options."""
    return options.get("transformer_options", options).get("patches_replace", {}).get("dit", {})


def add_handlers(model: ModelPatcher) -> None:
    """Puts a handler on every block, before the ones already there; ours from an earlier time are replaced."""
    earlier = handlers_of(model.model_options)
    for place in places_of(family_of_model(model), model.model.diffusion_model):
        inner = earlier.get(place.key)
        inner = inner.inner if isinstance(inner, BlockHandler) else inner
        model.set_model_patch_replace(BlockHandler(place, inner), "dit", *place.key)


def watched(options: dict, family: Family, network: nn.Module, call: Call) -> dict:
    """The options of one call, whose handlers tell the call what they do."""
    handlers, blocks = handlers_of(options), family.blocks(network)
    seen = {block: WatchedBlock(call, block, block == blocks[0], handlers.get(block)) for block in blocks}
    replaced = {**options.get("patches_replace", {}), "dit": {**handlers, **seen}}
    return {**options, CALL: call, "patches_replace": replaced}


def are_own(family: Family, network: nn.Module) -> bool:
    """Whether the blocks run by their own class's forward, so that stand-ins see and answer what is inside."""
    kinds = (kind for kind in family.kinds if kind.sites)
    return all(has_sites(block, kind) for kind in kinds for block in kind.of(network))


def handlers_are_ours(options: dict, family: Family, network: nn.Module) -> bool:
    """Whether every block has our handler and no other node's, before or after."""
    handlers = handlers_of(options)
    ours = [handlers.get(block) for block in family.blocks(network)]
    alone = all(isinstance(handler, BlockHandler) and handler.inner is None for handler in ours)
    return alone and ours[-1].place.ends  # not if blocks were taken away since
