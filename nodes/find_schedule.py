"""Find Schedule."""

from comfy_api.v0_0_2 import io

from ..disca.finding import Goal
from ..disca.host.compat import require, room
from ..disca.host.folders import schedule_file
from ..disca.messages import quoted
from ..disca.schedule_file import write_schedule
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
from .inputs.types import CATEGORY, DiscaSchedule

MOST_STEPS = 100  # the lists of two anchors are 4950
MOST_PROMPTS = 16
FULL, CHEAP, THOROUGH = "full", "cheap", "thorough"
ALLOWED = (
    "Squared distance of the latent to that of the run in full, relative to it: 0.0001 is 1 % off, 0.01 is 10 %. "
    "The list kept has few full steps and is within. 0: every step in full."
)
PROMPTS = "Further prompts: a list that is found on one may not suit others. Four are enough on the toy."
MEASURE = (
    "full: how far leaving steps out moves the end of the run, about five runs for each prompt. cheap: how wrong the "
    "answers are on the way, about two runs and a few hundred cached steps; its list gains less, or nothing. thorough: "
    "as full, and then anchors are moved one by one for as long as runs come closer, which takes as long again or "
    "twice that."
)


class DiscaFindSchedule(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiscaFindSchedule",
            display_name="DisCa Find Schedule",
            category=CATEGORY,
            description="Measures on your prompts which steps a model with a cache has to run in full, and keeps a "
            "list that is no worse there than the published one.",
            search_aliases=["feature cache", "anchors", "optimize schedule", "calibrate", "auto schedule", "search"],
            inputs=[*_run_inputs(), _goal_input(), *_optional_inputs()],
            outputs=[
                DiscaSchedule.Output(display_name="schedule"),
                io.String.Output(
                    display_name="report", tooltip="The list, its error, what else was tried, and what it took."
                ),
                io.Image.Output(
                    display_name="chart", tooltip="The error expected by the number of full steps, and what was found."
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(
        cls, steps: int | None, goal: dict, save_as: str | None = "", cfg: float | None = 1.0, negative=UNCONNECTED
    ) -> bool:
        require("finding")
        require_guidance(negative, cfg)
        if save_as:
            schedule_file(save_as)
        return _require_goal(steps, **goal)

    @classmethod
    def execute(
        cls,
        model,
        positive,
        latent_image,
        seed,
        steps,
        shift,
        goal,
        negative=None,
        cfg=1.0,
        prompts=None,
        measure=FULL,
        save_as="",
    ) -> io.NodeOutput:
        _require_goal(steps, **goal)
        finding, file = room("finding"), schedule_file(save_as) if save_as else None
        wanted = Goal(goal.get("full_steps"), goal.get("allowed_error"))
        positives = all_prompts(positive, prompts)
        found = finding.find_schedule(
            model,
            finding.Asked(
                positives,
                latent_image,
                seed,
                steps,
                shift,
                wanted,
                negative,
                cfg,
                cheap=measure == CHEAP,
                thorough=measure == THOROUGH,
                name=save_as,
            ),
        )
        saved = []
        if file is not None:
            write_schedule(file, found.schedule)
            saved = [f"saved as {quoted(file.name)}: choose it in DisCa Cache Schedule, by plan: file"]
        return io.NodeOutput(found.schedule, "\n".join([found.report, *saved]), as_image(found.chart))


def _require_goal(steps: int | None, goal: str, full_steps: int | None = None, allowed_error: float | None = None):
    """True; ValueError for more full steps than there are."""
    if None not in (steps, full_steps) and full_steps > steps:
        raise ValueError(
            f"'full_steps' is {full_steps:d}, but the run has {steps:d} steps. Set it to {steps:d} at most."
        )
    return True


def _run_inputs() -> list[io.Input]:
    return [
        io.Model.Input("model", tooltip="A model with its cache: from DisCa Apply Predictor or DisCa Apply Cache."),
        io.Conditioning.Input("positive", tooltip="What the videos should show."),
        io.Latent.Input("latent_image", tooltip="An empty latent video: only its size counts."),
        seed_input("The seed of the starting noise."),
        io.Int.Input(
            "steps",
            default=20,
            min=2,
            max=MOST_STEPS,
            tooltip="Steps of the run. The schedule is for these.",
        ),
        shift_input("Shift of the run. HunyuanVideo 1.0: 5. HunyuanVideo 1.5: 7. The schedule is for this one."),
    ]


def _goal_input() -> io.Input:
    full_steps = io.Int.Input(
        "full_steps", default=8, min=1, max=MOST_STEPS, tooltip="How many steps may run in full; the others are cached."
    )
    allowed_error = io.Float.Input(
        "allowed_error", default=0.01, min=0.0, max=1.0, step=0.0001, round=False, tooltip=ALLOWED
    )
    return io.DynamicCombo.Input(
        "goal",
        options=[
            io.DynamicCombo.Option("full_steps", [full_steps]),
            io.DynamicCombo.Option("allowed_error", [allowed_error]),
        ],
        tooltip="full_steps: the best list of so many. allowed_error: as few as that takes.",
    )


def _optional_inputs() -> list[io.Input]:
    return [
        io.Conditioning.Input("negative", optional=True, tooltip="Only needed with cfg above 1."),
        cfg_input("Classifier-free guidance. 1 is off and right for distilled models."),
        prompts_input(MOST_PROMPTS, PROMPTS),
        io.Combo.Input(
            "measure", options=[FULL, CHEAP, THOROUGH], default=FULL, optional=True, advanced=True, tooltip=MEASURE
        ),
        io.String.Input(
            "save_as",
            default="",
            optional=True,
            tooltip="A name for its file in output/disca/schedules, which DisCa Cache Schedule loads once the page is "
            "reloaded. One of that name is replaced. Empty: no file.",
        ),
    ]
