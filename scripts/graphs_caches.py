"""Two feature caches on the toy's MeanFlow model, beside all steps in full: for any HunyuanVideo with other loaders."""

from graph_parts import SEED, Group, Node
from graphs_toy import result

STEPS = 20
COMPARED = {"full": "All steps in full", "taylor": "TaylorSeer-Lite", "first": "First-Block-Cache"}
METHODS = {
    "taylor": {"method": "TaylorSeer-Lite", "order": 1, "interval": 3, "warmup": 3},
    "first": {"method": "First-Block-Cache", "threshold": 0.45, "start": 0.0, "end": 1.0, "most": 100},
}
NOTE_CACHES = """# Press Run: two caches on one model, one seed

Nothing to download: the model is a tiny HunyuanVideo that comes with the pack. Two processor cores without a GPU take \
seconds.

# What you see, two videos each

1. **All steps in full**: what the caches are to be compared with
2. **TaylorSeer-Lite**: after three full steps every third; between them a line through the last two
3. **First-Block-Cache**: the first block always runs, and how much it has changed decides about the others

Where 2 and 3 differ from 1, the cache did it. *DisCa Sample* says how many steps were full and cached. The toy says \
nothing of the real models' speed.

# To try

- another **method** in *DisCa Apply Cache*; the help page (the node's info button) says what each keeps and costs
- a smaller *interval* or *threshold*: more full steps, nearer to 1
- steps of your own: *DisCa Cache Schedule* into *schedule*; *DisCa Find Schedule* finds them
- your own model: any HunyuanVideo into *model*. One without MeanFlow is sampled by core's *KSampler*
"""


def caches_groups() -> list[Group]:
    """A model, and three runs of it."""
    inputs = [
        Node("models", "DiscaToyModels"),
        Node("prompt", "DiscaToyPrompt", height=270),
        Node("latent", "EmptyHunyuanLatentVideo", {"width": 64, "height": 64, "length": 21, "batch_size": 2}),
        Node("guidance", "FluxGuidance", {"conditioning": ("prompt", 0), "guidance": 3.0}),
    ]
    full = [_sample("full", ("models", 1)), *result("full", COMPARED["full"])]
    return [
        Group("Model and prompt", 270, [inputs]),
        Group(f"1. {COMPARED['full']}", 270, [full]),
        Group(
            "What 2 and 3 drew", 270, [[result(name, COMPARED[name])[1] for name in METHODS]]
        ),  # clear of the minimap
        *(Group(f"{number}. {COMPARED[name]}", 270, [_cached(name)]) for number, name in enumerate(METHODS, 2)),
    ]


def _cached(name: str) -> list[Node]:
    method = dict(METHODS[name])
    chosen = {"method": method.pop("method"), "method.preset": "custom"}
    settings = {f"method.preset.{key}": value for key, value in method.items()}
    apply = Node(f"apply_{name}", "DiscaApplyCache", {"model": ("models", 1)} | chosen | settings)
    return [apply, _sample(name, (f"apply_{name}", 0)), result(name, COMPARED[name])[0]]


def _sample(name: str, model: tuple[str, int]) -> Node:
    times = {"seed": SEED, "steps": STEPS, "shift": 1.0, "denoise": 1.0, "cfg": 1.0}
    sources = {"model": model, "positive": ("guidance", 0), "latent_image": ("latent", 0)}
    return Node(f"sample_{name}", "DiscaSample", sources | times)
