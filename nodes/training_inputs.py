"""Inputs that the training nodes share, and the settings that they stand for."""

from dataclasses import replace
from typing import Any

import folder_paths
from comfy_api.v0_0_2 import io

from ..disca.host.compat import require, room
from ..disca.host.folders import file_path
from ..disca.server.folders import dataset_folder, known_sources, run_folder
from ..disca.training.budget.memory import CARDS, fitted
from ..disca.training.contract.method_settings import CfgSettings
from ..disca.training.contract.settings import (
    DataSettings,
    LoraSettings,
    MemorySettings,
    ModelSettings,
    OptimiserSettings,
    PreviewSettings,
    SaveSettings,
    Settings,
)
from .setting_input import range_inputs, setting_input
from .types import NOTHING_THERE

SIZES = {f"{size} GB": float(size) for size in CARDS}
SAVE = SaveSettings()
PREVIEW = PreviewSettings(every=SAVE.every, guidance=6.0)
NONE = "none"  # of the files
MOST_ENCODERS = 2  # that a HunyuanVideo has
OPTIMISER = ("lr", "warmup", "decay", "weight_decay", "clip", "ema")


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
    lora = [setting_input(LoraSettings, "rank", default=64, min=1), setting_input(LoraSettings, "alpha")]
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


def run_settings(
    algorithm: str,
    model_name: str,
    dataset: str,
    run: str,
    guidance: tuple[float, float],
    optimizer: dict,
    memory: dict,
    record: dict,
    seed: int,
    model: Any = None,
    **sections,
) -> Settings:
    """The run that the inputs of a node describe; `sections` are fields of Settings that only this node sets."""
    device, card = room("training").device()
    moves, batch, accumulate = _optimizer(**optimizer)
    save, preview = _record(**record)
    settings = Settings(
        algorithm=algorithm,
        out=run_folder(run),
        data=DataSettings(path=dataset_folder(dataset), batch=batch, accumulate=accumulate),
        model=ModelSettings(
            path=file_path("diffusion_models", model_name) if model is None else room("training").file_of_model(model),
            dtype="fp32" if device == "cpu" else "bf16",
        ),
        seed=seed,
        optimizer=moves,
        cfg=CfgSettings(guidance),
        save=save,
        preview=preview,
        device=device,
        **sections,
    )
    return _saving_memory(settings, card, **memory)


def _saving_memory(
    settings: Settings, card: float, memory: str, adamw_8bit: bool = False, fp8: bool = False, **custom
) -> Settings:
    if memory == "custom":
        return replace(
            settings,
            model=replace(settings.model, weight_dtype="fp8_e4m3fn" if fp8 else "default"),
            optimizer=replace(settings.optimizer, name="adamw_8bit" if adamw_8bit else "adamw"),
            memory=MemorySettings(**custom),
        )
    if settings.device == "cpu" or "://" in settings.data.path:
        return settings
    return fitted(settings, SIZES.get(memory, card))


def _optimizer(optimizer: str, batch: int = 1, accumulate: int = 1, **custom) -> tuple[OptimiserSettings, int, int]:
    return OptimiserSettings(**custom), batch, accumulate


def _record(
    record: str, save_every: int = SAVE.every, keep: int = SAVE.keep, preview_every: int = SAVE.every, **custom
) -> tuple[SaveSettings, PreviewSettings]:
    every = 0 if record == "no previews" else preview_every
    previews = {name.removeprefix("preview_"): value for name, value in custom.items()}
    return SaveSettings(save_every, keep), replace(PREVIEW, every=every, **_own_previews(**previews))


def _own_previews(prompts: str = "", vae: str = NONE, **custom) -> dict[str, Any]:
    """The settings with the prompts one by one, and the files where they are."""
    encoders = [custom.pop(f"text_encoder{number + 1}", NONE) for number in range(MOST_ENCODERS)]
    return custom | {
        "prompts": tuple(line.strip() for line in prompts.splitlines() if line.strip()),
        "text_encoders": tuple(file_path("text_encoders", name) for name in encoders if name != NONE),
        "vae": "" if vae == NONE else file_path("vae", vae),
    }


def _optimizer_inputs() -> list[io.Input]:
    moves = [setting_input(OptimiserSettings, name) for name in OPTIMISER]
    return [*moves, setting_input(DataSettings, "batch"), setting_input(DataSettings, "accumulate")]


def _memory_inputs() -> list[io.Input]:
    return [
        setting_input(MemorySettings, "recompute_blocks"),
        io.Boolean.Input("adamw_8bit", default=False, tooltip="Keeps the optimizer's moments in 8 bits."),
        io.Boolean.Input("fp8", default=False, tooltip="Keeps weights that are not trained in fp8."),
        setting_input(MemorySettings, "offload_activations"),
        setting_input(MemorySettings, "swap_blocks"),
    ]


def _record_inputs() -> list[io.Input]:
    previews = [
        setting_input(PreviewSettings, name, f"preview_{name}", default=getattr(PREVIEW, name))
        for name in ("every", "steps", "shift", "guidance")
    ]
    saves = [setting_input(SaveSettings, "every", "save_every"), setting_input(SaveSettings, "keep")]
    return [*saves, *previews, *_own_preview_inputs()]


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
        setting_input(PreviewSettings, name, f"preview_{name}", step=step)
        for name, step in (("width", 16), ("height", 16), ("frames", 1))
    ]
    prompts = io.String.Input(
        "preview_prompts",
        default="",
        multiline=True,
        tooltip="Your own prompts, one a line. Empty: those of the dataset's samples.",
    )
    return [prompts, *encoders, vae, *sizes]


def _file_input(folder: str, id: str, tooltip: str) -> io.Input:
    names = [NONE, *folder_paths.get_filename_list(folder)]
    return io.Combo.Input(id, options=names, default=NONE, tooltip=f"{tooltip} In models/{folder}.")
