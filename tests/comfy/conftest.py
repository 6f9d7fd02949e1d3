"""The pack as ComfyUI loads it, and what a user's graph does with it, in one process."""

import asyncio
import importlib
import sys
import uuid
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

sys.path.insert(1, str(Path(__file__).resolve().parents[1]))
import graph
import recipes

PACK = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def comfy_nodes():
    """ComfyUI's nodes module, the core nodes and the pack loaded as at start-up."""
    import server

    import nodes

    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    server.PromptServer.instance = server.PromptServer(loop)
    loop.run_until_complete(nodes.init_public_apis())
    loop.run_until_complete(nodes.init_builtin_extra_nodes())
    assert loop.run_until_complete(nodes.load_custom_node(str(PACK)))
    return nodes


@pytest.fixture(scope="session")
def call(comfy_nodes):
    """Runs one node by its id, as the executor would, and gives its outputs."""

    def run(node_id: str, **inputs):
        node = comfy_nodes.NODE_CLASS_MAPPINGS[node_id]
        with torch.inference_mode():
            if hasattr(node, "EXECUTE_NORMALIZED"):
                if not node_id.startswith("Disca"):  # core's nodes have fewer inputs in an older ComfyUI
                    known = {one.id for one in node.GET_SCHEMA().inputs}
                    inputs = {name: value for name, value in inputs.items() if name in known}
                return node.EXECUTE_NORMALIZED(**inputs).result
            return getattr(node(), node.FUNCTION)(**inputs)

    return run


@pytest.fixture(scope="module")
def execute(comfy_nodes):
    """Runs prompts on one executor, which keeps its cache between them; gives (outputs, error, nodes that ran)."""
    import execution

    class Client:
        client_id, last_node_id, last_prompt_id, sockets_metadata = "test", None, None, {}

        def send_sync(self, event, data, sid=None):
            pass

    cache = {"lru": 0, "ram": 0.0, "ram_inactive": 0.0}
    executor = execution.PromptExecutor(Client(), cache_type=execution.CacheType.CLASSIC, cache_args=cache)

    def run(prompt: dict):
        prompt_id = str(uuid.uuid4())
        valid, error, outputs, node_errors = asyncio.run(execution.validate_prompt(prompt_id, prompt, None))
        if not valid:
            return {}, {**error, "nodes": node_errors}, set()
        executor.execute(prompt, prompt_id, {}, outputs)
        told = dict(executor.status_messages)
        ran = prompt.keys() - told.get("execution_cached", {"nodes": []})["nodes"]
        return executor.history_result.get("outputs", {}), told.get("execution_error"), ran

    return run


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory, comfy_nodes):
    """Where a test puts files as a user would: .diffusion_models and .disca."""
    import folder_paths

    root = tmp_path_factory.mktemp("models")
    folders = {}
    for name in ("diffusion_models", "disca"):
        (root / name).mkdir()
        folder_paths.add_model_folder_path(name, str(root / name), is_default=True)
        folders[name] = root / name
    return SimpleNamespace(**folders)


@pytest.fixture(scope="session")
def golden_files(model_folders):
    """Writes a golden case's weights once in a layout of the authors', or "two": with a Predictor of two features."""

    def write(case: str, layout: str = "published") -> tuple[str, str]:
        name = f"{case}_{layout}.safetensors"
        if not (model_folders.diffusion_models / name).exists():
            run = recipes.golden(case)
            convert = recipes.tensor_parallel if layout == "tensor_parallel" else dict
            save_file(convert(run.model), model_folders.diffusion_models / name)
            predictor = run.predictor | (recipes.second_feature(run.predictor) if layout == "two" else {})
            save_file(convert(predictor), model_folders.disca / name)
        return name, name

    return write


@pytest.fixture(scope="session")
def load(call, golden_files):
    """The MODEL and Predictor of a golden case, through the loader nodes."""

    def run(case: str, layout: str = "published"):
        model_name, predictor_name = golden_files(case, layout)
        (model,) = call("DiscaLoadModel", model_name=model_name, weight_dtype="default")
        (predictor,) = call("DiscaLoadPredictor", predictor_name=predictor_name, weight_dtype="default")
        return model, predictor

    return run


