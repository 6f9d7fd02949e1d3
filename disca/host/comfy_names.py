"""Every name of ComfyUI's inside that DisCa uses, by the room that uses it; `compat` says what a lack of one costs."""

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
            "hidden_size num_heads mlp_hidden_dim_first img_norm1 img_norm2 txt_norm1 txt_norm2 pre_norm",
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
            "KSAMPLER ksampler CFGGuider CFGGuider.inner_set_conds CFGGuider.set_cfg",
            "inner_model model_patcher sample_sigmas transformer_options",
        ),
        "comfy.utils": ("PROGRESS_BAR_ENABLED", ""),
        "latent_preview": ("prepare_callback", ""),
    },
    "calibration": {
        "comfy.model_base": ("", "latent_format"),
        "comfy.utils": ("ProgressBar ProgressBar.update_absolute PROGRESS_BAR_ENABLED", ""),
    },
    "finding": {
        "comfy.latent_formats": ("", "spacial_downscale_ratio temporal_downscale_ratio"),
        "comfy.model_base": ("BaseModel.process_latent_in", ""),
        "comfy.model_management": ("throw_exception_if_processing_interrupted", ""),
        "comfy.sampler_helpers": ("convert_cond", ""),
        "comfy.samplers": ("CFGGuider.predict_noise sampling_function", ""),
        "comfy.utils": ("ProgressBar ProgressBar.update_absolute", ""),
    },
    "comparing": {
        "comfy.model_base": ("BaseModel.process_latent_in", ""),
        "comfy.model_management": (
            "soft_empty_cache throw_exception_if_processing_interrupted InterruptProcessingException",
            "",
        ),
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
