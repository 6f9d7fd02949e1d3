"""Cache Schedule, Apply Predictor."""

from comfy_api.v0_0_2 import io

from ..disca.host import compat
from ..disca.host.compat import room
from ..disca.host.folders import schedule_file, schedule_names
from ..disca.limits import CACHE_DEVICES
from ..disca.schedule import PRESETS, Interval, Schedule, parse_anchors
from ..disca.schedule_file import read_schedule
from .inputs.types import CATEGORY, DiscaPredictor, DiscaSchedule
from .speed import speed_inputs, speed_up

PRESET_TOOLTIP = (
    "Which steps run in full, each list for the number of steps in its name. (ours): not the authors' list. "
    "N=4 is the paper's fastest setting. The help page has them all."
)

APPLY_ALIASES = [
    "hunyuan", "hunyuanvideo", "faster", "speed", "speed up", "accelerate",
    "feature cache", "caching", "step skipping", "teacache", "easycache",
]  # fmt: skip


class DiscaCacheSchedule(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiscaCacheSchedule",
            display_name="DisCa Cache Schedule",
            category=CATEGORY,
            description="Says which steps run the whole transformer (anchors); the Predictor does the others.",
            search_aliases=["anchors", "cache interval", "preset"],
            inputs=[_plan_input()],
            outputs=[DiscaSchedule.Output(display_name="schedule")],
        )

    @classmethod
    def validate_inputs(cls, plan: dict) -> bool:
        if None not in plan.values():  # None: comes by a link
            _schedule(**plan)
        return True

    @classmethod
    def fingerprint_inputs(cls, plan: dict) -> str:
        """Changes with the file: a schedule that is found again may have its old name."""
        name = plan.get("schedule_name") if isinstance(plan, dict) else None
        try:
            return repr(read_schedule(schedule_file(name))) if isinstance(name, str) else ""
        except ValueError:  # said when the node runs
            return ""

    @classmethod
    def execute(cls, plan: dict) -> io.NodeOutput:
        return io.NodeOutput(_schedule(**plan))


class DiscaApplyPredictor(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiscaApplyPredictor",
            display_name="DisCa Apply Predictor",
            category=CATEGORY,
            description="Lets the Predictor stand in for the transformer on all steps but the schedule's anchors.",
            search_aliases=APPLY_ALIASES,
            inputs=[
                io.Model.Input("model", tooltip="A HunyuanVideo MeanFlow model, from DisCa Load MeanFlow Model."),
                DiscaPredictor.Input("predictor", tooltip="The Predictor made for this model."),
                DiscaSchedule.Input("schedule", tooltip="From DisCa Cache Schedule."),
                io.Combo.Input(
                    "cache_device",
                    options=list(CACHE_DEVICES),
                    default="auto",
                    advanced=True,
                    tooltip="Where the features of the last anchor wait: one tensor, about 0.4 GB at 704x704x129 on "
                    "HunyuanVideo 1.0. auto: on the GPU while there is room.",
                ),
                *speed_inputs(optional=True),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(
        cls,
        model,
        predictor,
        schedule: Schedule,
        cache_device: str,
        attention: str = "comfy",
        compile_blocks: bool = False,
    ) -> io.NodeOutput:
        if not compat.native("attach", "loading"):
            model = room("attach").attach_predictor(model, predictor, schedule, cache_device)
        return io.NodeOutput(speed_up(model, attention, compile_blocks))


def _schedule(plan: str, preset: str = "", anchors: str = "", schedule_name: str = "", **interval) -> Schedule:
    if plan == "preset":
        return PRESETS[preset]
    if plan == "file":
        return read_schedule(schedule_file(schedule_name))
    return Interval(**interval) if plan == "interval" else parse_anchors(anchors)


def _plan_input() -> io.Input:
    return io.DynamicCombo.Input(
        "plan",
        options=[
            io.DynamicCombo.Option("preset", [io.Combo.Input("preset", options=list(PRESETS), tooltip=PRESET_TOOLTIP)]),
            io.DynamicCombo.Option("interval", _interval_inputs()),
            io.DynamicCombo.Option(
                "anchors",
                [
                    io.String.Input(
                        "anchors",
                        default="0 1 2 5 9 13 17 19",
                        tooltip="The anchor steps, counted from 0, in ascending order: single numbers or "
                        "ranges such as 0-2. Step 0 must be one.",
                    )
                ],
            ),
            io.DynamicCombo.Option(
                "file",
                [
                    io.Combo.Input(
                        "schedule_name",
                        options=schedule_names(),
                        tooltip="A schedule that DisCa Find Schedule saved, in output/disca/schedules. It is for runs "
                        "of its model family, steps and shift. A new one is listed once the page is reloaded.",
                    )
                ],
            ),
        ],
        tooltip="preset: a published setting. interval: a regular one for any number of steps. anchors: your own list. "
        "file: one that was found.",
    )


def _interval_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            "interval",
            default=2,
            min=1,
            max=100,
            tooltip="After the warm-up, every n-th step is an anchor. 1: every step.",
        ),
        io.Int.Input(
            "warmup",
            default=3,
            min=1,
            max=100,
            tooltip="How many steps at the start are anchors.",
        ),
        io.Boolean.Input("last_step", default=True, tooltip="Makes the last step an anchor."),
    ]
