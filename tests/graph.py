"""What a graph around the DisCa nodes does, with the core nodes that a user would take."""

import copy
import re
from collections.abc import Iterator
from contextlib import contextmanager

import recipes
import torch
from torch import Tensor


class FixedNoise:
    """A NOISE that is given, not drawn."""

    def __init__(self, noise: Tensor, seed: int = 0):
        self.noise = noise
        self.seed = seed

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


def empty_latent(case: str, batch: int = 1) -> dict:
    """An empty LATENT of the golden run's size."""
    shape = recipes.golden(case).tensors["latent"].shape
    return {"samples": torch.zeros(batch, *shape[1:])}


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


def other_conditioning(case: str, model) -> list:
    """Conditions of the same sizes as the golden run's, with other text."""
    ((text, options),) = conditioning(recipes.golden(case), model)
    return [[text.flip(1) * 0.5, dict(options)]]


def timed(conditions: list, start: float = 0.0, end: float = 1.0) -> list:
    """The conditions, active between two percents of the schedule."""
    return [[text, options | {"start_percent": start, "end_percent": end}] for text, options in conditions]


def sample_custom(call, model, case, sampler, sigmas, seed, noise=None, latent=None) -> Tensor:
    """Samples of SamplerCustomAdvanced with core's guider, from the seed's noise and nothing or from what is given."""
    (guider,) = call("BasicGuider", model=model, conditioning=conditioning(recipes.golden(case), model))
    (drawn,) = call("RandomNoise", noise_seed=seed)
    noise = drawn if noise is None else FixedNoise(noise, seed)
    latent_image = empty_latent(case) if latent is None else {"samples": latent}
    out, _ = call(
        "SamplerCustomAdvanced", noise=noise, guider=guider, sampler=sampler, sigmas=sigmas, latent_image=latent_image
    )
    return out["samples"]


@contextmanager
def split_batches(model) -> Iterator[None]:
    """Makes ComfyUI believe that no two conditions fit into memory at once."""
    factor = model.model.memory_usage_factor
    model.model.memory_usage_factor = 1e12
    try:
        yield
    finally:
        model.model.memory_usage_factor = factor


class CountedBlocks:
    """Counts the calls of a network's transformer blocks while it is open."""

    def __init__(self, network: torch.nn.Module):
        names = ("double_blocks", "single_blocks", "mm_single_blocks")
        self.blocks = [block for name in names for block in getattr(network, name, ())]
        self.calls = 0

    def __enter__(self):
        self.hooks = [block.register_forward_pre_hook(self._count) for block in self.blocks]
        return self

    def __exit__(self, *_):
        for hook in self.hooks:
            hook.remove()

    def _count(self, *_):
        self.calls += 1


def without_time_r(model):
    """The same HunyuanVideo as weights without MeanFlow give it."""
    from comfy.model_patcher import ModelPatcher

    config = model.model.model_config
    plain = type(config)({**config.unet_config, "meanflow": False})
    plain.set_inference_dtype(torch.float32, None)
    return ModelPatcher(plain.get_model({}), torch.device("cpu"), torch.device("cpu"))


def tiny_image_model():
    """A MODEL that is no HunyuanVideo: a Flux of two small blocks."""
    import comfy.supported_models
    from comfy.model_patcher import ModelPatcher

    shape = {"image_model": "flux", "in_channels": 16, "out_channels": 16, "vec_in_dim": 8, "context_in_dim": 8}
    shape |= {"hidden_size": 32, "mlp_ratio": 2.0, "num_heads": 2, "depth": 1, "depth_single_blocks": 1}
    shape |= {"axes_dim": [4, 6, 6], "theta": 100, "patch_size": 2, "qkv_bias": True, "guidance_embed": False}
    config = comfy.supported_models.Flux({**shape, "txt_ids_dims": []})
    config.set_inference_dtype(torch.float32, None)
    return ModelPatcher(config.get_model({}), torch.device("cpu"), torch.device("cpu"))


def with_control(conditions: list, model) -> list:
    """The conditions with a ControlNet that adds the same residual after the first blocks."""
    from comfy.controlnet import ControlBase

    class FixedResiduals(ControlBase):
        def get_control(self, x_noisy, t, cond, batched_number, transformer_options):
            tokens = x_noisy.shape[2] * (x_noisy.shape[3] // 2) * (x_noisy.shape[4] // 2)
            generator = torch.Generator().manual_seed(9)
            residual = torch.randn(1, tokens, model.model.diffusion_model.hidden_size, generator=generator)
            return {"input": [residual], "output": [residual]}

        def copy(self):
            return FixedResiduals()

        def get_models(self):
            return []

    return [[text, options | {"control": FixedResiduals()}] for text, options in conditions]


LORA_LAYER = "double_blocks.1.img_mlp.0"


def lora(model) -> dict[str, Tensor]:
    """A rank-4 LoRA on one layer, in the usual keys."""
    weight = model.model.diffusion_model.get_parameter(f"{LORA_LAYER}.weight")
    generator = torch.Generator().manual_seed(5)
    up, down = (torch.randn(shape, generator=generator) * 0.2 for shape in ((weight.shape[0], 4), (4, weight.shape[1])))
    stem = f"diffusion_model.{LORA_LAYER}"
    return {f"{stem}.lora_up.weight": up, f"{stem}.lora_down.weight": down, f"{stem}.alpha": torch.tensor(4.0)}


def with_lora(model):
    """The MODEL after LoraLoaderModelOnly."""
    import comfy.sd

    return comfy.sd.load_lora_for_models(model, None, lora(model), 1.0, 0.0)[0]


def with_merged_lora(model):
    """Another MODEL, the LoRA added to its weights."""
    import comfy.model_management
    from comfy.model_patcher import ModelPatcher

    comfy.model_management.unload_all_models()  # LoRAs of loaded models are in their weights
    merged, parts = model.model.model_config.get_model({}), list(lora(model).values())
    with torch.inference_mode():
        merged.load_state_dict(model.model.state_dict())
        merged.diffusion_model.get_parameter(f"{LORA_LAYER}.weight").add_(parts[0] @ parts[1])
    return ModelPatcher(merged, model.load_device, model.offload_device)


def with_timed_lora(conditions: list, model, switch_off: float) -> list:
    """The conditions with a LoRA hook that is on until that percent of the schedule."""
    import comfy.hooks

    hooks = comfy.hooks.create_hook_lora(lora=lora(model), strength_model=1.0, strength_clip=0.0)
    keyframes = comfy.hooks.HookKeyframeGroup()
    keyframes.add(comfy.hooks.HookKeyframe(strength=1.0, start_percent=0.0))
    keyframes.add(comfy.hooks.HookKeyframe(strength=0.0, start_percent=switch_off))
    hooks.set_keyframes_on_hooks(keyframes)
    return [[text, options | {"hooks": hooks}] for text, options in conditions]


def counts(report: str) -> str:
    """The counts in the report's headline, such as '4 full + 4 predicted'."""
    counted = r"(?:^|: )((?:\d+ (?:full|predicted|cached|fallback)(?: \+ )?)+)$"
    return re.search(counted, report, re.MULTILINE)[1]


def changed(prompt: dict, node: str, **inputs) -> dict:
    """The prompt with other inputs at that node; `__` is a dot."""
    other = copy.deepcopy(prompt)
    other[node]["inputs"] |= {key.replace("__", "."): value for key, value in inputs.items()}
    return other
