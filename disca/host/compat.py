"""Every name of ComfyUI's inside that DisCa uses: the place to look at when ComfyUI changes.

A name that is gone takes away what needs it and nothing else: a MODEL runs natively, a node says what it cannot do.
`tests/comfy/test_renamed.py` renames each of them, and finds names that are used but not listed.
"""

import logging
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import CodeType, ModuleType

from ..messages import listing, quoted

TESTED = "0.30.0"  # the ComfyUI that the tests run
LOST_WITHOUT = {  # room -> what does not work without it
    "loading": "DisCa cannot load weights. Use core's Load Diffusion Model, and core's samplers with euler",
    "lora": "DisCa cannot load a LoRA. Use core's LoraLoaderModelOnly",
    "dcm": "DisCa cannot load DCM's experts, and core cannot either",
    "attach": "every step runs in full, without a Predictor or a cache",
    "sampling": "DisCa cannot sample. Use SamplerCustomAdvanced with core's sampler euler",
    "calibration": "DisCa cannot calibrate. Choose a published calibration in DisCa Apply Cache",
    "finding": "DisCa cannot find a schedule. Take a preset in DisCa Cache Schedule",
    "speed": "attention and compilation stay as they are",
    "training": "DisCa cannot train from a graph. Train with python -m disca.training",
    "datasets": "DisCa cannot build a dataset from a graph. Build it with python -m disca.training.build",
    "toy": "the toy world cannot be shown",
}
ROOMS = {  # room -> its module in this pack
    "loading": "models.loading",
    "lora": "models.lora",
    "dcm": "models.dcm",
    "attach": "host.attach",
    "sampling": "host.sampling",
    "calibration": "host.calibrating",
    "finding": "host.finding.find",
    "speed": "host.speed",
    "training": "server.training",
    "datasets": "server.datasets",
    "toy": "server.toy",
}
IMPORTS = {
    "calibration": ("attach", "sampling"),
    "dcm": ("loading", "lora"),
    "finding": ("attach", "sampling"),
    "training": ("loading", "lora"),
    "toy": ("loading",),
}  # room -> others that it takes with it
# Word -> the module of ComfyUI's that it came with: without that module it is neither there nor needed.
CAME_WITH = {"multigpu_clones": "comfy.multigpu"}
# Room ("model" is used by all) -> module -> its attributes; words in its code: keys, parameters,
# attributes of objects.
NEEDS: dict[str, dict[str, tuple[str, str]]] = {
    "model": {
        "comfy.model_patcher": ("ModelPatcher ModelPatcher.get_model_object", "model_options transformer_options"),
        "comfy.model_base": ("", "diffusion_model"),
        "comfy.ldm.hunyuan_video.model": (
            "HunyuanVideo",
            "double_blocks single_blocks time_r_in hidden_size num_heads patch_size",
        ),
    },
    "loading": {
        "comfy.ldm.flux.layers": (
            "DoubleStreamBlock SingleStreamBlock",
            "qkv_bias vec pe attn_mask modulation_dims modulation_dims_img modulation_dims_txt transformer_options "
            "img_attn txt_attn img_mlp txt_mlp qkv norm proj linear1 linear2",
        ),
        "comfy.memory_management": ("aimdo_enabled", ""),
        "comfy.model_detection": ("model_config_from_unet", "depth depth_single_blocks"),
        "comfy.model_management": ("get_torch_device unet_offload_device unet_dtype unet_manual_cast", ""),
        "comfy.model_patcher": ("CoreModelPatcher", "cached_patcher_init"),
        "comfy.ops": ("disable_weight_init manual_cast pick_operations", "fp8_optimizations"),
        "comfy.sd": ("load_diffusion_model_state_dict", "fp8_optimizations"),
        "comfy.supported_models": ("HunyuanImage21 HunyuanImage21Refiner", "process_unet_state_dict unet_config"),
        "comfy.utils": ("load_torch_file calculate_parameters weight_dtype", ""),
    },
    "lora": {
        "comfy.ldm.flux.layers": ("", "img_attn txt_attn img_mlp txt_mlp qkv proj linear1 linear2"),
        "comfy.lora": ("load_lora", ""),
        "comfy.model_management": ("cast_to_device", ""),
        "comfy.model_patcher": ("ModelPatcher.add_patches", ""),
        "comfy.weight_adapter.base": ("WeightAdapterBase WeightAdapterBase.calculate_weight", ""),
        "comfy_execution.utils": ("get_executing_context", "node_id"),
    },
    "dcm": {"comfy.model_patcher": ("ModelPatcher.add_patches", "cached_patcher_init")},
    "attach": {
        "comfy.context_windows": ("", "context_window index_list"),
        "comfy.hooks": ("HookGroup", "hooks strength"),
        "comfy.ldm.flux.layers": (
            "DoubleStreamBlock SingleStreamBlock",
            "patches attn1_patch attn1_output_patch pe attn_mask modulation_dims modulation_dims_img "
            "modulation_dims_txt transformer_options img_attn txt_attn img_mlp txt_mlp qkv norm proj linear1 linear2 "
            "hidden_size num_heads mlp_hidden_dim_first",
        ),
        "comfy.ldm.modules.attention": ("", "optimized_attention_override skip_reshape"),
        "comfy.ldm.hunyuan_video.model": (
            "",
            "patches_replace dit double_block single_block original_block img txt vec pe attention_mask "
            "modulation_dims modulation_dims_img modulation_dims_txt transformer_options control sample_sigmas "
            "params context_in_dim vec_in_dim",
        ),
        "comfy.latent_formats": ("", "latent_channels"),
        "comfy.model_base": ("", "current_patcher transformer_options latent_format cross_attn pooled_output"),
        "comfy.model_management": ("get_free_memory", ""),
        "comfy.model_patcher": (
            "create_model_options_clone ModelPatcher.set_attachments ModelPatcher.get_attachment "
            "ModelPatcher.set_additional_models ModelPatcher.get_additional_models_with_key "
            "ModelPatcher.add_wrapper_with_key ModelPatcher.remove_wrappers_with_key "
            "ModelPatcher.set_model_patch_replace ModelPatcher.prepare_hook_patches_current_keyframe",
            "",
        ),
        "comfy.ops": ("disable_weight_init manual_cast cast_bias_weight uncast_bias_weight", ""),
        "comfy.patcher_extension": (
            "get_all_callbacks WrappersMP WrappersMP.OUTER_SAMPLE WrappersMP.PREDICT_NOISE WrappersMP.CALC_COND_BATCH "
            "WrappersMP.APPLY_MODEL WrappersMP.DIFFUSION_MODEL",
            "class_obj original wrappers",
        ),
        "comfy.samplers": (
            "Sampler",
            "cond_or_uncond uuid uuids sigmas hooks timestep_start timestep_end multigpu_clones model_patcher "
            "sampler_function extra_options denoise_mask sample_sigmas",
        ),
        "comfy_execution.utils": ("get_executing_context", "node_id"),
        "comfy_extras.nodes_easycache": ("", "easycache"),
    },
    "sampling": {
        "comfy.latent_formats": ("", "latent_channels"),
        "comfy.model_base": ("", "latent_format"),
        "comfy.model_management": ("intermediate_device", ""),
        "comfy.model_patcher": ("ModelPatcher.add_callback_with_key", ""),
        "comfy.sample": ("fix_empty_latent_channels prepare_noise", ""),
        "comfy.samplers": (
            "KSAMPLER CFGGuider CFGGuider.inner_set_conds CFGGuider.set_cfg",
            "inner_model model_patcher sample_sigmas transformer_options",
        ),
        "comfy.utils": ("PROGRESS_BAR_ENABLED", ""),
        "latent_preview": ("prepare_callback", ""),
    },
    "calibration": {
        "comfy.model_base": ("", "latent_format"),
        "comfy.samplers": ("sampler_object", ""),
        "comfy.utils": ("ProgressBar ProgressBar.update PROGRESS_BAR_ENABLED", ""),
    },
    "finding": {
        "comfy.latent_formats": ("", "spacial_downscale_ratio temporal_downscale_ratio"),
        "comfy.model_base": ("BaseModel.process_latent_in", ""),
        "comfy.model_management": ("throw_exception_if_processing_interrupted", ""),
        "comfy.samplers": ("CFGGuider.predict_noise sampling_function ksampler", ""),
        "comfy.utils": ("ProgressBar ProgressBar.update_absolute", ""),
    },
    "speed": {
        "comfy.ldm.modules.attention": ("", "optimized_attention_override skip_reshape skip_output_reshape"),
        "comfy_api.torch_helpers": ("set_torch_compile_wrapper", ""),
    },
    "training": {
        "comfy.model_management": (
            "get_torch_device get_total_memory unload_all_models soft_empty_cache processing_interrupted "
            "interrupt_current_processing InterruptProcessingException",
            "",
        ),
        "comfy.sd": ("load_diffusion_model", ""),
        "comfy.utils": ("ProgressBar ProgressBar.update_absolute", ""),
        "comfy_execution.utils": ("get_executing_context", "node_id"),
    },
    "datasets": {
        "comfy.model_management": ("throw_exception_if_processing_interrupted", ""),
        "comfy.sd": ("CLIPType", ""),
        "comfy.utils": ("ProgressBar ProgressBar.update_absolute", ""),
        "comfy_execution.utils": ("get_executing_context", "node_id"),
    },
    "toy": {
        "comfy.latent_formats": ("HunyuanVideo HunyuanVideo.process_in", ""),
        "comfy.model_base": ("", "pooled_output"),
        "comfy.sd": ("load_diffusion_model", ""),
    },
}

