"""The toy world's workflow: three models, one prompt, the same seeds."""

from graph_parts import SEED, Group, Node, sample_custom, video

NOTE_TOY = """## DisCa without downloads

Three tiny HunyuanVideo models come with this pack. They draw two shapes that move, bounce and hide each other. \
Queue: it takes seconds, on any machine.

### What you see

Four seeds below one another, each drawn by

1. the **original** model: 50 steps with CFG, 100 network evaluations
2. **Restricted MeanFlow**, distilled from it: 20 steps
3. **DisCa**: the same 20 steps, 8 of them in full; on the other 12 the Predictor stands in for the blocks

The noise is the same in all three. Where the middle column differs from the left one, the distillation did it; \
where the right one differs from the middle one, the Predictor did.

### What it does not show

Speed. The toy has 6 blocks and the Predictor 2, so a predicted step costs about half of a full one. The real models \
have 54 and 60: there it is about a thirtieth.

### To try

- another prompt, another seed (set it in *RandomNoise* and both *DisCa Sample*)
- fewer anchors: the plan *interval* in *DisCa Cache Schedule*
- *DisCa Apply Predictor* bypassed (Ctrl+B): right and middle are then the same
"""


def quickstart_toy_groups() -> list[Group]:
    """The three toy models on one prompt and the same seeds, their videos side by side."""
    prompt = [
        Node("models", "DiscaToyModels"),
        Node("prompt", "DiscaToyPrompt"),
        Node("latent", "EmptyHunyuanLatentVideo", {"width": 64, "height": 64, "length": 21, "batch_size": 4}),
        Node("nothing", "ConditioningZeroOut", {"conditioning": ("prompt", 0)}, "No negative prompt"),
        Node("guidance", "FluxGuidance", {"conditioning": ("prompt", 0), "guidance": 3.0}),
    ]
    original = [
        Node(
            "guider",
            "CFGGuider",
            {"model": ("models", 0), "positive": ("prompt", 0), "negative": ("nothing", 0), "cfg": 3.0},
        ),
        Node("noise", "RandomNoise", {"noise_seed": SEED}),
        Node("euler", "KSamplerSelect", {"sampler_name": "euler"}),
        Node("sigmas", "DiscaMeanFlowSigmas", {"steps": 50, "shift": 1.0, "denoise": 1.0}),
        sample_custom("sample_original", "euler"),
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
    meanflow = [
        Node("sample_meanflow", "DiscaSample", {"model": ("models", 1)} | run),
        Node("report_meanflow", "PreviewAny", {"source": ("sample_meanflow", 1)}, "What MeanFlow cost", 130),
    ]
    disca = [
        Node("schedule", "DiscaCacheSchedule", {"plan": "preset", "plan.preset": "HunyuanVideo 1.0, 20 steps, N=4"}),
        Node(
            "apply",
            "DiscaApplyPredictor",
            {"model": ("models", 1), "predictor": ("models", 2), "schedule": ("schedule", 0)},
        ),
        Node("sample_disca", "DiscaSample", {"model": ("apply", 0)} | run),
        Node("report_disca", "PreviewAny", {"source": ("sample_disca", 1)}, "What DisCa cost", 130),
    ]
    decode = [
        Node(f"decode_{name}", "DiscaToyDecode", {"samples": (f"sample_{name}", 0), "size": 128})
        for name in ("original", "meanflow", "disca")
    ]
    beside = {"direction": "right", "match_image_size": True, "spacing_width": 8, "spacing_color": "white"}
    show = [
        Node("two", "ImageStitch", {"image1": ("decode_original", 0), "image2": ("decode_meanflow", 0)} | beside),
        Node("three", "ImageStitch", {"image1": ("two", 0), "image2": ("decode_disca", 0)} | beside),
        *video("disca/toy", "three", fps=4, height=420),
    ]
    return [
        Group("Models and prompt", 320, [prompt]),
        Group("Original: 50 steps with CFG", 320, [original]),
        Group("Restricted MeanFlow: 20 steps", 320, [meanflow]),
        Group("DisCa: 8 of 20 steps in full", 320, [disca]),
        Group("Side by side", 360, [decode, show]),
    ]
