"""What `python -m disca.evaluation run.yaml` is told: a model, prompts, seeds, and the methods to compare."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ...limits import MOST_TEXT
from ...messages import quoted
from ...settings.fields import MANY, MOST_LISTED, MOST_SEED, Text, limits, location, number
from ...settings.section import section
from ..side_by_side.entries import MOST_ENTRIES, MOST_STEPS, Entry, read_entries

MOST_PROMPTS, MOST_SIDE, MOST_FRAMES = 1000, 8192, 10_000

Seed = Annotated[int, limits(0, MOST_SEED)]
Prompt = Annotated[Text, Field(min_length=1, max_length=MOST_TEXT)]


@section
class StudySettings:
    """Methods, and the runs that they are compared on: each prompt with each seed."""

    out: Annotated[Text, location(exists=False, needed=True), Field(description="A folder for what comes of it.")]
    model: Annotated[Text, location(needed=True), Field(description="The HunyuanVideo, a .safetensors file.")]
    methods: Annotated[tuple[Text, ...], Field(min_length=1, max_length=MOST_ENTRIES)] = Field(
        description="A line for each, as DisCa Compare Methods takes them."
    )
    predictor: Annotated[Text, location()] = Field("", description="For the methods 'DisCa at ...', or LESA's.")
    data: Annotated[Text, location(remote=True)] = Field(
        "", description="A dataset whose captions and first frames are the prompts, or toy://shapes."
    )
    samples: int = number(4, 1, MOST_PROMPTS, "How many of the dataset.")
    prompts: Annotated[tuple[Prompt, ...], Field(max_length=MOST_PROMPTS)] = Field(
        (), description="Prompts in place of a dataset."
    )
    text_encoders: Annotated[tuple[Annotated[Text, location(needed=True)], ...], Field(max_length=MOST_LISTED)] = Field(
        (), description="The files of the text encoders, for prompts."
    )
    vae: Annotated[Text, location()] = Field(
        "", description="The file of the VAE. Empty: videos in rough colours, of the latents' size."
    )
    width: int = number(848, 16, MOST_SIDE, "Width of videos of prompts, in pixels.")
    height: int = number(480, 16, MOST_SIDE, "Height of videos of prompts, in pixels.")
    frames: int = number(121, 1, MOST_FRAMES, "Frames of videos of prompts.")
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, max_length=MOST_LISTED)] = Field(
        (0,), description="Of the noise; each prompt is sampled with each."
    )
    steps: int = number(20, 2, MOST_STEPS, "Steps of every run but those of 'plain'.")
    shift: float = number(5.0, 0.01, 100, "Shift of the sigmas. HunyuanVideo 1.0: 5. HunyuanVideo 1.5: 7.", 0.01)
    cfg: float = number(1.0, 0, 100, "Classifier-free guidance. 1: off; else the empty prompt is the negative.", 0.1)
    guidance: float = number(6.0, 0, MANY, "The guidance scale that is passed to a model distilled with it.", 0.1)
    device: Literal["auto", "cpu"] = Field("auto", description="auto: the GPU if there is one.")

    @model_validator(mode="after")
    def _can_be_run(self) -> "StudySettings":
        if bool(self.prompts) == bool(self.data):
            both = "both 'prompts' and 'data'" if self.prompts else "neither 'prompts' nor 'data'"
            raise ValueError(f"The study has {both}. Name a dataset, or write prompts.")
        if self.prompts and not self.text_encoders:
            raise ValueError("'prompts' has texts, but 'text_encoders' names no files to encode them with. Name them.")
        for name in ("prompts", "seeds"):
            given = getattr(self, name)
            if again := next((one for one in given if given.count(one) > 1), None):
                raise ValueError(f"{quoted(name)} has {quoted(again)} twice. Take one out.")
        for entry in self.entries():
            entry.require_steps(self.steps)
            if not self.predictor:
                entry.require_predictor(None)
        return self

    def entries(self) -> list[Entry]:
        """The methods; ValueError if one cannot be read."""
        return read_entries("\n".join(self.methods))
