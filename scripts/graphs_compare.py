"""Many methods on one toy model and prompt, at once: a table, a chart and the videos that say which to take."""

from graph_parts import SEED, Group, Node

STEPS = 20
METHODS = """# the paper's list, and one that was found for this model
DisCa at 0 1 2 5 9 13 17 19
DisCa at 0 1 2 3 5 8 13 18
reuse at 0 1 2 5 9 13 17 19
reuse at 0 1 2 3 5 8 13 18
extrapolation at 0 1 2 3 5 8 13 18
Spectrum
First-Block-Cache threshold=0.45
# as many steps in full, and no others
plain steps=8"""
FILM = "methods"
NOTE_METHODS = """# Press Run: eight methods, one prompt, one seed

Nothing to download: the model is a tiny HunyuanVideo that comes with the pack. Two processor cores without a GPU took \
8 seconds.

# What you see

1. **The table**: calls in full and cached, seconds, speed-up measured and by operations, memory, and the error: how \
far the video is from the one with every step in full
2. **The chart**: right is faster, lower is nearer. On the green line is what nothing else beats in both: take one of \
these
3. **The videos** under their names, in the table's order

The list of full steps matters more than the method: compare 1 with 2, and 3 with 4.

# What you do not see: the real models' speed

The toy has 6 blocks, so the Predictor's 2 are much of it. HunyuanVideo has 54 and 60. *By operations* says what a \
method would save if nothing else took time.

# To try

- your own list in *methods*: a line each, `#` leaves one out; the help page (the node's info button) has the form
- your own model, prompt and *latent* of the size you sample: any HunyuanVideo. Without a Predictor leave *DisCa* out
- *Interrupt* ends the comparison; the rows that are done are kept
"""


def methods_groups() -> list[Group]:
    """A model, its comparison, and what comes of it."""
    inputs = [
        Node("models", "DiscaToyModels"),
        Node("prompt", "DiscaToyPrompt", height=270),
        Node("latent", "EmptyHunyuanLatentVideo", {"width": 64, "height": 64, "length": 21, "batch_size": 1}),
        Node("guidance", "FluxGuidance", {"conditioning": ("prompt", 0), "guidance": 3.0}),
    ]
    sources = {"model": ("models", 1), "predictor": ("models", 2), "positive": ("guidance", 0)}
    run = {"latent_image": ("latent", 0), "seed": SEED, "steps": STEPS, "shift": 1.0, "cfg": 1.0, "methods": METHODS}
    compare = Node("compare", "DiscaCompareMethods", sources | run, height=560)
    decode = Node("decode", "DiscaToyDecode", {"samples": ("compare", 2), "size": 160})
    tile = Node("tile", "DiscaTileVideos", {"videos": ("decode", 0), "names": ("compare", 3), "columns": 3})
    film = {"images": ("tile", 0), "filename_prefix": f"disca/toy_{FILM}", "fps": 4.0, "method": "default"}
    chart = Node("chart", "PreviewImage", {"images": ("compare", 1)}, "Chart", 560)
    table = Node("table", "PreviewAny", {"source": ("compare", 0)}, "Table", 280)
    return [
        Group("Model and prompt", 270, [inputs]),
        Group("What to compare", 330, [[compare, decode, tile]]),
        Group("What it costs", 440, [[chart, table]]),
        Group("What it draws", 420, [[Node("show", "SaveAnimatedWEBP", film, "Videos", 740)]]),
    ]
