"""What a graph around the DisCa nodes does, with the core nodes that a user would take."""

import torch
from torch import Tensor


class FixedNoise:
    """A NOISE that is given, not drawn."""

    seed = 0

    def __init__(self, noise: Tensor):
        self.noise = noise

    def generate_noise(self, latent: dict) -> Tensor:
        return self.noise.clone()


def conditioning(run, model) -> list:
    """The golden run's conditions in the form that ComfyUI's encoder and image-to-video nodes give."""
    tensors = run.tensors
    options = {"pooled_output": tensors.get("pooled", torch.zeros(1, 768))}  # 1.5 gets one too, and leaves it
    if "guidance" in run.meta:
        options["guidance"] = run.meta["guidance"]
    if "cond" in tensors:
        latent = model.model.process_latent_out(tensors["cond"][:, :-1])
        options |= {"concat_latent_image": latent, "concat_mask": 1.0 - tensors["cond"][:, -1:]}
    if "byt5" in tensors:
        options["conditioning_byt5small"] = tensors["byt5"]
    if "vision" in tensors:
        options["clip_vision_output"] = VisionOutput(tensors["vision"])
    return [[tensors["txt"], options]]


class VisionOutput:
    """A CLIP_VISION_OUTPUT with the tokens that HunyuanVideo 1.5 reads."""

    def __init__(self, tokens: Tensor):
        self.last_hidden_state = tokens


def sample_golden(call, model, run) -> tuple[Tensor, Tensor]:
    """Every u and x_r of the golden run's steps, sampled by SamplerCustomAdvanced with the DisCa sampler and sigmas."""
    (sigmas,) = call("DiscaMeanFlowSigmas", steps=run.meta["steps"], shift=run.meta["shift"], denoise=1.0)
    (sampler,) = call("DiscaMeanFlowSampler")
    recorded = []

    def record(apply_model, call_args):
        x_0 = apply_model(call_args["input"], call_args["timestep"], **call_args["c"])
        recorded.append(
            (call_args["input"].clone(), (call_args["input"] - x_0) / call_args["timestep"].view(-1, 1, 1, 1, 1))
        )
        return x_0

    model = model.clone()
    model.set_model_unet_function_wrapper(record)
    (guider,) = call("BasicGuider", model=model, conditioning=conditioning(run, model))
    noise = FixedNoise(run.tensors["latent"])
    latent = {"samples": torch.zeros_like(run.tensors["latent"])}
    out, _ = call(
        "SamplerCustomAdvanced", noise=noise, guider=guider, sampler=sampler, sigmas=sigmas, latent_image=latent
    )
    last = model.model.process_latent_in(out["samples"])
    return torch.stack([u for _, u in recorded]), torch.stack([x for x, _ in recorded[1:]] + [last])


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """|ours - theirs| / |theirs|, the largest over the steps."""
    steps = range(len(theirs))
    return max(
        (torch.linalg.vector_norm(ours[i] - theirs[i]) / torch.linalg.vector_norm(theirs[i])).item() for i in steps
    )
