"""Apply Cache: any feature cache on a MODEL."""

from typing import get_origin

from comfy_api.v0_0_2 import io

from ..disca.host import compat
from ..disca.host.compat import room
from ..disca.limits import CACHE_DEVICES
from ..disca.methods import METHODS, Cache
from ..disca.methods.seam.anchors import AtAnchors
from ..disca.methods.seam.method import Method
from ..disca.schedule import Schedule
from ..disca.settings.fields import fields_of
from .calibrate import fingerprint, made_for, with_files, with_values
from .inputs.setting import setting_input
from .inputs.types import CATEGORY, DiscaSchedule
from .speed import speed_inputs, speed_up

CUSTOM = "custom"
OFFERED = {name: cache for name, cache in METHODS.items() if not cache().method().computes}  # the others need a file
SCHEDULE_TOOLTIP = (
    "Which steps run in full, in place of the method's own choice: from DisCa Cache Schedule or DisCa Find Schedule."
)
DEVICE_TOOLTIP = (
    "Where what is kept waits. How much that is stands on the node when a run starts. auto: on the GPU while there is "
    "room."
)


class DiscaApplyCache(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiscaApplyCache",
            display_name="DisCa Apply Cache",
            category=CATEGORY,
            description="Lets a feature cache stand in for parts of a HunyuanVideo model on most steps: no training, "
            "no further files. A MODEL has one cache, the last that was applied.",
            search_aliases=[cache.title for cache in OFFERED.values()]
            + ["feature cache", "cache", "hunyuanvideo", "faster", "speed", "caching"],
            inputs=[
                io.Model.Input("model", tooltip="A HunyuanVideo 1.0 or 1.5 model, with or without MeanFlow."),
                io.DynamicCombo.Input(
                    "method",
                    options=[io.DynamicCombo.Option(name, [_preset_input(cache)]) for name, cache in OFFERED.items()],
                    tooltip="What is kept of full steps, and what is made of it. The help page says what each costs.",
                ),
                io.Combo.Input(
                    "cache_device", options=list(CACHE_DEVICES), default="auto", advanced=True, tooltip=DEVICE_TOOLTIP
                ),
                DiscaSchedule.Input("schedule", optional=True, tooltip=SCHEDULE_TOOLTIP),
                *speed_inputs(optional=True),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def validate_inputs(cls, method: dict) -> bool:
        if None not in method["preset"].values():  # None: comes by a link
            _cache(**method)
        return True

    @classmethod
    def fingerprint_inputs(cls, method: object = None, **others) -> str:
        """Changes with the calibration's file: a model that is calibrated again may have its old name."""
        preset = method.get("preset") if isinstance(method, dict) else None
        return fingerprint(preset) if isinstance(preset, dict) else ""

    @classmethod
    def execute(
        cls,
        model,
        method: dict,
        cache_device: str,
        schedule: Schedule | None = None,
        attention: str = "comfy",
        compile_blocks: bool = False,
    ) -> io.NodeOutput:
        if not compat.native("attach"):
            model = room("attach").attach(model, _method(model, schedule, **method), cache_device)
        return io.NodeOutput(speed_up(model, attention, compile_blocks))


def _method(model, schedule: Schedule | None, method: str, preset: dict) -> Method:
    """What was chosen; by the schedule, if there is one."""
    if schedule is not None:
        return _cache(method, preset).method(AtAnchors(schedule))
    return made_for(model, _cache(method, preset).method(), preset)


def _cache(method: str, preset: dict) -> Cache:
    """The settings that were chosen."""
    kind, given = OFFERED[method], dict(preset)
    name = given.pop("preset")
    return kind(**(with_values(kind, given) if name == CUSTOM else kind.presets[name]))


def _preset_input(cache: type[Cache]) -> io.Input:
    single = [name for name, field in fields_of(cache).items() if get_origin(field.annotation) is not tuple]
    custom = [setting_input(cache, name, **with_files(cache, name)) for name in single]
    presets = [io.DynamicCombo.Option(name, []) for name in cache.presets]
    return io.DynamicCombo.Input(
        "preset",
        options=[*presets, io.DynamicCombo.Option(CUSTOM, custom)],
        tooltip=". ".join((cache.title, cache.source, "custom: each setting by itself.")),
    )
