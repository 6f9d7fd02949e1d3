"""A LoRA file as the start of a LoRA training: the run's adapters begin by adding what it adds to the weights."""

import torch
from torch import Tensor, nn

from ...messages import listing, quoted
from ...models.family import family_of
from ...weights.files import open_weights
from ...weights.lora_file import read_lora
from ...weights.lora_fit import Change, fit, require_some
from .lora import Adapter, Lora

SHOWN = 4  # names in a list


@torch.no_grad()
def start_from(network: nn.Module, lora: Lora, path: str) -> None:
    """Puts the LoRA file of any trainer into fresh adapters and embedders of a network that is not sharded yet.

    A part of an adapter that the file does not need stays as it was. ValueError if the file is for another model, has
    kinds or layers that are not trained here, or needs a higher rank.
    """
    file, title = read_lora(open_weights(path)), family_of(network).title
    shapes = {name: tuple(weight.shape) for name, weight in network.named_parameters() if ".adapter." not in name}
    fitted = fit(file, shapes)
    require_some(file, fitted, title)
    if left := [*fitted.unknown, *fitted.unfit]:
        raise ValueError(
            f"{quoted(file.name)} has {len(left):d} layers that do not fit this {title}: {listing(left, SHOWN, str)}. "
            "Start from one that fits, or leave lora.path empty."
        )
    adapters, places = lora.adapters(), {}
    for change in fitted.changes:
        places.setdefault(change.key.removesuffix(".weight"), []).append(change)
    strangers = [name for name, changes in places.items() if not _is_trained(name, changes, adapters, lora)]
    if strangers:
        raise ValueError(
            f"{quoted(file.name)} changes what this training does not train: {listing(strangers, SHOWN)}. Set "
            "lora.targets to what it was trained on, or merge it into the model and start from that."
        )
    for name, changes in places.items():
        if name in adapters:
            _fill(name, adapters[name], changes)
        else:
            weight = lora.get_parameter(changes[0].key)
            weight += changes[0].adapter.tensors["diff"].to(weight)


def _is_trained(name: str, changes: list[Change], adapters: dict[str, Adapter], lora: Lora) -> bool:
    plain = all(change.adapter.magnitude is None for change in changes)
    if name in adapters:
        return plain and all(change.adapter.kind == "LoRA" for change in changes)
    return name.startswith(tuple(lora.originals)) and all(change.adapter.kind == "difference" for change in changes)


def _fill(name: str, adapter: Adapter, changes: list[Change]) -> None:
    """One part after another takes as many of the adapter's ranks as it has."""
    pieces = [(change.rows, *_factors(change.adapter.tensors)) for change in changes]
    needed, rank = sum(len(down) for _, _, down in pieces), len(adapter.down)
    if needed > rank:
        raise ValueError(f"lora.path has rank {needed:d} in {quoted(name)}, but lora.rank is {rank:d}. Set it higher.")
    taken = 0
    for rows, up, down in pieces:
        start, count = rows or (0, len(adapter.up))
        adapter.down[taken : taken + len(down)] = down.to(adapter.down)
        adapter.up[start : start + count, taken : taken + len(down)] = (up / adapter.scale).to(adapter.up)
        taken += len(down)


def _factors(tensors: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """up and down of a file, its strength worked into up."""
    up, down = tensors["lora_up.weight"].float().flatten(1), tensors["lora_down.weight"].float().flatten(1)
    return up * (float(tensors["alpha"]) / len(down) if "alpha" in tensors else 1.0), down
