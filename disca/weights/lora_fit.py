"""A LoRA file laid onto a network: what goes where, what matches nothing, and what it may be if nothing matches."""

import re
from collections.abc import Mapping
from math import prod
from typing import NamedTuple

from ..messages import cause, listing, quoted
from .files import Shape
from .lora_file import Lora
from .lora_kinds import (
    WHOLE_KINDS,
    Adapter,
    Tensors,
    UnfitError,
    bias_adapter,
    changes_nothing,
    magnitude_for,
    swapped_halves,
    weight_adapter,
)
from .lora_names import SWAPPED, Place, find, is_text_encoder, places, rows_of

OTHER_MODELS = {  # what a layer's name says of a file that has nothing for HunyuanVideo
    r"blocks_\d+_(self_attn|cross_attn|ffn)_": "Wan",
    r"transformer_blocks_\d+_attn[12]_": "LTX-Video or CogVideoX",
    r"transformer_blocks_\d+_(img|txt)_(mod|mlp)": "Qwen-Image",
    r"(down|up|mid|input|output|middle)_blocks?_": "Stable Diffusion",
    r"joint_blocks_": "Stable Diffusion 3",
    r"(double|single)_(blocks|transformer_blocks)_": "Flux or HunyuanVideo of another size",
}
SHOWN = 4  # names in a list
FLUX_BLOCKS = {"double_blocks": 19, "single_blocks": 38}  # one and two fewer than HunyuanVideo 1.0


class Change(NamedTuple):
    """What is done to the rows (start, number; None: all) of a network's weight or bias."""

    key: str
    rows: tuple[int, int] | None
    adapter: Adapter


class Fitted(NamedTuple):
    """The changes a file makes, and the names of its layers: used, and left out for each reason."""

    changes: list[Change]
    used: list[str]
    unknown: list[str]
    unfit: list[str]  # with the reason
    text_encoders: list[str]
    idle: list[str]  # of the used ones, those that change nothing


def fit(lora: Lora, shapes: Mapping[str, Shape]) -> Fitted:
    """The file's layers on a network with weights of these shapes; ValueError if two are for the same rows."""
    known = places(key.removesuffix(".weight") for key in shapes if key.endswith(".weight"))
    fitted = Fitted([], [], [], [], [], [])
    seen: dict[str, list[tuple[range, str]]] = {}
    for name, tensors in lora.layers.items():
        place = find(name, known)
        if place is None:
            (fitted.text_encoders if is_text_encoder(name) else fitted.unknown).append(name)
            continue
        try:
            changes = _changes(tensors, place, shapes)
        except UnfitError as error:
            fitted.unfit.append(f"{quoted(name)} ({cause(error)})")
            continue
        for change in changes:
            start, count = change.rows or (0, shapes[change.key][0])
            rows = range(start, start + count)
            others = seen.setdefault(change.key, [])
            other = next((other for taken, other in others if other != name and _overlap(taken, rows)), None)
            others.append((rows, name))
            if other is not None:
                raise ValueError(
                    f"{quoted(lora.name)} has the same layer twice, as {quoted(other)} and {quoted(name)}. Only one "
                    "can be right: download the file again, or export it anew."
                )
        fitted.changes.extend(changes)
        fitted.used.append(name)
        if all(changes_nothing(change.adapter) for change in changes):
            fitted.idle.append(name)
    for key in lora.others:
        (fitted.text_encoders if is_text_encoder(key) else fitted.unknown).append(key)
    return fitted


def _overlap(a: range, b: range) -> bool:
    return max(a.start, b.start) < min(a.stop, b.stop)


def require_some(lora: Lora, fitted: Fitted, model: str) -> None:
    """ValueError that says what the file seems to be for, if nothing of it is for the model."""
    if fitted.used:
        return
    count = len(lora.layers)
    do = f"Choose a LoRA that was trained for {model}."
    if fitted.unfit:
        raise ValueError(
            f"{quoted(lora.name)} does not fit this {model}: of its {count} layers {len(fitted.unfit)} have the right "
            f"names, but none fits: {listing(fitted.unfit, SHOWN, str)}. It may be for another size or model. {do}"
        )
    if not fitted.unknown:
        raise ValueError(f"{quoted(lora.name)} is for text encoders only: a MODEL has none of them. {do}")
    raise ValueError(
        f"{quoted(lora.name)} has nothing for {model}: none of its {count} layers is in the network, but "
        f"{listing(fitted.unknown, SHOWN)}{_other_model(fitted.unknown)}. {do}"
    )


