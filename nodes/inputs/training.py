"""Inputs that the training nodes share."""

import folder_paths
from comfy_api.v0_0_2 import io

from ...disca.host.compat import require
from ...disca.server.folders import known_sources
from ...disca.training.budget.plan import CARDS
from ...disca.training.contract.method_settings import CfgSettings
from ...disca.training.contract.settings import (
    DataSettings,
    LogSettings,
    LoraSettings,
    MemorySettings,
    ModelSettings,
    OptimiserSettings,
    PreviewSettings,
    SaveSettings,
    Settings,
    ValidationSettings,
)
from ...disca.training.contract.torch_names import optimisers, schedules
from .setting import range_inputs, setting_input
from .types import NOTHING_THERE

SIZES = {f"{size} GB": float(size) for size in CARDS}
SAVE, VALIDATION = SaveSettings(), ValidationSettings()
PREVIEW = PreviewSettings(every=SAVE.every, guidance=6.0)
NONE = "none"  # of the files
MOST_ENCODERS = 2  # that a HunyuanVideo has


def source_inputs(run: str, tooltip: str) -> list[io.Input]:
    """What is trained, on what, and where it goes."""
    text = f"{tooltip} In models/diffusion_models. {NOTHING_THERE}"
    return [
        io.Combo.Input("model_name", options=folder_paths.get_filename_list("diffusion_models"), tooltip=text),
        io.String.Input(
            "dataset",
            default="my_dataset",
            tooltip="From DisCa Build Dataset, or the name of a dataset in output/disca/datasets. toy://shapes: the "
            "toy world, which needs no files.",
        ),
        io.String.Input(
            "run",
            default=run,
            tooltip="The run's folder in output/disca/runs. A run that was interrupted goes on from its last "
            "checkpoint, one that is finished gives its result. Other settings need another name.",
        ),
    ]


def start_input() -> io.Input:
    """The MODEL to begin with, where it comes from the graph."""
    return io.Model.Input(
        "model",
        optional=True,
        tooltip="The MODEL to begin with, in place of model_name: from another DisCa training, from DisCa Load "
        "MeanFlow Model or from Load Diffusion Model, without a LoRA on it.",
    )


def more_input() -> io.Input:
    """Further datasets."""
    return io.String.Input(
        "more_datasets",
        default="",
        multiline=True,
        optional=True,
        advanced=True,
        tooltip="Further datasets, one a line. cats x 3: the samples of cats come three times as often.",
    )


def valid_sources(model: str | None, dataset: str | None, run: str | None) -> bool | str:
    """True if these can be trained with; a sentence or ValueError else. None: comes by a link."""
    require("training")
    return known_sources(model, dataset, run)


def guidance_inputs(advanced: bool) -> list[io.Input]:
    """The range of guidance scales that the model is trained for."""
    about = "Only for models that are told their guidance scale." if advanced else ""
    return range_inputs(CfgSettings, "guidance", about, advanced=advanced)


def weights_input() -> io.Input:
    """A LoRA or all weights."""
    lora = [
        setting_input(LoraSettings, "rank", default=64, min=1),
        setting_input(LoraSettings, "alpha"),
        _file_input("loras", "lora_name", "A LoRA to start from, of any trainer. none: a new one."),
        io.String.Input(
            "targets",
            default="",
            optional=True,
            tooltip="Names of layers that get adapters, with * for anything and a space between two. Empty: all.",
        ),
    ]
    return io.DynamicCombo.Input(
        "weights",
        options=[io.DynamicCombo.Option("LoRA", lora), io.DynamicCombo.Option("all", [])],
        tooltip="LoRA: adapters and the time embedders. all: every weight, which needs the largest cards.",
    )


