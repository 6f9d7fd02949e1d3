"""ComfyUI-DisCa: the extension that ComfyUI loads."""

from comfy_api.v0_0_2 import ComfyExtension, io
from typing_extensions import override

from .disca.host.folders import make_predictor_folder, register_predictor_folder
from .nodes import NODES

WEB_DIRECTORY = "./web"


class DiscaExtension(ComfyExtension):
    """The pack's nodes and its model folder."""

    @override
    async def on_load(self) -> None:
        register_predictor_folder()
        make_predictor_folder()

    @override
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


async def comfy_entrypoint() -> DiscaExtension:
    """Called by ComfyUI."""
    return DiscaExtension()
