"""LoRA on a HunyuanVideo: low-rank adapters on its blocks, and its time embedders trained in full.

Each adapter is a child of the layer it adds to, run by a forward hook of that layer. So it is recomputed with its block
where that is recomputed, sharded with its block by `fully_shard`, and it never touches how the base weight is stored.
The modulation layers get none: what they see, the time embedding, is trained in full.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ...messages import listing, quoted
from ...models.family import family_of

EMBEDDERS = ("time_in", "time_r_in", "guidance_in")
PREFIX = "diffusion_model."  # of the network's keys where ComfyUI loads a LoRA


class Adapter(nn.Module):
    """alpha / rank * up(down(x)): nothing at first, computed in the type of x."""

    def __init__(self, layer: nn.Linear, rank: int, alpha: float, generator: torch.Generator):
        super().__init__()
        bound = layer.in_features**-0.5
        self.down = nn.Parameter(torch.empty(rank, layer.in_features).uniform_(-bound, bound, generator=generator))
        self.up = nn.Parameter(torch.zeros(layer.out_features, rank))
        self.alpha = alpha
        self.scale = alpha / rank

    def forward(self, x: Tensor) -> Tensor:
        return linear(linear(x, self.down.to(x.dtype)) * self.scale, self.up.to(x.dtype))


class Lora(nn.Module):
    """All that is trained of a network under LoRA, named like the layers it belongs to; `originals`: the teacher's."""

    def __init__(self):
        super().__init__()
        self.on = True
        self.originals: dict[str, nn.Module] = {}  # not registered: neither trained, nor saved, nor sharded

    def adapters(self) -> dict[str, Adapter]:
        """Name of the layer -> its adapter."""
        return {name: module for name, module in self.named_modules() if isinstance(module, Adapter)}


def add_lora(
    network: nn.Module,
    rank: int,
    alpha: float = 0.0,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
    targets: Sequence[str] = (),
) -> Lora:
    """Freezes the network, on its device, and gives what is trained instead, in `dtype`; alpha 0 means alpha = rank.

    Comes before recomputation and `fully_shard`.
    """
    if rank < 1:
        raise ValueError(f"lora.rank is {rank:d}, but an adapter needs at least 1. Set it to 16 to 256.")
    network.requires_grad_(False)
    device = network.time_in.in_layer.weight.device  # a block's own weights may wait on the host
    generator = torch.Generator().manual_seed(seed)
    lora = Lora()
    for name, layer in lora_targets(network, targets).items():
        layer.adapter = Adapter(layer, rank, alpha or float(rank), generator).to(device, dtype)
        layer.register_forward_hook(_hook(lora))
        _place(lora, name, layer.adapter)
    for name in EMBEDDERS:
        embedder = getattr(network, name, None)
        if embedder is not None and any(True for _ in embedder.parameters()):
            lora.originals[name] = deepcopy(embedder)
            lora.add_module(name, _train_in_full(embedder, dtype))
    return lora


def lora_targets(network: nn.Module, wanted: Sequence[str] = ()) -> dict[str, nn.Linear]:
    """The linear layers of attention and MLP in the double and single blocks, by their names in the network.

    Of these, such as fit one of the wanted patterns, if there are any; ValueError for a pattern that fits none.
    """
    prefixes = family_of(network).prefixes
    layers = {
        name: module
        for name, module in network.named_modules()
        if name.startswith(prefixes) and isinstance(module, nn.Linear) and not name.endswith(".lin")
    }
    for pattern in wanted:
        if not any(_fits(name, [pattern]) for name in layers):
            ends = dict.fromkeys(re.sub(r"\.\d+\.", ".*.", name, count=1) for name in layers)
            raise ValueError(
                f"{quoted(pattern)} in lora.targets fits no layer that can have an adapter. There are "
                f"{listing([*ends], len(ends))}."
            )
    return {name: layer for name, layer in layers.items() if not wanted or _fits(name, wanted)}


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


