"""Stand-ins for blocks: ComfyUI's own forward, with modules inside the block watched or answered.

A stand-in is called as its block is. In each call it makes a shallow copy: class, parameters and forward are the
block's, some children are functions of ours. The block stays as it is, and what runs are its own modules, so that
casting, LoRAs and offloading happen where they always do.

A *site* is a module whose result is added to a stream, before its gate: `img_attn`, `txt_attn`, `img_mlp`, `txt_mlp` in
a block of two streams, `all` in a block of one; or there `attn`, the attention within.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from torch import Tensor, nn

from ..messages import listing, quoted
from .block_kind import BlockKind
from .linear_rows import has_plain_rows
from .site_answers import ATTENTION, Attend, Children, Held, Module, SiteAnswer, answer_double, answer_single, twin

OVERRIDE = "optimized_attention_override"  # ComfyUI's key in transformer_options

StandIn = Callable[..., Any]
Saw = Callable[[str, Tensor | None, Tensor], None]  # site, what went in, what came out: [B, L, h]


def recording(block: nn.Module, kind: BlockKind, sites: Collection[str], saw: Saw, given: bool = True) -> StandIn:
    """The block, to the bit; `saw` is told of each site as it runs.

    The block goes on with these tensors and may write to them, so `saw` has to copy what it keeps. Without `given` it
    is told None for what went in, which then takes no memory while attention runs.
    """
    _require_sites(kind, sites)
    block, record = original(block), _record_double if _is_double(kind) else _record_single
    return lambda *tokens, **arguments: twin(block, **record(block, sites, saw, given))(*tokens, **arguments)


def answering(block: nn.Module, kind: BlockKind, answers: Mapping[str, SiteAnswer]) -> StandIn:
    """The block with these sites answered; nothing runs that only they need.

    Where `all` picks tokens, `attn` is answered too: it gives their attention.
    """
    _require_sites(kind, answers)
    if 0 < sum(site in answers for site in ATTENTION) < len(ATTENTION):
        raise ValueError(
            f"The sites {listing([*answers])} are half of an attention, which runs for both streams or for none. "
            f"Answer {listing(ATTENTION)}, or neither."
        )
    block, answer = original(block), answer_double if _is_double(kind) else answer_single

    def stand_in(*tokens: Tensor, **arguments):
        children, attend = answer(block, answers, _writes(arguments))
        return twin(block, **children)(*tokens, **(_attending(arguments, attend) if attend else arguments))

    return stand_in


def original(block: nn.Module) -> nn.Module:
    """The block itself, where torch.compile has put another module around it."""
    return getattr(block, "_orig_mod", block)


def has_sites(block: nn.Module, kind: BlockKind) -> bool:
    """Whether the block runs the forward of its class, in which the sites are; another pack may have put one there."""
    block = original(block)
    return bool(kind.sites) and isinstance(block, kind.made_of()) and "forward" not in vars(block)


def runs_spare_rows(block: nn.Module, kind: BlockKind, sites: Collection[str]) -> bool:
    """Whether queries, keys and values are made for an attention that is answered; nothing but time is lost by it."""
    return "attn" in sites and "attn" in kind.sites and not has_plain_rows(original(block).linear1)


def _record_double(block: nn.Module, sites: Collection[str], saw: Saw, given: bool) -> Children:
    children = {}
    for site in sites:
        module, held = getattr(block, site), Held()
        if site in ATTENTION:
            qkv = held.into(module.qkv) if given else module.qkv
            children[site] = twin(module, qkv=qkv, proj=_told(module.proj, saw, site, held))
        else:
            children[site] = _told(held.into(module) if given else module, saw, site, held)
    return children


def _told(module: Module, saw: Saw, site: str, held: Held) -> Module:
    def run(x: Tensor) -> Tensor:
        made = module(x)
        saw(site, held.take(), made)
        return made

    return run


def _record_single(block: nn.Module, sites: Collection[str], saw: Saw, given: bool) -> Children:
    held = Held()

    def linear2(joined: Tensor) -> Tensor:
        x = held.take()
        if "attn" in sites:
            saw("attn", x, joined[..., : block.hidden_size].clone())  # a view would keep all of it alive
        made = block.linear2(joined)
        if "all" in sites:
            saw("all", x, made)
        return made

    return {"linear1": held.into(block.linear1) if given else block.linear1, "linear2": linear2}


def _attending(arguments: Mapping[str, Any], attend: Attend) -> dict[str, Any]:
    """A block's arguments by which it calls this for attention, with nothing that belongs to its real tokens."""
    options = {**arguments["transformer_options"], OVERRIDE: attend, "patches": {}}
    return {**arguments, "pe": None, "attn_mask": None, "transformer_options": options}


def _writes(arguments: Mapping[str, Any]) -> bool:
    """Whether the block multiplies what its modules give in place, as it does where parts of a video differ in time."""
    return any(value is not None for name, value in arguments.items() if name.startswith("modulation_dims"))


def _is_double(kind: BlockKind) -> bool:
    return len(kind.streams) > 1


def _require_sites(kind: BlockKind, sites: Collection[str]) -> None:
    if unknown := [site for site in sites if site not in kind.sites]:
        known = listing(kind.sites) if kind.sites else "no sites"
        raise ValueError(f"A {quoted(kind.key)} has {known}, not {listing(unknown)}. Leave out what it has not.")
