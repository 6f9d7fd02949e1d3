"""Clips and captions -> what the network sees, by ComfyUI's own VAE, text encoders and model classes."""

from hashlib import sha256

import comfy.clip_vision
import comfy.sd
import torch
from comfy.clip_vision import ClipVisionModel
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ...messages import quoted
from ...models.family import FAMILIES
from ..data.dataset import Sample
from .texts import Text, TextEncoder, load_clip, model_without_weights, stored
from .vae import load_vae, require_vae

PROBED = 64  # values of each weight that go into the fingerprint


def load_encoder(family: str, vae: str, text_encoders: list[str], clip_vision: str = "") -> "Encoder":
    """The encoder of a family, of the files at these paths."""
    vision = comfy.clip_vision.load(clip_vision) if clip_vision else None
    return Encoder(model_without_weights(family), load_vae(vae), load_clip(family, text_encoders), vision)


class Encoder(TextEncoder):
    """ComfyUI's VAE and text encoders (and, for first frames, CLIP vision), seen through the MODEL's inputs."""

    def __init__(
        self, model: ModelPatcher, vae: comfy.sd.VAE, clip: comfy.sd.CLIP, clip_vision: ClipVisionModel | None = None
    ):
        super().__init__(model, clip)
        require_vae(vae, self.family)
        self._vae, self._vision = vae, clip_vision
        modules = [vae.first_stage_model, clip.cond_stage_model, *([clip_vision.model] if clip_vision else [])]
        content = [self.family, type(model.model).__name__, *map(weights_hash, modules)]
        self.fingerprint = sha256("/".join(content).encode()).hexdigest()

    @torch.inference_mode()
    def sample(self, pixels: Tensor, text: Text, first_frame: bool = False) -> Sample:
        """One sample of a clip [T, H, W, 3] and its encoded caption; with `first_frame`, as for image to video."""
        latent = self._encode(pixels)
        options = self._first_frame(pixels[:1], latent) if first_frame else {}
        return stored({"latent": self._model.process_latent_in(latent)[0]} | self._condition(text, latent, options))

    def _encode(self, pixels: Tensor) -> Tensor:
        latent = self._vae.encode(pixels)
        factor = self._vae.spacial_compression_encode()
        frames, height, width, _ = pixels.shape
        wanted = (1, self._latent_channels, (frames - 1) // 4 + 1, height // factor, width // factor)
        if tuple(latent.shape) != wanted:
            raise ValueError(
                f"The VAE makes {quoted(list(latent.shape))} of a clip, but {FAMILIES[self.family].title} needs "
                f"{quoted(list(wanted))}. "
                f"Load the VAE of {FAMILIES[self.family].title}."
            )
        return latent

    def _first_frame(self, pixels: Tensor, latent: Tensor) -> dict:
        """What core's HunyuanVideo15ImageToVideo adds to a conditioning."""
        image, mask = torch.zeros_like(latent), torch.ones_like(latent[:, :1])
        image[:, :, :1], mask[:, :, :1] = self._vae.encode(pixels), 0.0
        options = {"concat_latent_image": image, "concat_mask": mask}
        return options | ({"clip_vision_output": self._vision.encode_image(pixels)} if self._vision else {})


def weights_hash(module: nn.Module) -> str:
    """SHA-256 of names, shapes and some values of all weights: the same whichever type they were loaded in."""
    digest = sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        values = tensor.detach().reshape(-1)[:: max(1, tensor.numel() // PROBED)]
        digest.update(values.to("cpu", torch.bfloat16).view(torch.uint8).numpy())
    return digest.hexdigest()
