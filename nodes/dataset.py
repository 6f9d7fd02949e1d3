"""Build Dataset."""

import folder_paths
from comfy_api.v0_0_2 import io

from ..disca.host.compat import require, room
from ..disca.limits import require_number
from ..disca.messages import quoted
from ..disca.models.family import FAMILIES
from ..disca.server.folders import new_dataset_folder
from ..disca.training.data.windows import KINDS, MOST_CLIPS, MOST_FRAMES, Windows
from .inputs.types import NOTHING_THERE, TRAINING_CATEGORY

NEWEST_FIRST = sorted(FAMILIES, reverse=True)
SIZES = {  # name -> width, height, frames
    "848x480, 121 frames": (848, 480, 121),
    "704x704, 129 frames": (704, 704, 129),
    "1280x720, 121 frames": (1280, 720, 121),
}
MOST_LENGTH = 1001  # frames of a clip
WINDOWS = Windows()


class DiscaBuildDataset(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="DiscaBuildDataset",
            display_name="DisCa Build Dataset",
            category=TRAINING_CATEGORY,
            description="Encodes a folder of videos and captions into a dataset that the training nodes read.",
            search_aliases=["training data", "lora training", "encode videos", "captions"],
            inputs=[*_source_inputs(), *_cut_inputs(), *_run_inputs(), *_several_inputs()],
            outputs=[
                io.String.Output(display_name="dataset", tooltip="Its name, for the training nodes."),
                io.String.Output(
                    display_name="report", tooltip="What was encoded, what was left out and why, and what was changed."
                ),
            ],
            is_output_node=True,
            not_idempotent=True,
        )

    @classmethod
    def validate_inputs(cls, dataset: str | None, shorter: str | None) -> bool:
        require("datasets")
        _lengths(shorter or "")
        if dataset is not None:  # None: comes by a link
            new_dataset_folder(dataset)
        return True

    @classmethod
    def execute(
        cls,
        videos_name,
        dataset,
        family,
        vae,
        clip,
        size,
        fps,
        first_frame,
        clip_vision=None,
        prune=False,
        strict=False,
        buckets=False,
        shorter="",
        clips=WINDOWS.kind,
        stride=WINDOWS.stride,
        count=WINDOWS.count,
    ) -> io.NodeOutput:
        width, height, frames = _size(**size)
        cut, windows = (width, height, (frames, *_lengths(shorter)), fps, buckets), (clips, stride, count)
        built = room("datasets").build_dataset(
            videos_name, dataset, family, vae, clip, clip_vision, cut, windows, first_frame, prune, strict
        )
        return io.NodeOutput(dataset, built)


def _lengths(text: str) -> list[int]:
    try:
        lengths = [int(number) for number in text.replace(",", " ").split()]
    except ValueError:
        raise ValueError(f"'shorter' is {quoted(text)}, but must be numbers of frames, such as 61 1.") from None
    for frames in lengths:
        require_number("shorter", frames, True, 1, MOST_LENGTH)
    return lengths


def _size(size: str, **custom: int) -> tuple[int, int, int]:
    return (custom["width"], custom["height"], custom["frames"]) if size == "custom" else SIZES[size]


def _source_inputs() -> list[io.Input]:
    return [
        io.Combo.Input(
            "videos_name",
            options=folder_paths.get_input_subfolders(),
            tooltip="A folder in ComfyUI's input folder, with videos or pictures, and beside each its caption "
            f"in a .txt file of the same name. {NOTHING_THERE}",
        ),
        io.String.Input("dataset", default="my_dataset", tooltip="The dataset's folder in output/disca/datasets."),
        io.Combo.Input("family", options=NEWEST_FIRST, tooltip="The HunyuanVideo that is to be trained."),
        io.Vae.Input("vae", tooltip="The VAE of this HunyuanVideo."),
        io.Clip.Input("clip", tooltip="The text encoders of this HunyuanVideo, without LoRA."),
    ]


def _cut_inputs() -> list[io.Input]:
    return [
        io.DynamicCombo.Input(
            "size",
            options=[
                *(io.DynamicCombo.Option(name, []) for name in SIZES),
                io.DynamicCombo.Option("custom", _size_inputs()),
            ],
            tooltip="Every clip is scaled and cropped to it. Train at the size at which you will sample.",
        ),
        io.Float.Input(
            "fps",
            default=24.0,
            min=0.0,
            max=1000.0,
            step=0.1,
            tooltip="Frames a second that are taken. 0: every frame.",
        ),
        io.Boolean.Input(
            "first_frame", default=False, tooltip="For image to video with 1.5: gives the model first frames."
        ),
        io.ClipVision.Input(
            "clip_vision",
            optional=True,
            tooltip="SigLIP, for first frames, if the model looks at them with it.",
        ),
    ]


def _size_inputs() -> list[io.Input]:
    return [
        io.Int.Input("width", default=848, min=16, max=4096, step=16, tooltip="In pixels."),
        io.Int.Input("height", default=480, min=16, max=4096, step=16, tooltip="In pixels."),
        io.Int.Input("frames", default=121, min=1, max=MOST_LENGTH, step=4, tooltip="4n + 1 frames."),
    ]


def _run_inputs() -> list[io.Input]:
    return [
        io.Boolean.Input(
            "prune",
            default=False,
            optional=True,
            advanced=True,
            tooltip="Takes samples out of the dataset whose video, caption or size is no longer asked for.",
        ),
        io.Boolean.Input(
            "strict",
            default=False,
            optional=True,
            advanced=True,
            tooltip="Ends at a video that cannot be used or has no caption. Else it is left out and named.",
        ),
    ]


def _several_inputs() -> list[io.Input]:
    rarely = {"optional": True, "advanced": True}
    return [
        io.Boolean.Input(
            "buckets",
            default=False,
            tooltip="Gives each clip a size of its own shape and about the area that is asked for, from 1:2 to 2:1.",
            **rarely,
        ),
        io.String.Input(
            "shorter",
            default="",
            tooltip="Smaller numbers of frames, such as 61 1. A video that is too short for the size is cut to the "
            "longest of them that it has.",
            **rarely,
        ),
        io.Combo.Input(
            "clips",
            options=list(KINDS),
            default=WINDOWS.kind,
            tooltip="Which clips a video gives. first: one, from its start. chunks: one after another. slide: one "
            f"every stride frames. uniform: count of them, evenly from start to end. At most {MOST_CLIPS} of a video.",
            **rarely,
        ),
        io.Int.Input(
            "stride",
            default=WINDOWS.stride,
            min=1,
            max=MOST_FRAMES,
            tooltip="slide: frames from the start of a clip to the start of the next.",
            **rarely,
        ),
        io.Int.Input(
            "count", default=WINDOWS.count, min=1, max=MOST_CLIPS, tooltip="uniform: clips of each video.", **rarely
        ),
    ]
