"""Clips and captions -> what the network sees, by ComfyUI's own VAE, text encoders and model classes."""

from hashlib import sha256

import comfy.model_base
import comfy.sd
import comfy.supported_models
import torch
from comfy.clip_vision import ClipVisionModel
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ...messages import quoted
from ...models.checks import family_of, require_hunyuanvideo
from ...weights.predictor_spec import FAMILIES
from ..data.dataset import TEXT, Sample

NAMES = {  # ComfyUI's conditions -> the network's inputs
    "c_crossattn": "context",
    "y": "y",
    "txt_byt5": "txt_byt5",
    "attention_mask": "attention_mask",
    "clip_fea": "clip_fea",
    "c_concat": "concat",
}
FOREIGN = (  # HunyuanVideos that are given more than text, and of which no MeanFlow model exists
    comfy.model_base.HunyuanVideoI2V,
    comfy.model_base.HunyuanVideoSkyreelsI2V,
    comfy.model_base.HunyuanVideo15_SR_Distilled,
)
SHAPE = {
    "image_model": "hunyuan_video",
    "hidden_size": 128,
    "num_heads": 1,
    "mlp_ratio": 4.0,
    "depth": 1,
    "axes_dim": [16, 56, 56],
    "theta": 256,
    "qkv_bias": True,
    "meanflow": False,
}
SHAPES = {
    "1.0": SHAPE
    | {"in_channels": 16, "out_channels": 16, "patch_size": [1, 2, 2], "vec_in_dim": 768, "context_in_dim": 4096}
    | {"depth_single_blocks": 1, "guidance_embed": True, "byt5": False, "vision_in_dim": None}
    | {"use_cond_type_embedding": False, "meanflow_sum": False},
    "1.5": SHAPE
    | {"in_channels": 65, "out_channels": 32, "patch_size": [1, 1, 1], "vec_in_dim": None, "context_in_dim": 3584}
    | {"depth_single_blocks": 0, "guidance_embed": False, "byt5": True, "vision_in_dim": 1152}
    | {"use_cond_type_embedding": True, "meanflow_sum": True},
}
PROBED = 64  # values of each weight that go into the fingerprint

Text = tuple[Tensor, dict]  # tokens [1, L, D], and what else ComfyUI's text encoder gives


def model_without_weights(family: str) -> ModelPatcher:
    """A MODEL of the family ("1.0" or "1.5") with the real inputs and no weights: enough to build a dataset."""
    classes = {"1.0": comfy.supported_models.HunyuanVideo, "1.5": comfy.supported_models.HunyuanVideo15}
    config = classes[family](dict(SHAPES[family]))
    config.set_inference_dtype(torch.float32, None)
    return ModelPatcher(config.get_model({}, device="meta"), torch.device("cpu"), torch.device("cpu"))


