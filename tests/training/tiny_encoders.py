"""ComfyUI's own VAEs, text encoders, CLIP vision and HunyuanVideo models, narrow, with random weights."""

import json
from pathlib import Path
from types import SimpleNamespace

import comfy.clip_vision
import comfy.ldm.hunyuan_video.vae_refiner as vae_15
import comfy.ldm.modules.diffusionmodules.model as vae_10
import comfy.sd
import comfy.supported_models
import comfy.text_encoders.hunyuan_image as text_15
import comfy.text_encoders.hunyuan_video as text_10
import pytest
import torch
from comfy.model_patcher import ModelPatcher

from disca.models.family import FAMILIES
from disca.training.network.texts import one_block

WIDTH = 32
LLM = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_hidden_layers": 4}
LLM |= {"num_attention_heads": 2, "num_key_value_heads": 1}
CLIP_L = {"hidden_size": WIDTH, "num_hidden_layers": 2, "intermediate_size": WIDTH, "num_attention_heads": 2}
TEXT_OPTIONS = {  # ComfyUI's own way to other sizes; the byT5 encoder's options come without a name
    "llama_model_config": LLM,
    "qwen25_7b_model_config": LLM,
    "clip_l_model_config": CLIP_L,
    "_model_config": {"num_layers": 1, "d_ff": WIDTH},
}
VAE_KEYS = {  # by these ComfyUI tells which VAE it is
    "1.0": {"decoder.conv_in.conv.weight": (128, 16, 3, 3, 3), "post_quant_conv.weight": (16, 16, 1, 1, 1)},
    "1.5": {"decoder.conv_in.conv.weight": (64, 32, 3, 3, 3)},
}


def random_weights(module: torch.nn.Module, seed: int = 0) -> None:
    """Fills all weights but those of Qwen's picture half, which no caption reaches."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if "visual" not in name:
                weight.normal_(0.0, 0.05, generator=generator)
            else:
                weight[:1].zero_()


def tiny_vae(family: str, seed: int = 0) -> comfy.sd.VAE:
    """The family's VAE with few channels."""
    vae = tiny_vae_of(comfy.sd.VAE, {key: torch.zeros(shape) for key, shape in VAE_KEYS[family].items()})
    random_weights(vae.first_stage_model, seed)
    return vae


def tiny_vae_of(make: type, sd: dict[str, torch.Tensor], **options) -> comfy.sd.VAE:
    """What `make`, comfy.sd.VAE, makes of weights with few channels."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("Encoder", "Decoder"):
            patch.setattr(vae_10, name, _with(getattr(vae_10, name), ch=32))
            patch.setattr(vae_15, name, _with(getattr(vae_15, name), block_out_channels=[16, 32, 64, 64, 64]))
        return make(sd=sd, **options)


def tiny_clip(family: str, seed: int = 0) -> comfy.sd.CLIP:
    """The family's text encoders with few channels and layers, after the real tokenizers."""
    if family == "1.0":
        target = SimpleNamespace(clip=text_10.hunyuan_video_clip(), tokenizer=text_10.HunyuanVideoTokenizer, params={})
    else:
        target = SimpleNamespace(clip=text_15.te(), tokenizer=text_10.HunyuanVideo15Tokenizer, params={})
    clip = comfy.sd.CLIP(target, model_options=TEXT_OPTIONS)
    random_weights(clip.cond_stage_model, seed)
    return clip


def tiny_vision(folder: Path) -> comfy.clip_vision.ClipVisionModel:
    """SigLIP with few channels and layers."""
    config = json.loads((Path(comfy.clip_vision.__file__).parent / "clip_vision_siglip_384.json").read_text())
    config |= {"hidden_size": WIDTH, "intermediate_size": WIDTH, "num_attention_heads": 2, "num_hidden_layers": 2}
    path = folder / "vision.json"
    path.write_text(json.dumps(config))
    vision = comfy.clip_vision.ClipVisionModel(str(path))
    random_weights(vision.model)
    return vision


def tiny_model(family: str) -> ModelPatcher:
    """A HunyuanVideo of one or two blocks that takes text of the tiny encoders' width."""
    narrow = {"context_in_dim": WIDTH} | ({"vec_in_dim": WIDTH} if family == "1.0" else {"vision_in_dim": WIDTH})
    config = FAMILIES[family].comfy_config(**one_block(family), **narrow)
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({})
    random_weights(model)
    return ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))


def _with(network: type, **changes):
    return lambda **settings: network(**{**settings, **changes})
