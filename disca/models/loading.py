"""Weight files -> ComfyUI MODELs and Predictors, every key and shape checked."""

from math import prod
from typing import NamedTuple

import comfy.ldm.hunyuan_video.model
import comfy.memory_management
import comfy.model_detection
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.supported_models
import comfy.utils
import torch

from ..messages import quoted
from ..methods.scheduled.lesa import LesaNetwork
from ..weights.checks import require_fit
from ..weights.files import Shape, open_weights
from ..weights.merged import MergedWeights
from ..weights.predictor_file import read_predictor
from ..weights.predictor_spec import PredictorSpec
from ..weights.quantised import Quantisation, quantisation_of
from ..weights.transformer_file import is_meanflow, require_meanflow, transformer_weights
from .checks import LoadedLesa, LoadedPredictor
from .family import FAMILIES
from .lesa_file import is_lesa, read_lesa

HEAD = 128  # width of an attention head in every HunyuanVideo
CONFIG_KEYS = {  # from these ComfyUI makes the settings of the network, unchecked; key -> dimensions, 1: may be absent
    "img_in.proj.weight": 5,
    "final_layer.linear.weight": 2,
    "txt_in.input_embedder.weight": 2,
    "vision_in.proj.0.weight": 1,
}
NEEDED = "but HunyuanVideo 1.0 or 1.5 is needed. Choose a file named in the README."
IMAGE_MODELS = (comfy.supported_models.HunyuanImage21, comfy.supported_models.HunyuanImage21Refiner)


class CheckedWeights(NamedTuple):
    """A network's weights: as they are read, those alone that are no scales, by ComfyUI's names, and the scales."""

    read: MergedWeights
    plain: MergedWeights
    quantised: Quantisation


def load_meanflow_model(
    path: str, weight_dtype: str = "default", disable_dynamic: bool = False
) -> comfy.model_patcher.ModelPatcher:
    """A native HunyuanVideo MODEL from a MeanFlow file in any published layout; ValueError if a key or shape is off."""
    weights = transformer_weights(open_weights(path))
    require_meanflow(weights)
    patcher = load_transformer(checked(weights), weight_dtype, disable_dynamic)
    patcher.cached_patcher_init = (load_meanflow_model, (path, weight_dtype))
    return patcher


def checked(weights: MergedWeights) -> CheckedWeights:
    """The weights as a network of ComfyUI's has them; ValueError if a key or shape is off."""
    quantised = quantisation_of(weights)
    plain = weights.without(quantised.keys)
    plain.require_floating()
    config = _detect(plain)
    plain = plain.renamed(config.process_unet_state_dict({key: key for key in plain.sources}))
    require_fit(weights.file.name, _describe(config), _network_shapes(config), plain.shapes)
    return CheckedWeights(weights, plain, quantised)


def load_transformer(
    weights: CheckedWeights, weight_dtype: str, disable_dynamic: bool
) -> comfy.model_patcher.ModelPatcher:
    """A native MODEL of the weights, which are read into the memory that they stay in."""
    _require_weight_type(weight_dtype)
    read, plain, quantised = weights
    options = {"disable_dynamic": disable_dynamic, "model_options": _dtype_options(weight_dtype)}
    dynamic = comfy.memory_management.aimdo_enabled and not disable_dynamic
    if dynamic or quantised.keys or quantised.metadata:
        patcher = comfy.sd.load_diffusion_model_state_dict(_mapped(read), metadata=quantised.metadata, **options)
    else:
        patcher = comfy.sd.load_diffusion_model_state_dict(_placeholders(plain), **options)
        plain.read_into(patcher.model.diffusion_model.state_dict())
    patcher.model.requires_grad_(False)
    return patcher


def load_model(path: str) -> comfy.model_patcher.ModelPatcher:
    """The MODEL that ComfyUI's own loader makes of a file, frozen: before 0.30 it was not, and took no LoRA so."""
    patcher = comfy.sd.load_diffusion_model(path)
    patcher.model.requires_grad_(False)
    return patcher


