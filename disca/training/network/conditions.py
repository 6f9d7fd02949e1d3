"""Conditions of a batch: with the guidance scale, and their unconditional twins."""

from torch import Tensor

from ..contract.protocol import Batch
from ..contract.times import Draws
from ..data.dataset import unconditional
from .velocity import INPUTS, Condition, Network


def latents(batch: Batch) -> Tensor:
    """x_0 in fp32, however it was stored."""
    return batch["latent"].float()


def condition_of(batch: Batch, guidance: Tensor | None = None) -> Condition:
    """What the network is told of these samples; `guidance` [B] for models that are told their scale."""
    condition = {name: batch[name] for name in (*INPUTS, "concat") if name in batch}
    return condition if guidance is None else condition | {"guidance": guidance}


def guided_condition(batch: Batch, network: Network, draws: Draws, guidance: tuple[float, float]) -> Condition:
    """What the network is told, at guidance scales from that range if it is told them."""
    return condition_of(batch, draws.uniform(*guidance) if network.module.params.guidance_embed else None)


def without_prompt(batch: Batch, null: dict[str, Tensor]) -> Condition:
    """The same with the dataset's unconditional prompt."""
    return condition_of(unconditional(batch, null))


def rows(condition: Condition, chosen: Tensor) -> Condition:
    """The chosen samples' part of it."""
    return {name: value[chosen] for name, value in condition.items()}
