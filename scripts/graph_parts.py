"""What example workflows are made of: nodes, groups, and files to download."""

from typing import NamedTuple

from thumbnails import Thumbnail

SEED = 42

# The files' names are what the template browser shows as titles, and it has no other order than theirs.
QUICKSTART = "DisCa 1 Quickstart without downloads"
DISCA_10 = "DisCa 2 HunyuanVideo 1.0 text to video"
UNCACHED_10 = "DisCa 3 HunyuanVideo 1.0 without Predictor"
DISCA_15 = "DisCa 4 HunyuanVideo 1.5 image to video"
UNCACHED_15 = "DisCa 5 HunyuanVideo 1.5 without Predictor"
TRAINING = "DisCa 6 Train a Predictor"
COMPARE = "DisCa 7 Compare two caches"
METHODS = "DisCa 8 Compare methods"


class Model(NamedTuple):
    """A file to download, as ComfyUI's missing-model dialog takes it."""

    name: str
    url: str
    directory: str


class Node(NamedTuple):
    """A node; inputs are widget values or links, which are (name of a node, number of its output)."""

    name: str
    type: str
    inputs: dict = {}
    title: str = ""
    height: float = 0
    width: float = 0
    models: tuple[Model, ...] = ()


class Group(NamedTuple):
    """Nodes in columns of this width, or of that of a node that needs more."""

    title: str
    width: float
    columns: list[list[Node]]


class Graph(NamedTuple):
    """A workflow."""

    name: str
    groups: list[Group]
    note: str
    note_size: tuple[float, float]
    thumbnail: Thumbnail
    bypassed: tuple[str, ...] = ()

    @property
    def nodes(self) -> list[Node]:
        """All nodes, in order of their ids."""
        return [node for group in self.groups for column in group.columns for node in column]


def file(repository: str, path: str, directory: str) -> Model:
    """A file of a repository on Hugging Face."""
    return Model(path.rsplit("/", 1)[-1], f"https://huggingface.co/{repository}/resolve/main/{path}", directory)


def links(models: tuple[Model, ...]) -> str:
    """The files as a list in Markdown."""
    return "\n".join(f"- **models/{model.directory}**: [{model.name}]({model.url})" for model in models)


def video(prefix: str, images: str = "decode", fps: int = 24, height: float = 260) -> list[Node]:
    """The frames as a video file."""
    return [
        Node("video", "CreateVideo", {"images": (images, 0), "fps": fps}),
        Node("save", "SaveVideo", {"video": ("video", 0), "filename_prefix": prefix}, height=height),
    ]


def sample_custom(name: str, sampler: str) -> Node:
    """ComfyUI's own sampling node, on the nodes noise, guider, sigmas, latent, and the sampler of that name."""
    parts = {"noise": "noise", "guider": "guider", "sampler": sampler, "sigmas": "sigmas", "latent_image": "latent"}
    return Node(name, "SamplerCustomAdvanced", {part: (source, 0) for part, source in parts.items()})


def cached(preset: str, width: float, model: tuple[str, int] = ("model", 0), predictor=("predictor", 0)) -> list[Node]:
    """The schedule of a preset, and the Predictor on the model by it."""
    plan = {"plan": "preset", "plan.preset": preset}
    inputs = {"model": model, "predictor": predictor, "schedule": ("schedule", 0)}
    return [Node("schedule", "DiscaCacheSchedule", plan, width=width), Node("apply", "DiscaApplyPredictor", inputs)]


DISCA = "tencent/DisCa"
HV10 = "Comfy-Org/HunyuanVideo_repackaged"
HV15 = "Comfy-Org/HunyuanVideo_1.5_repackaged"

MEANFLOW_10 = file(DISCA, "hyvideo10_t2v/hyvideo10_t2v_restricted_meanflow_540p.safetensors", "diffusion_models")
PREDICTOR_10 = file(DISCA, "hyvideo10_t2v/hyvideo10_t2v_predictor_540p.safetensors", "disca")
CLIP_L = file("comfyanonymous/flux_text_encoders", "clip_l.safetensors", "text_encoders")
LLAVA = file(HV10, "split_files/text_encoders/llava_llama3_fp8_scaled.safetensors", "text_encoders")
VAE_10 = file(HV10, "split_files/vae/hunyuan_video_vae_bf16.safetensors", "vae")

DISTILLED_15 = file(
    HV15, "split_files/diffusion_models/hunyuanvideo1.5_480p_i2v_step_distilled_fp16.safetensors", "diffusion_models"
)
FP8_15 = file(
    HV15,
    "split_files/diffusion_models/hunyuanvideo1.5_480p_i2v_step_distilled_fp8_scaled.safetensors",
    "diffusion_models",
)
PREDICTOR_15 = Model(  # the repository's file list: the folder in it is not known
    "hyvideo15_i2v_predictor_480p.safetensors", f"https://huggingface.co/{DISCA}/tree/main", "disca"
)
QWEN = file(HV15, "split_files/text_encoders/qwen_2.5_vl_7b_fp8_scaled.safetensors", "text_encoders")
BYT5 = file(HV15, "split_files/text_encoders/byt5_small_glyphxl_fp16.safetensors", "text_encoders")
SIGLIP = file("Comfy-Org/sigclip_vision_384", "sigclip_vision_patch14_384.safetensors", "clip_vision")
VAE_15 = file(HV15, "split_files/vae/hunyuanvideo15_vae_fp16.safetensors", "vae")
WIDTH_10, WIDTH_15 = 360, 310  # of DisCa Cache Schedule with a template's preset, which is not cut off then
STEPS_10 = frozenset({0, 1, 2, 5, 9, 13, 17, 19})
STEPS_15 = frozenset({0, 2, 4, 7})


def encoders_15() -> list[Node]:
    """What turns prompts, first frames and videos into what HunyuanVideo 1.5 takes."""
    names = {"clip_name1": QWEN.name, "clip_name2": BYT5.name, "type": "hunyuan_video_15"}
    return [
        Node("clip", "DualCLIPLoader", names, models=(QWEN, BYT5)),
        Node("vision", "CLIPVisionLoader", {"clip_name": SIGLIP.name}, models=(SIGLIP,)),
        Node("vae", "VAELoader", {"vae_name": VAE_15.name}, models=(VAE_15,)),
    ]