@contextmanager
def adapters_off(network: nn.Module, lora: Lora) -> Iterator[None]:
    """The teacher: the network as it was before `add_lora`. No gradients: a recompute would find the adapters on."""
    before = {name: getattr(network, name) for name in lora.originals}
    was_on, lora.on = lora.on, False
    for name, original in lora.originals.items():
        setattr(network, name, original)
    try:
        with torch.no_grad():
            yield
    finally:
        lora.on = was_on
        for name, embedder in before.items():
            setattr(network, name, embedder)


def lora_state(lora: Lora, weights: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The LoRA as ComfyUI's Load LoRA reads it; of `weights`, named as in lora.state_dict(), if given.

    Embedders are stored as differences to the base's. On sharded weights every rank must call it.
    """
    weights = {name: _unsharded(tensor) for name, tensor in (weights or lora.state_dict()).items()}
    state = {}
    for name, adapter in lora.adapters().items():
        state[f"{PREFIX}{name}.lora_up.weight"] = weights[f"{name}.up"]
        state[f"{PREFIX}{name}.lora_down.weight"] = weights[f"{name}.down"]
        state[f"{PREFIX}{name}.alpha"] = torch.tensor(adapter.alpha)
    for name, original in lora.originals.items():
        for key, before in original.state_dict().items():
            stem, _, kind = f"{PREFIX}{name}.{key}".rpartition(".")
            difference = weights[f"{name}.{key}"].float() - before.float().to(weights[f"{name}.{key}"].device)
            state[f"{stem}.diff" if kind == "weight" else f"{stem}.diff_b"] = difference
    return {key: tensor.cpu().contiguous() for key, tensor in state.items()}


@torch.no_grad()
def base_state(network: nn.Module, kept: bool = True) -> dict[str, Tensor]:
    """The network's weights without adapters, on the host if they are `kept`; all processes have to ask."""
    state = {}
    for name, tensor in network.state_dict().items():
        if ".adapter." not in name:
            whole = _unsharded(tensor)
            if kept:
                state[name] = whole.cpu()
    return state


@torch.no_grad()
def whole_state(
    network: nn.Module, lora: Lora, base: dict[str, Tensor], weights: dict[str, Tensor]
) -> dict[str, Tensor]:
    """The `base_state` with the LoRA of these weights worked in, for one that lacks an embedder which was trained."""
    weights = {name: tensor.cpu() for name, tensor in weights.items()}
    state = base | {name: tensor for name, tensor in weights.items() if name in base}
    for name, layer in network.named_modules():
        for function in getattr(layer, "weight_function", ()):  # undoes the scale of fp8, exactly
            state[f"{name}.weight"] = function(state[f"{name}.weight"].bfloat16())
    for name, adapter in lora.adapters().items():
        weight = state[f"{name}.weight"]
        up, down = weights[f"{name}.up"].float(), weights[f"{name}.down"].float()
        kept = weight.dtype if weight.dtype.itemsize > 1 else torch.bfloat16
        state[f"{name}.weight"] = (weight.float() + adapter.scale * up @ down).to(kept)
    return {name: tensor.cpu().contiguous() for name, tensor in state.items()}


def _hook(lora: Lora):
    def add(layer: nn.Linear, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        return output + layer.adapter(inputs[0]) if lora.on else output

    return add


def _train_in_full(embedder: nn.Module, dtype: torch.dtype) -> nn.Module:
    embedder.to(dtype).requires_grad_(True)
    for layer in embedder.modules():
        if isinstance(layer, nn.Linear):
            layer.comfy_cast_weights = True  # ComfyUI's layer then takes any type of input
    return embedder


def _place(root: nn.Module, path: str, module: nn.Module) -> None:
    *parents, name = path.split(".")
    for parent in parents:
        if not hasattr(root, parent):
            root.add_module(parent, nn.Module())
        root = getattr(root, parent)
    root.add_module(name, module)


def _unsharded(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
