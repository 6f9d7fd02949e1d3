"""The example workflows: what is in them and how it is arranged."""

from graph_notes import NOTE_10_DISCA, NOTE_10_MEANFLOW, NOTE_15_DISCA, NOTE_15_MEANFLOW
from graph_parts import (
    CLIP_L,
    COMPARE,
    DISCA_10,
    DISCA_15,
    DISTILLED_15,
    LLAVA,
    MEANFLOW_10,
    METHODS,
    PREDICTOR_10,
    PREDICTOR_15,
    QUICKSTART,
    SEED,
    STEPS_10,
    STEPS_15,
    TRAINING,
    UNCACHED_10,
    UNCACHED_15,
    VAE_10,
    WIDTH_10,
    WIDTH_15,
    Graph,
    Group,
    Node,
    cached,
    encoders_15,
    sample_custom,
    video,
)
from graphs_caches import NOTE_CACHES, caches_groups
from graphs_compare import NOTE_METHODS, methods_groups
from graphs_toy import NOTE_TOY, quickstart_toy_groups
from graphs_training import NOTE_TRAINING, training_groups
from thumbnails import Thumbnail

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
    prompt = [
        Node("text", "CLIPTextEncode", {"clip": ("clip", 0), "text": LIGHTHOUSE}, "Prompt", 240),
        Node("guidance", "FluxGuidance", {"conditioning": ("text", 0), "guidance": 6.0}),
        Node("latent", "EmptyHunyuanLatentVideo", {"width": 704, "height": 704, "length": 129, "batch_size": 1}),
    ]
    sample = [
        Node("noise", "RandomNoise", {"noise_seed": SEED}),
        Node("sigmas", "DiscaMeanFlowSigmas", {"steps": 20, "shift": 5.0, "denoise": 1.0}),
        Node("sampler", "DiscaMeanFlowSampler"),
        sample_custom("sample", "sampler"),
    ]
    guider = Node("guider", "BasicGuider", {"model": ("apply", 0), "conditioning": ("guidance", 0)})
    tiles = {"tile_size": 256, "overlap": 64, "temporal_size": 64, "temporal_overlap": 8}
    decode = Node("decode", "VAEDecodeTiled", {"samples": ("sample", 0), "vae": ("vae", 0), **tiles})
    return [
        Group("Load", 275, [_files_10()]),
        Group("Prompt", 270, [prompt]),
        Group("Sample", 240, [[*cached("HunyuanVideo 1.0, 20 steps, N=4", WIDTH_10), guider], sample]),
        Group("Decode", 280, [[decode, *video("disca/hunyuanvideo10")]]),
    ]


def _files_10() -> list[Node]:
    return [
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


def hunyuanvideo15_groups() -> list[Group]:
    """Image to video with HunyuanVideo 1.5, sampled by one node that reports what it did."""
    load = [
        Node("model", "DiscaLoadModel", {"model_name": DISTILLED_15.name}, models=(DISTILLED_15,)),
        Node("predictor", "DiscaLoadPredictor", {"predictor_name": PREDICTOR_15.name}, models=(PREDICTOR_15,)),
        *encoders_15(),
    ]
    image = [
        Node("image", "LoadImage", {"image": "example.png"}, "First frame", 330),
        Node("see", "CLIPVisionEncode", {"clip_vision": ("vision", 0), "image": ("image", 0), "crop": "center"}),
    ]
    decode = Node("decode", "VAEDecode", {"samples": ("sample", 0), "vae": ("vae", 0)})
    return [
        Group("Load", 275, [load]),
        Group("Prompt", 270, [image, _prompt_15()]),
        Group("Sample", 280, [[*cached("HunyuanVideo 1.5, 8 steps", WIDTH_15), *_sample_15()]]),
        Group("Decode", 280, [[decode, *video("disca/hunyuanvideo15")]]),
    ]


def _prompt_15() -> list[Node]:
    return [
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


def _sample_15() -> list[Node]:
    return [
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
        Node("report", "PreviewAny", {"source": ("sample", 1)}, "What each step cost", 220),
    ]


GRAPHS = [
    Graph(
        QUICKSTART,
        quickstart_toy_groups(),
        NOTE_TOY,
        (350, 800),
        Thumbnail(
            "DisCa quickstart", "three tiny models", "no downloads", "a red circle before a blue square, two seeds"
        ),
    ),
    Graph(
        DISCA_10,
        hunyuanvideo10_groups(),
        NOTE_10_DISCA,
        (350, 820),
        Thumbnail("HunyuanVideo 1.0", "text to video", "DisCa", "704x704, 129 frames", 20, STEPS_10),
    ),
    Graph(
        UNCACHED_10,
        hunyuanvideo10_groups(),
        NOTE_10_MEANFLOW,
        (350, 820),
        Thumbnail("HunyuanVideo 1.0", "text to video", "MeanFlow", "704x704, 129 frames", 20, frozenset(range(20))),
        bypassed=("apply",),
    ),
    Graph(
        DISCA_15,
        hunyuanvideo15_groups(),
        NOTE_15_DISCA,
        (350, 900),
        Thumbnail("HunyuanVideo 1.5", "image to video", "DisCa", "848x480, 121 frames", 8, STEPS_15),
    ),
    Graph(
        UNCACHED_15,
        hunyuanvideo15_groups(),
        NOTE_15_MEANFLOW,
        (350, 900),
        Thumbnail("HunyuanVideo 1.5", "image to video", "MeanFlow", "848x480, 121 frames", 8, frozenset(range(8))),
        bypassed=("apply",),
    ),
    Graph(
        TRAINING,
        training_groups(),
        NOTE_TRAINING,
        (400, 720),
        Thumbnail("Train a Predictor", "on your videos", "for 1.5", "preview of the toy world's training"),
    ),
    Graph(
        COMPARE,
        caches_groups(),
        NOTE_CACHES,
        (350, 600),
        Thumbnail("Compare two caches", "a tiny model", "no downloads", "a red circle before a blue square, two seeds"),
    ),
    Graph(
        METHODS,
        methods_groups(),
        NOTE_METHODS,
        (320, 940),
        Thumbnail("Compare methods", "table and chart", "no downloads", "a red circle, a blue square, eight ways"),
    ),
]
