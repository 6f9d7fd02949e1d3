"""Weight files -> ComfyUI MODELs and Predictors, every key and shape checked."""

from typing import NamedTuple

import comfy.ldm.hunyuan_video.model
import comfy.memory_management
import comfy.model_base
import comfy.model_detection
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.utils
import torch
from comfy.ldm.flux.layers import DoubleStreamBlock, SingleStreamBlock

from ..predictor import DoubleStreamPredictor, SingleStreamPredictor
from ..weights import layouts
from ..weights.checks import require_fit
from ..weights.files import WeightsFile, listing, open_weights, refuse_lora, require_finite
from ..weights.predictor_file import PredictorSpec, read_predictor

WEIGHT_DTYPES = ("default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2")  # as in core's Load Diffusion Model
QUANTISED = (".scale_weight", ".scale_input", ".weight_scale", ".weight_scale_2", ".input_scale", ".comfy_quant")


class LoadedPredictor(NamedTuple):
    """A Predictor under ComfyUI's memory management, and what it is."""

    patcher: comfy.model_patcher.ModelPatcher
    spec: PredictorSpec


def load_meanflow_model(
    path: str, weight_dtype: str = "default", disable_dynamic: bool = False
) -> comfy.model_patcher.ModelPatcher:
    """A native HunyuanVideo MODEL from a MeanFlow file in any published layout; ValueError if a key or shape is off."""
    file = open_weights(path)
    refuse_lora(file.name, list(file.tensors), "a whole model")
    sources = _transformer_sources(file)
    shapes = {key: _merged_shape(file, parts) for key, parts in sources.items()}
    placeholders = {key: _placeholder(shape, file.tensors[sources[key][0]].dtype) for key, shape in shapes.items()}
    quantised = _quantised(file, sources)
    config = _detect(file, placeholders)
    names = config.process_unet_state_dict({key: key for key in sources if key not in quantised})
    require_fit(file.name, _describe(config), _skeleton(config), {name: shapes[key] for name, key in names.items()})

    options = _dtype_options(weight_dtype)
    if quantised or (comfy.memory_management.aimdo_enabled and not disable_dynamic):
        # ComfyUI keeps these tensors as they are: quantised ones, and mapped ones that it may drop and fault in again
        state, metadata = _mapped(file, sources)
        patcher = comfy.sd.load_diffusion_model_state_dict(state, options, metadata, disable_dynamic=disable_dynamic)
    else:
        patcher = comfy.sd.load_diffusion_model_state_dict(placeholders, options, disable_dynamic=disable_dynamic)
        _fill(patcher.model.diffusion_model, file, {name: sources[key] for name, key in names.items()})
    patcher.cached_patcher_init = (load_meanflow_model, (path, weight_dtype))
    return patcher


def load_predictor(path: str, weight_dtype: str = "default") -> LoadedPredictor:
    """The Predictor in the file, ready to attach; ValueError if a key or shape is off."""
    file = open_weights(path)
    spec, state = read_predictor(file)
    expected = {name: tuple(p.shape) for name, p in build_predictor(spec, device="meta").state_dict().items()}
    require_fit(file.name, str(spec), expected, {name: tuple(tensor.shape) for name, tensor in state.items()})

    load_device = comfy.model_management.get_torch_device()
    offload_device = comfy.model_management.unet_offload_device()
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
    network = build_predictor(spec, dtype=dtype, device=offload_device, operations=operations)
    patcher = comfy.model_patcher.CoreModelPatcher(network, load_device, offload_device)
    network.load_state_dict(state, strict=True, assign=patcher.is_dynamic())
    patcher.cached_patcher_init = (_load_predictor_patcher, (path, weight_dtype))
    return LoadedPredictor(patcher, spec)


def build_predictor(spec: PredictorSpec, dtype=None, device=None, operations=comfy.ops.disable_weight_init):
    """The network that the spec describes, from ComfyUI's own blocks."""
    settings = {"dtype": dtype, "device": device, "operations": operations}

    def linear(inputs: int, outputs: int, bias: bool = True) -> torch.nn.Module:
        return operations.Linear(inputs, outputs, bias=bias, dtype=dtype, device=device)

    if spec.family == "1.0":
        return SingleStreamPredictor(
            spec.width,
            spec.depth,
            lambda: SingleStreamBlock(spec.width, spec.heads, spec.mlp_ratio, **settings),
            linear,
        )
    return DoubleStreamPredictor(
        spec.width,
        spec.depth,
        lambda: DoubleStreamBlock(spec.width, spec.heads, spec.mlp_ratio, qkv_bias=True, **settings),
        linear,
    )


def _load_predictor_patcher(path: str, weight_dtype: str, disable_dynamic: bool = False):
    return load_predictor(path, weight_dtype).patcher


