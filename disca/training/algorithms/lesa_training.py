"""LESA training: small experts learn to continue the frozen network's outputs (LESA, two stages)."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from ...meanflow import shifted_sigmas
from ...methods.scheduled.lesa import HISTORY, LesaCache, LesaNetwork
from ...methods.seam.anchors import AtAnchors
from ...methods.seam.method import Method
from ...methods.seam.when import FULL
from ...schedule import parse_anchors
from ..contract.protocol import Batch, Loss, Samples, trainable
from ..contract.settings import Settings
from ..contract.times import at_least_fp32
from ..contract.velocity import Velocity
from ..network.export import export_lesa, exported_lesa
from ..network.roles import frozen_network, lesa_spec
from ..network.velocity import Network
from .full_runs import FullRun, FullRuns
from .previews import Previews, distance
from .sampling import CachedVelocity, own_velocity
from .scenes import Scene

LEARNING_RATE = 1e-4


class LesaTraining:
    """First on the outputs of full runs, then on those that a run by its own plan has, its own answers among them."""

    may_change = frozenset({"lesa.closed_iterations"})
    load = staticmethod(exported_lesa)

    def __init__(self, settings: Settings, dataset: Samples, device: torch.device, network: Network | None = None):
        self.settings, self.dataset, self.device = settings, dataset, device
        self.previews = Previews(settings, dataset, device)
        self.network = network or frozen_network(settings, device)
        lesa = settings.lesa
        self.iterations = lesa.iterations
        self.sigmas = shifted_sigmas(lesa.steps, lesa.shift).tolist()
        self.method = _method(settings)
        self.plan = _plan(self.method, self.sigmas)
        torch.manual_seed(settings.seed)
        self.experts = LesaNetwork(lesa.steps, lesa.hidden).to(device)
        self.runs = FullRuns(self.network, dataset, settings, self.sigmas)
        self.parts = {"experts": trainable(self.experts, settings.optimizer, LEARNING_RATE)}

    def losses(self, batch: Batch, iteration: int) -> Iterator[Loss]:
        """The mean absolute error of each step that the plan leaves out, one after another."""
        closed = iteration >= self.settings.lesa.guided_iterations
        numbers = [position % self.settings.lesa.runs for position in batch["index"].tolist()]
        runs = [*self.runs.take(numbers, self.device)]
        order = torch.cat([run.places for run in runs]).argsort()
        for found in zip(*(self._errors(run, closed) for run in runs), strict=True):
            (step, *_), values = zip(*found, strict=True)
            value = torch.cat(values)[order.to(self.device)]
            yield Loss("experts", value, torch.full_like(value, self.sigmas[step]))

    def probe(self, batch: Batch) -> list[str]:
        """The error of the last output as it is, which the experts have to beat."""
        (run, *_) = self.runs.take([0], self.device)
        with torch.no_grad():
            errors = [value.mean().item() for _, value in self._errors(run, closed=True)]
        return [f"The experts begin at a mean error of {sum(errors) / len(errors):.4g} in {len(errors):d} steps."]

    def preview(self, path: Path | None) -> dict[str, float]:
        """The model with every step in full, and with the experts on those that the plan leaves out."""
        times, takes_r = torch.tensor(self.sigmas), self.network.module.params.meanflow

        def full(scene: Scene) -> Velocity:
            return own_velocity(self.network, scene.condition(self.network, self.settings.preview.guidance))

        def forecast(scene: Scene) -> Velocity:
            condition = scene.condition(self.network, self.settings.preview.guidance)
            return CachedVelocity(self.network, condition, self.method, self.sigmas, self.experts, takes_r)

        rows = {"full": self.previews.sampled(full, times), "forecast": self.previews.sampled(forecast, times)}
        self.previews.write(path, rows, self.network.module)
        return {"forecast to full": distance(rows["forecast"], rows["full"])}

    def export(self, folder: Path, weights: dict[str, Tensor] | None) -> None:
        """The experts as Load Predictor reads them."""
        anchors = tuple(step for step, way in enumerate(self.plan) if way == FULL)
        export_lesa(folder, lesa_spec(self.settings, anchors), self.experts, weights)

    def shards(self) -> list[nn.Module]:
        """None: one process may have to make runs that another has made."""
        return []

    def _errors(self, run: FullRun, closed: bool) -> Iterator[tuple[int, Tensor]]:
        """Each step that is left out, and the error [B] of its forecast against the full run's output."""
        u, x, history, drifted = own_velocity(self.network, run.condition), run.noise, [], False
        for step, way in enumerate(self.plan):
            true = made = run.outputs[:, step]
            if way != FULL:
                forecast = self._forecast(history, step)
                yield step, (at_least_fp32(forecast) - true).abs().flatten(1).mean(1)
                made, drifted = (forecast.detach(), True) if closed else (true, False)
            elif drifted:  # until then it is the full run itself
                with torch.no_grad():
                    made = self._full(u, x, step)
            history = [made, *history][:HISTORY]
            x = self._next(x, made, step)

    def _forecast(self, history: list[Tensor], step: int) -> Tensor:
        return self.experts(history, step, self.sigmas)

    def _full(self, u, x: Tensor, step: int) -> Tensor:
        times = torch.full((len(x),), self.sigmas[step], device=x.device)
        return u(x, times, torch.full_like(times, self.sigmas[step + 1])).to(x.dtype)

    def _next(self, x: Tensor, made: Tensor, step: int) -> Tensor:
        return x - (self.sigmas[step] - self.sigmas[step + 1]) * made


def _method(settings: Settings) -> Method:
    """By the anchors of the settings, or LESA's own."""
    lesa = settings.lesa
    rule = AtAnchors(parse_anchors(lesa.anchors)) if lesa.anchors else None
    return LesaCache(interval=lesa.interval, warmup=lesa.warmup).method(rule)


def _plan(method: Method, sigmas: list[float]) -> tuple[int, ...]:
    """What each step is; ValueError unless some step is left out."""
    plan = method.when.plan(sigmas)
    if all(way == FULL for way in plan):
        raise ValueError(
            f"All of the {len(plan):d} steps run in full by these settings, so that nothing is left to learn. "
            "Raise lesa.interval, or name fewer lesa.anchors."
        )
    return plan
