"""The toy world in a graph: the shipped networks, prompts and pictures."""

import comfy.latent_formats
import pytest
import torch

from disca.toy import WEIGHTS, world
from disca.training.toy_weights import SUMS, sha256

FRONT = {"front_shape": "circle", "front_colour": "red", "front_direction": "right", "front_speed": "medium"}
BACK = {"back_shape": "square", "back_colour": "blue", "back_direction": "left", "back_speed": "slow"}
SHAPE = (4, world.CHANNELS, world.FRAMES, world.SIZE // 2, world.SIZE // 2)
SHIFT = 1.0


@pytest.fixture(scope="module")
def models(call):
    """Original, meanflow, predictor."""
    return call("DiscaToyModels")


@pytest.fixture(scope="module")
def sampled(call):
    """The latents of a model without guidance in two calls, told its scale."""

    def run(model, steps: int = 20, guidance: float = 3.0):
        (positive,) = call("FluxGuidance", conditioning=call("DiscaToyPrompt", **FRONT, **BACK)[0], guidance=guidance)
        latent = {"samples": torch.zeros(SHAPE)}
        times = {"steps": steps, "shift": SHIFT, "denoise": 1.0}
        return call("DiscaSample", model=model, positive=positive, latent_image=latent, seed=7, **times)[0]

    return run


def distance(a: dict, reference: dict) -> float:
    """The squared error relative to the squared reference."""
    return ((a["samples"] - reference["samples"]).square().mean() / reference["samples"].square().mean()).item()


def share_of(frames: torch.Tensor, colour: str) -> float:
    """How much of the frames has that colour."""
    wanted = (torch.tensor(world.COLOURS[colour]) + 1.0) / 2.0
    return ((frames - wanted).abs().amax(-1) < 0.25).float().mean().item()


def check_colours(frames: torch.Tensor) -> None:
    """That red and blue are there, and no other colour to speak of."""
    shares = {colour: share_of(frames, colour) for colour in world.COLOURS}
    asked = shares.pop("red"), shares.pop("blue")
    assert min(asked) > 0.03 and max(shares.values()) < min(asked) / 2


def test_the_shipped_weights_are_those_that_were_measured():
    listed = dict(reversed(line.split()) for line in (WEIGHTS / SUMS).read_text().splitlines())
    assert {path.name: sha256(path) for path in WEIGHTS.glob("*.safetensors")} == listed


def test_the_shipped_weights_are_small():
    assert sum(path.stat().st_size for path in WEIGHTS.glob("*.safetensors")) < 20e6


def test_the_original_draws_the_colours_that_it_is_asked_for(models, call):
    (positive,) = call("DiscaToyPrompt", **FRONT, **BACK)
    (negative,) = call("ConditioningZeroOut", conditioning=positive)
    (guider,) = call("CFGGuider", model=models[0], positive=positive, negative=negative, cfg=3.0)
    (sigmas,) = call("DiscaMeanFlowSigmas", steps=20, shift=SHIFT, denoise=1.0)
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(7))
    (euler,) = call("KSamplerSelect", sampler_name="euler")
    latents = guider.sample(noise, torch.zeros(SHAPE), euler, sigmas, disable_pbar=True, seed=0)
    check_colours(call("DiscaToyDecode", samples={"samples": latents}, size=world.SIZE)[0])


def test_the_meanflow_model_draws_the_colours_that_it_is_asked_for(models, call, sampled):
    check_colours(call("DiscaToyDecode", samples=sampled(models[1]), size=world.SIZE)[0])


def test_guidance_matters_to_the_meanflow_model(models, sampled):
    assert distance(sampled(models[1], guidance=1.0), sampled(models[1], guidance=5.0)) > 0.01


def test_disca_stays_near_the_run_in_full(models, call, sampled):
    (schedule,) = call("DiscaCacheSchedule", plan={"plan": "preset", "preset": "HunyuanVideo 1.0, 20 steps, N=4"})
    settings = {"predictor": models[2], "schedule": schedule, "cache_device": "auto"}
    (patched,) = call("DiscaApplyPredictor", model=models[1], **settings)
    full = sampled(models[1])
    assert 0.0 < distance(sampled(patched), full) < distance(sampled(models[1], guidance=1.0), full) / 2


def test_latents_become_the_frames_they_were_made_of(call):
    video = world.pictures(world.random_scene(5))
    latents = comfy.latent_formats.HunyuanVideo().process_out(world.to_latents(video))
    (frames,) = call("DiscaToyDecode", samples={"samples": torch.cat([latents, latents])}, size=world.SIZE)
    expected = (video[0].permute(1, 2, 3, 0) + 1.0) / 2.0
    assert frames.shape == (world.FRAMES, 2 * world.SIZE, world.SIZE, 3)
    torch.testing.assert_close(frames[:, : world.SIZE], expected, atol=1e-5, rtol=0.0)
    torch.testing.assert_close(frames[:, world.SIZE :], expected, atol=1e-5, rtol=0.0)


def test_a_latent_of_another_size_is_refused(call):
    with pytest.raises(ValueError, match=r"\[1, 16, 9, 8, 8\], but toy videos have .* 64 wide, 64 high, 21 long"):
        call("DiscaToyDecode", samples={"samples": torch.zeros(1, 16, 9, 8, 8)}, size=64)


def test_the_front_object_is_the_one_that_hides_the_other(call):
    (((context, options),),) = call("DiscaToyPrompt", **FRONT, **BACK)
    told = world.condition(torch.tensor([[[1, 2, 4, 0], [0, 0, 0, 1]]]))  # the last of a scene is in front
    assert torch.equal(context, told["context"]) and torch.equal(options["pooled_output"], told["y"])
