"""What makes each call faster, cached or not: the attention kernel, and torch.compile block by block."""

from comfy.model_patcher import ModelPatcher
from comfy_api.torch_helpers import set_torch_compile_wrapper

from ..models.checks import family_of_model
from .attention import choose_attention


def compile_blocks(model: ModelPatcher, backend: str = "inductor") -> ModelPatcher:
    """A clone of the MODEL whose transformer blocks are compiled, each for itself, at its first run."""
    family, network = family_of_model(model), model.model.diffusion_model
    model = model.clone(disable_dynamic=True)
    names = [f"diffusion_model.{family.kind(block).attribute}.{block[1]}" for block in family.blocks(network)]
    set_torch_compile_wrapper(model, backend, options={"guard_filter_fn": _guards}, keys=names)
    return model


def speed_up(model: ModelPatcher, attention: str, compiled: bool) -> ModelPatcher:
    """The MODEL with that attention kernel and its blocks compiled, if asked for; itself at `comfy`, uncompiled."""
    if attention != "comfy":
        model = choose_attention(model, attention)
    return compile_blocks(model) if compiled else model


def _guards(entries) -> list[bool]:
    """Drops what changes with every call; keeps which patches there are, or a block would run on without them."""
    return ["transformer_options" not in entry.name or entry.guard_type == "DICT_CONTAINS" for entry in entries]
