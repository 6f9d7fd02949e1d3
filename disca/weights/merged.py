"""The weights of a file in the merged layout, whatever layout the file has; the split ones joined while reading."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..messages import listing, quoted
from . import layouts
from .checks import require_floating, require_once
from .files import Shape, WeightsFile


@dataclass(frozen=True)
class MergedWeights:
    """Which keys of the file make which weight; the tensors stay on disk until they are asked for."""

    file: WeightsFile
    prefix: str
    sources: layouts.Sources
    swapped: frozenset[str] = frozenset()  # weights whose halves of rows stand the other way round in the file

    @property
    def shapes(self) -> dict[str, Shape]:
        """The shape of each joined weight."""
        return {key: _joined([self.file.tensors[part].shape for part in parts]) for key, parts in self.sources.items()}

    @property
    def dtypes(self) -> dict[str, torch.dtype]:
        """The type of each weight; float32, which holds them all, if its parts differ."""
        kinds = {key: {self.file.tensors[part].dtype for part in parts} for key, parts in self.sources.items()}
        return {key: kind.pop() if len(kind) == 1 else torch.float32 for key, kind in kinds.items()}

    def without(self, keys: frozenset[str]) -> "MergedWeights":
        """All but these weights."""
        return replace(self, sources={key: parts for key, parts in self.sources.items() if key not in keys})

    def renamed(self, names: Mapping[str, str]) -> "MergedWeights":
        """The same weights under other names, new name -> old; ValueError if two weights would have the same name."""
        require_once(self.file.name, list(self.sources.keys() - set(names.values())))
        return replace(self, sources={new: self.sources[old] for new, old in names.items()})

    def require_floating(self) -> None:
        """ValueError that names a weight of whole numbers, if there is one."""
        require_floating(self.file.name, self.dtypes)

    def read_into(self, targets: Mapping[str, Tensor]) -> None:
        """Copies the weights into the targets; those that have none are only checked for NaN and infinity."""
        rows = {}
        for key, parts in self.sources.items():
            start = 0
            for part in parts:
                rows[part] = (key, start)
                start += sum(self.file.tensors[part].shape[:1])
        for part, tensor in self.file.read(list(rows)):
            key, start = rows[part]
            if key in targets:
                tensor = torch.cat(tensor.chunk(2)[::-1]) if key in self.swapped else tensor
                targets[key].narrow(0, start, len(tensor)).copy_(tensor)


def merged_weights(file: WeightsFile, mark: str) -> MergedWeights:
    """The weights that share the mark's prefix; ValueError if some are there twice, or a split one lacks a part."""
    prefix = layouts.prefix_of(file.tensors, mark)
    names, twice = layouts.without_prefix(file.tensors, prefix)
    require_once(file.name, twice)
    return joined_weights(file, prefix, names)


def joined_weights(
    file: WeightsFile, prefix: str, names: Mapping[str, str], split: layouts.Split | None = None
) -> MergedWeights:
    """The weights of these names, name -> key in the file; ValueError if some are there twice, or one lacks a part."""
    merged = layouts.merged(names, split)
    require_once(file.name, merged.twice)
    if merged.missing:
        raise ValueError(
            f"{quoted(file.name)} is incomplete: {len(merged.missing)} keys missing: {listing(merged.missing)}. "
            "Download it again."
        )
    sources = {key: tuple(names[part] for part in parts) for key, parts in merged.sources.items()}
    for parts in sources.values():
        _require_joinable(file, parts)
    return MergedWeights(file, prefix, sources)


def _joined(shapes: list[Shape]) -> Shape:
    return (sum(shape[0] for shape in shapes), *shapes[0][1:]) if len(shapes) > 1 else shapes[0]


def _require_joinable(file: WeightsFile, parts: tuple[str, ...]) -> None:
    shapes = [file.tensors[part].shape for part in parts]
    q, *others = shapes
    alike = all(shape == q for shape in others[:2]) and all(shape[1:] == q[1:] for shape in others[2:])
    if others and not (all(shapes) and alike):
        found = ", ".join(f"{quoted(part)} {quoted(list(shape))}" for part, shape in zip(parts, shapes, strict=True))
        raise ValueError(
            f"{quoted(file.name)} is damaged: {found} are parts of one weight and need the same shape. "
            "Download it again."
        )