logger = logging.getLogger(__name__)


@cache
def missing(*rooms: str) -> tuple[str, ...]:
    """The names that the rooms need and this ComfyUI has not."""
    rooms = ("model", *rooms, *(other for room in rooms for other in IMPORTS.get(room, ())))
    names = [name for room in rooms for module, needed in NEEDS[room].items() for name in _lacks(module, *needed)]
    return tuple(dict.fromkeys(names))


def room(name: str) -> ModuleType:
    """The module of a room, imported when a node runs; ValueError if this ComfyUI has not what it needs.

    So a name that is gone breaks no import of the nodes, and what is missing is said where it is missed.
    """
    require(name)
    return import_module(f"...{ROOMS[name]}", __name__)


def require(room: str) -> None:
    """ValueError that says what is missing for the room, if anything is."""
    if problem := lack(room):
        raise ValueError(problem)


def native(*rooms: str) -> bool:
    """Whether something is missing for the rooms, so that the MODEL has to stay as it is; that is logged."""
    if problem := lack(*rooms):
        logger.warning("DisCa: %s", problem)
    return problem is not None


def lack(*rooms: str) -> str | None:
    """What is missing for the rooms and what is lost without it, in a sentence; None if nothing is."""
    from comfyui_version import __version__

    if not (names := missing(*rooms)):
        return None
    return (
        f"This ComfyUI ({__version__}) has no {listing(names)}, so {LOST_WITHOUT[rooms[0]]}. "
        f"Update DisCa, which was made for ComfyUI {TESTED}, or report this at the address in its README."
    )


def _lacks(name: str, attributes: str, words: str) -> list[str]:
    try:
        module = import_module(name)
    except ImportError:
        return [name]
    lacking = [path for path in attributes.split() if not _has(module, path)]
    found = _words(module.__spec__.loader.get_code(name)) if words else set()
    return [f"{name}.{path}" for path in lacking] + [
        f"{quoted(word)} in {name}" for word in words.split() if word not in found and _there(CAME_WITH.get(word, name))
    ]


def _there(name: str) -> bool:
    return find_spec(name) is not None


def _has(thing: ModuleType | type, path: str) -> bool:
    for name in path.split("."):
        thing = getattr(thing, name, None)
    return thing is not None


def _words(code: CodeType) -> set[str]:
    """The names and texts in the code, and in that of its functions and classes."""
    words = {*code.co_names, *code.co_varnames}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            words |= _words(constant)
        words.update(
            text for text in (constant if isinstance(constant, tuple) else [constant]) if isinstance(text, str)
        )
    return words
