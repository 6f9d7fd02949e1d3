"""The toy world's workflow: three models, one prompt, the same seeds."""

import json
from collections.abc import Iterable

from comfy_server import PACK, Server
from graph_parts import QUICKSTART, SEED, WIDTH_10, Group, Node, cached
from PIL import Image, ImageSequence

PROMPT = PACK / "tests" / "workflows" / f"{QUICKSTART}.json"

RESULTS = {"original": "50 steps with CFG", "meanflow": "MeanFlow, 20 steps", "disca": "DisCa, 8 of 20"}
NOTE_TOY = """# Press Run: three tiny models draw the same shapes

They come with the pack. Each result appears as soon as it is there; on two processor cores without a GPU the three \
took 8 seconds.

# What you see, two seeds each

1. the **original** model: 50 steps with CFG, 100 network evaluations
2. **Restricted MeanFlow**, distilled from it: 20 steps
3. **DisCa**: the same 20 steps, 8 of them in full; on the other 12 the Predictor stands in for the blocks

The noise is the same in all three. Where 2 differs from 1, the distillation did it; where 3 differs from 2, the \
Predictor did.

# What you do not see: the real models' speed

The toy has 6 blocks and the Predictor 2: all 20 steps were 1.4 times as fast. The real models have 54 and 60 blocks, \
and of their weights the Predictor has 2.4 % (1.0) and 3.9 % (1.5).

# To try

- another prompt, another seed (set it in *KSampler* and both *DisCa Sample*)
- fewer anchors: the plan *anchors* in *DisCa Cache Schedule*, with `0 1 5 10 15 19`
- *DisCa Apply Predictor* bypassed (Ctrl+B): 3 and 2 are then the same
"""


def quickstart_toy_groups() -> list[Group]:
    """The three toy models on one prompt and the same seeds, each with its result in a column of its own."""
    prompt = [
        Node("models", "DiscaToyModels"),
        Node("prompt", "DiscaToyPrompt", height=270),
        Node("latent", "EmptyHunyuanLatentVideo", {"width": 64, "height": 64, "length": 21, "batch_size": 2}),
        Node("nothing", "ConditioningZeroOut", {"conditioning": ("prompt", 0)}, "No negative prompt"),
        Node("guidance", "FluxGuidance", {"conditioning": ("prompt", 0), "guidance": 3.0}),
    ]
    run = {
        "positive": ("guidance", 0),
        "latent_image": ("latent", 0),
        "seed": SEED,
        "steps": 20,
        "shift": 1.0,
        "denoise": 1.0,
        "cfg": 1.0,
    }
    meanflow = [Node("sample_meanflow", "DiscaSample", {"model": ("models", 1)} | run)]
    cache = cached("HunyuanVideo 1.0, 20 steps, N=4", WIDTH_10, ("models", 1), ("models", 2))
    sample = Node("sample_disca", "DiscaSample", {"model": ("apply", 0)} | run)
    report = Node("report", "PreviewAny", {"source": ("sample_disca", 1)}, "What DisCa cost", 200)
    decode, shown = result("disca", RESULTS["disca"])
    return [
        Group("Models and prompt", 270, [prompt]),
        Group("1. Original: 50 steps with CFG", 260, [_original() + result("original", RESULTS["original"])]),
        Group("2. Restricted MeanFlow: 20 steps", 280, [meanflow + result("meanflow", RESULTS["meanflow"])]),
        Group(
            "3. DisCa: 8 of 20 steps in full", 260, [[*cache, shown], [sample, decode, report]]
        ),  # clear of the minimap
    ]


def _original() -> list[Node]:
    return [
        Node("even", "ModelSamplingSD3", {"model": ("models", 0), "shift": 1.0}, "Even steps"),
        Node(
            "sample_original",
            "KSampler",
            {
                "model": ("even", 0),
                "positive": ("prompt", 0),
                "negative": ("nothing", 0),
                "latent_image": ("latent", 0),
                "seed": SEED,
                "steps": 50,
                "cfg": 3.0,
                "sampler_name": "euler",
                "scheduler": "simple",
                "denoise": 1.0,
            },
        ),
    ]


def result(name: str, title: str) -> list[Node]:
    """What a model has drawn, shown as soon as it is there."""
    film = {"images": (f"decode_{name}", 0), "filename_prefix": f"disca/toy_{name}", "fps": 4.0}
    return [
        Node(f"decode_{name}", "DiscaToyDecode", {"samples": (f"sample_{name}", 0), "size": 128}),
        Node(f"show_{name}", "SaveAnimatedWEBP", film, title, 400),
    ]


def run_toy(server: Server, workflow: str = QUICKSTART, names: Iterable[str] = RESULTS) -> dict[str, list[Image.Image]]:
    """Runs a workflow on the toy and gives the frames of its results, under their names."""
    prompt = PROMPT.with_stem(workflow).read_text(encoding="utf-8")
    status = server.run(json.loads(prompt), timeout=1800.0)["status"]
    if status["status_str"] != "success":
        raise RuntimeError(f"'{workflow}' did not end well: {status['messages'][-1]}")
    return {name: film_of(server, name) for name in names}


def film_of(server: Server, name: str) -> list[Image.Image]:
    """The frames of the newest result of that name."""
    films = (server.base / "output" / "disca").glob(f"toy_{name}_*.webp")
    with Image.open(max(films, key=lambda path: path.stat().st_mtime), formats=("WEBP",)) as film:
        return [frame.convert("RGB") for frame in ImageSequence.Iterator(film)]
