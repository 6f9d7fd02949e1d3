"""The toy world as a dataset: every index a scene of its own, drawn when asked for."""

from torch import Tensor

from ..models.family import HUNYUANVIDEO_10
from .world import condition, no_condition, pictures, random_scene, to_latents

TOY = "toy://shapes"  # the path of the dataset, which needs no files
LENGTH = 1_000_000
HELD_OUT = 900_000  # the first scene that no training comes to


class ToyDataset:
    """Samples as a dataset from disk has them."""

    family = HUNYUANVIDEO_10.name
    encoder = "toy"
    fingerprint = "toy world 3"

    def __init__(self):
        self.null = {name: value[0] for name, value in no_condition().items()}

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        scene = random_scene(i)
        conditioning = condition(scene.attributes)
        return {"latent": to_latents(pictures(scene))[0], **{name: value[0] for name, value in conditioning.items()}}

    def name(self, i: int) -> str:
        """What to call a sample in a message."""
        return f"toy scene {i:d}"
