"""Weights as GGUF packs hand them over: quantised in a tensor class of their own, and dequantised in each layer's call.

Such a pack is not installed for tests. Here is its mechanism, on ComfyUI's seams: `custom_operations` of the loader, a
tensor that tells another shape than it has, a ModelPatcher subclass with a `clone` of its own; and GGUF's type Q8_0.
"""

import comfy.ops
import comfy.sd
import graph
import pytest
import recipes
import torch
from cached_steps import NAMES, active
from comfy.model_patcher import ModelPatcher

SOME = "0 1 4 6"
BLOCK = 32  # values that share a scale in Q8_0


class Quantised(torch.Tensor):
    """The bytes of a weight in Q8_0; its shape is that of the weight."""

    @staticmethod
    def of(weight: torch.Tensor) -> "Quantised":
        """The nearest values: per block a half-precision scale and 32 whole numbers."""
        blocks = weight.reshape(-1, BLOCK)
        scale = (blocks.abs().amax(1, keepdim=True) / 127).half()
        numbers = (blocks / scale.float()).nan_to_num().round().to(torch.int8)
        stored = torch.cat((scale.view(torch.uint8), numbers.view(torch.uint8)), dim=1)
        return Quantised._with(stored.reshape(len(weight), -1), weight.shape)

    @staticmethod
    def _with(stored: torch.Tensor, shape: torch.Size) -> "Quantised":
        new = stored.as_subclass(Quantised)
        new.told = shape
        return new

    @property
    def shape(self) -> torch.Size:
        """Of the weight."""
        return getattr(self, "told", None) or self.size()

    def to(self, *args, **kwargs):
        """On that device, as bytes whatever type is asked for."""
        kept = [arg for arg in args if not isinstance(arg, torch.dtype)]
        kwargs.pop("dtype", None)
        return Quantised._with(super().to(*kept, **kwargs), self.shape)

    def detach(self):
        """Itself: it has no gradient."""
        return self

    def dequantised(self) -> torch.Tensor:
        """The weight in full."""
        blocks = torch.Tensor.reshape(self.as_subclass(torch.Tensor), (-1, 2 + BLOCK))
        scale, numbers = blocks[:, :2].contiguous().view(torch.float16), blocks[:, 2:].contiguous().view(torch.int8)
        return (numbers.float() * scale.float()).reshape(self.shape)


class Operations(comfy.ops.manual_cast):
    """ComfyUI's layers, with a Linear that may hold a quantised weight."""

    class Linear(comfy.ops.manual_cast.Linear):
        """Dequantises in each call."""

        calls = 0

        def _load_from_state_dict(self, state, prefix, *args):
            weight = state.get(f"{prefix}weight")
            if not isinstance(weight, Quantised):
                return super()._load_from_state_dict(state, prefix, *args)
            self.weight = torch.nn.Parameter(weight, requires_grad=False)
            if f"{prefix}bias" in state:
                self.bias = torch.nn.Parameter(state[f"{prefix}bias"], requires_grad=False)

        def forward_comfy_cast_weights(self, x):
            if not isinstance(self.weight, Quantised):
                return super().forward_comfy_cast_weights(x)
            Operations.Linear.calls += 1
            bias = None if self.bias is None else self.bias.to(x)
            return torch.nn.functional.linear(x, self.weight.to(x.device).dequantised().to(x.dtype), bias)


class QuantisedPatcher(ModelPatcher):
    """Keeps its class when it is cloned, and always patches weights while loading."""

    def load(self, *args, force_patch_weights=False, **kwargs):
        """As ComfyUI, but never leaves a LoRA for later."""
        super().load(*args, force_patch_weights=True, **kwargs)

    def clone(self, *args, **kwargs):
        """A clone of this class, also of a plain patcher."""
        new = ModelPatcher.clone(self, *args, **kwargs)
        new.__class__ = QuantisedPatcher
        return new


@pytest.fixture(params=recipes.CASES)
def models(request, load):
    """The case, its MODEL with quantised blocks, and one whose weights are what those stand for."""
    plain, _ = load(request.param)
    state = {key: tensor.clone() for key, tensor in plain.model.diffusion_model.state_dict().items()}
    heavy = [
        key for key, tensor in state.items() if "_blocks." in key and tensor.ndim == 2 and not tensor.shape[1] % BLOCK
    ]
    small = {key: Quantised.of(state[key]) for key in heavy}
    assert sum(tensor.nbytes for tensor in small.values()) < 0.3 * sum(state[key].nbytes for key in heavy)
    options = {"model_options": {"custom_operations": Operations}}
    quantised = comfy.sd.load_diffusion_model_state_dict({**state, **small}, **options)
    exact = {**state, **{key: tensor.dequantised() for key, tensor in small.items()}}
    return request.param, QuantisedPatcher.clone(quantised), comfy.sd.load_diffusion_model_state_dict(exact)


def test_gguf_weights_give_what_the_dequantised_weights_give(models, load, apply, sample):
    case, quantised, exact = models
    _, predictor = load(case)
    patched = apply(quantised, predictor, SOME)
    assert type(patched) is QuantisedPatcher
    expected, _ = sample(case, apply(exact, predictor, SOME))
    Operations.Linear.calls = 0
    result, report = sample(case, patched)
    assert Operations.Linear.calls
    assert graph.relative_error(result, expected) < 1e-5
    assert graph.counts(report) == "4 full + 4 predicted"
    assert torch.equal(sample(case, apply(quantised, predictor, "0-7"))[0], sample(case, quantised)[0])


def test_gguf_weights_beside_resident_ones_are_within_the_rounding(models, load, apply, sample):
    case, quantised, _ = models
    model, predictor = load(case)
    result, _ = sample(case, apply(quantised, predictor, SOME))
    assert graph.relative_error(result, sample(case, apply(model, predictor, SOME))[0]) < 0.02


def test_every_cache_gives_with_gguf_weights_what_it_gives_with_the_dequantised_ones(models, attached, sample):
    case, quantised, exact = models
    far = {}
    for name in NAMES:
        result, report = sample(case, attached(case, name, active(name), quantised))
        assert "cached" in graph.counts(report)
        far[name] = graph.relative_error(result, sample(case, attached(case, name, active(name), exact))[0])
    assert {name: error for name, error in far.items() if error > 1e-5} == {}
