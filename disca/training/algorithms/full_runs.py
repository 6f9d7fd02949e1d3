"""Runs of the frozen network with every step in full, which a forecast of its outputs is learnt from."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..contract.protocol import Batch, Samples
from ..contract.settings import Settings
from ..contract.times import Draws
from ..data.dataset import collate
from ..network.conditions import guided_condition
from ..network.velocity import Condition, Network
from .sampling import own_velocity


class FullRun(NamedTuple):
    """Samples that went from noise to video together."""

    places: Tensor  # [B], where they stand among those that were asked for
    noise: Tensor  # [B, C, T, H, W]
    condition: Condition
    outputs: Tensor  # [B, steps, C, T, H, W], what the network answered in each step


class FullRuns:
    """A fixed number of runs, each made when it is first asked for and kept on the host.

    The run of a number has the dataset's sample of that number, and noise and guidance of (seed, number): the same at
    any batch and after any resume.
    """

    def __init__(self, network: Network, dataset: Samples, settings: Settings, sigmas: Sequence[float]):
        self._network, self._dataset, self._settings, self._sigmas = network, dataset, settings, sigmas
        self._outputs: dict[int, Tensor] = {}

    def take(self, numbers: Sequence[int], device: torch.device) -> Iterator[FullRun]:
        """The runs of these numbers, together those whose samples have one shape."""
        samples = [self._dataset[number % len(self._dataset)] for number in numbers]
        for batch in collate(samples, [*range(len(numbers))]):
            places = batch.pop("index")
            yield self._run({name: value.to(device) for name, value in batch.items()}, places, numbers)

    def _run(self, batch: Batch, places: Tensor, numbers: Sequence[int]) -> FullRun:
        own = [numbers[place] for place in places.tolist()]
        draws = Draws(self._settings.seed, torch.tensor(own), batch["latent"].device)
        condition = guided_condition(batch, self._network, draws, self._settings.cfg.guidance)
        noise = draws.noise(batch["latent"].float())
        if any(number not in self._outputs for number in own):
            made = self._made(noise, condition).cpu()
            self._outputs |= dict(zip(own, made, strict=True))
        outputs = torch.stack([self._outputs[number] for number in own]).to(noise)
        return FullRun(places, noise, condition, outputs)

    @torch.no_grad()
    def _made(self, x: Tensor, condition: Condition) -> Tensor:
        u, outputs = own_velocity(self._network, condition), []
        for t, r in zip(self._sigmas[:-1], self._sigmas[1:], strict=True):
            times = torch.full((len(x),), t, device=x.device)
            outputs.append(u(x, times, torch.full_like(times, r)))
            x = x - (t - r) * outputs[-1]
        return torch.stack(outputs, dim=1)
