"""The example workflows: what is in them and how it is arranged."""

from typing import NamedTuple

from thumbnails import Thumbnail


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
    models: tuple[Model, ...] = ()


class Group(NamedTuple):
    """Nodes in columns of one width."""

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


def _file(repository: str, path: str, directory: str) -> Model:
    return Model(path.rsplit("/", 1)[-1], f"https://huggingface.co/{repository}/resolve/main/{path}", directory)


DISCA = "tencent/DisCa"
HV10 = "Comfy-Org/HunyuanVideo_repackaged"
HV15 = "Comfy-Org/HunyuanVideo_1.5_repackaged"

MEANFLOW_10 = _file(DISCA, "hyvideo10_t2v/hyvideo10_t2v_restricted_meanflow_540p.safetensors", "diffusion_models")
PREDICTOR_10 = _file(DISCA, "hyvideo10_t2v/hyvideo10_t2v_predictor_540p.safetensors", "disca")
CLIP_L = _file("comfyanonymous/flux_text_encoders", "clip_l.safetensors", "text_encoders")
LLAVA = _file(HV10, "split_files/text_encoders/llava_llama3_fp8_scaled.safetensors", "text_encoders")
VAE_10 = _file(HV10, "split_files/vae/hunyuan_video_vae_bf16.safetensors", "vae")

DISTILLED_15 = _file(
    HV15, "split_files/diffusion_models/hunyuanvideo1.5_480p_i2v_step_distilled_fp16.safetensors", "diffusion_models"
)
PREDICTOR_15 = _file(DISCA, "hyvideo15_i2v/hyvideo15_i2v_predictor_480p.safetensors", "disca")
QWEN = _file(HV15, "split_files/text_encoders/qwen_2.5_vl_7b_fp8_scaled.safetensors", "text_encoders")
BYT5 = _file(HV15, "split_files/text_encoders/byt5_small_glyphxl_fp16.safetensors", "text_encoders")
SIGLIP = _file("Comfy-Org/sigclip_vision_384", "sigclip_vision_patch14_384.safetensors", "clip_vision")
VAE_15 = _file(HV15, "split_files/vae/hunyuanvideo15_vae_fp16.safetensors", "vae")

STEPS_10 = frozenset({0, 1, 2, 5, 9, 13, 17, 19})
STEPS_15 = frozenset({0, 2, 4, 7})
SEED = 42

LIGHTHOUSE = (
    "A lighthouse on a rocky coast at dusk. Waves break over dark stones and throw up white spray; the lamp turns "
    "slowly and its beam sweeps through thin mist. Gulls circle in the distance. The camera drifts forward, "
    "steady and low, in natural light with fine film grain."
)
MOVE_THE_IMAGE = (
    "The scene comes to life with slow, natural motion: hair and leaves stir in a light breeze, light flickers "
    "softly, and the camera moves gently closer. Details stay sharp and the subject keeps its shape."
)


def hunyuanvideo10_groups() -> list[Group]:
    """Text to video with HunyuanVideo 1.0, each part a node of its own."""
    load = [
        Node("model", "DiscaLoadModel", {"model_name": MEANFLOW_10.name}, models=(MEANFLOW_10,)),
        Node("predictor", "DiscaLoadPredictor", {"predictor_name": PREDICTOR_10.name}, models=(PREDICTOR_10,)),
        Node(
            "clip",
            "DualCLIPLoader",
            {"clip_name1": CLIP_L.name, "clip_name2": LLAVA.name, "type": "hunyuan_video"},
            models=(CLIP_L, LLAVA),
        ),
        Node("vae", "VAELoader", {"vae_name": VAE_10.name}, models=(VAE_10,)),
    ]
    prompt = [
        Node("text", "CLIPTextEncode", {"clip": ("clip", 0), "text": LIGHTHOUSE}, "Prompt", 240),
        Node("guidance", "FluxGuidance", {"conditioning": ("text", 0), "guidance": 6.0}),
        Node("latent", "EmptyHunyuanLatentVideo", {"width": 704, "height": 704, "length": 129, "batch_size": 1}),
    ]
    model = [
        Node("schedule", "DiscaCacheSchedule", {"plan": "preset", "plan.preset": "HunyuanVideo 1.0, 20 steps, N=4"}),
        Node(
            "apply",
            "DiscaApplyPredictor",
            {"model": ("model", 0), "predictor": ("predictor", 0), "schedule": ("schedule", 0)},
        ),
        Node("guider", "BasicGuider", {"model": ("apply", 0), "conditioning": ("guidance", 0)}),
    ]
    sample = [
        Node("noise", "RandomNoise", {"noise_seed": SEED}),
        Node("sigmas", "DiscaMeanFlowSigmas", {"steps": 20, "shift": 5.0, "denoise": 1.0}),
        Node("sampler", "DiscaMeanFlowSampler"),
        Node(
            "sample",
            "SamplerCustomAdvanced",
            {
                "noise": ("noise", 0),
                "guider": ("guider", 0),
                "sampler": ("sampler", 0),
                "sigmas": ("sigmas", 0),
                "latent_image": ("latent", 0),
            },
        ),
    ]
    tiles = {"tile_size": 256, "overlap": 64, "temporal_size": 64, "temporal_overlap": 8}
    decode = Node("decode", "VAEDecodeTiled", {"samples": ("sample", 0), "vae": ("vae", 0), **tiles})
    return [
        Group("Load", 410, [load]),
        Group("Prompt", 340, [prompt]),
        Group("Sample", 330, [model, sample]),
        Group("Decode", 360, [[decode, *_video("disca/hunyuanvideo10")]]),
    ]


