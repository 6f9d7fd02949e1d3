"""Train Predictor, Train MeanFlow, Train CFG."""

from typing import Any

from comfy_api.v0_0_2 import io, ui

from ..disca.host.compat import room
from ..disca.training.contract.method_settings import MeanFlowSettings, PairSettings, PredictorSettings
from ..disca.training.contract.settings import Settings
from .inputs.setting import method_input, range_inputs, setting_input
from .inputs.training import (
    guidance_inputs,
    more_input,
    shared_inputs,
    source_inputs,
    start_input,
    valid_sources,
    weights_input,
)
from .inputs.training_run import lora_settings, run_settings
from .inputs.types import TRAINING_CATEGORY, DiscaPredictor

PREDICTOR = ("delta_max", "depth", "form", "start", "gan_weight", "gan_ramp", "gan_cap")
PREDICTOR += ("lr_discriminator", "discriminator_blocks")
PAIRS = ("line", "trajectory", "cached")
REPORT = "Where the result is, and the memory and time that the run takes on each size of card."


class DiscaTrainPredictor(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiscaTrainPredictor",
            display_name="DisCa Train Predictor",
            category=TRAINING_CATEGORY,
            description="Trains the small network that stands in for the transformer, for a MeanFlow model of yours.",
            search_aliases=["feature cache", "learnable cache", "training", "train hunyuan"],
            inputs=[
                *source_inputs("my_predictor", "The MeanFlow model that the Predictor is for: its bf16 file."),
                method_input(PredictorSettings, _predictor_inputs()),
                setting_input(PredictorSettings, "mse_iterations"),
                setting_input(PredictorSettings, "gan_iterations"),
                *guidance_inputs(advanced=True),
                *shared_inputs(),
                start_input(),
                more_input(),
                DiscaPredictor.Input(
                    "predictor", optional=True, tooltip="A Predictor to go on from. Without one a new one is trained."
                ),
            ],
            outputs=[
                DiscaPredictor.Output(display_name="predictor"),
                io.String.Output(display_name="report", tooltip=REPORT),
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, model_name: str | None, dataset: str | None, run: str | None) -> bool | str:
        return valid_sources(model_name, dataset, run)

    @classmethod
    def execute(
        cls,
        method: dict,
        mse_iterations: int,
        gan_iterations: int,
        guidance_low: float,
        guidance_high: float,
        predictor: Any = None,
        **shared,
    ) -> io.NodeOutput:
        path = "" if predictor is None else room("training").file_of_predictor(predictor)
        own = {"mse_iterations": mse_iterations, "gan_iterations": gan_iterations, "path": path}
        predictor = _predictor(own=own, **method)
        guidance = (guidance_low, guidance_high)
        return _train(run_settings("predictor", guidance=guidance, predictor=predictor, **shared))


class DiscaTrainMeanFlow(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiscaTrainMeanFlow",
            display_name="DisCa Train MeanFlow",
            category=TRAINING_CATEGORY,
            description="Distills a HunyuanVideo without CFG into one that takes few, large MeanFlow steps.",
            search_aliases=["restricted meanflow", "step distillation", "training", "lora training", "train lora"],
            inputs=[
                *source_inputs(
                    "my_meanflow", "A HunyuanVideo without need of CFG, such as DisCa Train CFG makes: its bf16 file."
                ),
                method_input(MeanFlowSettings, _meanflow_inputs()),
                setting_input(Settings, "iterations"),
                weights_input(),
                *guidance_inputs(advanced=True),
                *shared_inputs(),
                start_input(),
                more_input(),
            ],
            outputs=[io.Model.Output(), io.String.Output(display_name="report", tooltip=REPORT)],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, model_name: str | None, dataset: str | None, run: str | None) -> bool | str:
        return valid_sources(model_name, dataset, run)

    @classmethod
    def execute(
        cls, method: dict, iterations: int, weights: dict, guidance_low: float, guidance_high: float, **shared
    ) -> io.NodeOutput:
        sections = {"meanflow": _meanflow(**method), "iterations": iterations, "lora": lora_settings(**weights)}
        return _train(run_settings("meanflow", guidance=(guidance_low, guidance_high), **sections, **shared))


class DiscaTrainCFG(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiscaTrainCFG",
            display_name="DisCa Train CFG",
            category=TRAINING_CATEGORY,
            description="Distills classifier-free guidance into the model: one call then does what took two.",
            search_aliases=["guidance distillation", "cfg distillation", "training", "lora training", "train lora"],
            inputs=[
                *source_inputs("my_cfg", "A HunyuanVideo that is sampled with CFG: its bf16 file."),
                *guidance_inputs(advanced=False),
                setting_input(Settings, "iterations"),
                weights_input(),
                *shared_inputs(),
                start_input(),
                more_input(),
            ],
            outputs=[io.Model.Output(), io.String.Output(display_name="report", tooltip=REPORT)],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, model_name: str | None, dataset: str | None, run: str | None) -> bool | str:
        return valid_sources(model_name, dataset, run)

    @classmethod
    def execute(
        cls, guidance_low: float, guidance_high: float, iterations: int, weights: dict, **shared
    ) -> io.NodeOutput:
        sections = {"iterations": iterations, "lora": lora_settings(**weights)}
        return _train(run_settings("cfg", guidance=(guidance_low, guidance_high), **sections, **shared))


def _train(settings: Settings) -> io.NodeOutput:
    trained = room("training").train(settings)
    pictures = [ui.SavedResult(picture.name, picture.subfolder, io.FolderType.output) for picture in trained.pictures]
    return io.NodeOutput(trained.result, trained.report, ui=ui.SavedImages(pictures))


def _predictor(method: str, own: dict[str, Any], **custom) -> PredictorSettings:
    if method != "custom":
        return PredictorSettings(preset=method, **own)
    pairs = PairSettings(**{name: custom.pop(f"pairs_{name}") for name in PAIRS})
    shift = (custom.pop("shift_low"), custom.pop("shift_high"))
    return PredictorSettings(pairs=pairs, shift=shift, **own, **custom)


def _meanflow(method: str, **custom) -> MeanFlowSettings:
    return MeanFlowSettings(**custom) if method == "custom" else MeanFlowSettings(preset=method)


def _predictor_inputs() -> list[io.Input]:
    default = PredictorSettings().pairs
    pairs = [setting_input(PairSettings, name, f"pairs_{name}", default=getattr(default, name)) for name in PAIRS]
    own = [setting_input(PredictorSettings, name) for name in PREDICTOR]
    runs = [setting_input(PredictorSettings, "full_steps"), *range_inputs(PredictorSettings, "shift")]
    return [*own, *pairs, *runs, setting_input(PredictorSettings, "adaptive")]


def _meanflow_inputs() -> list[io.Input]:
    names = ("R", "share_r_equals_t", "derivative", "h", "cap", "adaptive")
    return [setting_input(MeanFlowSettings, name) for name in names]
