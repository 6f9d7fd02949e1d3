"""Inputs that the training nodes share, and the settings that they stand for."""

from dataclasses import replace

import folder_paths
from comfy_api.v0_0_2 import io

from ..disca.host.compat import room
from ..disca.host.folders import file_path
from ..disca.training.budget.memory import CARDS
from ..disca.training.contract.settings import (
    CfgSettings,
    DataSettings,
    MemorySettings,
    ModelSettings,
    OptimiserSettings,
    PreviewSettings,
    SaveSettings,
    Settings,
)
from .types import NOTHING_THERE

SIZES = {f"{size} GB": float(size) for size in CARDS}
OPTIMISER, SAVE = OptimiserSettings(), SaveSettings()
PREVIEW = PreviewSettings(every=SAVE.every, guidance=6.0)


def source_inputs(run: str, tooltip: str) -> list[io.Input]:
    """What is trained, on what, and where it goes."""
    told = f"{tooltip} In models/diffusion_models. {NOTHING_THERE}"
    return [
        io.Combo.Input("model_name", options=folder_paths.get_filename_list("diffusion_models"), tooltip=told),
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


def iterations_input(name: str, default: int, tooltip: str, least: int = 0) -> io.Input:
    """A number of iterations."""
    return io.Int.Input(name, default=default, min=least, max=10_000_000, tooltip=tooltip)


def guidance_inputs(advanced: bool) -> list[io.Input]:
    """The range of guidance scales that the model is trained for."""
    low, high = CfgSettings().guidance
    told = "Only for models that are told their guidance scale: it is drawn from here. " if advanced else ""
    limits = {"min": 0.0, "max": 100.0, "step": 0.1, "advanced": advanced}
    return [
        io.Float.Input("guidance_low", default=low, tooltip=f"{told}The least guidance scale.", **limits),
        io.Float.Input("guidance_high", default=high, tooltip=f"{told}The greatest guidance scale.", **limits),
    ]


def weights_input() -> io.Input:
    """A LoRA or all weights."""
    return io.DynamicCombo.Input(
        "weights",
        options=[
            io.DynamicCombo.Option(
                "LoRA",
                [
                    io.Int.Input("rank", default=64, min=1, max=1024, tooltip="The width of the adapters."),
                    io.Float.Input(
                        "alpha", default=0.0, min=0.0, max=1024.0, tooltip="The adapters' strength. 0: the rank."
                    ),
                ],
            ),
            io.DynamicCombo.Option("all", []),
        ],
        tooltip="LoRA: adapters and the time embedders. all: every weight, which needs the largest cards.",
    )


def shared_inputs() -> list[io.Input]:
    """Optimiser, memory, record and seed."""
    return [
        io.DynamicCombo.Input(
            "optimiser",
            options=[io.DynamicCombo.Option("default", []), io.DynamicCombo.Option("own", _optimiser_inputs())],
            tooltip="default: AdamW, one sample at a time, a learning rate by what is trained.",
        ),
        io.DynamicCombo.Input(
            "memory",
            options=[
                io.DynamicCombo.Option("auto", []),
                *(io.DynamicCombo.Option(card, []) for card in SIZES),
                io.DynamicCombo.Option("own", _memory_inputs()),
            ],
            tooltip="What is traded for memory. The sizes choose what fits such a card and costs least time, "
            "for this model and dataset. auto: your card.",
        ),
        io.DynamicCombo.Input(
            "record",
            options=[
                io.DynamicCombo.Option("previews", []),
                io.DynamicCombo.Option("no previews", []),
                io.DynamicCombo.Option("own", _record_inputs()),
            ],
            tooltip=f"previews: checkpoints and previews every {SAVE.every} iterations. no previews: only checkpoints.",
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=0xFFFFFFFF,
            control_after_generate=io.ControlAfterGenerate.fixed,  # a run goes on with the seed it began with
            tooltip="The seed of all that is drawn.",
        ),
    ]


def run_settings(
    algorithm: str,
    model_name: str,
    dataset: str,
    run: str,
    guidance: tuple[float, float],
    optimiser: dict,
    memory: dict,
    record: dict,
    seed: int,
    **sections,
) -> Settings:
    """The run that the inputs of a node describe; `sections` are fields of Settings that only this node sets."""
    device, card = room("training").device()
    moves, batch, accumulate = _optimiser(**optimiser)
    save, preview = _record(**record)
    settings = Settings(
        algorithm=algorithm,
        out=room("training").run_folder(run),
        data=DataSettings(path=room("training").dataset_folder(dataset), batch=batch, accumulate=accumulate),
        model=ModelSettings(
            path=file_path("diffusion_models", model_name),
            dtype="fp32" if device == "cpu" else "bf16",
        ),
        seed=seed,
        optimiser=moves,
        cfg=CfgSettings(guidance),
        save=save,
        preview=preview,
        device=device,
        **sections,
    )
    return _saving_memory(settings, card, **memory)


def _saving_memory(
    settings: Settings, card: float, memory: str, eight_bit: bool = False, fp8: bool = False, **own
) -> Settings:
    if memory == "own":
        return replace(
            settings,
            model=replace(settings.model, weight_dtype="fp8_e4m3fn" if fp8 else "default"),
            optimiser=replace(settings.optimiser, name="adamw8bit" if eight_bit else "adamw"),
            memory=MemorySettings(**own),
        )
    if settings.device == "cpu" or "://" in settings.data.path:
        return settings
    return room("training").fitted(settings, SIZES.get(memory, card))


def _optimiser(optimiser: str, batch: int = 1, accumulate: int = 1, **own) -> tuple[OptimiserSettings, int, int]:
    return replace(OPTIMISER, **own), batch, accumulate


def _record(record: str, save_every: int = SAVE.every, keep: int = SAVE.keep, preview_every: int = SAVE.every, **own):
    every = 0 if record == "no previews" else preview_every
    previews = {name.removeprefix("preview_"): value for name, value in own.items()}
    return SaveSettings(save_every, keep), replace(PREVIEW, every=every, **previews)


def _optimiser_inputs() -> list[io.Input]:
    return [
        io.Float.Input(
            "lr",
            default=0.0,
            min=0.0,
            max=1.0,
            step=1e-6,
            round=False,
            tooltip="Learning rate. 0: 1e-4 for a Predictor, 5e-5 for a LoRA, 1e-5 for all weights.",
        ),
        iterations_input("warmup", OPTIMISER.warmup, "Iterations over which the learning rate rises."),
        io.Combo.Input("decay", options=["none", "cosine"], tooltip="cosine: the learning rate falls to 0 at the end."),
        io.Float.Input(
            "weight_decay",
            default=OPTIMISER.weight_decay,
            min=0.0,
            max=1.0,
            step=0.001,
            tooltip="Pulls weights towards 0.",
        ),
        io.Float.Input(
            "clip", default=OPTIMISER.clip, min=0.0, max=1000.0, step=0.1, tooltip="Longest gradient. 0: any."
        ),
        io.Float.Input(
            "ema",
            default=OPTIMISER.ema,
            min=0.0,
            max=0.99999,
            step=0.0001,
            round=False,
            tooltip="The result is a running average of the weights, each time so much of the old one. 0: no average.",
        ),
        io.Int.Input("batch", default=1, min=1, max=1024, tooltip="Samples at a time."),
        io.Int.Input("accumulate", default=1, min=1, max=1024, tooltip="So many batches make one iteration."),
    ]


def _memory_inputs() -> list[io.Input]:
    return [
        io.Boolean.Input("checkpoint", default=True, tooltip="Recomputes blocks instead of keeping what is in them."),
        io.Boolean.Input("eight_bit", default=False, tooltip="Keeps the optimiser's moments in 8 bits."),
        io.Boolean.Input("fp8", default=False, tooltip="Keeps weights that are not trained in fp8."),
        io.Boolean.Input("offload_activations", default=False, tooltip="Keeps blocks' inputs in main memory."),
        io.Int.Input(
            "swap_blocks", default=0, min=0, max=100, tooltip="So many blocks wait in main memory until they are used."
        ),
    ]


def _record_inputs() -> list[io.Input]:
    return [
        iterations_input("save_every", SAVE.every, "Iterations between checkpoints.", least=1),
        io.Int.Input("keep", default=SAVE.keep, min=1, max=100, tooltip="So many checkpoints stay."),
        iterations_input("preview_every", SAVE.every, "Iterations between previews. 0: none."),
        io.Int.Input("preview_steps", default=PREVIEW.steps, min=1, max=1000, tooltip="Steps of a preview."),
        io.Float.Input(
            "preview_shift", default=PREVIEW.shift, min=0.01, max=100.0, step=0.01, tooltip="Shift of its sigmas."
        ),
        io.Float.Input(
            "preview_guidance",
            default=PREVIEW.guidance,
            min=0.0,
            max=100.0,
            step=0.1,
            tooltip="Guidance scale of the previews, where the model has guidance.",
        ),
    ]
