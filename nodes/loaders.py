"""Load MeanFlow Model, Load Predictor, Load LoRA, Load DCM Experts."""

import folder_paths
from comfy_api.v0_0_2 import io

from ..disca.host import compat
from ..disca.host.compat import room
from ..disca.host.folders import PREDICTORS, file_path, known_name
from ..disca.limits import WEIGHT_DTYPES
from .inputs.types import CATEGORY, NOTHING_THERE, DiscaPredictor


class DiscaLoadModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiscaLoadModel",
            display_name="DisCa Load MeanFlow Model",
            category=CATEGORY,
            description="Loads HunyuanVideo weights that take MeanFlow steps, in the authors' layouts or ComfyUI's, "
            "and checks every weight.",
            search_aliases=[
                "hunyuan",
                "hunyuanvideo",
                "hunyuan video",
                "few steps",
                "turbo",
                "distilled",
                "step distilled",
                "restricted meanflow",
                "fp8",
                "load model",
                "load diffusion model",
                "unet loader",
            ],
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=folder_paths.get_filename_list("diffusion_models"),
                    tooltip="A file in models/diffusion_models with time_r_in weights: HunyuanVideo 1.0 Restricted "
                    f"MeanFlow or HunyuanVideo 1.5 step-distilled. {NOTHING_THERE}",
                ),
                _weight_dtype_input(),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def validate_inputs(cls, model_name: str | None) -> bool | str:
        return known_name("diffusion_models", model_name)

    @classmethod
    def execute(cls, model_name: str, weight_dtype: str) -> io.NodeOutput:
        path = file_path("diffusion_models", model_name)
        return io.NodeOutput(room("loading").load_meanflow_model(path, weight_dtype))


class DiscaLoadPredictor(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiscaLoadPredictor",
            display_name="DisCa Load Predictor",
            category=CATEGORY,
            description="Loads the small network that stands in for the transformer between anchor steps.",
            search_aliases=["feature cache", "disca predictor", "hunyuan"],
            inputs=[
                io.Combo.Input(
                    "predictor_name",
                    options=folder_paths.get_filename_list(PREDICTORS),
                    tooltip=f"A Predictor file in models/disca, made for the model it is applied to. {NOTHING_THERE}",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=list(WEIGHT_DTYPES),
                    default="default",
                    advanced=True,
                    tooltip="The type the Predictor's weights are kept in. They are small: default is right unless "
                    "memory is very short.",
                ),
            ],
            outputs=[DiscaPredictor.Output(display_name="predictor")],
        )

    @classmethod
    def validate_inputs(cls, predictor_name: str | None) -> bool | str:
        return known_name(PREDICTORS, predictor_name)

    @classmethod
    def execute(cls, predictor_name: str, weight_dtype: str) -> io.NodeOutput:
        path = file_path(PREDICTORS, predictor_name)
        if compat.missing("loading"):
            return io.NodeOutput(None)  # Apply Predictor says what is missing, and leaves the model native
        return io.NodeOutput(room("loading").load_predictor(path, weight_dtype))


class DiscaLoadLora(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiscaLoadLora",
            display_name="DisCa Load LoRA",
            category=CATEGORY,
            description="Puts a LoRA of any trainer on a HunyuanVideo, and says which of its layers were used.",
            search_aliases=[
                "lora",
                "hunyuan lora",
                "load lora",
                "lora loader",
                "kohya",
                "musubi",
                "diffusion-pipe",
                "dora",
                "lokr",
            ],
            inputs=[
                io.Model.Input("model", tooltip="A HunyuanVideo 1.0 or 1.5, before or after DisCa Apply Predictor."),
                io.Combo.Input(
                    "lora_name",
                    options=folder_paths.get_filename_list("loras"),
                    tooltip=f"A file in models/loras, made for this HunyuanVideo by any trainer. {NOTHING_THERE}",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-100.0,
                    max=100.0,
                    step=0.01,
                    tooltip="1 is what was trained, 0 the plain model. It may be negative.",
                ),
            ],
            outputs=[
                io.Model.Output(),
                io.String.Output(display_name="report", tooltip="How many layers were used, and which were not."),
            ],
        )

    @classmethod
    def validate_inputs(cls, lora_name: str | None) -> bool | str:
        return known_name("loras", lora_name)

    @classmethod
    def execute(cls, model, lora_name: str, strength: float) -> io.NodeOutput:
        model, report = room("lora").load_lora(model, file_path("loras", lora_name), strength)
        from ..disca.host.running.progress import show  # not before the room has what it needs

        show(report)
        return io.NodeOutput(model, report)


class DiscaLoadDCM(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiscaLoadDCM",
            display_name="DisCa Load DCM Experts",
            category=CATEGORY,
            description="Loads DCM's two experts, a HunyuanVideo for four steps, from their one file. Their weights "
            "are in memory once.",
            search_aliases=["dcm", "dual expert", "consistency model", "hunyuan", "few steps", "four steps"],
            inputs=[
                io.Combo.Input(
                    "model_name",
                    options=folder_paths.get_filename_list("diffusion_models"),
                    tooltip="DCM's diffusion_pytorch_model.safetensors for HunyuanVideo, in models/diffusion_models. "
                    f"{NOTHING_THERE}",
                ),
                _weight_dtype_input(),
            ],
            outputs=[
                io.Model.Output(
                    display_name="semantic",
                    tooltip="The expert for the first steps, at sigmas of 0.982 and above: layout and motion.",
                ),
                io.Model.Output(
                    display_name="detail",
                    tooltip="The expert for the steps after, at sigmas below 0.982: detail. With its weights as "
                    "patches on the semantic one's.",
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, model_name: str | None) -> bool | str:
        return known_name("diffusion_models", model_name)

    @classmethod
    def execute(cls, model_name: str, weight_dtype: str) -> io.NodeOutput:
        path = file_path("diffusion_models", model_name)
        return io.NodeOutput(*room("dcm").load_dcm_experts(path, weight_dtype))


def _weight_dtype_input() -> io.Input:
    return io.Combo.Input(
        "weight_dtype",
        options=list(WEIGHT_DTYPES),
        default="default",
        advanced=True,
        tooltip="The type the weights are kept in. fp8 halves their memory at some loss of quality; "
        "default keeps what the file has where the device can.",
    )
