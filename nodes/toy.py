"""Toy Models, Toy Prompt, Toy Decode: DisCa at work without any download."""

from comfy_api.v0_0_2 import io

from ..disca.host.compat import room
from ..disca.toy.world import COLOURS, DIRECTIONS, SHAPES, SPEEDS
from .inputs.types import TOY_CATEGORY, DiscaPredictor

ATTRIBUTES = {"shape": SHAPES, "colour": COLOURS, "direction": DIRECTIONS, "speed": SPEEDS}
OBJECTS = {"front": ("circle", "red", "right", "medium"), "back": ("square", "blue", "up left", "slow")}


class DiscaToyModels(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiscaToyModels",
            display_name="DisCa Toy Models",
            category=TOY_CATEGORY,
            description="Tiny HunyuanVideo models that come with the pack and draw two moving shapes: to try DisCa "
            "without downloads, in seconds on a processor.",
            search_aliases=["demo", "example model", "try"],
            inputs=[],
            outputs=[
                io.Model.Output(
                    display_name="original", tooltip="As it was first trained: wants about 50 steps and a cfg of 3."
                ),
                io.Model.Output(
                    display_name="meanflow", tooltip="Distilled by Restricted MeanFlow: 20 steps, cfg 1, guidance 3."
                ),
                DiscaPredictor.Output(display_name="predictor", tooltip="Stands in for the meanflow model's blocks."),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(*room("toy").load())


class DiscaToyPrompt(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiscaToyPrompt",
            display_name="DisCa Toy Prompt",
            category=TOY_CATEGORY,
            description="Says which two shapes a toy video shows and how they move.",
            search_aliases=["demo", "example prompt"],
            inputs=[
                _choice(place, name, default)
                for place, defaults in OBJECTS.items()
                for name, default in zip(ATTRIBUTES, defaults, strict=True)
            ],
            outputs=[io.Conditioning.Output()],
        )

    @classmethod
    def execute(cls, **chosen: str) -> io.NodeOutput:
        back, front = ([chosen[f"{place}_{name}"] for name in ATTRIBUTES] for place in ("back", "front"))
        return io.NodeOutput(room("toy").prompt([back, front]))


class DiscaToyDecode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiscaToyDecode",
            display_name="DisCa Toy Decode",
            category=TOY_CATEGORY,
            description="Turns toy latents into frames, the videos of a batch below one another.",
            search_aliases=["demo", "vae decode"],
            inputs=[
                io.Latent.Input("samples", tooltip="What a toy model was sampled to."),
                io.Int.Input(
                    "size", default=128, min=16, max=1024, step=16, tooltip="Width and height of each video in pixels."
                ),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, samples: dict, size: int) -> io.NodeOutput:
        return io.NodeOutput(room("toy").pictures(samples, size))


def _choice(place: str, name: str, default: str) -> io.Input:
    role = "hides the other where they meet" if place == "front" else "is hidden where they meet"
    return io.Combo.Input(
        f"{place}_{name}",
        options=list(ATTRIBUTES[name]),
        default=default,
        tooltip=f"The {name} of the shape that {role}.",
    )
