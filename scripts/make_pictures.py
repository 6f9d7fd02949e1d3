"""Draws the pictures of the help pages and the README in ComfyUI's own interface: `$PYTHON scripts/make_pictures.py`.

Needs what `set_up_tests` in scripts/environment.sh gives.
"""

import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent))
from build_workflows import build, place
from comfy_server import PACK, Server, serve
from frontend import Interface, interface, place_model
from graph_parts import DISCA_10, DISTILLED_15, Graph, Group, Model, Node
from graphs import GRAPHS, hunyuanvideo10_groups, hunyuanvideo15_groups
from graphs_caches import caches_groups
from graphs_compare import methods_groups
from graphs_toy import quickstart_toy_groups, run_toy
from graphs_training import CLIPS
from thumbnails import Thumbnail

PICTURES = PACK / "web" / "docs" / "images"
WIDTH = 270  # of a node; the panel that shows the pictures is about 300 pixels wide
GAP = 28


class Scene(NamedTuple):
    """Nodes of an example workflow, in columns."""

    groups: list[Group]
    columns: list[list[str]]


HV10, HV15, TOY = hunyuanvideo10_groups(), hunyuanvideo15_groups(), quickstart_toy_groups()
UNCACHED = [*HV10, Group("", WIDTH, [[Node("attention", "DiscaAttention", {"model": ("model", 0)})]])]
LORA = Model("my_lora.safetensors", "", "loras")
WITH_LORA = [
    *HV10,
    Group(
        "",
        WIDTH,
        [
            [
                Node("lora", "DiscaLoadLora", {"model": ("model", 0), "lora_name": LORA.name}, models=(LORA,)),
                Node("applied", "DiscaApplyPredictor", {"model": ("lora", 0)}),
            ]
        ],
    ),
]
EXPERTS = Model("dcm_hunyuanvideo.safetensors", "", "diffusion_models")
DCM = [
    Group(
        "",
        WIDTH,
        [
            [
                Node("experts", "DiscaLoadDCM", {"model_name": EXPERTS.name}, models=(EXPERTS,)),
                Node("first_steps", "BasicGuider", {"model": ("experts", 0)}, "First steps"),
                Node("last_steps", "BasicGuider", {"model": ("experts", 1)}, "Last steps"),
            ]
        ],
    )
]
PROMPT = {"model": ("model", 0), "positive": ("conditions", 0), "latent_image": ("conditions", 2)}
CALIBRATION = [*HV15, Group("", WIDTH, [[Node("calibrate", "DiscaCalibrate", PROMPT | {"method": "MagCache"})]])]
FOUND = [
    *HV10,
    Group(
        "",
        WIDTH,
        [[Node("find", "DiscaFindSchedule", {"model": ("apply", 0), "save_as": "my_schedule"})]],
    ),
]
ENCODERS = {"vae": ("vae", 0), "clip": ("clip", 0)}
DATASET = {"model_name": DISTILLED_15.name, "dataset": ("build", 0)}
TRAINING = Group(
    "",
    WIDTH,
    [
        [
            Node("build", "DiscaBuildDataset", ENCODERS | {"videos_name": CLIPS, "dataset": CLIPS}),
            Node("train_predictor", "DiscaTrainPredictor", DATASET | {"run": "my_predictor"}, models=(DISTILLED_15,)),
            Node("train_meanflow", "DiscaTrainMeanFlow", DATASET | {"run": "my_meanflow"}, models=(DISTILLED_15,)),
            Node("train_cfg", "DiscaTrainCFG", DATASET | {"run": "my_cfg"}, models=(DISTILLED_15,)),
            Node("trained", "DiscaApplyPredictor", {"predictor": ("train_predictor", 0)}),
        ]
    ],
)
TRAINED = [*HV15, TRAINING]
CACHES = caches_groups()
VIDEOS = {"reference": ("decode_full", 0), "video": ("decode_taylor", 0)}
COMPARED = [*CACHES, Group("", WIDTH, [[Node("metrics", "DiscaCompareVideos", VIDEOS)]])]
METHODS = methods_groups()
SCENES = {
    "DiscaLoadModel": Scene(HV10, [["model"], ["apply"]]),
    "DiscaLoadPredictor": Scene(HV10, [["predictor"], ["apply"]]),
    "DiscaLoadDCM": Scene(DCM, [["experts"], ["first_steps", "last_steps"]]),
    "DiscaLoadLora": Scene(WITH_LORA, [["model"], ["lora"], ["applied"]]),
    "DiscaCacheSchedule": Scene(HV10, [["schedule"], ["apply"]]),
    "DiscaApplyCache": Scene(CACHES, [["models"], ["apply_taylor"], ["sample_taylor"]]),
    "DiscaCompareMethods": Scene(METHODS, [["models", "guidance"], ["compare"]]),
    "DiscaCompareVideos": Scene(COMPARED, [["decode_full", "decode_taylor"], ["metrics"]]),
    "DiscaTileVideos": Scene(METHODS, [["decode"], ["tile"]]),
    "DiscaFindSchedule": Scene(FOUND, [["apply"], ["find"]]),
    "DiscaApplyPredictor": Scene(HV10, [["model", "predictor", "schedule"], ["apply"]]),
    "DiscaMeanFlowSigmas": Scene(HV10, [["sigmas"], ["sample"]]),
    "DiscaMeanFlowSampler": Scene(HV10, [["sampler"], ["sample"]]),
    "DiscaSample": Scene(HV15, [["apply", "conditions"], ["sample", "report"]]),
    "DiscaAttention": Scene(UNCACHED, [["model"], ["attention"]]),
    "DiscaCalibrate": Scene(CALIBRATION, [["conditions"], ["calibrate"]]),
    "DiscaBuildDataset": Scene(TRAINED, [["clip", "vae"], ["build"]]),
    "DiscaTrainPredictor": Scene(TRAINED, [["build"], ["train_predictor"], ["trained"]]),
    "DiscaTrainMeanFlow": Scene(TRAINED, [["build"], ["train_meanflow"]]),
    "DiscaTrainCFG": Scene(TRAINED, [["build"], ["train_cfg"]]),
    "DiscaToyModels": Scene(TOY, [["models"], ["apply"]]),
    "DiscaToyPrompt": Scene(TOY, [["prompt"], ["guidance"]]),
    "DiscaToyDecode": Scene(TOY, [["sample_disca"], ["decode_disca"]]),
}


