"""Operations counted: a real network with the real patch, sampled by ComfyUI on tensors without memory.

Weights and features have shapes only, so that the largest video runs on any machine; times and latents are real.
"""

from collections.abc import Sequence
from typing import Any

import comfy.ops
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from ..meanflow import shifted_sigmas
from ..methods.seam.method import Method
from ..models.family import Family
from ..models.loading import build_predictor
from ..weights.predictor_spec import PredictorSpec
from . import attach, sampling


class Counter:
    """A network whose steps are counted, for a latent [1, C, T, H, W] and so many tokens of text."""

    def __init__(self, family: Family, latent: Sequence[int], text: int, **changes: Any):
        """`changes` are to the published network, in ComfyUI's words."""
        self._family, self._latent, self._text, self._changes = family, latent, text, changes
        self._mode = FakeTensorMode(allow_non_fake_inputs=True)
        self.model = _patcher(self._model())

    def steps(self, method: Method | None, count: int) -> list[int]:
        """Operations of each step of a run of so many; None: the model as it is."""
        compute = self._predictor(method) if method is not None and method.computes else None
        model = self.model if method is None else attach.attach(self.model, method, compute=compute)
        latent, totals = torch.zeros(self._latent), [0]
        counter = FlopCounterMode(display=False, custom_mapping=ATTENTION)
        guider = sampling.make_guider(model, self._conditioning(), None, 1.0)
        with torch.no_grad(), counter:
            guider.sample(
                torch.ones_like(latent),
                latent,
                sampling.sampler_for(model),
                shifted_sigmas(count, 1.0),
                callback=lambda *_: totals.append(counter.get_total_flops()),
                disable_pbar=True,
                seed=0,
            )
        return [after - before for before, after in zip(totals, totals[1:], strict=False)]

    @property
    def _network(self) -> nn.Module:
        return self.model.model.diffusion_model

    def _model(self) -> nn.Module:
        config = self._family.comfy_config(**self._changes)
        config.set_inference_dtype(torch.bfloat16, None)
        config.unet_config["disable_unet_model_creation"] = True
        model = config.get_model({}, device=torch.device("cpu"))
        with self._mode:
            model.diffusion_model = self._family.network(**self._changes).requires_grad_(False)
        return model

    def _predictor(self, method: Method) -> ModelPatcher:
        features = max(what.tensors for way in method.ways for what in way.whats)
        width, heads = self._family.widths(self._network)
        spec = PredictorSpec(self._family.name, width, depth=2, heads=heads, mlp_ratio=4.0, features=features)
        with self._mode:
            network = build_predictor(spec, dtype=torch.float32, operations=comfy.ops.manual_cast)
        return _patcher(network.requires_grad_(False))

    def _conditioning(self) -> list[list[Any]]:
        text = torch.zeros(1, self._text, self._family.texts(self._network)["cross_attn"].width)
        return [[text, {"pooled_output": torch.zeros(1, 768), "guidance": 6.0}]]


def _patcher(module: nn.Module) -> ModelPatcher:
    for part in module.modules():
        part.to = lambda *_, part=part, **__: part  # what has no memory lies nowhere, and cannot be moved
    device = torch.device("cpu")
    return ModelPatcher(module, device, device)


def _attention(q: Sequence[int], k: Sequence[int], v: Sequence[int], *_, **__) -> int:
    return sdpa_flop_count(q, k, v)


ATTENTION = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention}  # PyTorch counts that of GPUs only
