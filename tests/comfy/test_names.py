"""Files by the names that workflows of other systems have for them."""

import asyncio
import os
import shutil
from types import SimpleNamespace

import pytest

from disca.messages import quoted

SHOWN = "a folder/tiny.safetensors"  # as Linux has it
NODES = {
    "DiscaLoadModel": ("diffusion_models", "model_name", {"weight_dtype": "default"}),
    "DiscaLoadPredictor": ("disca", "predictor_name", {"weight_dtype": "default"}),
    "DiscaLoadDCM": ("diffusion_models", "model_name", {"weight_dtype": "default"}),
    "DiscaLoadLora": ("loras", "lora_name", {"strength": 1.0}),
}


@pytest.fixture(scope="module")
def folders(golden_files, model_folders, tmp_path_factory):
    """A model and a Predictor in a folder in their folders, and a LoRA's place."""
    import folder_paths

    loras = tmp_path_factory.mktemp("loras")
    folder_paths.add_model_folder_path("loras", str(loras), is_default=True)
    name, _ = golden_files("hv10_t2v")
    for folder in (model_folders.diffusion_models, model_folders.disca, loras):
        (folder / "a folder").mkdir()
        source = model_folders.disca if folder == loras else folder
        shutil.copy(source / name, folder / SHOWN)
    folder_paths.filename_list_cache.clear()


@pytest.fixture
def validate(comfy_nodes, folders):
    """What the server says of a prompt with that name in a node's widget: the details of its errors."""
    import execution

    def run(node_id: str, name):
        _, widget, others = NODES[node_id]
        inputs = {widget: name, **others}
        if node_id == "DiscaLoadLora":
            inputs["model"] = ["2", 0]
        prompt = {"1": {"class_type": node_id, "inputs": inputs}}
        prompt["2"] = {"class_type": "DiscaToyModels", "inputs": {}}
        loop = asyncio.new_event_loop()
        try:
            _, errors, _ = loop.run_until_complete(execution.validate_inputs("prompt", prompt, "1", {}))
        except ValueError as error:  # which the server tells as it is
            return str(error)
        finally:
            loop.close()
        return "; ".join(error["details"] for error in errors)

    return run


@pytest.mark.parametrize("name", [SHOWN, SHOWN.replace("/", "\\")])
@pytest.mark.parametrize("node_id", NODES)
def test_a_name_with_either_slash_passes_the_server(node_id, name, validate):
    assert validate(node_id, name) == ""


@pytest.mark.parametrize("name", [SHOWN, SHOWN.replace("/", "\\")])
def test_a_name_with_either_slash_is_the_same_file(name, call, folders, pack):
    (model,) = call("DiscaLoadModel", model_name=name, weight_dtype="default")
    (predictor,) = call("DiscaLoadPredictor", predictor_name=name, weight_dtype="default")
    assert model.model.diffusion_model.hidden_size == predictor.spec.width == 256
    assert os.path.samefile(pack("disca.host.folders").file_path("loras", name), _in_loras())


def _in_loras() -> str:
    import folder_paths

    return os.path.join(folder_paths.get_folder_paths("loras")[0], SHOWN)


@pytest.mark.parametrize("name", ["a folder\\other.safetensors", "../a folder/tiny.safetensors", "", 7, "\ud800"])
@pytest.mark.parametrize("node_id", NODES)
def test_an_unknown_name_is_refused_when_it_is_queued(node_id, name, validate, call):
    folder, widget, others = NODES[node_id]
    model = SimpleNamespace(model_options={})  # not looked at: there is no file to put on it
    told = validate(node_id, name)
    assert f"There is no file {quoted(name)} in models/{folder}. Choose one that is there" in told
    with pytest.raises(ValueError, match="There is no file"):
        call(node_id, **{widget: name}, **others, **({"model": model} if node_id == "DiscaLoadLora" else {}))


TRAINING = ["DiscaTrainPredictor", "DiscaTrainMeanFlow", "DiscaTrainCFG"]
FOLDERS = [(node_id, name) for node_id in TRAINING for name in ("dataset", "run")]


@pytest.mark.parametrize(("node_id", "widget"), [*FOLDERS, ("DiscaBuildDataset", "dataset")])
def test_a_folder_that_no_run_or_dataset_can_have_is_refused_when_it_is_queued(node_id, widget, comfy_nodes):
    import nodes

    node = nodes.NODE_CLASS_MAPPINGS[node_id]
    others = chosen(node)
    with pytest.raises(ValueError, match=f"'{widget}' is '../up', which cannot be a folder's name"):
        node.validate_inputs(**others, **{widget: "../up"})
    assert node.validate_inputs(**others, **{widget: None}) is True  # comes by a link


def test_a_dataset_that_is_not_there_is_refused_when_it_is_queued(comfy_nodes):
    import nodes

    node = nodes.NODE_CLASS_MAPPINGS["DiscaTrainCFG"]
    with pytest.raises(ValueError, match="There is no dataset 'dogs' in"):
        node.validate_inputs(**chosen(node), dataset="dogs")


def chosen(node) -> dict:
    """The first option of each choice that has inputs of its own."""
    choices = [one for one in node.define_schema().inputs if one.io_type == "COMFY_DYNAMICCOMBO_V3"]
    return {one.id: {one.id: one.options[0].key} for one in choices}
