"""Nodes for the soak test's server: seeded inputs, faults at will, a digest of the result, and a census of memory."""

import ctypes
import gc
import hashlib
import sys
import weakref
from pathlib import Path

import comfy.model_management
import torch
from aiohttp import web
from comfy_api.v0_0_2 import ComfyExtension, io
from server import PromptServer

sys.path.append(str(Path(__file__).resolve().parents[1]))
import graph
import recipes

STATE = {"Run", "Call", "Evaluation", "FeatureStore", "Features"}
NETWORKS = {"HunyuanVideo": "comfy.ldm.", "SingleStreamPredictor": "", "DoubleStreamPredictor": ""}  # name -> package
FAULTS = ["none", "memory", "error", "interrupt"]

features: list[weakref.ref] = []


class SoakInputs(io.ComfyNode):
    """The conditions of a golden run for any number of frames, and an empty latent; `nonce` makes them run anew."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        sizes = [io.Int.Input(name) for name in ("frames", "height", "width", "batch", "nonce")]
        return io.Schema(
            node_id="SoakInputs",
            category="DisCa/soak",
            inputs=[io.Model.Input("model"), io.String.Input("case"), *sizes],
            outputs=[io.Conditioning.Output(), io.Conditioning.Output(), io.Latent.Output()],
        )

    @classmethod
    def execute(cls, model, case: str, frames: int, height: int, width: int, batch: int, nonce: int) -> io.NodeOutput:
        both = [graph.conditioning(recipes.golden(case), model), graph.other_conditioning(case, model)]
        for ((_, options),) in both:
            for name in {"concat_latent_image", "concat_mask"} & options.keys():
                options[name] = options[name][:, :, torch.arange(frames) % options[name].shape[2]]
        channels = recipes.golden(case).tensors["latent"].shape[1]
        return io.NodeOutput(*both, {"samples": torch.zeros(batch, channels, frames, height, width)})


class SoakFault(io.ComfyNode):
    """The MODEL, or one whose runs end badly at that network call."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SoakFault",
            category="DisCa/soak",
            inputs=[io.Model.Input("model"), io.Combo.Input("kind", options=FAULTS), io.Int.Input("call")],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model, kind: str, call: int) -> io.NodeOutput:
        _watch_features()  # after Apply Predictor: its room is there
        if kind == "none":
            return io.NodeOutput(model)
        calls = iter(range(call + 1))

        def faulty(apply_model, args):
            if next(calls, None) == call:
                if kind == "interrupt":
                    comfy.model_management.interrupt_current_processing()
                else:
                    out_of_memory = torch.cuda.OutOfMemoryError("soak: CUDA out of memory")
                    raise out_of_memory if kind == "memory" else ArithmeticError("soak: error")
            return apply_model(args["input"], args["timestep"], **args["c"])

        model = model.clone()
        model.set_model_unet_function_wrapper(faulty)
        return io.NodeOutput(model)


class SoakResult(io.ComfyNode):
    """The digest of a sampled latent, every bit of it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SoakResult",
            category="DisCa/soak",
            inputs=[io.Latent.Input("latent")],
            outputs=[],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, latent: dict) -> io.NodeOutput:
        samples = latent["samples"].contiguous()
        assert torch.isfinite(samples).all()
        return io.NodeOutput(ui={"text": [hashlib.sha256(samples.numpy().tobytes()).hexdigest()]})


def _watch_features() -> None:
    """Keeps a weak reference to every tensor that a store allocates from now on."""
    (module,) = (module for name, module in list(sys.modules.items()) if name.endswith("disca.host.running.features"))
    allocate = module.FeatureStore._buffer
    if getattr(allocate, "watched", False):
        return

    def watched(self, row):
        buffer = allocate(self, row)
        features.append(weakref.ref(buffer))
        return buffer

    watched.watched = True
    module.FeatureStore._buffer = watched


def weights_of(network: torch.nn.Module) -> list[torch.Tensor]:
    """Its weights; none while another thread is making it."""
    return list(network.parameters()) if "_parameters" in vars(network) else []


@PromptServer.instance.routes.get("/soak/census")
async def census(_) -> web.Response:
    """What of DisCa is alive now, once garbage is collected and freed memory is given back."""
    gc.collect()
    state, networks = [], []
    for thing in gc.get_objects():
        kind = type(thing)
        if kind.__name__ in STATE and "disca.host" in str(kind.__module__):
            state.append(kind.__name__)
        elif kind.__name__ in NETWORKS and str(kind.__module__).startswith(NETWORKS[kind.__name__]):
            networks.append(thing)
    told = {
        "state": state,
        "features": sum(tensor() is not None for tensor in features),
        "allocated": len(features),
        "networks": sorted(type(network).__name__ for network in networks),
        "weights": sum(weight.nbytes for network in networks for weight in weights_of(network)),
    }
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    return web.json_response(told)


class SoakExtension(ComfyExtension):
    """The three nodes."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Called by ComfyUI."""
        return [SoakInputs, SoakFault, SoakResult]


async def comfy_entrypoint() -> SoakExtension:
    """Called by ComfyUI."""
    return SoakExtension()
