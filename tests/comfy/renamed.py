"""ComfyUI with names changed, everywhere in its code at once, and what the pack does there.

    python tests/comfy/renamed.py DIFFUSION_MODEL PREDICTOR ITEM...   (files; an item is words, module:NAME is hidden)

Prints a line of JSON for each item. Every item gets a process of its own, forked from one with all libraries.
"""

import importlib.util
import json
import logging
import multiprocessing
import os
import sys
import traceback
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, SimpleNamespace

PACK = Path(__file__).resolve().parents[2]
COMFYUI = Path(os.environ["COMFYUI_PATH"]).resolve()
OURS = (str(Path(__file__).resolve()), str(PACK / "tests" / "graph.py"))  # use ComfyUI, so they change with it
PYTORCHS = {"attn_mask": "comfy/ldm/modules/attention.py"}  # where the word is PyTorch's
SCHEMAS = str(
    COMFYUI / "comfy_api" / "latest" / "_io.py"
)  # of an interface with a version: without it no node is there
TAIL = "_renamed"
LORA = "lora.safetensors"  # beside the Predictor
EXPERTS = "experts.safetensors"  # beside the model
MODULE = "module:"
SECONDS = 200
ROOMS = ("loading", "lora", "dcm", "attach", "sampling", "speed", "training", "toy")

_codes: dict[str, CodeType] = {}
_read = SourceFileLoader.get_code


def renamed(code: CodeType, words: set[str]) -> CodeType:
    """The code with the words changed wherever one is a name, a parameter or a whole text."""

    def change(thing):
        if isinstance(thing, CodeType):
            return renamed(thing, words)
        if isinstance(thing, tuple | frozenset):
            return type(thing)(map(change, thing))
        return thing + TAIL if isinstance(thing, str) and thing in words else thing

    names = ("co_names", "co_varnames", "co_freevars", "co_cellvars", "co_consts")
    return code.replace(**{name: change(getattr(code, name)) for name in names})


def rename_on_import(words: set[str]) -> None:
    """From now on ComfyUI's modules are imported with the words changed."""

    def get_code(self, name):
        code = _codes.get(self.path) or _read(self, name)
        if self.path == SCHEMAS or not (self.path.startswith(f"{COMFYUI}/") or self.path in OURS):
            return code
        return renamed(code, {word for word in words if not self.path.endswith(PYTORCHS.get(word, " "))})

    SourceFileLoader.get_code = get_code
    sys.modules.update({word + TAIL: sys.modules[word] for word in words & sys.modules.keys()})  # a library's name too
    comfy = importlib.import_module("comfy")
    comfy.__getattr__ = lambda name: importlib.import_module(f"comfy.{name.removesuffix(TAIL)}")


def load_pack():
    """The pack as ComfyUI loads it."""
    spec = importlib.util.spec_from_file_location("pack", PACK / "__init__.py", submodule_search_locations=[str(PACK)])
    sys.modules["pack"] = pack = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pack)
    return SimpleNamespace(**{node.__name__: node for node in pack.NODES})


