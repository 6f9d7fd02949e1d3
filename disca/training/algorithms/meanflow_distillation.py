"""Restricted MeanFlow distillation: the student learns mean velocities over intervals up to R (DisCa, Algorithm 2)."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from ..contract.protocol import Batch, Loss
from ..contract.times import Draws
from ..contract.velocity import Velocity
from ..network.conditions import guided_condition, latents, rows
from ..network.export import exported_meanflow_model
from ..network.velocity import Condition
from .derivative import central_difference, dual_numbers
from .distillation import StudentTraining
from .losses import adaptive_weight, meanflow_loss
from .previews import distance, mean_flow, one_call
from .probe import probe_derivative


class MeanFlowDistillation(StudentTraining):
    """Trains a student that is told where a step ends."""

    embedder = "time_r_in"
    load = staticmethod(exported_meanflow_model)

    def losses(self, batch: Batch, iteration: int) -> Iterator[Loss]:
        """The loss of Algorithm 2; with a guided teacher at a guidance scale of each sample's own."""
        meanflow = self.settings.meanflow
        draws = Draws(self.settings.seed, batch["index"], self.device)
        t, r = draws.restricted_times(meanflow.R, meanflow.share_r_equals_t)
        noise = draws.noise(latents(batch))
        condition = guided_condition(batch, self.network, draws, self.settings.cfg.guidance)
        value, capped = meanflow_loss(
            self._student(condition), lambda x_t, t: self.networks.teacher(x_t, t, condition), self._derivative,
            latents(batch), noise, t, r, meanflow.cap, in_step=torch.distributed.is_initialized(),
        )  # fmt: skip
        weight = adaptive_weight(value, meanflow.adaptive)
        yield Loss("network", value, t, {"capped": capped.float().mean().item()}, weight)

    def probe(self, batch: Batch) -> list[str]:
        """Compares the two derivatives, and asks whether r has an effect."""
        draws = Draws(self.settings.seed, batch["index"], self.device)
        condition = guided_condition(batch, self.network, draws, self.settings.cfg.guidance)
        return probe_derivative(
            self._student(condition), lambda x_t, t: self.networks.teacher(x_t, t, condition),
            draws.noise(latents(batch)), self._h,
        )  # fmt: skip

    def preview(self, path: Path | None) -> dict[str, float]:
        """Teacher and student with the same number of steps."""
        scale = self.settings.preview.guidance
        rows = {
            "teacher": one_call(
                self.networks.teaching, self.previews, scale, self.networks.lora, self.networks.teacher_takes_r
            ),
            "student": mean_flow(self.networks.student, self.previews, scale),
        }
        self.previews.write(path, rows, self.networks.student.module)
        return {"student to teacher": distance(rows["student"], rows["teacher"])}

    @property
    def _h(self) -> float:
        return self.settings.meanflow.distance(self.settings.model.dtype)

    def _student(self, condition: Condition) -> Velocity:
        def u(x_t: Tensor, t: Tensor, r: Tensor, chosen: Tensor | None = None, **options) -> Tensor:
            own = condition if chosen is None else rows(condition, chosen)
            return self.networks.student.velocity(x_t, t, r, own, **options)

        return u

    def _derivative(self, u: Velocity, x_t: Tensor, t: Tensor, r: Tensor, v: Tensor) -> Tensor:
        if self.settings.meanflow.derivative == "dual":
            return dual_numbers(u, x_t, t, r, v)
        return central_difference(u, x_t, t, r, v, self._h)
