"""Calibrate."""

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

from comfy_api.v0_0_2 import io

from ..disca.curve import curve
from ..disca.host.compat import require, room
from ..disca.messages import quoted
from ..disca.methods.adaptive.findings import drawn, told
from ..disca.methods.adaptive.measuring import MEASURED
from ..disca.methods.seam.cache import Cache
from ..disca.methods.seam.method import Method
from ..disca.methods.seam.when import Rule
from ..disca.server import calibrations
from ..disca.settings.fields import fields_of
from .inputs.run import (
    UNCONNECTED,
    all_prompts,
    as_image,
    cfg_input,
    prompts_input,
    require_guidance,
    seed_input,
    shift_input,
)
from .inputs.types import CATEGORY

MOST_PROMPTS = 32
MORE_PROMPTS = "Further prompts, each a run more: one can mislead, four are better."
SETTING = "calibration"  # of a cache


class DiscaCalibrate(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiscaCalibrate",
            display_name="DisCa Calibrate",
            category=CATEGORY,
            description="Measures a model for TeaCache or MagCache: runs it in full, and saves what they go by for "
            "DisCa Apply Cache.",
            search_aliases=[
                "calibrate teacache",
                "calibrate magcache",
                "calibration",
                "teacache coefficients",
                "magcache ratios",
                "mag_ratios",
                "measure",
            ],
            inputs=[*_run_inputs(), *_file_inputs(), *_optional_inputs()],
            outputs=[
                io.String.Output(
                    display_name="report", tooltip="What was measured, and how many steps would run in full by it."
                ),
                io.Image.Output(
                    display_name="curve",
                    tooltip="MagCache: the ratios over the steps. TeaCache: the polynomial among the changes it fits.",
                ),
            ],
            is_output_node=True,
            not_idempotent=True,
        )

    @classmethod
    def validate_inputs(cls, name: str | None, cfg: float | None = 1.0, negative: object = UNCONNECTED) -> bool:
        require("calibration")
        require_guidance(negative, cfg)
        if name is not None:
            calibrations.calibration_path(name)
        return True

    @classmethod
    def execute(
        cls, model, positive, latent_image, seed, steps, shift, method, name, negative=None, cfg=1.0, prompts=None
    ) -> io.NodeOutput:
        path = calibrations.calibration_path(name)
        positives = all_prompts(positive, prompts)
        measured = room("calibration").calibrate(
            model, method, positives, negative, cfg, latent_image, seed, steps, shift
        )
        calibrations.save(path, measured.calibration)
        picture = as_image(curve(*drawn(*measured)))
        saved = f"saved as {quoted(path.name)}: choose it in DisCa Apply Cache, by preset: custom, calibration"
        return io.NodeOutput("\n".join([*told(*measured), saved]), picture)


def with_files(cache: type[Cache], setting: str) -> dict[str, list[str]]:
    """The options of a setting that chooses a calibration: the published ones, then files. {} for another setting."""
    if not cache.calibrated or setting != SETTING:
        return {}
    return {"options": [*get_args(fields_of(cache)[setting].annotation), *calibrations.names()]}


def with_values(cache: type[Cache], settings: dict) -> dict:
    """The settings with the values of the calibration that they name, if that is a file; it must be the cache's."""
    name = settings.get(SETTING)
    if not (cache.calibrated and calibrations.is_name(name)):
        return settings
    found = calibrations.load(name)
    found.require(cache.name, found.family, found.width)
    others = {key: value for key, value in settings.items() if key != SETTING}
    return others | {cache.calibrated: found.values}


def fingerprint(settings: dict) -> str:
    """What a file says that the settings name; "" if they name none that can be read."""
    name = settings.get(SETTING)
    try:
        return repr(calibrations.load(name)) if calibrations.is_name(name) else ""
    except ValueError:  # said when the node runs
        return ""


def made_for(model, method: Method, settings: dict) -> Method:
    """The method with what the file that the settings name has to say of a run; ValueError if it is no file for it."""
    if not calibrations.is_name(settings.get(SETTING)):
        return method
    found = calibrations.load(settings[SETTING])
    room("calibration").require_made_for(model, found, method.name)

    def warning(when: Rule, sigmas: Sequence[float], family: str) -> str | None:
        return found.notice(sigmas, family) if when == method.when else None  # a list takes the place of its rule

    return replace(method, warning=warning)


def _run_inputs() -> list[io.Input]:
    return [
        io.Model.Input("model", tooltip="The HunyuanVideo to measure. A cache or Predictor on it has no part in it."),
        io.Conditioning.Input("positive", tooltip="A prompt such as those that will be sampled."),
        io.Latent.Input("latent_image", tooltip="An empty latent video of the size that will be sampled."),
        seed_input("The seed of the starting noise, which is the same for each prompt."),
        io.Int.Input("steps", default=20, min=2, max=1000, tooltip="As many as will be sampled with. All run in full."),
        shift_input("As will be sampled with."),
    ]


def _file_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "method",
            options=list(MEASURED),
            tooltip="TeaCache: a polynomial, which needs 6 steps or more. MagCache: a ratio for each step.",
        ),
        io.String.Input(
            "name",
            default="my_model",
            tooltip="The file in output/disca/calibrations. One of that name is replaced.",
        ),
    ]


def _optional_inputs() -> list[io.Input]:
    return [
        io.Conditioning.Input("negative", optional=True, tooltip="Only with cfg above 1. It is measured too."),
        cfg_input("Classifier-free guidance, as will be sampled with. 1 is off."),
        prompts_input(MOST_PROMPTS, MORE_PROMPTS),
    ]