class Encoder:
    """ComfyUI's VAE and text encoders (and, for first frames, CLIP vision), seen through the MODEL's inputs."""

    def __init__(
        self, model: ModelPatcher, vae: comfy.sd.VAE, clip: comfy.sd.CLIP, clip_vision: ClipVisionModel | None = None
    ):
        _require(model, vae, clip)
        self._model, self._vae, self._clip, self._vision = model.model, vae, clip, clip_vision
        self._latent_channels = model.model.latent_format.latent_channels
        self.family = family_of(model)
        modules = [vae.first_stage_model, clip.cond_stage_model, *([clip_vision.model] if clip_vision else [])]
        content = [self.family, type(model.model).__name__, *map(weights_hash, modules)]
        self.fingerprint = sha256("/".join(content).encode()).hexdigest()

    @torch.inference_mode()
    def text(self, caption: str) -> Text:
        """What the text encoders make of a caption."""
        ((tokens, options),) = self._clip.encode_from_tokens_scheduled(self._clip.tokenize(caption), show_pbar=False)
        wanted = self._model.diffusion_model.txt_in.input_embedder.in_features
        if tokens.shape[-1] != wanted:
            raise ValueError(
                f"The text encoder gives {tokens.shape[-1]:d} values per token, but "
                f"{FAMILIES[self.family]} takes {quoted(wanted)}. Load the text encoders of {FAMILIES[self.family]}."
            )
        return tokens, options

    @torch.inference_mode()
    def sample(self, pixels: Tensor, text: Text, first_frame: bool = False) -> Sample:
        """One sample of a clip [T, H, W, 3] and its encoded caption; with `first_frame`, as for image to video."""
        latent = self._encode(pixels)
        options = self._first_frame(pixels[:1], latent) if first_frame else {}
        return _stored({"latent": self._model.process_latent_in(latent)[0]} | self._condition(text, latent, options))

    @torch.inference_mode()
    def null(self) -> Sample:
        """The text inputs of the empty caption."""
        condition = self._condition(self.text(""), torch.zeros(1, self._latent_channels, 1, 2, 2), {})
        return _stored({name: tensor for name, tensor in condition.items() if name in TEXT})

    def _encode(self, pixels: Tensor) -> Tensor:
        latent = self._vae.encode(pixels)
        factor = self._vae.spacial_compression_encode()
        frames, height, width, _ = pixels.shape
        wanted = (1, self._latent_channels, (frames - 1) // 4 + 1, height // factor, width // factor)
        if tuple(latent.shape) != wanted:
            raise ValueError(
                f"The VAE makes {quoted(list(latent.shape))} of a clip, but {FAMILIES[self.family]} needs "
                f"{quoted(list(wanted))}. "
                f"Load the VAE of {FAMILIES[self.family]}."
            )
        return latent

    def _first_frame(self, pixels: Tensor, latent: Tensor) -> dict:
        """What core's HunyuanVideo15ImageToVideo adds to a conditioning."""
        image, mask = torch.zeros_like(latent), torch.ones_like(latent[:, :1])
        image[:, :, :1], mask[:, :, :1] = self._vae.encode(pixels), 0.0
        options = {"concat_latent_image": image, "concat_mask": mask}
        return options | ({"clip_vision_output": self._vision.encode_image(pixels)} if self._vision else {})

    def _condition(self, text: Text, latent: Tensor, options: dict) -> Sample:
        tokens, more = text
        conditions = self._model.extra_conds(
            cross_attn=tokens, noise=latent, device=latent.device, **{**more, **options}
        )
        found = {NAMES[name]: value.cond[0] for name, value in conditions.items() if name in NAMES}
        if self._model.diffusion_model.vector_in is None:
            found.pop("y", None)  # 1.5's text encoder gives one all the same, and the network does not read it
        return found


def weights_hash(module: nn.Module) -> str:
    """SHA-256 of names, shapes and some values of all weights: the same whichever type they were loaded in."""
    digest = sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        values = tensor.detach().reshape(-1)[:: max(1, tensor.numel() // PROBED)]
        digest.update(values.to("cpu", torch.bfloat16).view(torch.uint8).numpy())
    return digest.hexdigest()


def _require(model: ModelPatcher, vae: comfy.sd.VAE, clip: comfy.sd.CLIP) -> None:
    require_hunyuanvideo(model)
    if isinstance(model.model, FOREIGN):
        raise ValueError(
            f"No dataset can be built for a {type(model.model).__name__}: DisCa trains HunyuanVideo 1.0 (text to "
            "video) and 1.5 (text or image to video). Load one of these."
        )
    channels = model.model.latent_format.latent_channels
    if vae.first_stage_model is None:
        raise ValueError(f"The VAE file is none that ComfyUI knows. Load the VAE of HunyuanVideo {family_of(model)}.")
    if vae.latent_channels != channels:
        raise ValueError(
            f"The VAE has {vae.latent_channels:d} latent channels, but HunyuanVideo {family_of(model)} has "
            f"{channels:d}. "
            f"Load the VAE of HunyuanVideo {family_of(model)}."
        )
    if clip.patcher.patches:
        raise ValueError("A LoRA is on the text encoders. Take them from before it: a dataset is of the plain ones.")


def _stored(sample: Sample) -> Sample:
    """As shards hold it: bfloat16, which is what the network computes in."""
    return {
        name: tensor.to("cpu", torch.bfloat16) if tensor.is_floating_point() else tensor.cpu()
        for name, tensor in sample.items()
    }
