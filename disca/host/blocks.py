"""Handlers on the transformer's blocks: let them run and keep their features, or pass them by and predict."""

from collections.abc import Callable
from dataclasses import dataclass

from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from .run import NO_OPTIONS, Call

CALL = "disca_call"  # key in transformer_options: the Call that the blocks belong to
Block = tuple[str, int]


@dataclass(frozen=True)
class BlockHandler:
    """Replaces one block; `inner` is the handler that another node had put there before."""

    first: bool  # of all blocks
    predicts: bool  # first block of the stream whose end is the features
    keeps: bool  # last block of it
    inner: Callable | None = None

    def __call__(self, args: dict, extra: dict) -> dict:
        call: Call | None = args["transformer_options"].get(CALL)
        if call is not None and self.first:
            call.begin(args["img"], args["txt"])
        if call is not None and call.predict:
            return _predict(call, args) if self.predicts else _outputs(args, args["img"], args.get("txt"))
        out = self.inner(args, extra) if self.inner else extra["original_block"](args)
        if call is not None and self.keeps:
            call.keep_features([out[name] for name in ("img", "txt") if name in out])
        return out


@dataclass(frozen=True)
class WatchedBlock:
    """Stands before a block's handler in one call: counts whether the block runs, and hands on the call.

    Nodes that bring a forward of their own call handlers without transformer_options, or none of them.
    """

    call: Call
    first: bool
    handler: Callable | None  # ours or another node's

    def __call__(self, args: dict, extra: dict) -> dict:
        if "transformer_options" not in args:
            if self.first:
                self.call.run_natively(NO_OPTIONS)
            args = {**args, "transformer_options": {CALL: self.call}}
        original = extra["original_block"]

        def counted(args: dict) -> dict:
            self.call.blocks_run += 1
            return original(args)

        return self.handler(args, {**extra, "original_block": counted}) if self.handler else counted(args)


def blocks_of(network: nn.Module) -> list[Block]:
    """The keys of a HunyuanVideo's blocks, in the order they run."""
    return [
        *(("double_block", i) for i in range(len(network.double_blocks))),
        *(("single_block", i) for i in range(len(network.single_blocks))),
    ]


def handlers_of(options: dict) -> dict[Block, Callable]:
    """The block replacements in model or transformer options."""
    return options.get("transformer_options", options).get("patches_replace", {}).get("dit", {})


def add_handlers(model: ModelPatcher) -> None:
    """Puts a handler on every block, before the ones already there; ours from an earlier time are replaced."""
    blocks, earlier = blocks_of(model.model.diffusion_model), handlers_of(model.model_options)
    stream = blocks[-1][0]
    for block in blocks:
        inner = earlier.get(block)
        handler = BlockHandler(
            first=block == blocks[0],
            predicts=block == (stream, 0),
            keeps=block == blocks[-1],
            inner=inner.inner if isinstance(inner, BlockHandler) else inner,
        )
        model.set_model_patch_replace(handler, "dit", *block)


def watched(options: dict, network: nn.Module, call: Call) -> dict:
    """The options of one call, whose handlers tell the call what they do."""
    handlers, blocks = handlers_of(options), blocks_of(network)
    seen = {block: WatchedBlock(call, block == blocks[0], handlers.get(block)) for block in blocks}
    replaced = {**options.get("patches_replace", {}), "dit": {**handlers, **seen}}
    return {**options, CALL: call, "patches_replace": replaced}


def handlers_are_ours(options: dict, network: nn.Module) -> bool:
    """Whether every block has our handler and no other node's, before or after."""
    handlers, keys = handlers_of(options), blocks_of(network)
    ours = [handlers.get(block) for block in keys]
    alone = all(isinstance(handler, BlockHandler) and handler.inner is None for handler in ours)
    return alone and ours[-1].keeps  # not if blocks were taken away since


def _predict(call: Call, args: dict) -> dict:
    features = call.features(args["img"].device)
    # attention patches and replacements of other nodes are meant for the model's blocks, not for the Predictor's
    hidden = ("patches", "patches_replace", CALL)
    options = {key: value for key, value in args["transformer_options"].items() if key not in hidden}
    common = {"vec": args["vec"], "pe": args["pe"], "attn_mask": args["attention_mask"], "transformer_options": options}
    if "txt" in args:
        dims = {name: args[name] for name in ("modulation_dims_img", "modulation_dims_txt")}
        return _outputs(args, *call.predictor(args["img"], args["txt"], *features, **common, **dims))
    return _outputs(args, call.predictor(args["img"], *features, **common, modulation_dims=args["modulation_dims"]))


def _outputs(args: dict, img: Tensor, txt: Tensor | None = None) -> dict:
    return {"img": img, "txt": txt} if "txt" in args else {"img": img}