def shared_inputs() -> list[io.Input]:
    """Optimizer, memory, record and seed."""
    return [
        io.DynamicCombo.Input(
            "optimizer",
            options=[io.DynamicCombo.Option("default", []), io.DynamicCombo.Option("custom", _optimizer_inputs())],
            tooltip="default: AdamW, one sample at a time, a learning rate by what is trained.",
        ),
        io.DynamicCombo.Input(
            "memory",
            options=[
                io.DynamicCombo.Option("auto", []),
                *(io.DynamicCombo.Option(card, []) for card in SIZES),
                io.DynamicCombo.Option("custom", _memory_inputs()),
            ],
            tooltip="What is traded for memory. The sizes choose what fits such a card and costs least time, "
            "for this model and dataset. auto: your card.",
        ),
        io.DynamicCombo.Input(
            "record",
            options=[
                io.DynamicCombo.Option("previews", []),
                io.DynamicCombo.Option("no previews", []),
                io.DynamicCombo.Option("custom", _record_inputs()),
            ],
            tooltip=f"previews: checkpoints and previews every {SAVE.every} iterations. no previews: only checkpoints.",
        ),
        setting_input(  # fixed: a run goes on with the seed it began with
            Settings, "seed", control_after_generate=io.ControlAfterGenerate.fixed
        ),
    ]


def _optimizer_inputs() -> list[io.Input]:
    shared = [setting_input(OptimiserSettings, name) for name in ("weight_decay", "clip", "ema")]
    return [
        setting_input(OptimiserSettings, "lr"),
        setting_input(OptimiserSettings, "warmup"),
        setting_input(OptimiserSettings, "decay", options=schedules()),
        *shared,
        setting_input(DataSettings, "batch"),
        setting_input(DataSettings, "accumulate"),
        setting_input(OptimiserSettings, "name", options=optimisers(), optional=True),
        setting_input(OptimiserSettings, "options", default="", optional=True),
        setting_input(OptimiserSettings, "decay_options", default="", optional=True),
        setting_input(DataSettings, "caption_dropout", optional=True),
    ]


def _memory_inputs() -> list[io.Input]:
    return [
        setting_input(MemorySettings, "recompute_blocks"),
        io.Boolean.Input("adamw_8bit", default=False, tooltip="Keeps the optimizer's moments in 8 bits."),
        io.Boolean.Input("fp8", default=False, tooltip="Keeps weights that are not trained in fp8."),
        setting_input(MemorySettings, "offload_activations"),
        setting_input(MemorySettings, "swap_blocks"),
        setting_input(ModelSettings, "compile_blocks", optional=True),
    ]


def _record_inputs() -> list[io.Input]:
    previews = [
        setting_input(PreviewSettings, name, f"preview_{name}", default=getattr(PREVIEW, name))
        for name in ("every", "steps", "shift", "guidance")
    ]
    saves = [setting_input(SaveSettings, "every", "save_every"), setting_input(SaveSettings, "keep")]
    others = [
        setting_input(ValidationSettings, "samples", "validation_samples", optional=True),
        setting_input(ValidationSettings, "every", "validation_every", optional=True),
        setting_input(LogSettings, "wandb", optional=True),
    ]
    return [*saves, *previews, *_own_preview_inputs(), *others]


def _own_preview_inputs() -> list[io.Input]:
    """Prompts of one's own, and previews as videos."""
    encoders = [
        _file_input(
            "text_encoders",
            f"preview_text_encoder{number + 1}",
            "One of the text encoders that the dataset was built with, for prompts of your own.",
        )
        for number in range(MOST_ENCODERS)
    ]
    vae = _file_input("vae", "preview_vae", "The VAE of the model: previews are videos too. none: only pictures.")
    sizes = [
        setting_input(PreviewSettings, name, f"preview_{name}", step=step, optional=True)
        for name, step in (("width", 16), ("height", 16), ("frames", 1))
    ]
    prompts = io.String.Input(
        "preview_prompts",
        default="",
        multiline=True,
        optional=True,
        tooltip="Your own prompts, one a line. Empty: those of the dataset's samples.",
    )
    return [prompts, *encoders, vae, *sizes]


def _file_input(folder: str, id: str, tooltip: str) -> io.Input:
    names = [NONE, *folder_paths.get_filename_list(folder)]
    return io.Combo.Input(id, options=names, default=NONE, optional=True, tooltip=f"{tooltip} In models/{folder}.")
