"""A training run as data. `yaml_settings` reads and writes the one YAML file that describes the run."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StrictBool, model_validator

from ...settings.fields import MANY, MOST_LISTED, MOST_SEED, Text, limits, location, number
from ...settings.section import section
from .costs import COSTS, Algorithm, require_adapters
from .method_settings import CfgSettings, LesaSettings, MeanFlowSettings, PredictorSettings
from .torch_names import Options, require_optimiser, require_schedule

Decay = Annotated[float, limits(0, 0.99999)]
Seed = Annotated[int, limits(0, MOST_SEED)]
MOST_PROMPT = 10_000  # characters: far more than any family reads of them
MOST_ENCODERS = 4
MOST_SIDE, MOST_FRAMES = 4096, 1025
Prompt = Annotated[Text, Field(max_length=MOST_PROMPT)]
AS_DATASET = "of videos of your own prompts. 0: as in the dataset."


def _whole_latents(frames: int) -> int:
    if frames and frames % 4 != 1:
        raise ValueError(f"'frames' is {frames:d}, but must be 4n + 1 or 0. Set {frames // 4 * 4 + 1:d}, for example.")
    return frames


def _side(name: str) -> Any:
    return Field(
        0, ge=0, le=MOST_SIDE, multiple_of=16, strict=True, description=f"{name} {AS_DATASET}",
        json_schema_extra={"step": 16},
    )  # fmt: skip


@section
class ModelSettings:
    """The network to train and the one it learns from."""

    path: Annotated[Text, location()] = Field("", description="A safetensors file. Empty: a new toy network.")
    toy: Text = Field("", description="The shape of the new toy network.")
    weight_dtype: Literal["default", "bf16", "fp8_e4m3fn"] = Field(
        "default", description="How weights that are not trained are kept."
    )
    dtype: Literal["bf16", "fp32"] = Field("bf16", description="What is computed in.")
    compile_blocks: StrictBool = Field(
        False, description="Compiles the network's blocks: minutes at the start, and faster iterations on a GPU."
    )
    teacher: Annotated[Text, location()] = Field("", description="What it learns from. Empty: the same file.")


@section
class SourceSettings:
    """One more dataset of the run."""

    path: Annotated[Text, location(remote=True, needed=True), Field(description="Its folder or url.")]
    repeats: int = number(1, 1, 1000, "How often each of its samples comes in an epoch.")


@section
class DataSettings:
    """Where the samples are; an iteration takes batch x accumulate of them on each process."""

    path: Annotated[Text, location(remote=True, needed=True), Field(description="A dataset's folder or url.")]
    cache: Annotated[Text, location(exists=False)] = Field("", description="A folder for copies of what is at a url.")
    batch: int = number(1, 1, 1024, "Samples at a time.")
    accumulate: int = number(1, 1, 1024, "Batches accumulated per iteration.")
    repeats: int = number(1, 1, 1000, "How often each sample of `path` comes in an epoch.")
    more: Annotated[tuple[SourceSettings, ...], Field(max_length=MOST_LISTED)] = Field(
        (), description="Further datasets, each with a path and repeats."
    )
    caption_dropout: float = number(0.0, 0, 1, "Share of samples that come with the empty caption.", 0.01)

    @property
    def sources(self) -> tuple[SourceSettings, ...]:
        """All datasets of the run, the first among them."""
        return (SourceSettings(self.path, self.repeats), *self.more)


@section
class OptimiserSettings:
    """How a part's weights move."""

    name: Text = Field(
        "adamw",
        description="adamw; adamw_8bit, whose moments are kept in 8 bits; or a class of PyTorch's or torchao's by its "
        "full name, such as torch.optim.Adafactor.",
    )
    options: Options = Field(
        default_factory=dict,
        description="What that class takes beside learning rate, betas and weight decay, such as momentum: 0.9.",
    )
    lr: float = number(
        0.0, 0, 1, "Learning rate. 0: 1e-4 for a Predictor, 5e-5 for a LoRA, 1e-5 for all weights.", 1e-6
    )
    betas: tuple[Decay, Decay] = Field((0.9, 0.999), description="Decay of the two moments, where there are two.")
    weight_decay: float = number(0.0, 0, 1, "Weight decay. 0: none.", 0.001)
    warmup: int = number(0, 0, MANY, "Iterations over which the learning rate rises.")
    decay: Text = Field(
        "none",
        description="none; cosine: the learning rate falls to 0 at the end of the run; or a schedule of PyTorch's by "
        "its full name, such as torch.optim.lr_scheduler.StepLR.",
    )
    decay_options: Options = Field(
        default_factory=dict,
        description="What that schedule takes, such as step_size: 500. Its T_max, total_steps and total_iters are the "
        "run's iterations if they are left out.",
    )
    clip: float = number(1.0, 0, 1000, "Gradients are clipped to this norm. 0: no clipping.", 0.1)
    ema: float = number(
        0.999,
        0,
        0.99999,
        "Decay of the moving average of the weights that is exported. 0: export the weights themselves.",
        0.0001,
    )

    @model_validator(mode="after")
    def _are_known(self):
        require_optimiser(self.name, self.options)
        require_schedule(self.decay, self.decay_options)
        return self


