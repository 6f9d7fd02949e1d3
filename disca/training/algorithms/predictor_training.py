"""Predictor training: the two-block network learns what the frozen MeanFlow model answers (DisCa, Algorithm 3)."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ..contract.protocol import Batch, Loss, Samples, Trainable, trainable
from ..contract.settings import Settings
from ..contract.times import Draws, lengths, per_sample
from ..network.conditions import guided_condition, latents
from ..network.export import export_predictor, exported_predictor
from ..network.roles import frozen_network, new_predictor, predictor_spec
from ..network.velocity import Condition, Network
from .discriminator import Discriminator, adversarial_loss, discriminator_loss
from .losses import adaptive_weight, mse
from .pairs import Pair, Pairs, by_predictor, following
from .previews import Previews, cached, distance, mean_flow

LEARNING_RATE = 1e-4
DISCRIMINATOR_BETAS = (0.0, 0.999)  # without momentum


class PredictorTraining:
    """First squared error alone, then with the discriminator."""

    may_change = frozenset({"predictor.gan_iterations"})
    load = staticmethod(exported_predictor)

    def __init__(self, settings: Settings, dataset: Samples, device: torch.device, network: Network | None = None):
        self.settings, self.dataset, self.device = settings, dataset, device
        self.previews = Previews(settings, dataset, device)
        self.network = network or frozen_network(settings, device)
        self.iterations = settings.predictor.mse_iterations + settings.predictor.gan_iterations
        module = self.network.module
        self.spec = predictor_spec(module, settings)
        self.predictor = new_predictor(self.spec, settings.predictor, settings.seed, device)
        self.pairs = Pairs(settings.predictor, self.network, self.predictor, self.spec.features)
        self.parts = {"predictor": trainable(self.predictor, settings.optimizer, LEARNING_RATE)}
        if settings.predictor.gan_iterations:
            self.tapped = self.network.spread_blocks(settings.predictor.discriminator_blocks)
            width, _ = self.network.family.widths(module)
            self.discriminator = Discriminator(width, len(self.tapped)).to(device)
            optimiser = replace(settings.optimizer, lr=settings.predictor.lr_discriminator, betas=DISCRIMINATOR_BETAS)
            self.parts["discriminator"] = Trainable(self.discriminator, optimiser)

    def losses(self, batch: Batch, iteration: int) -> Iterator[Loss]:
        """Algorithm 3, lines 3 to 15, for each pair: the Predictor's loss, then the discriminator's."""
        share = 1.0 / self.settings.predictor.full_steps
        condition, pairs = self._drawn(batch)
        for pair in pairs:  # lines 3 to 5
            for loss in self._of_pair(pair, condition, iteration):
                yield loss._replace(weight=share * loss.weight)

    def _drawn(self, batch: Batch) -> tuple[Condition, Iterator[Pair]]:
        draws = Draws(self.settings.seed, batch["index"], self.device)
        condition = guided_condition(batch, self.network, draws, self.settings.cfg.guidance)
        return condition, self.pairs.draw(latents(batch), draws, condition)

    def _of_pair(self, pair: Pair, condition: Condition, iteration: int) -> Iterator[Loss]:
        u_pred = self._predicted(pair, condition)
        value = mse(u_pred, pair.u_target)
        balance = adaptive_weight(value, self.settings.predictor.adaptive)
        since = iteration - self.settings.predictor.mse_iterations
        if since < 0:
            yield Loss("predictor", value, pair.t, weight=balance)
            return
        adversarial, share, fake = self._adversarial(u_pred, pair, condition)
        weight = self.settings.predictor.gan_weight * min(1.0, (since + 1) / max(1, self.settings.predictor.gan_ramp))
        yield Loss("predictor", value + weight * adversarial, pair.t, {"adversarial share": share}, balance)
        yield self._discriminator_loss(fake, pair, condition)

    def probe(self, batch: Batch) -> list[str]:
        """The error that the Predictor begins at; warns if r has no effect."""
        errors, told_r = [], False
        with torch.no_grad():
            condition, pairs = self._drawn(batch)
            for pair in pairs:
                errors.append(mse(self._predicted(pair, condition), pair.u_target).mean())
                without = self.network.velocity(pair.x_t, pair.t, torch.zeros_like(pair.r), condition)
                told_r |= bool((without - pair.u_target).any())
        lines = [f"The Predictor begins at an error of {torch.stack(errors).mean():.4g}."]
        if not told_r:
            lines.append(
                "WARNING: r has no effect on this model's u. Is it a MeanFlow model with its time_r_in trained?"
            )
        return lines

    def preview(self, path: Path | None) -> dict[str, float]:
        """The model with every step in full, and with the Predictor on every other step."""
        scale = self.settings.preview.guidance
        rows = {
            "full": mean_flow(self.network, self.previews, scale),
            "predicted": cached(self.network, self.predictor, self.previews, scale),
        }
        self.previews.write(path, rows, self.network.module)
        return {"predicted to full": distance(rows["predicted"], rows["full"])}

    def export(self, folder: Path, weights: dict[str, Tensor] | None) -> None:
        """The Predictor as Load Predictor reads it."""
        export_predictor(folder, self.spec, self.predictor, weights)

    def shards(self) -> list[nn.Module]:
        """The frozen network; the Predictor is a part, and so whole."""
        return self.network.shards()

    def _predicted(self, pair: Pair, condition: Condition) -> Tensor:
        answer = by_predictor(self.predictor, pair.kept, pair.t)
        return self.network.answered_velocity(answer, pair.x_t, pair.t, pair.r, condition)

    def _adversarial(
        self, u_pred: Tensor, pair: Pair, condition: Condition
    ) -> tuple[Tensor, float, tuple[list[Tensor], Tensor]]:
        """The adversarial term [B], what its gradient is to that of the squared error, and the features it judged.

        Its gradient at u_pred is taken here and handed on as a product, so that the graph through the frozen network
        is gone before the Predictor's backward; it is held down to `gan_cap` times the size of the squared error's.
        """
        u = u_pred.detach().requires_grad_(True)
        x, t, r = following(pair, u)  # line 11
        taps = self.network.taps(x, t, r, condition, self.tapped)
        moving = (pair.t > pair.r).float()  # an empty step makes no sample
        term = moving * adversarial_loss(self.discriminator(taps, t, x.shape[2]))  # line 12
        (gradient,) = torch.autograd.grad(term.sum(), u)
        squared = 2.0 * (u.detach().float() - pair.u_target.float()) / u[0].numel()
        share = lengths(gradient) / lengths(squared).clamp(min=1e-12)  # whatever else is in the batch
        if cap := self.settings.predictor.gan_cap:
            gradient = gradient * per_sample((cap / share.clamp(min=1e-12)).clamp(max=1.0), gradient)
        carried = (gradient * (u_pred - u.detach())).flatten(1).sum(1)
        return term.detach() + carried, share.mean().item(), ([tap.detach() for tap in taps], moving)

    def _discriminator_loss(self, fake: tuple[list[Tensor], Tensor], pair: Pair, condition: Condition) -> Loss:
        taps_pred, moving = fake
        with torch.no_grad():
            x, t, r = following(pair, pair.u_target)
            taps_target = self.network.taps(x, t, r, condition, self.tapped)
        frames = x.shape[2]
        predicted, target = self.discriminator(taps_pred, t, frames), self.discriminator(taps_target, t, frames)
        right = ((predicted < 0).float() + (target > 0).float()).mean().item() / 2.0
        return Loss("discriminator", moving * discriminator_loss(predicted, target), pair.t, {"accuracy": right})  # 14
