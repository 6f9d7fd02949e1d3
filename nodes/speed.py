"""Attention: the kernel and compilation, for cached and uncached runs."""

from comfy_api.v0_0_2 import io

from ..disca.host import compat
from ..disca.host.compat import room
from ..disca.limits import ATTENTION
from .inputs.types import CATEGORY


class DiscaAttention(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiscaAttention",
            display_name="DisCa Attention",
            category=CATEGORY,
            description="Makes every call of a HunyuanVideo faster, also without a Predictor or a cache: another "
            "attention kernel where it is faster, and compiled blocks.",
            search_aliases=["cudnn", "torch compile", "faster", "speed", "speed up", "flash attention", "hunyuan"],
            inputs=[io.Model.Input("model", tooltip="A HunyuanVideo model."), *speed_inputs(optional=False)],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model, attention: str, compile_blocks: bool) -> io.NodeOutput:
        return io.NodeOutput(speed_up(model, attention, compile_blocks))


def speed_up(model, attention: str, compile_blocks: bool):
    """The MODEL with these settings, or as it is if it is to be so or ComfyUI has changed too much."""
    if (attention == "comfy" and not compile_blocks) or compat.native("speed"):
        return model
    return room("speed").speed_up(model, attention, compile_blocks)


def speed_inputs(optional: bool) -> list[io.Input]:
    """The two settings, which Apply Predictor and Apply Cache have too."""
    return [
        io.Combo.Input(
            "attention",
            options=list(ATTENTION),
            default="comfy",
            optional=optional,
            advanced=optional,
            tooltip="comfy: ComfyUI's own choice. cudnn: PyTorch's cuDNN kernel where it can, which is much faster on "
            "Hopper cards. auto: times both once at the run's own size and takes the faster.",
        ),
        io.Boolean.Input(
            "compile_blocks",
            default=False,
            optional=optional,
            advanced=optional,
            tooltip="Compiles each transformer block with torch.compile. The first run, and each new size, takes a "
            "minute or more longer; the following ones are a few percent faster.",
        ),
    ]
