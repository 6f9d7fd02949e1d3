"""Train Predictor, Train MeanFlow, Train CFG."""

from dataclasses import replace

from comfy_api.v0_0_2 import io, ui

from ..disca.host.compat import room
from ..disca.training.contract.settings import (
    MEANFLOW_PRESETS,
    PREDICTOR_PRESETS,
    LoraSettings,
    MeanFlowSettings,
    PairSettings,
    PredictorSettings,
    Settings,
)
from .training_inputs import (
    guidance_inputs,
    iterations_input,
    run_settings,
    shared_inputs,
    source_inputs,
    weights_input,
)
from .types import TRAINING_CATEGORY, DiscaPredictor

MEANFLOW, PREDICTOR = MeanFlowSettings(), PredictorSettings()
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
                io.DynamicCombo.Input(
                    "method",
                    options=[
                        io.DynamicCombo.Option("default", []),
                        io.DynamicCombo.Option("paper", []),
                        io.DynamicCombo.Option("own", _predictor_inputs()),
                    ],
                    tooltip="default: a Predictor that adds to the cached features, starting from reuse, on states "
                    "that the cached sampler visits. paper: as the authors describe it.",
                ),
                iterations_input("mse_iterations", PREDICTOR.mse_iterations, "Iterations by squared error, first."),
                iterations_input(
                    "gan_iterations", PREDICTOR.gan_iterations, "Iterations with a discriminator as well, after those."
                ),
                *guidance_inputs(advanced=True),
                *shared_inputs(),
            ],
            outputs=[
                DiscaPredictor.Output(display_name="predictor"),
                io.String.Output(display_name="report", tooltip=REPORT),
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, model_name: str | None, dataset: str | None, run: str | None) -> bool | str:
        return room("training").known_sources(model_name, dataset, run)

    @classmethod
    def execute(
        cls, method: dict, mse_iterations: int, gan_iterations: int, guidance_low: float, guidance_high: float, **shared
    ) -> io.NodeOutput:
        predictor = replace(_predictor(**method), mse_iterations=mse_iterations, gan_iterations=gan_iterations)
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
                io.DynamicCombo.Input(
                    "method",
                    options=[
                        io.DynamicCombo.Option("anchored", []),
                        io.DynamicCombo.Option("paper", []),
                        io.DynamicCombo.Option("own", _meanflow_inputs()),
                    ],
                    tooltip="anchored: half of the samples have r = t, and hard ones weigh less, which keeps the "
                    "model near its teacher. paper: none have, and all weigh alike.",
                ),
                iterations_input("iterations", 1000, "Iterations of the whole run.", least=1),
                weights_input(),
                *guidance_inputs(advanced=True),
                *shared_inputs(),
            ],
            outputs=[io.Model.Output(), io.String.Output(display_name="report", tooltip=REPORT)],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, model_name: str | None, dataset: str | None, run: str | None) -> bool | str:
        return room("training").known_sources(model_name, dataset, run)

    @classmethod
    def execute(
        cls, method: dict, iterations: int, weights: dict, guidance_low: float, guidance_high: float, **shared
    ) -> io.NodeOutput:
        sections = {"meanflow": _meanflow(**method), "iterations": iterations, "lora": _lora(**weights)}
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
                iterations_input("iterations", 1000, "Iterations of the whole run.", least=1),
                weights_input(),
                *shared_inputs(),
            ],
            outputs=[io.Model.Output(), io.String.Output(display_name="report", tooltip=REPORT)],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, model_name: str | None, dataset: str | None, run: str | None) -> bool | str:
        return room("training").known_sources(model_name, dataset, run)

    @classmethod
    def execute(
        cls, guidance_low: float, guidance_high: float, iterations: int, weights: dict, **shared
    ) -> io.NodeOutput:
        sections = {"iterations": iterations, "lora": _lora(**weights)}
        return _train(run_settings("cfg", guidance=(guidance_low, guidance_high), **sections, **shared))


def _train(settings: Settings) -> io.NodeOutput:
    trained = room("training").train(settings)
    pictures = [ui.SavedResult(picture.name, picture.subfolder, io.FolderType.output) for picture in trained.pictures]
    return io.NodeOutput(trained.result, trained.report, ui=ui.SavedImages(pictures))


def _predictor(method: str, **own) -> PredictorSettings:
    if method != "own":
        return PredictorSettings(preset=method, **PREDICTOR_PRESETS[method])
    pairs = PairSettings(own.pop("pairs_line"), own.pop("pairs_trajectory"), own.pop("pairs_cached"))
    return PredictorSettings(pairs=pairs, **own)


def _meanflow(method: str, **own) -> MeanFlowSettings:
    return MeanFlowSettings(**own) if method == "own" else MeanFlowSettings(preset=method, **MEANFLOW_PRESETS[method])


def _lora(weights: str, **adapters) -> LoraSettings:
    return LoraSettings(**adapters)


def _adaptive_input(default: float) -> io.Input:
    return _share("adaptive", default, "Samples weigh 1 / (error + c) to this power. 0: all weigh alike.")


def _share(name: str, default: float, tooltip: str) -> io.Input:
    return io.Float.Input(name, default=default, min=0.0, max=1.0, step=0.01, tooltip=tooltip)


def _predictor_inputs() -> list[io.Input]:
    pairs = PREDICTOR.pairs
    return [
        _share("delta_max", PREDICTOR.delta_max, "Features are at most so much older, in sigma."),
        io.Int.Input("depth", default=PREDICTOR.depth, min=1, max=8, tooltip="Blocks of the Predictor."),
        io.Combo.Input(
            "form",
            options=["residual", "authors"],
            tooltip="residual: it adds to the cached features. authors: it makes them anew.",
        ),
        io.Combo.Input(
            "start", options=["identity", "random"], tooltip="identity: it begins by giving the cached features back."
        ),
        io.Float.Input(
            "gan_weight",
            default=PREDICTOR.gan_weight,
            min=0.0,
            max=100.0,
            step=0.01,
            tooltip="Weight of the discriminator's judgement beside the squared error.",
        ),
        io.Float.Input(
            "lr_discriminator",
            default=PREDICTOR.lr_discriminator,
            min=0.0,
            max=1.0,
            step=1e-6,
            round=False,
            tooltip="Learning rate of the discriminator.",
        ),
        io.Int.Input(
            "taps", default=PREDICTOR.taps, min=1, max=60, tooltip="So many blocks' features the discriminator sees."
        ),
        _share("pairs_line", pairs.line, "Share of states on straight lines from data to noise."),
        _share("pairs_trajectory", pairs.trajectory, "Share of states on the model's own trajectories."),
        _share("pairs_cached", pairs.cached, "Share of states that the cached sampler visits."),
        _adaptive_input(PREDICTOR.adaptive),
    ]


def _meanflow_inputs() -> list[io.Input]:
    return [
        _share("R", MEANFLOW.R, "The longest step that is trained, in sigma."),
        _share("anchor", MEANFLOW.anchor, "Share of samples with r = t."),
        io.Combo.Input(
            "derivative",
            options=["difference", "dual"],
            tooltip="difference: two more calls of the network. dual: exact, and slower.",
        ),
        io.Float.Input(
            "h",
            default=MEANFLOW.h,
            min=1e-4,
            max=0.5,
            step=1e-4,
            round=False,
            tooltip="Distance in sigma of the two calls.",
        ),
        io.Float.Input(
            "cap",
            default=MEANFLOW.cap,
            min=0.0,
            max=100.0,
            step=0.1,
            tooltip="The correction is at most so long, of the velocity.",
        ),
        _adaptive_input(MEANFLOW.adaptive),
    ]