def cut_out(scene: Scene) -> Graph:
    """The scene's nodes with the links between them."""
    nodes = {node.name: node for group in scene.groups for column in group.columns for node in column}
    shown = {name for column in scene.columns for name in column}

    def cut(node: Node) -> Node:
        kept = {key: value for key, value in node.inputs.items() if not isinstance(value, tuple) or value[0] in shown}
        return node._replace(inputs=kept, width=0)

    columns = [[cut(nodes[name]) for name in column] for column in scene.columns]
    return Graph("", [Group("", WIDTH, columns)], "", (0, 0), Thumbnail("", "", "", "", 0, frozenset()))


def draw(ui: Interface, scene: Scene, path: Path) -> None:
    """Writes the picture of a scene."""
    place(ui, cut_out(scene), GAP)
    ui.settle()
    ui.fit(scale=1.0)
    ui.picture(path, margin=28)
    with Image.open(path) as image:
        few = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)  # half the size, and no difference to see
    few.save(path, optimize=True)


def draw_graph(ui: Interface, graph: Graph, path: Path) -> None:
    """Writes the picture of a whole workflow but for its note, 1400 pixels wide."""
    build(ui, graph)
    ui.evaluate("() => app.graph.remove(app.graph.nodes.find(n => n.type === 'MarkdownNote'))")
    ui.fit(margin=90)  # clear of the buttons at the bottom
    ui.picture(path)
    with Image.open(path) as image:
        image = image.resize((1400, round(1400 * image.height / image.width)), Image.Resampling.LANCZOS)
    image.convert("RGB").save(path, optimize=True)


def film_toy(server: Server, path: Path) -> None:
    """Writes the quickstart's three results as a GIF, side by side in the order of the graph."""
    films = run_toy(server).values()
    first, *others = (beside(frames).quantize(40) for frames in zip(*films, strict=True))
    first.save(path, save_all=True, append_images=others, duration=250, loop=0, optimize=True)


def beside(images: tuple[Image.Image, ...]) -> Image.Image:
    """The images in a row, white between them."""
    width, height = images[0].size
    row = Image.new("RGB", (len(images) * (width + 8) - 8, height), "white")
    for number, image in enumerate(images):
        row.paste(image, (number * (width + 8), 0))
    return row


def main() -> None:
    """Writes all pictures."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        (base / "input" / CLIPS).mkdir(parents=True)
        shown = next(graph for graph in GRAPHS if graph.name == DISCA_10)
        for graph in (shown, *map(cut_out, SCENES.values())):
            for model in (model for node in graph.nodes for model in node.models):
                place_model(base, model._asdict())
        with serve(base) as server, interface(server, width=1800, height=1000, pixel_ratio=2) as ui:
            for node_id, scene in SCENES.items():
                ui.open()  # anew: the interface keeps values of nodes that are gone for others of their number
                draw(ui, scene, PICTURES / f"{node_id}.png")
                print(node_id)
            draw_graph(ui, shown, PICTURES / "graph.png")
            film_toy(server, PICTURES / "quickstart_toy.gif")


if __name__ == "__main__":
    main()
