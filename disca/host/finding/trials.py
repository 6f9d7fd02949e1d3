"""Lists of anchors, tried by sampling with the MODEL's method as it is."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from comfy.model_patcher import ModelPatcher
from comfy.samplers import CFGGuider
from torch import Tensor

from ...finding import Steps
from ...messages import listing, quoted
from ...rehearsal import Calls, Progress, square
from ...report import Report
from .. import sampling
from ..attach import with_anchors
from ..running.run import KEY, ON_REPORT
from .rehearsing import Scenes


@dataclass
class Trials:
    """Runs of a MODEL at one list of anchors or another, against what the full run ended in."""

    model: ModelPatcher
    scenes: Scenes
    sigmas: Tensor
    ends: Sequence[Tensor]  # of each prompt, in the network's latent space
    progress: Progress
    calls: Calls  # that were made, from those before on

    def error_of(self, anchors: Steps) -> float:
        """Σ |y_n - x_n|² / Σ |x_n|² of the runs; ValueError if they do not go by the list."""
        reports: list[Report] = []
        model = with_anchors(self.model, anchors)
        model.add_callback_with_key(ON_REPORT, KEY, reports.append)
        off = 0.0
        for positive, end in zip(self.scenes.positives, self.ends, strict=True):
            off += square(self._run(model, positive, anchors).to(end.device) - end)
        if reasons := sorted({reason for report in reports for reason in report.fallbacks}):
            raise ValueError(
                f"Steps that {listing(sorted(anchors), 20)} leaves out ran in full all the same: "
                f"{listing(reasons)}. What the schedule is worth cannot be seen so: take that away, find the schedule, "
                "and put it back."
            )
        return off / sum(map(square, self.ends))

    def _run(self, model: ModelPatcher, positive: list, anchors: Steps) -> Tensor:
        guider: CFGGuider = sampling.make_guider(model, positive, self.scenes.negative, self.scenes.cfg)
        noise = self.scenes.noise

        def step(number: int, *_) -> None:
            full = number in anchors
            self.calls = Calls(self.calls.full + full, self.calls.answered + (not full))
            self.progress(self.calls)

        still = torch.zeros_like(noise)
        solver = sampling.sampler_for(self.model)
        out = guider.sample(noise, still, solver, self.sigmas, callback=step, disable_pbar=True, seed=0)
        if not out.isfinite().all():
            raise ValueError(f"The run at {quoted(anchors)} ends in NaN or infinity. Look at the MODEL without DisCa.")
        return model.model.process_latent_in(out)