@section
class LoraSettings:
    """Low-rank adapters; with rank 0, all weights are trained."""

    rank: int = number(0, 0, 1024, "The width of the adapters.")
    alpha: float = number(0.0, 0, 1024, "The adapters' strength. 0: the rank.", 0.1)
    path: Annotated[Text, location()] = Field("", description="A LoRA to start from, of any trainer. Empty: a new one.")
    targets: Annotated[tuple[Text, ...], Field(max_length=MOST_LISTED)] = Field(
        (), description="Names of layers that get adapters, with * for anything, such as '*attn*'. Empty: all of them."
    )

    @model_validator(mode="after")
    def _is_one(self):
        if (self.path or self.targets) and not self.rank:
            raise ValueError("lora.path and lora.targets are for a LoRA, but lora.rank is 0. Set it to 16 to 256.")
        return self


@section
class MemorySettings:
    """What is traded for memory."""

    recompute_blocks: StrictBool = Field(
        True, description="Recomputes blocks in the backward pass instead of keeping what is in them."
    )
    offload_activations: StrictBool = Field(False, description="Keeps blocks' inputs in main memory.")
    swap_blocks: int = number(0, 0, 100, "Blocks kept in main memory and copied to the GPU when needed.")


@section
class SaveSettings:
    """When a checkpoint is written, and how many stay."""

    every: int = number(500, 1, MANY, "Iterations between checkpoints.")
    keep: int = number(2, 1, 100, "How many checkpoints are kept.")


@section
class PreviewSettings:
    """When and how previews are sampled."""

    every: int = number(0, 0, MANY, "Iterations between previews. 0: none.")
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1, max_length=MOST_LISTED)] = Field(
        (0, 1), description="One preview is sampled from each; prompts of your own take them in turn."
    )
    steps: int = number(8, 1, 1000, "Steps of a preview.")
    shift: float = number(5.0, 0.01, 100, "Shift of its sigmas.", 0.01)
    guidance: float = number(1.0, 0, 100, "Guidance scale of the previews, where the model has guidance.", 0.1)
    prompts: Annotated[tuple[Prompt, ...], Field(max_length=MOST_LISTED)] = Field(
        (), description="Your own prompts. Empty: those of the dataset's samples."
    )
    text_encoders: Annotated[tuple[Annotated[Text, location(needed=True)], ...], Field(max_length=MOST_ENCODERS)] = (
        Field((), description="The safetensors files of the text encoders, for prompts of your own.")
    )
    vae: Annotated[Text, location()] = Field(
        "", description="The safetensors file of the VAE, for previews as videos too. Empty: only pictures."
    )
    width: int = _side("Width")
    height: int = _side("Height")
    frames: Annotated[int, AfterValidator(_whole_latents)] = number(0, 0, MOST_FRAMES, f"Frames {AS_DATASET}")

    @model_validator(mode="after")
    def _can_encode(self):
        if self.prompts and not self.text_encoders:
            raise ValueError(
                "'prompts' has texts, but 'text_encoders' names no files to encode them with. "
                "Name those of the model's text encoders, or leave out the prompts."
            )
        return self


@section
class ValidationSettings:
    """The loss on samples that are not trained on."""

    samples: int = number(0, 0, 100_000, "How many samples are held out. 0: none, and no validation.")
    every: int = number(250, 1, MANY, "Iterations between validations.")
    draws: int = number(4, 1, 1000, "Times and noise of each sample, the same in every validation.")


@section
class LogSettings:
    """Where figures go beside the run's folder."""

    wandb: Text = Field("", description="A project of Weights & Biases. Empty: none.")


@section
class Settings:
    """A whole training run."""

    algorithm: Annotated[Algorithm, Field(description=f"What is trained: {', '.join(COSTS)}.")]
    out: Annotated[Text, location(exists=False, needed=True), Field(description="The run's folder.")]
    data: DataSettings
    model: ModelSettings = ModelSettings()
    seed: int = number(0, 0, MOST_SEED, "Seed of all random numbers.")
    iterations: int = number(
        1000, 1, MANY, "Iterations of the whole run. A Predictor and LESA have their own, in two phases."
    )
    optimizer: OptimiserSettings = OptimiserSettings()
    lora: LoraSettings = LoraSettings()
    cfg: CfgSettings = CfgSettings()
    meanflow: MeanFlowSettings = MeanFlowSettings()
    predictor: PredictorSettings = PredictorSettings()
    lesa: LesaSettings = LesaSettings()
    memory: MemorySettings = MemorySettings()
    save: SaveSettings = SaveSettings()
    validation: ValidationSettings = ValidationSettings()
    preview: PreviewSettings = PreviewSettings()
    log: LogSettings = LogSettings()
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: a GPU if there is one.")

    @model_validator(mode="after")
    def _fits_together(self):
        if self.lora.rank:
            require_adapters(self.algorithm, self.lora.rank)
        if self.model.compile_blocks and self.algorithm == "meanflow" and self.meanflow.derivative == "dual":
            raise ValueError("Dual numbers do not go through compiled blocks. Turn off one of them.")
        return self
