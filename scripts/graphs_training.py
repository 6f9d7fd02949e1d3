"""The training workflow: from a folder of videos to a Predictor."""

from graph_notes import LICENCE
from graph_parts import BYT5, DISTILLED_15, QWEN, SIGLIP, VAE_15, Group, Node, encoders_15, links

CLIPS = "my_clips"  # a folder in ComfyUI's input folder

NOTE_TRAINING = f"""# Train a Predictor for HunyuanVideo 1.5, image to video

Or for a fine-tune of it.

# 1. Put videos into input/{CLIPS}

In ComfyUI's folder, with a caption beside each: *cat.mp4*, *cat.txt*. Clips shorter than 5 seconds are left out.

# 2. Put these five files in place

{links((DISTILLED_15, QWEN, BYT5, SIGLIP, VAE_15))}

# 3. Press Run: many hours on one card

*DisCa Build Dataset* encodes what is new; *DisCa Train Predictor* trains in a process of its own and shows progress, \
curves and previews. Interrupting saves and stops; queue again to go on. 200 iterations by squared error, 100 with the \
discriminator. The report says what memory and time they take on cards of 24, 48, 80 and 141 GB; *memory* chooses what \
fits yours.

# 4. Use it

Connect *predictor* to *DisCa Apply Predictor*, or copy *predictor.safetensors* from the run's folder in \
output/disca/runs to models/disca.

{LICENCE}
"""


def training_groups() -> list[Group]:
    """From a folder of videos to a Predictor for the image-to-video model."""
    encoders = {"clip": ("clip", 0), "vae": ("vae", 0), "clip_vision": ("vision", 0)}
    build = [
        Node("build", "DiscaBuildDataset", encoders | {"videos_name": CLIPS, "dataset": CLIPS, "first_frame": True}),
        Node("built", "PreviewAny", {"source": ("build", 1)}, "What was encoded", 130),
    ]
    train = [
        Node(
            "train",
            "DiscaTrainPredictor",
            {"dataset": ("build", 0), "model_name": DISTILLED_15.name, "run": "my_predictor"},
            models=(DISTILLED_15,),
        ),
        Node("trained", "PreviewAny", {"source": ("train", 1)}, "Where the Predictor is", 130),
    ]
    return [Group("Load", 300, [encoders_15()]), Group("Build a dataset", 340, [build]), Group("Train", 340, [train])]
