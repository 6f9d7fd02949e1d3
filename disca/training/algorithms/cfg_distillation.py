"""CFG distillation: the student answers in one call what guidance takes two for (DisCa, Algorithm 1)."""

from collections.abc import Iterator
from pathlib import Path

from torch import Tensor

from ..contract.protocol import Batch, Loss
from ..contract.times import Draws
from ..network.conditions import condition_of, latents, without_prompt
from ..network.export import exported_model
from .distillation import StudentTraining
from .losses import cfg_distillation_loss
from .previews import distance, one_call, original


class CfgDistillation(StudentTraining):
    """Trains a student that is told the guidance scale."""

    embedder = "guidance_in"
    load = staticmethod(exported_model)

    def losses(self, batch: Batch, iteration: int) -> Iterator[Loss]:
        """The loss of Algorithm 1, at a guidance scale of each sample's own."""
        draws = Draws(self.settings.seed, batch["index"], self.device)
        t, g = draws.uniform(), draws.uniform(*self.settings.cfg.guidance)
        condition, null = condition_of(batch), without_prompt(batch, self.dataset.null)
        value = cfg_distillation_loss(
            lambda x_t, t, g: self.networks.student.velocity(x_t, t, self._r(t), condition | {"guidance": g}),
            lambda x_t, t: self.networks.teacher(x_t, t, condition),
            lambda x_t, t: self.networks.teacher(x_t, t, null),
            latents(batch), draws.noise(latents(batch)), t, g,
        )  # fmt: skip
        yield Loss("network", value, t)

    def _r(self, t: Tensor) -> Tensor | None:
        return t if self.networks.teacher_takes_r else None

    def probe(self, batch: Batch) -> list[str]:
        """Warns if the prompt makes no difference to the teacher: then there is nothing to guide by."""
        draws = Draws(self.settings.seed, batch["index"], self.device)
        noise, t = draws.noise(latents(batch)), draws.uniform()
        prompted = self.networks.teacher(noise, t, condition_of(batch))
        unprompted = self.networks.teacher(noise, t, without_prompt(batch, self.dataset.null))
        share = ((prompted - unprompted).norm() / prompted.norm()).item()
        line = f"The prompt changes the teacher's velocity by {share:.1%}."
        if share < 1e-4:
            line = f"WARNING: {line} Guidance has nothing to work on: is the teacher one that was distilled already?"
        return [line]

    def preview(self, path: Path | None) -> dict[str, float]:
        """Teacher with guidance, and student."""
        scale, takes_r = self.settings.preview.guidance, self.networks.teacher_takes_r
        rows = {
            "teacher": original(self.networks.teaching, self.previews, scale, self.networks.lora, takes_r),
            "student": one_call(self.networks.student, self.previews, scale, takes_r=takes_r),
        }
        self.previews.write(path, rows, self.networks.student.module)
        return {"student to teacher": distance(rows["student"], rows["teacher"])}