def hunyuanvideo15_groups() -> list[Group]:
    """Image to video with HunyuanVideo 1.5, sampled by one node that reports what it did."""
    load = [
        Node("model", "DiscaLoadModel", {"model_name": DISTILLED_15.name}, models=(DISTILLED_15,)),
        Node("predictor", "DiscaLoadPredictor", {"predictor_name": PREDICTOR_15.name}, models=(PREDICTOR_15,)),
        Node(
            "clip",
            "DualCLIPLoader",
            {"clip_name1": QWEN.name, "clip_name2": BYT5.name, "type": "hunyuan_video_15"},
            models=(QWEN, BYT5),
        ),
        Node("vision", "CLIPVisionLoader", {"clip_name": SIGLIP.name}, models=(SIGLIP,)),
        Node("vae", "VAELoader", {"vae_name": VAE_15.name}, models=(VAE_15,)),
    ]
    image = [
        Node("image", "LoadImage", {"image": "example.png"}, "First frame", 330),
        Node("see", "CLIPVisionEncode", {"clip_vision": ("vision", 0), "image": ("image", 0), "crop": "center"}),
    ]
    prompt = [
        Node("text", "CLIPTextEncode", {"clip": ("clip", 0), "text": MOVE_THE_IMAGE}, "Prompt", 200),
        Node("nothing", "ConditioningZeroOut", {"conditioning": ("text", 0)}, "No negative prompt"),
        Node(
            "conditions",
            "HunyuanVideo15ImageToVideo",
            {
                "positive": ("text", 0),
                "negative": ("nothing", 0),
                "vae": ("vae", 0),
                "width": 848,
                "height": 480,
                "length": 121,
                "batch_size": 1,
                "start_image": ("image", 0),
                "clip_vision_output": ("see", 0),
            },
        ),
    ]
    sample = [
        Node("schedule", "DiscaCacheSchedule", {"plan": "preset", "plan.preset": "HunyuanVideo 1.5, 8 steps"}),
        Node(
            "apply",
            "DiscaApplyPredictor",
            {"model": ("model", 0), "predictor": ("predictor", 0), "schedule": ("schedule", 0)},
        ),
        Node(
            "sample",
            "DiscaSample",
            {
                "model": ("apply", 0),
                "positive": ("conditions", 0),
                "latent_image": ("conditions", 2),
                "seed": SEED,
                "steps": 8,
                "shift": 7.0,
                "denoise": 1.0,
                "cfg": 1.0,
            },
        ),
        Node("report", "PreviewAny", {"source": ("sample", 1)}, "What each step cost", 130),
    ]
    decode = Node("decode", "VAEDecode", {"samples": ("sample", 0), "vae": ("vae", 0)})
    return [
        Group("Load", 410, [load]),
        Group("Prompt", 320, [image, prompt]),
        Group("Sample", 320, [sample]),
        Group("Decode", 360, [[decode, *_video("disca/hunyuanvideo15")]]),
    ]


def _video(prefix: str) -> list[Node]:
    return [
        Node("video", "CreateVideo", {"images": ("decode", 0), "fps": 24}),
        Node("save", "SaveVideo", {"video": ("video", 0), "filename_prefix": prefix}, height=260),
    ]


def _links(models: tuple[Model, ...]) -> str:
    return "\n".join(f"- **models/{model.directory}**: [{model.name}]({model.url})" for model in models)


FILES_10 = _links((MEANFLOW_10, PREDICTOR_10, CLIP_L, LLAVA, VAE_10))
FILES_15 = _links((DISTILLED_15, PREDICTOR_15, QWEN, BYT5, SIGLIP, VAE_15))
AUTHORS_FILES = f"""All DisCa weights: [{DISCA}](https://huggingface.co/{DISCA}/tree/main). The weights come under \
their authors' licence, the Tencent Hunyuan Community License: read it before use."""