def load_either(path: str) -> comfy.model_patcher.ModelPatcher:
    """The MODEL in a file, with MeanFlow in any published layout or without."""
    return (load_meanflow_model if is_meanflow(transformer_weights(open_weights(path))) else load_model)(path)


def load_predictor(
    path: str, weight_dtype: str = "default", disable_dynamic: bool = False
) -> LoadedPredictor | LoadedLesa:
    """The Predictor, or LESA's, in the file, ready to attach; ValueError if a key or shape is off."""
    _require_weight_type(weight_dtype)
    file = open_weights(path)
    if is_lesa(file):
        return load_lesa(path)
    spec, state = read_predictor(file)
    load_device = comfy.model_management.get_torch_device()
    offload_device = comfy.model_management.unet_offload_device()
    dtype, operations = _predictor_types(state, weight_dtype, load_device)
    for name in state:
        state[name] = state[name].to(offload_device, dtype)
    network = build_predictor(spec, dtype=dtype, device="meta", operations=operations)
    network.eval().requires_grad_(False).load_state_dict(state, strict=True, assign=True)
    patcher_class = comfy.model_patcher.ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
    patcher = patcher_class(network, load_device, offload_device)
    patcher.cached_patcher_init = (_load_predictor_patcher, (path, weight_dtype))
    return LoadedPredictor(patcher, spec)


def load_lesa(path: str) -> LoadedLesa:
    """LESA's predictor in the file, ready to attach, small and so in fp32; ValueError if a key or shape is off."""
    spec, state = read_lesa(open_weights(path))
    network = LesaNetwork(spec.steps, spec.hidden)
    network.eval().requires_grad_(False).load_state_dict(state)
    devices = comfy.model_management.get_torch_device(), comfy.model_management.unet_offload_device()
    patcher = comfy.model_patcher.ModelPatcher(network.to(devices[1]), *devices)
    patcher.cached_patcher_init = (_load_predictor_patcher, (path, "default"))
    return LoadedLesa(patcher, spec)


def load_network(path: str, dtype: torch.dtype) -> torch.nn.Module:
    """The network in a model file, frozen, on the CPU: kept as `dtype`, computed in the type of its inputs."""
    _, plain, quantised = checked(transformer_weights(open_weights(path)))
    if quantised.keys or quantised.metadata:
        raise ValueError(
            f"{quoted(path)} has quantised weights, which cannot be trained. Choose the bf16 file of this model."
        )
    options = {"dtype": dtype, "custom_operations": comfy.ops.manual_cast}
    patcher = comfy.sd.load_diffusion_model_state_dict(_placeholders(plain), options, disable_dynamic=True)
    plain.read_into(patcher.model.diffusion_model.state_dict())
    return patcher.model.diffusion_model.requires_grad_(False)


def build_predictor(spec: PredictorSpec, dtype=None, device=None, operations=comfy.ops.disable_weight_init):
    """The network that the spec describes, from ComfyUI's own blocks."""
    return FAMILIES[spec.family].predictor(spec, {"dtype": dtype, "device": device, "operations": operations})


def _load_predictor_patcher(path: str, weight_dtype: str, disable_dynamic: bool = False):
    return load_predictor(path, weight_dtype, disable_dynamic).patcher


def _predictor_types(state: dict[str, torch.Tensor], weight_dtype: str, load_device: torch.device) -> tuple:
    options = _dtype_options(weight_dtype)
    supported = [torch.bfloat16, torch.float16, torch.float32]
    dtype = options.get("dtype") or comfy.model_management.unet_dtype(
        model_params=comfy.utils.calculate_parameters(state),
        supported_dtypes=supported,
        weight_dtype=comfy.utils.weight_dtype(state),
    )
    compute_dtype = comfy.model_management.unet_manual_cast(dtype, load_device, supported)
    operations = comfy.ops.pick_operations(
        dtype, compute_dtype or dtype, load_device, fp8_optimizations=options.get("fp8_optimizations", False)
    )
    if operations is comfy.ops.disable_weight_init:
        operations = comfy.ops.manual_cast  # the base model may run in another type than the Predictor is kept in
    return dtype, operations


