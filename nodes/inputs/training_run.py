"""The run that the inputs of a training node describe."""

from dataclasses import replace
from typing import Any

from ...disca.host.compat import room
from ...disca.host.folders import file_path
from ...disca.messages import quoted
from ...disca.server.folders import dataset_folder, run_folder
from ...disca.training.budget.plan import fitted
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
    SourceSettings,
    ValidationSettings,
)
from ...disca.training.contract.torch_names import SHORT
from ...disca.training.contract.yaml_settings import read_options
from .training import MOST_ENCODERS, NONE, PREVIEW, SAVE, SIZES, VALIDATION


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
    more_datasets: str = "",
    **sections,
) -> Settings:
    """The run that the inputs of a node describe; `sections` are fields of Settings that only this node sets."""
    device, card = room("training").device()
    moves, data = _optimizer(**optimizer)
    save, preview, validation, log = _record(**record)
    settings = Settings(
        algorithm=algorithm,
        out=run_folder(run),
        data=DataSettings(path=dataset_folder(dataset), more=_sources(more_datasets), **data),
        model=ModelSettings(
            path=file_path("diffusion_models", model_name) if model is None else room("training").file_of_model(model),
            dtype="fp32" if device == "cpu" else "bf16",
        ),
        seed=seed,
        optimizer=moves,
        cfg=CfgSettings(guidance),
        save=save,
        preview=preview,
        validation=validation,
        log=log,
        device=device,
        **sections,
    )
    return _saving_memory(settings, card, **memory)


def _saving_memory(
    settings: Settings,
    card: float,
    memory: str,
    adamw_8bit: bool = False,
    fp8: bool = False,
    compile_blocks: bool = False,
    **custom,
) -> Settings:
    if memory == "custom":
        weight_dtype = "fp8_e4m3fn" if fp8 else "default"
        return replace(
            settings,
            model=replace(settings.model, weight_dtype=weight_dtype, compile_blocks=compile_blocks),
            optimizer=_in_8_bits(settings.optimizer) if adamw_8bit else settings.optimizer,
            memory=MemorySettings(**custom),
        )
    if settings.device == "cpu" or "://" in settings.data.path:
        return settings
    return fitted(settings, SIZES.get(memory, card))


def _in_8_bits(optimizer: OptimiserSettings) -> OptimiserSettings:
    if optimizer.name not in SHORT:
        raise ValueError(f"adamw_8bit is on, but the optimizer is {quoted(optimizer.name)}. Choose one of them.")
    return replace(optimizer, name="adamw_8bit")


def _optimizer(
    optimizer: str, options: str = "", decay_options: str = "", **custom
) -> tuple[OptimiserSettings, dict[str, Any]]:
    """How weights move, and what of the data's settings stands beside it."""
    data = {name: custom.pop(name) for name in ("batch", "accumulate", "caption_dropout") if name in custom}
    texts = {"options": options, "decay_options": decay_options}
    written = {name: read_options(name, text) for name, text in texts.items()}
    return OptimiserSettings(**custom, **written), data


def _record(
    record: str,
    save_every: int = SAVE.every,
    keep: int = SAVE.keep,
    validation_samples: int = VALIDATION.samples,
    validation_every: int = VALIDATION.every,
    wandb: str = "",
    **custom,
) -> tuple[SaveSettings, PreviewSettings, ValidationSettings, LogSettings]:
    previews = {"every": 0 if record == "no previews" else PREVIEW.every}
    previews |= {name.removeprefix("preview_"): value for name, value in custom.items()}
    validation = ValidationSettings(validation_samples, validation_every)
    preview = replace(PREVIEW, **_own_previews(**previews))
    return SaveSettings(save_every, keep), preview, validation, LogSettings(wandb)


def lora_settings(weights: str, lora_name: str = NONE, targets: str = "", **adapters) -> LoraSettings:
    """The adapters that the input for weights describes; none for all weights."""
    path = "" if lora_name == NONE else file_path("loras", lora_name)
    return LoraSettings(**adapters, path=path, targets=tuple(targets.split()))


def _sources(text: str) -> tuple[SourceSettings, ...]:
    """Further datasets, one a line: 'cats' or 'cats x 3'."""
    found = []
    for line in filter(None, map(str.strip, text.splitlines())):
        name, cross, times = line.rpartition(" x ")
        if cross and not times.strip().isdecimal():
            raise ValueError(f"more_datasets has the line {quoted(line)}. Write a name, or a name and 'x 3'.")
        found.append(SourceSettings(dataset_folder((name if cross else line).strip()), int(times[:9]) if cross else 1))
    return tuple(found)


def _own_previews(prompts: str = "", vae: str = NONE, **custom) -> dict[str, Any]:
    """The settings with the prompts one by one, and the files where they are."""
    encoders = [custom.pop(f"text_encoder{number + 1}", NONE) for number in range(MOST_ENCODERS)]
    return custom | {
        "prompts": tuple(line.strip() for line in prompts.splitlines() if line.strip()),
        "text_encoders": tuple(file_path("text_encoders", name) for name in encoders if name != NONE),
        "vae": "" if vae == NONE else file_path("vae", vae),
    }
