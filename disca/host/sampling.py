"""The MeanFlow sampler, and a whole sampling run with its report."""

from collections.abc import Callable

import comfy.model_management
import comfy.sample
import comfy.utils
import latent_preview
import torch
from comfy.model_patcher import ModelPatcher
from comfy.samplers import KSAMPLER, CFGGuider, ksampler
from torch import Tensor
from tqdm.auto import trange

from .. import meanflow
from ..models.checks import family_of_model, require_channels, require_meanflow, require_sigmas, require_video
from ..report import Report
from . import compat
from .running.run import KEY, ON_REPORT

Callback = Callable[[int, Tensor, Tensor, int], None]  # step, the video expected, the latent, how many steps


def sample_meanflow(model, x: Tensor, sigmas: Tensor, extra_args=None, callback=None, disable=None) -> Tensor:
    """x_r = x_t - (t - r)·u over the sigmas, the network told the r of each step; called as k-diffusion's are."""
    extra_args = extra_args or {}
    require_meanflow(model.inner_model.model_patcher)
    require_sigmas(sigmas)
    times = sigmas.tolist()
    s_in = x.new_ones([x.shape[0]])
    for i in trange(len(times) - 1, disable=disable):
        if times[i] == times[i + 1]:
            continue
        t, r = sigmas[i], sigmas[i + 1]
        x_0 = model(x, t * s_in, **with_r(extra_args, t, r))
        if callback is not None:
            callback({"x": x, "i": i, "sigma": t, "sigma_hat": t, "denoised": x_0})
        x = meanflow.step(x, meanflow.mean_velocity(x, x_0, t), t, r)
    return x


def with_r(extra_args: dict, t: Tensor, r: Tensor) -> dict:
    """Arguments for one network call at t in which ComfyUI's HunyuanVideo finds this r.

    It takes the entry after the first one that equals t in `sample_sigmas`. Where that is not r (changed or repeated
    sigmas, double precision), the call gets a list of its own: t, then r.
    """
    model_options = extra_args.get("model_options", {})
    options = model_options.get("transformer_options", {})
    sigmas = options.get("sample_sigmas", t.new_empty(0))
    found = (sigmas == t.float()).nonzero()
    if len(found) and torch.equal(sigmas[found[0] + 1 :][:1], r.view(1)):
        return extra_args
    options = {**options, "sample_sigmas": torch.stack((t, r)).float()}
    return {**extra_args, "model_options": {**model_options, "transformer_options": options}}


def sampler() -> KSAMPLER:
    """The MeanFlow sampler as ComfyUI's samplers take it."""
    return KSAMPLER(sample_meanflow)


def sampler_for(model: ModelPatcher) -> KSAMPLER:
    """What takes the MODEL's exact steps: the MeanFlow sampler where it is told r, euler where it is not."""
    return sampler() if family_of_model(model).takes_r(model.model.diffusion_model) else ksampler("euler")


def sample(
    model: ModelPatcher, positive, negative, cfg: float, latent: dict, seed: int, sigmas: Tensor
) -> tuple[dict, Report | None]:
    """The sampled latent and the run's report; no report if there was nothing to denoise or to count by."""
    model = model.clone()
    if not compat.missing("attach"):
        from .attach import with_counters  # would not load

        model = with_counters(model)
    callback = latent_preview.prepare_callback(model, max(1, len(sigmas) - 1))
    return run(model, make_guider(model, positive, negative, cfg), latent, seed, sigmas, sampler(), callback)


def run(
    model: ModelPatcher,
    guider: CFGGuider,
    latent: dict,
    seed: int,
    sigmas: Tensor,
    solver: KSAMPLER,
    callback: Callback,
) -> tuple[dict, Report | None]:
    """The latent and the report of a run of the guider, whose MODEL is the caller's own; `callback` sees each step."""
    reports: list[Report] = []
    model.add_callback_with_key(ON_REPORT, KEY, reports.append)
    samples, noise = prepared(model, latent, seed)
    samples = guider.sample(
        noise,
        samples,
        solver,
        sigmas,
        denoise_mask=latent.get("noise_mask"),
        callback=callback,
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=seed,
    )
    done = {key: value for key, value in latent.items() if not key.startswith("downscale_ratio")}
    return {**done, "samples": samples.to(comfy.model_management.intermediate_device())}, next(iter(reports), None)


def prepared(model: ModelPatcher, latent: dict, seed: int) -> tuple[Tensor, Tensor]:
    """The latent's samples as the MODEL takes them, and the seed's noise for them; ValueError if it cannot."""
    require_video(model, latent["samples"])
    samples = comfy.sample.fix_empty_latent_channels(
        model, latent["samples"], latent.get("downscale_ratio_spacial"), latent.get("downscale_ratio_temporal")
    )
    require_channels(model, samples)
    return samples, comfy.sample.prepare_noise(samples, seed, latent.get("batch_index"))


def require_no_cfg(cfg: float) -> None:
    """ValueError unless cfg is off, as it must be where no negative conditioning is connected."""
    if cfg != 1.0:
        raise ValueError(
            f"'cfg' is {cfg:g}, but no negative conditioning is connected. "
            "Connect one, or set cfg to 1, which is right for distilled models."
        )


def make_guider(model: ModelPatcher, positive, negative, cfg: float) -> CFGGuider:
    """A guider with or without a negative; ValueError if cfg needs one that is not there."""
    if negative is None:
        require_no_cfg(cfg)
    guider = CFGGuider(model)
    guider.inner_set_conds({"positive": positive} if negative is None else {"positive": positive, "negative": negative})
    guider.set_cfg(cfg)
    return guider