def _detect(weights: MergedWeights):
    _require_config_keys(weights)
    config = comfy.model_detection.model_config_from_unet(_placeholders(weights), "")
    if config is None or isinstance(config, IMAGE_MODELS):
        kind = "a model that ComfyUI does not know" if config is None else type(config).__name__
        raise ValueError(f"{quoted(weights.file.name)} is {kind}, {NEEDED}")
    return config


def _require_config_keys(weights: MergedWeights) -> None:
    shapes = weights.shapes
    for key, ndim in CONFIG_KEYS.items():
        shape = shapes.get(key, () if ndim > 1 else (1,))
        if len(shape) != ndim or not prod(shape):
            problem = f"is {quoted(list(shape))} instead of {ndim}-dimensional" if key in shapes else "is missing"
            raise ValueError(
                f"{quoted(weights.file.name)} is another model or damaged: its {quoted(key)} {problem}, {NEEDED}"
            )
    width = shapes["img_in.proj.weight"][0]
    if width % HEAD or not any(key.startswith("double_blocks.0.") for key in shapes):
        problem = f"its width {width:d} is not a multiple of {HEAD}" if width % HEAD else "it has no double_blocks"
        raise ValueError(f"{quoted(weights.file.name)} is another model or damaged: {problem}, {NEEDED}")


def _describe(config) -> str:
    shape = config.unet_config
    blocks = f"{shape['depth']:d} double and {shape['depth_single_blocks']:d} single blocks"
    return f"HunyuanVideo with width {shape['hidden_size']:d}, {blocks}"


def _network_shapes(config) -> dict[str, Shape]:
    # torch.nn: ComfyUI's own layers have no weights before they are loaded when dynamic VRAM is on
    with torch.device("meta"):
        network = comfy.ldm.hunyuan_video.model.HunyuanVideo(
            **config.unet_config, dtype=torch.float32, operations=torch.nn
        )
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def _require_weight_type(weight_dtype: str) -> None:
    """ValueError where ComfyUI was told to keep weights as powers of two, which makes noise of every model."""
    flagged = comfy.model_management.unet_dtype()
    if "dtype" not in _dtype_options(weight_dtype) and flagged == getattr(torch, "float8_e8m0fnu", None):
        raise ValueError(
            "ComfyUI was started with --fp8_e8m0fnu-unet, which keeps only powers of two of the weights: no picture "
            "comes of them. Start it without, or choose another weight_dtype than default here."
        )


def _dtype_options(weight_dtype: str) -> dict:
    options = {}
    if weight_dtype.startswith("fp8_e4m3fn"):
        options["dtype"] = torch.float8_e4m3fn
    elif weight_dtype == "fp8_e5m2":
        options["dtype"] = torch.float8_e5m2
    if weight_dtype.endswith("_fast"):
        options["fp8_optimizations"] = True
    return options


def _placeholders(weights: MergedWeights) -> dict[str, torch.Tensor]:
    dtypes = weights.dtypes  # shapes and types without the memory
    return {key: torch.zeros((), dtype=dtypes[key]).expand(shape) for key, shape in weights.shapes.items()}


def _mapped(weights: MergedWeights) -> dict[str, torch.Tensor]:
    """The weights as ComfyUI maps them, which it may drop and fault in again; joined or swapped ones are in memory."""
    tensors = comfy.utils.load_torch_file(weights.file.path)
    shapes, dtypes = weights.shapes, weights.dtypes
    joined = {
        key: torch.empty(shapes[key], dtype=dtypes[key])
        for key, parts in weights.sources.items()
        if len(parts) > 1 or key in weights.swapped
    }
    weights.read_into(joined)
    return {key: joined[key] if key in joined else tensors[parts[0]] for key, parts in weights.sources.items()}
