"""Nodes for the random-prompt test: inputs of either family, tiny encoders, and any value where a type belongs."""

import sys
import tempfile
from pathlib import Path

import torch
from comfy_api.v0_0_2 import ComfyExtension, io

TESTS = Path(__file__).resolve().parents[1]
sys.path += [str(TESTS), str(TESTS / "training"), str(TESTS.parent)]
import graph  # noqa: E402
import recipes  # noqa: E402

VALUES = {
    "none": None,
    "text": "\ud800 text",
    "number": 3.5,
    "list": [1, "\ud800"],
    "dict": {"samples": 1},
    "object": object(),
}


class RandomInputs(io.ComfyNode):
    """Conditions and a latent of one of the golden runs."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RandomInputs",
            inputs=[
                io.Model.Input("model"),
                io.Combo.Input("case", options=list(recipes.CASES)),
                io.Combo.Input("latent", options=["right", "right", "odd", "wide", "nan", "still", "empty"]),
            ],
            outputs=[io.Conditioning.Output(), io.Conditioning.Output(), io.Latent.Output()],
        )

    @classmethod
    def execute(cls, model, case: str, latent: str) -> io.NodeOutput:
        positive, negative = graph.conditioning(recipes.golden(case), model), graph.other_conditioning(case, model)
        samples = graph.empty_latent(case)["samples"]
        changed = {
            "odd": samples[..., :5, :3],
            "wide": torch.nn.functional.pad(samples, (0, 4)),
            "nan": torch.full_like(samples, float("nan")),
            "still": samples[:, :, 0],
            "empty": samples[:, :, :0],
        }
        return io.NodeOutput(positive, negative, {"samples": changed.get(latent, samples)})


class RandomEncoders(io.ComfyNode):
    """A family's VAE, text encoders and CLIP vision, narrow, with random weights."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RandomEncoders",
            inputs=[io.Combo.Input("family", options=["1.0", "1.5"])],
            outputs=[io.Vae.Output(), io.Clip.Output(), io.ClipVision.Output()],
        )

    @classmethod
    def execute(cls, family: str) -> io.NodeOutput:
        import tiny_encoders

        return io.NodeOutput(tiny_encoders.tiny_vae(family), tiny_encoders.tiny_clip(family), _vision(tiny_encoders))


def _vision(tiny_encoders):
    with tempfile.TemporaryDirectory() as folder:
        return tiny_encoders.tiny_vision(Path(folder))


class RandomAnything(io.ComfyNode):
    """A value that no node expects, under every type."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RandomAnything",
            inputs=[io.Combo.Input("kind", options=list(VALUES))],
            outputs=[io.AnyType.Output()],
        )

    @classmethod
    def execute(cls, kind: str) -> io.NodeOutput:
        return io.NodeOutput(VALUES[kind])


class RandomExtension(ComfyExtension):
    """The three nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Called by ComfyUI."""
        return [RandomInputs, RandomEncoders, RandomAnything]


async def comfy_entrypoint() -> RandomExtension:
    """Called by ComfyUI."""
    return RandomExtension()
