"""LoRA files that random changes have spoiled: each gives a MODEL whose patches can be worked in, or one sentence."""

import logging
import random

import pytest
import recipes
import torch
from lora_files import TRAINERS, lora_file, merged_layout
from mutations import BYTE_CHANGES, TENSOR_CHANGES
from safetensors.torch import save, save_file

from disca.models.loading import load_meanflow_model
from disca.models.lora import load_lora

CASES, FULL_CASES = 40, 1500
METADATA = (
    None,
    None,
    None,
    {"adapter_config": '{"lora_alpha": 4}'},
    {"lora_adapter_metadata": "[{"},
    {"lora_alpha": "x"},
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A MODEL, its weights in the merged layout, and more kinds than a trainer's file has."""
    weights = merged_layout(recipes.golden("hv10_t2v").model)
    path = tmp_path_factory.mktemp("base") / "model.safetensors"
    save_file(weights, path)
    stem = "lora_unet_double_blocks_1_txt_mlp_fc1"
    others = {
        f"{stem}.{end}": torch.randn(shape) * 0.1
        for end, shape in {
            "lokr_w1": (8, 8),
            "lokr_w2_a": (128, 2),
            "lokr_w2_b": (2, 32),
            "dora_scale": (1024, 1),
        }.items()
    }
    others |= {
        "lora_unet_single_blocks_1_linear2.oft_blocks": torch.randn(32, 8, 8) * 0.1,
        "lora_te1_a.alpha": torch.ones(1),
    }
    return load_meanflow_model(str(path)), weights, others


def spoiled(weights, others, chance: random.Random) -> bytes:
    """The bytes of a file of a trainer's names, more or less spoiled."""
    tensors, _ = lora_file(weights, chance.choice(list(TRAINERS)))
    start = chance.randrange(len(tensors))
    tensors = dict(list(tensors.items())[start : start + 24]) | {key: tensor.clone() for key, tensor in others.items()}
    for _ in range(chance.choice([0, 1, 2, 3])):
        chance.choice(TENSOR_CHANGES)(tensors, chance)
    content = save({key: tensor.contiguous() for key, tensor in tensors.items()}, chance.choice(METADATA))
    return chance.choice(BYTE_CHANGES)(content, chance) if chance.random() < 0.2 else content


def test_a_spoiled_lora_is_loaded_whole_or_refused_in_a_sentence(base, tmp_path, pytestconfig, caplog):
    model, weights, others = base
    outcomes = {"loaded": 0, "refused": 0}
    path = tmp_path / "spoiled.safetensors"
    for number in range(FULL_CASES if pytestconfig.getoption("--full") else CASES):
        path.write_bytes(spoiled(weights, others, random.Random(f"disca lora {number}")))
        caplog.clear()
        try:
            patched, told = load_lora(model, str(path), 0.5)
        except ValueError as error:
            assert str(error).endswith(".") and "\n" not in str(error), f"case {number}: {error}"
            outcomes["refused"] += 1
            continue
        assert " layers of 'spoiled.safetensors' at strength 0.5" in told.splitlines()[0]
        for key in patched.patches:
            whole = patched.patch_weight_to_device(key, return_weight=True)
            assert whole.shape == model.model.get_parameter(key).shape, f"case {number}: {key}"
        failed = [
            record.message
            for record in caplog.records
            if record.levelno >= logging.ERROR or "MISMATCH" in record.message
        ]
        assert not failed, f"case {number}: {failed}"
        outcomes["loaded"] += 1
    assert min(outcomes.values()) > CASES // 10, outcomes
