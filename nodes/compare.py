"""Compare Methods, Compare Videos, Tile Videos."""

from comfy_api.v0_0_2 import io

from ..disca.evaluation.videos.comparison import compared
from ..disca.evaluation.videos.tiles import tiled
from ..disca.host.compat import require, room
from ..disca.schedule import EVERY_STEP
from .inputs.run import UNCONNECTED, as_image, cfg_input, require_guidance, seed_input, shift_input
from .inputs.types import CATEGORY, DiscaPredictor, DiscaSchedule

MOST_STEPS, MOST_COLUMNS = 100, 16
METHODS = """reuse at 0 1 2 5 9 13 17 19
TaylorSeer-Lite order=1 interval=3
Spectrum
First-Block-Cache threshold=0.2
plain steps=8"""
METHODS_TOOLTIP = (
    "A line for each: its name as in DisCa Apply Cache, settings such as order=1 or preset='DisCa, low speed', and "
    "after 'at' the steps to run in full in place of its own rule, such as 0-2, 5, 9. 'DisCa at ...' needs a "
    "Predictor. 'plain steps=8' is the model in fewer steps. A line that begins with # is left out."
)
PREDICTOR_TOOLTIP = "For the lines 'DisCa at ...', or LESA's."
SCHEDULE_TOOLTIP = (
    "Steps that a line 'DisCa' without 'at' runs in full: from DisCa Cache Schedule or DisCa Find Schedule."
)


class DiscaCompareMethods(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiscaCompareMethods",
            display_name="DisCa Compare Methods",
            category=CATEGORY,
            description="Runs one prompt and seed with every step in full and by each method of a list: how much "
            "faster each is, and how far its video moves.",
            search_aliases=["benchmark", "speed", "quality", "feature cache", "side by side", "pareto", "which cache"],
            inputs=[*_run_inputs(), *_optional_inputs()],
            outputs=[
                io.String.Output(
                    display_name="table",
                    tooltip="A row for each: calls, seconds, speed-up, memory, error; in Markdown.",
                ),
                io.Image.Output(display_name="chart", tooltip="Error against speed-up, and the line of the best."),
                io.Latent.Output(
                    display_name="latents",
                    is_output_list=True,
                    tooltip="Of each row that came, that with every step in full first. What follows runs for each.",
                ),
                io.String.Output(
                    display_name="names", is_output_list=True, tooltip="What each latent is, for DisCa Tile Videos."
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(
        cls,
        methods: str | None,
        steps: int | None = None,
        cfg: float | None = 1.0,
        negative=UNCONNECTED,
        schedule=UNCONNECTED,
        predictor=UNCONNECTED,
    ) -> bool:
        require("comparing")
        require_guidance(negative, cfg)
        if methods is not None:  # None: comes by a link
            for entry in room("comparing").read_entries(methods, None if schedule is UNCONNECTED else EVERY_STEP):
                if steps is not None:
                    entry.require_steps(steps)
                if predictor is UNCONNECTED:
                    entry.require_predictor(None)
        return True

    @classmethod
    def execute(
        cls,
        model,
        positive,
        latent_image,
        seed,
        steps,
        shift,
        methods,
        predictor=None,
        schedule=None,
        negative=None,
        cfg=1.0,
    ) -> io.NodeOutput:
        comparing = room("comparing")
        settings = comparing.RunSettings(positive, latent_image, seed, steps, shift, negative, cfg)
        found = comparing.compare_methods(model, settings, comparing.read_entries(methods, schedule), predictor)
        return io.NodeOutput(found.table, as_image(found.chart), found.latents, found.names)


class DiscaCompareVideos(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiscaCompareVideos",
            display_name="DisCa Compare Videos",
            category=CATEGORY,
            description="How far a video is from another of the same seed: PSNR, SSIM, MS-SSIM, VMAF, flicker, jitter.",
            search_aliases=["psnr", "ssim", "vmaf", "lpips", "xpsnr", "metrics", "difference", "quality"],
            inputs=[
                io.Image.Input("reference", tooltip="The video to compare with, such as that with every step in full."),
                io.Image.Input("video", tooltip="Of as many frames and the same size."),
            ],
            outputs=[
                io.String.Output(
                    display_name="report", tooltip="A line for each measure: overall, and in the worst frame."
                ),
                io.Image.Output(
                    display_name="side by side", tooltip="Reference, video and difference, frame by frame."
                ),
                io.Image.Output(
                    display_name="difference", tooltip="How far each colour is apart, four times as bright."
                ),
                io.Image.Output(display_name="plot", tooltip="PSNR over the frames."),
            ],
        )

    @classmethod
    def execute(cls, reference, video) -> io.NodeOutput:
        found = compared(reference, video)
        return io.NodeOutput(found.text, found.strip, found.difference, as_image(found.plot()))


class DiscaTileVideos(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiscaTileVideos",
            display_name="DisCa Tile Videos",
            category=CATEGORY,
            description="Puts a list of videos beside one another, each under its name.",
            search_aliases=["grid", "side by side", "image grid", "concat", "compare"],
            is_input_list=True,
            inputs=[
                io.Image.Input("videos", tooltip="Videos of one size and length, such as of DisCa Compare Methods."),
                io.String.Input("names", force_input=True, tooltip="As many names as videos."),
                io.Int.Input(
                    "columns", default=0, min=0, max=MOST_COLUMNS, optional=True, tooltip="0: about as wide as high."
                ),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, videos, names, columns=(0,)) -> io.NodeOutput:
        return io.NodeOutput(tiled(videos, names, columns[0]))


def _run_inputs() -> list[io.Input]:
    return [
        io.Model.Input("model", tooltip="A HunyuanVideo. A cache or Predictor on it has no part in the comparison."),
        io.Conditioning.Input("positive", tooltip="What the videos should show."),
        io.Latent.Input("latent_image", tooltip="An empty latent video of the size that counts for you."),
        seed_input("The seed of the starting noise, the same for all."),
        io.Int.Input("steps", default=20, min=2, max=MOST_STEPS, tooltip="Steps of every run but those of 'plain'."),
        shift_input("Shift of every run. HunyuanVideo 1.0: 5. HunyuanVideo 1.5: 7."),
        io.String.Input("methods", default=METHODS, multiline=True, tooltip=METHODS_TOOLTIP),
    ]


def _optional_inputs() -> list[io.Input]:
    return [
        DiscaPredictor.Input("predictor", optional=True, tooltip=PREDICTOR_TOOLTIP),
        DiscaSchedule.Input("schedule", optional=True, tooltip=SCHEDULE_TOOLTIP),
        io.Conditioning.Input("negative", optional=True, tooltip="Only needed with cfg above 1."),
        cfg_input("Classifier-free guidance. 1 is off and right for distilled models."),
    ]
