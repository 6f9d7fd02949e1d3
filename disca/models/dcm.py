"""DCM's two experts in one file -> two MODELs, which share the weights that they have in common."""

from comfy.model_patcher import ModelPatcher
from torch import Tensor, empty

from ..messages import listing, quoted
from ..weights.checks import require_fit
from ..weights.dcm_file import ExpertsFile, experts_of, read_expert_lora
from ..weights.files import Shape, open_weights
from ..weights.lora_fit import Change, fit
from ..weights.merged import MergedWeights
from .loading import checked, load_transformer
from .lora import PREFIX, patches_of

OWN = ("time_in.", "guidance_in.", "vector_in.", "final_layer.")  # layers that the detail expert has of its own


def load_dcm_experts(path: str, weight_dtype: str = "default") -> tuple[ModelPatcher, ModelPatcher]:
    """The semantic and the detail expert of DCM's file; ValueError if a key or shape is off.

    The detail expert is a clone whose LoRA and own layers are patches: the weights are in memory once.
    """
    file = open_weights(path)
    experts = experts_of(file)
    weights = checked(experts.semantic)
    shapes = weights.plain.shapes
    patches = _own_patches(experts.own, shapes) | patches_of(_lora(experts, shapes))
    semantic = load_transformer(weights, weight_dtype, disable_dynamic=False)
    semantic.cached_patcher_init = (_load_semantic, (path, weight_dtype))
    detail = semantic.clone()
    detail.add_patches(patches)
    return semantic, detail


def _load_semantic(path: str, weight_dtype: str, disable_dynamic: bool = False) -> ModelPatcher:
    """What both experts are made of, loaded anew for another device; ComfyUI puts the patches on."""
    return load_transformer(checked(experts_of(open_weights(path)).semantic), weight_dtype, disable_dynamic)


def _own_patches(own: MergedWeights, shapes: dict[str, Shape]) -> dict[str, tuple]:
    """ComfyUI's patches that put the detail expert's own layers in place of the semantic one's."""
    expected = {key: shape for key, shape in shapes.items() if key.startswith(OWN)}
    require_fit(own.file.name, "DCM's detail expert", expected, own.shapes)
    own.require_floating()
    dtypes = own.dtypes
    tensors: dict[str, Tensor] = {key: empty(shape, dtype=dtypes[key]) for key, shape in expected.items()}
    own.read_into(tensors)
    return {PREFIX + key: ("set", (tensor,)) for key, tensor in tensors.items()}


def _lora(experts: ExpertsFile, shapes: dict[str, Shape]) -> list[Change]:
    """What the LoRA does to each weight; ValueError unless all of it fits."""
    lora = read_expert_lora(experts.semantic.file, experts.lora)
    fitted = fit(lora, shapes)
    if wrong := [quoted(name) for name in fitted.unknown] + fitted.unfit:
        raise ValueError(
            f"{quoted(lora.name)} has a LoRA of another model: of its {len(lora.layers)} layers {len(wrong)} do not "
            f"fit: {listing(wrong, 4, str)}. Choose DCM's own file for HunyuanVideo."
        )
    return fitted.changes