def report(lora: Lora, fitted: Fitted, strength: float, depths: Mapping[str, int]) -> str:
    """The headline, then a line for everything that was left out or is to be known."""
    left = len(fitted.unknown) + len(fitted.unfit)
    lines = [f"{len(fitted.used)} of {len(fitted.used) + left} layers of {quoted(lora.name)} at strength {strength:g}"]
    if not strength:
        lines.append("Strength 0: the model is left as it is.")
    if fitted.idle:
        lines.append(
            f"{len(fitted.idle)} of them change nothing, as alpha or weights are 0: {listing(fitted.idle, SHOWN)}."
        )
    if fitted.unknown:
        lines.append(f"{len(fitted.unknown)} match nothing in this model: {listing(fitted.unknown, SHOWN)}.")
    if fitted.unfit:
        lines.append(f"{len(fitted.unfit)} do not fit and are left out: {listing(fitted.unfit, SHOWN, str)}.")
    if fitted.text_encoders:
        explanation = "are for text encoders and left out: core's Load LoRA takes those"
        lines.append(f"{len(fitted.text_encoders)} {explanation}: {listing(fitted.text_encoders, SHOWN)}.")
    if any(change.adapter.kind == "weight" for change in fitted.changes) and strength not in (0, 1):
        lines.append("It replaces some weights, which are the file's own at any strength but 0.")
    kinds = [change.adapter for change in fitted.changes if change.adapter.kind == "LoRA"]
    if kinds and not any("alpha" in adapter.tensors for adapter in kinds):
        lines.append("It has no alpha: taken for the rank, so that strength 1 is the whole.")
    if warning := _for_another(lora, fitted, depths):
        lines.append(warning)
    return "\n".join(lines)


def _changes(tensors: Tensors, place: Place, shapes: Mapping[str, Shape]) -> list[Change]:
    weight = shapes[f"{place.layer}.weight"]
    rows = rows_of(place, weight)
    changes = []
    for end, adapter_of in (("weight", weight_adapter), ("bias", bias_adapter)):
        adapter, key = adapter_of(tensors), f"{place.layer}.{end}"
        if adapter is None:
            continue
        if key not in shapes:
            raise UnfitError(f"the model's layer has no {end}")
        shape = (rows[1], *shapes[key][1:]) if rows else tuple(shapes[key])
        changes.append(Change(key, rows, _fitted(adapter, shape, place.part == SWAPPED)))
    if not changes:
        raise UnfitError(f"only {listing(sorted(tensors), SHOWN, str)}")
    return changes


def _fitted(adapter: Adapter, shape: Shape, swapped: bool) -> Adapter:
    """The adapter for a weight of that shape; UnfitError if it is for another."""
    columns = prod(shape[1:])
    if adapter.kind == "GLoRA" and len(shape) > 2:
        raise UnfitError("GLoRA of a convolution")
    if adapter.rows != shape[0] or adapter.columns not in (None, columns):
        found = [adapter.rows] if adapter.columns in (None, 1) else [adapter.rows, adapter.columns]
        raise UnfitError(f"for {quoted(found)}, the model has {quoted([shape[0], columns][: len(found)])}")
    if adapter.rescale is not None and adapter.rescale.numel() != shape[0]:
        raise UnfitError(f"a rescale of {quoted(list(adapter.rescale.shape))} for a weight of {quoted(list(shape))}")
    if swapped:
        adapter = swapped_halves(adapter)
    tensors = adapter.tensors
    if adapter.kind in WHOLE_KINDS:
        tensors = {name: tensor.reshape(shape) for name, tensor in tensors.items()}
    ones = [1] * (len(shape) - 1)
    rescale = None if adapter.rescale is None else adapter.rescale.reshape(-1, *ones)
    return adapter._replace(tensors=tensors, magnitude=magnitude_for(adapter, shape), rescale=rescale)


def _other_model(names: list[str]) -> str:
    flat = "\n".join(name.replace(".", "_") + "_" for name in names)
    for pattern, model in OTHER_MODELS.items():
        if re.search(pattern, flat):
            return f", which seem to be those of {model}"
    return ""


def _for_another(lora: Lora, fitted: Fitted, depths: Mapping[str, int]) -> str | None:
    """A warning if the file says it is for another model, or its blocks end where Flux ends."""
    claimed = lora.metadata.get("modelspec.architecture") or lora.metadata.get("ss_base_model_version") or ""
    if claimed and not re.search("hunyuan|framepack", claimed, re.IGNORECASE):
        return f"It says that it is for {quoted(claimed)}: expect nonsense."
    used = {name: {int(m[1]) for c in fitted.changes if (m := re.match(rf"{name}\.(\d+)\.", c.key))} for name in depths}
    if all(used[name] == set(range(last)) and depths[name] > last for name, last in FLUX_BLOCKS.items()):
        return "Its blocks are as many as Flux has, not all of HunyuanVideo's: it may be for Flux."
    return None
