"""Clips and captions -> what the network sees, by ComfyUI's own VAE, text encoders and model classes."""

from hashlib import sha256
from typing import Any, NamedTuple

import comfy.clip_vision
import comfy.model_base
import comfy.sd
import comfy.utils
import torch
from comfy.clip_vision import ClipVisionModel
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ...messages import quoted
from ...models.checks import family_of_model
from ...models.family import FAMILIES
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
PROBED = 64  # values of each weight that go into the fingerprint

GLYPHS = 256  # tokens that byT5 reads of a caption's quoted words


class Text(NamedTuple):
    """An encoded caption."""

    tokens: Tensor  # [1, L, D]
    more: dict[str, Any]  # what else ComfyUI's text encoder gives
    cut: bool  # the caption was longer than the family reads


def model_without_weights(family: str) -> ModelPatcher:
    """A MODEL of the family with the real inputs and no weights: enough to build a dataset."""
    config = FAMILIES[family].comfy_config(**one_block(family))
    config.set_inference_dtype(torch.float32, None)
    return ModelPatcher(config.get_model({}, device="meta"), torch.device("cpu"), torch.device("cpu"))


def one_block(family: str) -> dict[str, Any]:
    """What a network of one narrow block of each kind has otherwise than the published one."""
    row = FAMILIES[family]
    return row.sized(128, 1, [min(1, row.config[kind.count]) for kind in row.kinds]) | {"meanflow": False}


def load_encoder(family: str, vae: str, text_encoders: list[str], clip_vision: str = "") -> "Encoder":
    """The encoder of a family, of the files at these paths."""
    state, metadata = comfy.utils.load_torch_file(vae, safe_load=True, return_metadata=True)
    clip = comfy.sd.load_clip(text_encoders, clip_type=FAMILIES[family].clip_type())
    vision = comfy.clip_vision.load(clip_vision) if clip_vision else None
    return Encoder(model_without_weights(family), comfy.sd.VAE(sd=state, metadata=metadata), clip, vision)


class Encoder:
    """ComfyUI's VAE and text encoders (and, for first frames, CLIP vision), seen through the MODEL's inputs."""

    def __init__(
        self, model: ModelPatcher, vae: comfy.sd.VAE, clip: comfy.sd.CLIP, clip_vision: ClipVisionModel | None = None
    ):
        _require(model, vae, clip)
        self._model, self._vae, self._clip, self._vision = model.model, vae, clip, clip_vision
        self._latent_channels = model.model.latent_format.latent_channels
        self.family = family_of_model(model).name
        modules = [vae.first_stage_model, clip.cond_stage_model, *([clip_vision.model] if clip_vision else [])]
        content = [self.family, type(model.model).__name__, *map(weights_hash, modules)]
        self.fingerprint = sha256("/".join(content).encode()).hexdigest()

    @torch.inference_mode()
    def text(self, caption: str) -> Text:
        """What the text encoders make of a caption, its tokens cut where HunyuanVideo's own code cuts them.

        The language models read from left to right: these are their states of a caption that was cut before.
        """
        ((tokens, more),) = self._clip.encode_from_tokens_scheduled(self._clip.tokenize(caption), show_pbar=False)
        wanted = self._model.diffusion_model.txt_in.input_embedder.in_features
        family = FAMILIES[self.family]
        if tokens.shape[-1] != wanted:
            raise ValueError(
                f"The text encoder gives {tokens.shape[-1]:d} values per token, but "
                f"{family.title} takes {quoted(wanted)}. Load the text encoders of {family.title}."
            )
        limits = {"attention_mask": family.caption_tokens, "conditioning_byt5small": GLYPHS}
        cut = tokens.shape[1] > family.caption_tokens
        more = {name: value[:, : limits[name]] if name in limits else value for name, value in more.items()}
        return Text(tokens[:, : family.caption_tokens], more, cut)

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

    def _condition(self, text: Text, latent: Tensor, options: dict) -> Sample:
        conditions = self._model.extra_conds(
            cross_attn=text.tokens, noise=latent, device=latent.device, **{**text.more, **options}
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
    title = family_of_model(model).title
    if isinstance(model.model, FOREIGN):
        raise ValueError(
            f"No dataset can be built for a {type(model.model).__name__}: DisCa trains HunyuanVideo 1.0 (text to "
            "video) and 1.5 (text or image to video). Load one of these."
        )
    channels = model.model.latent_format.latent_channels
    if vae.first_stage_model is None:
        raise ValueError(f"The VAE file is none that ComfyUI knows. Load the VAE of {title}.")
    if vae.latent_channels != channels:
        raise ValueError(
            f"The VAE has {vae.latent_channels:d} latent channels, but {title} has "
            f"{channels:d}. "
            f"Load the VAE of {title}."
        )
    if clip.patcher.patches:
        raise ValueError("A LoRA is on the text encoders. Take them from before it: a dataset is of the plain ones.")


def _stored(sample: Sample) -> Sample:
    """As datasets hold it: bfloat16, which is what the network computes in."""
    return {
        name: tensor.to("cpu", torch.bfloat16) if tensor.is_floating_point() else tensor.cpu()
        for name, tensor in sample.items()
    }
