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
ROOMS = (
    *("loading", "lora", "dcm", "attach", "sampling", "calibration", "finding"),
    *("comparing", "speed", "training", "datasets", "toy"),
)

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


class Probe:
    """A model and a Predictor on this ComfyUI, and what each node does with them."""

    def __init__(self, model_path: str, predictor_path: str):
        import comfy  # its modules are imported by now, and some are hidden
        import graph
        import recipes
        import torch

        self._files = Path(model_path).name, Path(predictor_path).name
        self._nodes, self._warnings = load_pack(), []
        handler = logging.Handler(logging.WARNING)
        handler.emit = lambda record: self._warnings.append(record.getMessage())
        logging.getLogger().addHandler(handler)
        add_folders(model_path, predictor_path)
        run = recipes.golden("hv10_t2v")
        stays = {key + TAIL: tensor for key, tensor in run.tensors.items()}  # data is not renamed
        run = run._replace(tensors=run.tensors | stays)
        self._plain = comfy.sd.load_diffusion_model(model_path)
        for parameter in self._plain.model.parameters():  # under a new name it is not in the file
            torch.nn.init.normal_(parameter, std=0.05)
        self._conditions, self._noise = graph.conditioning(run, self._plain), run.tensors["latent"]
        self._empty = torch.zeros_like(self._noise)

    def answers(self) -> dict:
        """What each node does, and whether the sampled bits are the plain model's."""
        nodes, compat = self._nodes, sys.modules["pack.disca.host.compat"]
        model, (file, _) = self._plain, self._files
        self._bits = self._sampled(model)
        return {
            "missing": {room: compat.missing(room) for room in ROOMS},
            "apply": self._told(self._cached),
            "load": self._told(lambda: nodes.DiscaLoadModel.execute(file, "default") and None),
            "lora": self._told(lambda: nodes.DiscaLoadLora.execute(model, LORA, 1.0) and None),
            "dcm": self._told(lambda: nodes.DiscaLoadDCM.execute(EXPERTS, "default") and None),
            "sample": self._told(self._sample),
            "sampler": self._told(lambda: nodes.DiscaMeanFlowSampler.execute() and None),
            "calibrate": self._told(lambda: compat.room("calibration") and None),
            "find": self._told(lambda: compat.room("finding") and None),
            "compare": self._told(lambda: compat.room("comparing") and None),
            "attention": self._told(lambda: nodes.DiscaAttention.execute(model, "cudnn", False) and None),
            "train": self._told(lambda: compat.room("training") and None),
            "build": self._told(lambda: compat.room("datasets") and None),
            "toy": self._told(lambda: nodes.DiscaToyModels.execute() and None),
        }

    def _told(self, action) -> str:
        self._warnings.clear()
        try:
            said = action() or "works"
            return "; ".join([said, *(text for text in self._warnings if text.startswith("DisCa: This"))])
        except ValueError as error:
            return f"refused: {error}"

    def _cached(self) -> str:
        import torch

        (predictor,) = self._nodes.DiscaLoadPredictor.execute(self._files[1], "default").result
        (schedule,) = self._nodes.DiscaCacheSchedule.execute({"plan": "anchors", "anchors": "0 2"}).result
        (patched,) = self._nodes.DiscaApplyPredictor.execute(self._plain, predictor, schedule, "auto").result
        return "native" if torch.equal(self._sampled(patched), self._bits) else "predicted"

    def _sampled(self, model):
        import comfy
        import torch

        guider = comfy.samplers.CFGGuider(model)
        guider.inner_set_conds({"positive": self._conditions})
        times, euler = torch.linspace(1, 0, 5), comfy.samplers.sampler_object("euler")
        return guider.sample(self._noise, self._empty, euler, times, disable_pbar=True, seed=0)

    def _sample(self) -> None:
        settings = {"latent_image": {"samples": self._empty}, "seed": 0, "steps": 2, "shift": 5.0, "denoise": 1.0}
        self._nodes.DiscaSample.execute(model=self._plain, positive=self._conditions, **settings)


def add_folders(model_path: str, predictor_path: str) -> None:
    """Gives ComfyUI the folders that the files lie in."""
    import folder_paths

    for folder, path in (("diffusion_models", model_path), ("disca", predictor_path), ("loras", predictor_path)):
        folder_paths.add_model_folder_path(folder, str(Path(path).parent))


def probe(model_path: str, predictor_path: str, hidden: set[str]) -> dict:
    """The answers of a ComfyUI from which these modules are hidden."""
    import comfy.samplers
    import comfy.sd  # noqa: F401
    import comfy_api.torch_helpers  # noqa: F401
    import comfy_extras.nodes_easycache  # noqa: F401
    import graph  # noqa: F401
    import latent_preview  # noqa: F401
    import torch

    sys.modules.update(dict.fromkeys(hidden))
    made = Probe(model_path, predictor_path)
    with torch.inference_mode():
        return made.answers()


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
