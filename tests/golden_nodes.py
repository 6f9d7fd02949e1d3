"""Nodes for tests: what text encoders and noise were in a golden run, and how near the result comes to it."""

import torch
from comfy_api.v0_0_2 import ComfyExtension, io
from safetensors.torch import load_file


class GoldenInputs(io.ComfyNode):
    """The conditions and the starting noise of a golden run."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GoldenInputs",
            category="DisCa/golden",
            inputs=[io.String.Input("file"), io.Float.Input("guidance", default=6.0)],
            outputs=[io.Conditioning.Output(), io.Noise.Output()],
        )

    @classmethod
    def execute(cls, file: str, guidance: float) -> io.NodeOutput:
        tensors = load_file(file)
        options = {"pooled_output": tensors["pooled"], "guidance": guidance}
        return io.NodeOutput([[tensors["txt"], options]], GoldenNoise(tensors["latent"]))


class GoldenNoise:
    """A NOISE that is given, not drawn."""

    seed = 0

    def __init__(self, noise: torch.Tensor):
        self.noise = noise

    def generate_noise(self, latent: dict) -> torch.Tensor:
        """The golden run's noise."""
        return self.noise.clone()


class GoldenCompare(io.ComfyNode):
    """The relative error of a sampled latent to the golden run's last one."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="GoldenCompare",
            category="DisCa/golden",
            inputs=[io.Latent.Input("latent"), io.Model.Input("model"), io.String.Input("file")],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, latent: dict, model, file: str) -> io.NodeOutput:
        theirs = load_file(file)["disca_x"][-1]
        ours = model.model.process_latent_in(latent["samples"])
        error = torch.linalg.vector_norm(ours - theirs) / torch.linalg.vector_norm(theirs)
        return io.NodeOutput(ui={"text": [f"{error.item():.2e}"]})


class GoldenExtension(ComfyExtension):
    """The two nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Called by ComfyUI."""
        return [GoldenInputs, GoldenCompare]


async def comfy_entrypoint() -> GoldenExtension:
    """Called by ComfyUI."""
    return GoldenExtension()