NOTE_10_DISCA = f"""## HunyuanVideo 1.0, text to video, with DisCa

Of 20 MeanFlow steps, 8 run the whole transformer. On the other 12 a small Predictor stands in for it.

### Files

{FILES_10}

{AUTHORS_FILES}

### What to expect

The paper's 11.8 times is measured against 50 steps with CFG. Against the same 20 steps without the Predictor, its \
times give 2.4 times (232 s to 98 s). Encoding, decoding and loading come on top.

The log says how many calls were full and predicted, and how long each took.

### To compare

- Open **hunyuanvideo10_t2v_meanflow**: the same graph and seed, the Predictor bypassed. Or select *DisCa Apply \
Predictor* here and press Ctrl+B.
- More quality: take the 10 anchors, N=3 or N=2 preset.
- Short of memory: set *weight_dtype* of the model to *fp8_e4m3fn*, *cache_device* to *cpu*.
"""

NOTE_10_MEANFLOW = f"""## HunyuanVideo 1.0, text to video, Restricted MeanFlow

All 20 MeanFlow steps run the whole transformer: *DisCa Apply Predictor* is bypassed. This is what DisCa is to be \
compared with.

### Files

{FILES_10}

{AUTHORS_FILES}

### What to expect

About 5 times as fast as 50 steps with CFG (232 s against 1155 s in the paper).

### To compare

- Select *DisCa Apply Predictor* and press Ctrl+B, or open **hunyuanvideo10_t2v_disca**: the same graph and seed, and \
12 of the 20 steps are predicted.
- The seed is fixed: what differs between the two videos is the Predictor's doing.
"""

NOTE_15_DISCA = f"""## HunyuanVideo 1.5, image to video, with DisCa

Of 8 steps of the step-distilled model, 4 run the whole transformer. On the other 4 a small Predictor stands in for it.

### Files

{FILES_15}

{AUTHORS_FILES}

### What to expect

At most about 2 times as fast as the same model without caching: half of the steps stay full \
(125 s to 64 s in the paper). The paper's 11.8 times is another comparison, HunyuanVideo 1.0 against 50 steps with CFG.

*What each step cost* shows the counts, the times and the speed-up after a run.

### To compare

- Open **hunyuanvideo15_i2v_meanflow**: the same graph and seed, the Predictor bypassed. Or select *DisCa Apply \
Predictor* here and press Ctrl+B.
- More quality: choose the plan *anchors* and add steps, such as *0 1 2 4 6 7*.
- Decoding runs out of memory: use *VAE Decode (Tiled)*.
"""

NOTE_15_MEANFLOW = f"""## HunyuanVideo 1.5, image to video, step-distilled

All 8 steps run the whole transformer: *DisCa Apply Predictor* is bypassed. This is what DisCa is to be compared with.

### Files

{FILES_15}

{AUTHORS_FILES}

### What to expect

*What each step cost* shows 8 full calls and their time. DisCa can be at most about 2 times as fast as this.

### To compare

- Select *DisCa Apply Predictor* and press Ctrl+B, or open **hunyuanvideo15_i2v_disca**: the same graph and seed, and \
4 of the 8 steps are predicted.
- The seed is fixed: what differs between the two videos is the Predictor's doing.
"""

GRAPHS = [
    Graph(
        "hunyuanvideo10_t2v_disca",
        hunyuanvideo10_groups(),
        NOTE_10_DISCA,
        (480, 600),
        Thumbnail("HunyuanVideo 1.0", "text to video", "DisCa", "704x704, 129 frames", 20, STEPS_10),
    ),
    Graph(
        "hunyuanvideo10_t2v_meanflow",
        hunyuanvideo10_groups(),
        NOTE_10_MEANFLOW,
        (480, 600),
        Thumbnail("HunyuanVideo 1.0", "text to video", "MeanFlow", "704x704, 129 frames", 20, frozenset(range(20))),
        bypassed=("apply",),
    ),
    Graph(
        "hunyuanvideo15_i2v_disca",
        hunyuanvideo15_groups(),
        NOTE_15_DISCA,
        (480, 640),
        Thumbnail("HunyuanVideo 1.5", "image to video", "DisCa", "848x480, 121 frames", 8, STEPS_15),
    ),
    Graph(
        "hunyuanvideo15_i2v_meanflow",
        hunyuanvideo15_groups(),
        NOTE_15_MEANFLOW,
        (480, 640),
        Thumbnail("HunyuanVideo 1.5", "image to video", "MeanFlow", "848x480, 121 frames", 8, frozenset(range(8))),
        bypassed=("apply",),
    ),
]
