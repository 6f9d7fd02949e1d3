"""One iteration: losses and gradients of all its samples, without those that are not finite."""

import math
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from ..contract.protocol import BANDS, Batch, Loss, Training
from .distributed import Processes, local
from .feed import MicroBatch, bad_positions, sample_seed, without
from .parts import Part

ATTEMPTS = 4


@dataclass
class LossSums:
    """Sums over samples: what the log's means are made of."""

    losses: dict[str, list[list[float]]] = field(default_factory=dict)  # part -> band -> [sum, count]
    extra: dict[str, list[float]] = field(default_factory=dict)  # name -> [sum, count]

    def add(self, loss: Loss, counts: Tensor) -> None:
        """Takes in the samples of a loss that count."""
        bands = self.losses.setdefault(loss.name, [[0.0, 0] for _ in range(BANDS)])
        values, times = loss.value.detach().float().cpu(), loss.t.detach().float().cpu()
        for value, t, counted in zip(values.tolist(), times.tolist(), counts.tolist(), strict=True):
            if counted:
                _add(bands[min(int(t * BANDS), BANDS - 1)], value, 1)
        for name, value in loss.extra.items():
            _add(self.extra.setdefault(name, [0.0, 0]), float(value), 1)

    def merge(self, other: "LossSums") -> None:
        """Takes in another process's sums."""
        for name, bands in other.losses.items():
            mine = self.losses.setdefault(name, [[0.0, 0] for _ in range(BANDS)])
            for band, (total, count) in zip(mine, bands, strict=True):
                _add(band, total, count)
        for name, (total, count) in other.extra.items():
            _add(self.extra.setdefault(name, [0.0, 0]), total, count)

    def means(self) -> dict[str, dict]:
        """For the log: loss by part, loss by part and band, further figures by name."""
        totals = {name: [sum(part) for part in zip(*bands, strict=True)] for name, bands in self.losses.items()}
        return {
            "loss": {name: _mean(total) for name, total in totals.items()},
            "bands": {name: [_mean(band) for band in bands] for name, bands in self.losses.items()},
            "extra": {name: _mean(total) for name, total in self.extra.items()},
        }


@dataclass
class Outcome:
    """What an iteration came to."""

    sums: LossSums
    bad: set[int]  # positions of the samples left out
    norms: dict[str, float]  # of the gradient, by part; empty if there is nothing to step along


class Accumulator:
    """Adds up the gradients of an iteration in all processes."""

    def __init__(self, training: Training, parts: list[Part], processes: Processes, seed: int):
        self._training, self._parts, self._processes, self._seed = training, parts, processes, seed

    def run(self, iteration: int, micro_batches: list[MicroBatch], samples: int, positions: range) -> Outcome:
        """Gradients of all samples but those with NaN or infinity in data, loss or gradient, which are found out."""
        bad = set().union(
            *self._processes.gather(
                [bad for micro_batch in micro_batches for batch in micro_batch for bad in bad_positions(batch)]
            )
        )
        careful = False
        for _ in range(ATTEMPTS):
            sums, found = self._pass(iteration, micro_batches, samples, bad, careful)
            if found:
                bad |= found
                continue
            norms = {part.name: part.gradient_norm(self._processes) for part in self._parts if part.has_gradient()}
            if len(bad) == samples:
                return Outcome(sums, bad, {})
            if all(math.isfinite(norm) for norm in norms.values()):
                return Outcome(sums, bad, norms)
            if careful:
                break
            careful = True
        return Outcome(sums, set(positions), {})

    def _pass(
        self, iteration: int, micro_batches: list[MicroBatch], samples: int, bad: set[int], careful: bool
    ) -> tuple[LossSums, set[int]]:
        for part in self._parts:
            part.zero_grad()
        sums, found = LossSums(), set()
        for micro_batch in micro_batches:
            for batch, counted in self._padded(micro_batch):
                left_out = bad if counted else bad | set(batch["index"].tolist())
                found |= self._backward(without(batch, left_out), left_out, iteration, samples, sums)
                if careful and self._gradient_is_spoiled():
                    found |= set(batch["index"].tolist()) - left_out
        total = LossSums()
        for other, _ in (gathered := self._processes.gather([asdict(sums), sorted(found)])):
            total.merge(LossSums(**other))
        return total, set().union(*(others for _, others in gathered))

    def _padded(self, micro_batch: MicroBatch) -> list[tuple[Batch, bool]]:
        """Each batch, and whether it counts; the last may be repeated: all processes run the network equally often."""
        wanted = self._processes.max(len(micro_batch))
        return [(batch, True) for batch in micro_batch] + [(micro_batch[-1], False)] * (wanted - len(micro_batch))

    def _backward(self, batch: Batch, bad: set[int], iteration: int, samples: int, sums: LossSums) -> set[int]:
        positions = batch["index"].tolist()
        counts = torch.tensor([position not in bad for position in positions])
        torch.manual_seed(sample_seed(self._seed, positions[0]))  # for draws that have no generator of their own
        batch = {name: tensor.to(self._processes.device) for name, tensor in batch.items()}
        found = set()
        for loss in self._training.losses(batch, iteration):
            finite = torch.isfinite(loss.value.detach()).cpu()
            found |= {position for position, ok in zip(positions, (finite | ~counts).tolist(), strict=True) if not ok}
            kept = torch.where(counts.to(loss.value.device), loss.weight * loss.value, 0.0)
            (kept.sum() * (self._processes.size / samples)).backward()
            sums.add(loss, counts & finite)
        return found

    def _gradient_is_spoiled(self) -> bool:
        """Whether a gradient is not finite by now; then all are cleared, so that the next samples are judged alone."""
        gradients = [
            local(weight.grad) for part in self._parts for weight in part.weights.values() if weight.grad is not None
        ]
        not_finite = not all(bool(torch.isfinite(gradient).all()) for gradient in gradients)
        if not self._processes.any(not_finite):
            return False
        for part in self._parts:
            part.zero_grad()
        return True


def _add(total: list[float], value: float, count: int) -> None:
    total[0] += value
    total[1] += count


def _mean(total: list[float]) -> float | None:
    return total[0] / total[1] if total[1] else None