def probe(model_path: str, predictor_path: str, hidden: set[str]) -> dict:
    """What each node does, and whether the sampled bits are the plain model's."""
    import comfy.samplers
    import comfy.sd
    import comfy_api.torch_helpers  # noqa: F401 (what is to be hidden must be there, and what needs it)
    import comfy_extras.nodes_easycache  # noqa: F401
    import folder_paths
    import graph
    import latent_preview  # noqa: F401
    import recipes
    import torch

    warnings: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: warnings.append(record.getMessage())
    logging.getLogger().addHandler(handler)
    sys.modules.update(dict.fromkeys(hidden))
    nodes = load_pack()
    for folder, path in (("diffusion_models", model_path), ("disca", predictor_path), ("loras", predictor_path)):
        folder_paths.add_model_folder_path(folder, str(Path(path).parent))
    run = recipes.golden("hv10_t2v")
    run = run._replace(tensors=run.tensors | {key + TAIL: tensor for key, tensor in run.tensors.items()})  # data stays
    model = comfy.sd.load_diffusion_model(model_path)
    for parameter in model.model.parameters():  # under a new name it is not in the file
        torch.nn.init.normal_(parameter, std=0.05)
    conditions, latent = graph.conditioning(run, model), torch.zeros_like(run.tensors["latent"])

    def sampled(model) -> torch.Tensor:
        guider = comfy.samplers.CFGGuider(model)
        guider.inner_set_conds({"positive": conditions})
        times, euler = torch.linspace(1, 0, 5), comfy.samplers.sampler_object("euler")
        return guider.sample(run.tensors["latent"], latent, euler, times, disable_pbar=True, seed=0)

    def told(action) -> str:
        warnings.clear()
        try:
            return "; ".join([action() or "works", *(text for text in warnings if text.startswith("DisCa: This"))])
        except ValueError as error:
            return f"refused: {error}"

    def cached() -> str:
        (predictor,) = nodes.DiscaLoadPredictor.execute(Path(predictor_path).name, "default").result
        (schedule,) = nodes.DiscaCacheSchedule.execute({"plan": "anchors", "anchors": "0 2"}).result
        (patched,) = nodes.DiscaApplyPredictor.execute(model, predictor, schedule, "auto").result
        return "native" if torch.equal(sampled(patched), plain) else "predicted"

    def with_lora() -> None:
        nodes.DiscaLoadLora.execute(model, LORA, 1.0)

    def with_experts() -> None:
        nodes.DiscaLoadDCM.execute(EXPERTS, "default")

    def sample() -> None:
        settings = {"latent_image": {"samples": latent}, "seed": 0, "steps": 2, "shift": 5.0, "denoise": 1.0}
        nodes.DiscaSample.execute(model=model, positive=conditions, **settings)

    with torch.inference_mode():
        plain = sampled(model)
        return {
            "missing": {room: sys.modules["pack.disca.host.compat"].missing(room) for room in ROOMS},
            "apply": told(cached),
            "load": told(lambda: nodes.DiscaLoadModel.execute(Path(model_path).name, "default") and None),
            "lora": told(with_lora),
            "dcm": told(with_experts),
            "sample": told(sample),
            "sampler": told(lambda: nodes.DiscaMeanFlowSampler.execute() and None),
            "attention": told(lambda: nodes.DiscaAttention.execute(model, "cudnn", False) and None),
            "train": told(lambda: sys.modules["pack.disca.host.compat"].room("training") and None),
            "toy": told(lambda: nodes.DiscaToyModels.execute() and None),
        }


def answer(item: str) -> dict:
    """The probe's answer with that item changed, or how it ended otherwise."""
    words = {word for word in item.split() if not word.startswith(MODULE)}
    hidden = {word.removeprefix(MODULE) for word in item.split()} - words
    if words:
        rename_on_import(words)
    try:
        import comfy.options

        comfy.options.enable_args_parsing(False)
        from comfy.cli_args import args

        args.cpu = True
        return importlib.import_module("renamed").probe(*sys.argv[1:3], hidden)
    except Exception:
        return {"crash": traceback.format_exc()}


def main() -> None:
    """Answers for every item, in their order."""
    import aiohttp  # noqa: F401
    import av  # noqa: F401
    import comfy_aimdo.model_vbar  # noqa: F401
    import comfy_kitchen  # noqa: F401
    import einops  # noqa: F401
    import scipy.integrate
    import scipy.ndimage
    import scipy.optimize
    import scipy.stats  # noqa: F401
    import torch
    import torchaudio  # noqa: F401
    import torchsde  # noqa: F401
    import torchvision  # noqa: F401
    import transformers  # noqa: F401

    torch.set_num_threads(1)  # more would not survive the fork
    sys.path[:0] = [str(COMFYUI), str(Path(__file__).parent)]
    sys.path.append(str(PACK / "tests"))
    for path in (*COMFYUI.glob("*.py"), *COMFYUI.glob("comfy*/**/*.py")):
        if "comfy_extras" not in path.parts or path.stem == "nodes_easycache":
            _codes[str(path)] = compile(path.read_bytes(), path, "exec", dont_inherit=True)
    items = sys.argv[3:]
    with multiprocessing.get_context("fork").Pool(2, maxtasksperchild=1) as pool:
        answers = pool.imap(answer, items)
        for item in items:
            print(json.dumps([item, answers.next(SECONDS)]), flush=True)


if __name__ == "__main__":
    main()