@pytest.fixture(scope="session")
def pack(comfy_nodes):
    """A module of the pack as ComfyUI loaded it, by its name in the pack: pack("disca.host.running.run")."""
    root = comfy_nodes.NODE_CLASS_MAPPINGS["DiscaSample"].__module__.removesuffix(".nodes.sampling")
    return lambda name: importlib.import_module(f"{root}.{name}")


@pytest.fixture
def apply(call):
    """The MODEL with a Predictor on the anchors."""

    def run(model, predictor, anchors: str, cache_device: str = "auto"):
        (schedule,) = call("DiscaCacheSchedule", plan={"plan": "anchors", "anchors": anchors})
        (patched,) = call(
            "DiscaApplyPredictor", model=model, predictor=predictor, schedule=schedule, cache_device=cache_device
        )
        return patched

    return run


@pytest.fixture
def sample(call):
    """The samples and the report of DiscaSample on a golden case's conditions, 8 steps unless told otherwise."""

    def run(case: str, model, **changes):
        inputs = {
            "positive": graph.conditioning(recipes.golden(case), model),
            "latent_image": graph.empty_latent(case),
            "seed": 7,
            "steps": 8,
            "shift": 5.0,
            "denoise": 1.0,
        }
        latent, report = call("DiscaSample", model=model, **(inputs | changes))
        return latent["samples"], report

    return run


@pytest.fixture
def dynamic_vram(monkeypatch):
    """ComfyUI's dynamic VRAM, switched on as its start-up does on NVIDIA; only the GPU is missing."""
    import comfy.memory_management
    import comfy.model_management
    import comfy.model_patcher

    control = pytest.importorskip("comfy_aimdo.control")
    if not control.init():
        pytest.skip("comfy-aimdo does not load on this machine")
    for name in ("host_buffer", "model_mmap", "model_vbar"):  # they look for the library when they are imported
        importlib.reload(importlib.import_module(f"comfy_aimdo.{name}"))
    monkeypatch.setattr(comfy.memory_management, "aimdo_enabled", True)
    monkeypatch.setattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcherDynamic)
    monkeypatch.setattr(comfy.model_management, "get_torch_device", lambda: torch.device("cuda", 0))


@pytest.fixture
def attached(load, pack):
    """The MODEL of a golden case, or another one, with a feature cache."""

    def run(case: str, name: str, settings: dict, model=None):
        method = pack("disca.methods").METHODS[name](**settings).method()
        return pack("disca.host.attach").attach(model or load(case)[0], method)

    return run


@pytest.fixture
def novram(request):
    """A ComfyUI that keeps no weights on the GPU."""
    yield from _small_gpu("novram", request.getfixturevalue("monkeypatch"))


@pytest.fixture(params=["lowvram, half of the model fits", "novram"])
def small_gpu(request, monkeypatch):
    """A ComfyUI with a GPU of little memory."""
    yield from _small_gpu(request.param, monkeypatch)


def _small_gpu(option: str, monkeypatch):
    """ComfyUI as it starts with that option on a GPU with little memory."""
    import comfy.model_management as management

    gpu = torch.device("cpu", 0)  # is not torch.device("cpu"), but its tensors are
    management.unload_all_models()
    room = management.minimum_inference_memory() + (8_000_000 if "lowvram" in option else 0)
    monkeypatch.setattr(management, "get_torch_device", lambda: gpu)
    monkeypatch.setattr(management, "is_device_cpu", lambda device: device == torch.device("cpu"))
    monkeypatch.setattr(
        management, "get_free_memory", lambda _=None, torch_free_too=False: (room, 0) if torch_free_too else room
    )
    state = management.VRAMState.LOW_VRAM if "lowvram" in option else management.VRAMState.NO_VRAM
    monkeypatch.setattr(management, "vram_state", state)
    yield option
    management.unload_all_models()
