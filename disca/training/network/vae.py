"""ComfyUI's VAE for a training: loaded from a file, checked, and used to decode what was sampled."""

import gc

import comfy.model_management
import comfy.sd
import comfy.utils
import torch
from torch import Tensor

from ...models.family import FAMILIES
from ...weights.files import open_weights


def load_vae(path: str) -> comfy.sd.VAE:
    """The VAE in a safetensors file."""
    open_weights(path)  # ComfyUI would read other files too, and of damaged ones say less
    state, metadata = comfy.utils.load_torch_file(path, safe_load=True, return_metadata=True)
    return comfy.sd.VAE(sd=state, metadata=metadata)


def require_vae(vae: comfy.sd.VAE, family: str) -> None:
    """ValueError unless it is one that the family's latents can be from."""
    title, channels = FAMILIES[family].title, FAMILIES[family].latent_format().latent_channels
    if vae.first_stage_model is None:
        raise ValueError(f"The VAE file is none that ComfyUI knows. Load the VAE of {title}.")
    if vae.latent_channels != channels:
        raise ValueError(
            f"The VAE has {vae.latent_channels:d} latent channels, but {title} has {channels:d}. "
            f"Load the VAE of {title}."
        )
    if vae.latent_dim != FAMILIES[family].latent_format().latent_dimensions:
        raise ValueError(f"The VAE is one of pictures, but {title} makes videos. Load the VAE of {title}.")


class Decoder:
    """A family's VAE in a file, which stays on the card until `free_models`."""

    def __init__(self, path: str, family: str):
        self._vae, self._format = load_vae(path), FAMILIES[family].latent_format()
        require_vae(self._vae, family)

    @torch.inference_mode()
    def frames(self, latents: Tensor) -> Tensor:
        """The video [T, H, W, 3] in [0, 1], on the CPU, of latents [C, T, H, W]; in tiles where it does not fit."""
        return self._vae.decode(self._format.process_out(latents[None].float().cpu()))[0].float().cpu()


def free_models() -> None:
    """Takes off the card what ComfyUI has loaded, and out of memory what of it nobody holds any more."""
    comfy.model_management.unload_all_models()
    gc.collect()
    comfy.model_management.soft_empty_cache()