def _transformer_sources(file: WeightsFile) -> layouts.Sources:
    prefix = layouts.prefix_of(file.tensors, layouts.MODEL_MARK)
    if prefix is None:
        raise ValueError(
            f"'{file.name}' is not a HunyuanVideo transformer: it has no {layouts.MODEL_MARK}, "
            f"but {listing(sorted(file.tensors), 3)}. Choose a file such as "
            "hyvideo10_t2v_restricted_meanflow_540p.safetensors."
        )
    names = layouts.without_prefix(file.tensors, prefix)
    merged, missing = layouts.merged(names)
    if missing:
        raise ValueError(f"'{file.name}' is incomplete: {len(missing)} keys missing: {listing(missing)}.")
    if not any(key.startswith("time_r_in.") for key in merged):
        raise ValueError(
            f"'{file.name}' has no time_r_in weights: it is HunyuanVideo without MeanFlow. "
            "Load it with core's Load Diffusion Model, or choose a MeanFlow or step-distilled file."
        )
    return {key: tuple(names[part] for part in parts) for key, parts in merged.items()}


def _merged_shape(file: WeightsFile, parts: tuple[str, ...]) -> tuple[int, ...]:
    first, *others = (file.tensors[part].shape for part in parts)
    if any(shape[1:] != first[1:] for shape in others):
        raise ValueError(f"'{file.name}' is damaged: {listing(list(parts))} should have the same width.")
    return (first[0] + sum(shape[0] for shape in others), *first[1:]) if others else first


def _placeholder(shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return torch.zeros((), dtype=dtype).expand(shape)  # the shape without the memory


def _quantised(file: WeightsFile, sources: layouts.Sources) -> set[str]:
    extras = {key for key in sources if key.endswith(QUANTISED) or key == "scaled_fp8"}
    split = [key for key, parts in sources.items() if len(parts) > 1]
    if extras and split:
        raise ValueError(
            f"'{file.name}' is quantised with split q, k, v, whose scales differ. "
            "Use the bf16 file with weight_dtype fp8_e4m3fn, or a quantised file in ComfyUI's layout."
        )
    return extras


def _detect(file: WeightsFile, placeholders: dict[str, torch.Tensor]):
    try:
        config = comfy.model_detection.model_config_from_unet(placeholders, "")
    except (KeyError, IndexError, TypeError) as error:
        raise ValueError(f"'{file.name}' is incomplete: {error} missing. Download it again.") from error
    if config is None or len(config.unet_config.get("patch_size", ())) != 3:
        raise ValueError(f"'{file.name}' is not a HunyuanVideo 1.0 or 1.5 model. Choose a file named in the README.")
    return config


def _describe(config) -> str:
    shape = config.unet_config
    blocks = f"{shape['depth']} double and {shape['depth_single_blocks']} single blocks"
    return f"HunyuanVideo with width {shape['hidden_size']}, {blocks}"


def _skeleton(config) -> dict[str, tuple[int, ...]]:
    settings = {**config.unet_config, "dtype": torch.float32}
    with torch.device("meta"):
        network = comfy.ldm.hunyuan_video.model.HunyuanVideo(
            **settings, device="meta", operations=comfy.ops.disable_weight_init
        )
    return {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}


def _dtype_options(weight_dtype: str) -> dict:
    options = {}
    if weight_dtype.startswith("fp8_e4m3fn"):
        options["dtype"] = torch.float8_e4m3fn
    elif weight_dtype == "fp8_e5m2":
        options["dtype"] = torch.float8_e5m2
    if weight_dtype.endswith("_fast"):
        options["fp8_optimizations"] = True
    return options


def _mapped(file: WeightsFile, sources: layouts.Sources) -> tuple[dict[str, torch.Tensor], dict | None]:
    tensors, metadata = comfy.utils.load_torch_file(file.path, return_metadata=True)
    for key, tensor in tensors.items():
        require_finite(file.name, key, tensor)
    state = {
        key: tensors[parts[0]] if len(parts) == 1 else torch.cat([tensors[part] for part in parts])
        for key, parts in sources.items()
    }
    return state, metadata


def _fill(network: torch.nn.Module, file: WeightsFile, sources: layouts.Sources) -> None:
    parameters = network.state_dict(keep_vars=True)
    rows = {
        part: (name, start)
        for name, parts in sources.items()
        for part, start in zip(parts, _starts(file, parts), strict=True)
    }
    for part, tensor in file.read(list(rows)):
        name, start = rows[part]
        target = parameters[name].detach()
        (target if tensor.ndim == 0 else target[start : start + tensor.shape[0]]).copy_(tensor)


def _starts(file: WeightsFile, parts: tuple[str, ...]) -> list[int]:
    starts = [0]
    for part in parts[:-1]:
        starts.append(starts[-1] + file.tensors[part].shape[0])
    return starts
