"""The budget: what a block saves is measured, the rest is held to what was worked out by hand and by the paper."""

from dataclasses import replace

import pytest
import small_networks
import torch
from comfy.ldm.modules.attention import attention_pytorch
from torch.autograd.graph import saved_tensors_hooks

from disca.training.budget import memory, plan
from disca.training.budget.memory import GB, Job, Savings, cheapest, operations, peak
from disca.training.budget.sizes import PUBLISHED, sizes_of
from disca.training.contract.method_settings import PairSettings
from disca.training.contract.settings import DataSettings, ModelSettings, Settings
from disca.training.data.dataset import DatasetWriter
from disca.training.network.blocks import make_out_of_place
from disca.training.network.lora import add_lora

PREDICTOR, ADVERSARIAL = Job("predictor", ema=False), Job("predictor", adversarial=True, ema=False)
LORA, FULL = Job("meanflow", rank=64, ema=False), Job("meanflow", ema=False)
NONE = Savings()


def gigabytes(family: str, job: Job, savings: Savings) -> float:
    """The whole of a peak."""
    return sum(peak(PUBLISHED[family], job, savings).values()) / GB


@pytest.mark.parametrize(
    ("family", "job", "savings", "expected"),
    [
        ("1.5", PREDICTOR, NONE, 37),
        ("1.5", PREDICTOR, Savings(recompute_blocks=True), 33),
        ("1.5", PREDICTOR, Savings(recompute_blocks=True, adamw_8bit=True, fp8=True), 22.6),
        ("1.5", ADVERSARIAL, Savings(recompute_blocks=True), 45),
        ("1.5", LORA, Savings(True), 40),
        ("1.5", LORA, Savings(True, fp8=True), 31),
        ("1.5", LORA, Savings(True, fp8=True, offload=True), 21),
        ("1.5", FULL, Savings(True, gpus=8), 44),
        ("1.0", PREDICTOR, NONE, 58),
        ("1.0", PREDICTOR, Savings(recompute_blocks=True), 50),
        ("1.0", ADVERSARIAL, Savings(recompute_blocks=True), 74),
        ("1.0", ADVERSARIAL, Savings(recompute_blocks=True, fp8=True), 61),
        ("1.0", ADVERSARIAL, Savings(recompute_blocks=True, fp8=True, offload=True), 38),
        ("1.0", LORA, Savings(True), 67),
        ("1.0", LORA, Savings(True, fp8=True), 54),
        ("1.0", FULL, Savings(True, gpus=8), 76),
    ],
)
def test_the_peak_is_what_was_worked_out_by_hand(family, job, savings, expected):
    assert gigabytes(family, job, savings) == pytest.approx(expected, rel=0.1)


def test_a_lora_whose_blocks_are_not_recomputed_keeps_what_all_of_them_save():
    """54 blocks of 25 units of 0.206 GB."""
    assert gigabytes("1.5", LORA, NONE) - gigabytes("1.5", LORA, Savings(True)) == pytest.approx(261, rel=0.03)


def test_a_full_fine_tuning_of_1_5_fits_on_one_card_of_141_gb():
    """With bf16 weights, stochastic rounding and moments of one byte: 6 bytes per weight."""
    averaged = Job("meanflow")
    assert cheapest(PUBLISHED["1.5"], averaged, 141) == Savings(True, adamw_8bit=True)
    assert cheapest(PUBLISHED["1.5"], averaged, 80) is None


@pytest.mark.parametrize(
    ("family", "expected"), [("1.5", 1.39e15), ("1.0", 3.91e15)], ids=["1.5", "1.0: the paper counts 3.946"]
)
def test_a_forward_pass_has_as_many_operations_as_counted(family, expected):
    assert sum(PUBLISHED[family].forward()) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (replace(PREDICTOR, pairs=PairSettings(line=1.0)), 35.1),
        (replace(PREDICTOR, pairs=PairSettings(trajectory=1.0)), 47.6),
        (PREDICTOR, 15.6),
        (ADVERSARIAL, 72.4),
        (Job("cfg"), 8.9),
        (FULL, 10.3),
        (LORA, 10.1),
    ],
    ids=["predictor on lines", "on trajectories", "predictor", "adversarial", "cfg", "meanflow", "lora"],
)
def test_an_iteration_has_as_many_operations_as_counted(job, expected):
    assert operations(PUBLISHED["1.5"], job) == pytest.approx(expected * 1e15, rel=0.03)


@pytest.mark.parametrize("family", ["1.0", "1.5"])
@pytest.mark.parametrize("kind", ["trained", "adapted", "frozen"])
def test_what_a_block_saves_for_backward(family, kind):
    expected = {"trained": memory.TRAINED, "adapted": memory.ADAPTED, "frozen": memory.FROZEN}[kind]
    with small_networks.training_mode():
        assert _saved_units(family, kind) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("family", ["1.0", "1.5"])
def test_weights_are_counted_from_the_files_shapes(family):
    module = small_networks.network(family)
    shape = sizes_of({name: tuple(tensor.shape) for name, tensor in module.state_dict().items()})
    assert shape.weights == sum(parameter.numel() for parameter in module.parameters())
    assert shape.counts == (len(module.double_blocks), len(module.single_blocks))
    lora = add_lora(module, rank=3)
    assert memory._trained_weights(shape, Job("cfg", rank=3)) == sum(
        parameter.numel() for adapter in lora.adapters().values() for parameter in adapter.parameters()
    )


@pytest.mark.parametrize("family", ["1.0", "1.5"])
@pytest.mark.parametrize("job", [PREDICTOR, ADVERSARIAL, LORA, FULL], ids=["mse", "gan", "lora", "full"])
def test_a_larger_card_never_needs_more_savings(family, job):
    chosen = [cheapest(PUBLISHED[family], job, card) for card in plan.CARDS]
    first = next((i for i, savings in enumerate(chosen) if savings), len(chosen))
    assert all(savings for savings in chosen[first:])
    needs = [gigabytes(family, job, savings) for savings in chosen[first:]]
    assert needs == sorted(needs)
    assert all(need <= card for need, card in zip(needs, [*plan.CARDS][first:], strict=True))


def test_a_card_of_24_gb_trains_the_predictor_of_1_5():
    savings = cheapest(PUBLISHED["1.5"], Job("predictor"), 24)
    assert savings == Savings(recompute_blocks=True, adamw_8bit=True, fp8=True)


def test_the_table_names_the_settings_for_each_card(tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "sizes_of_run", lambda settings: PUBLISHED["1.5"])
    settings = Settings("predictor", out=str(tmp_path), data=DataSettings(path=""))
    lines = plan.table(settings).splitlines()
    assert "8.33 billion weights, 50,290 tokens" in lines[0]
    assert [line.split("GB")[0].strip() for line in lines[-4:]] == ["24", "48", "80", "141"]
    assert "model.weight_dtype: fp8_e4m3fn" in lines[-4] and "nothing to be saved" in lines[-1]


def test_the_whole_run_takes_as_long_for_each_sample_of_an_iteration(tmp_path):
    """7.1 hours of one H100 for 200 + 100 iterations of one sample."""
    settings = Settings("predictor", out=str(tmp_path), data=DataSettings(path="", accumulate=4))
    hours = plan.total_operations(PUBLISHED["1.5"], settings) / plan.CARDS[80] / 3600
    assert hours == pytest.approx(4 * 7.1, rel=0.03)


def test_tokens_are_those_of_the_largest_sample(tmp_path):
    with DatasetWriter(str(tmp_path), encoder="any", family="1.0") as writer:
        for frames in (1, 5):
            writer.add(f"{frames}", {"latent": torch.zeros(4, frames, 16, 16), "context": torch.zeros(4, 8)})
    settings = Settings("meanflow", out="", data=DataSettings(path=str(tmp_path)), model=ModelSettings(toy="tiny"))
    assert f"{5 * 8 * 8 + 4} tokens, batch 1" in plan.table(settings)


def test_a_toy_run_is_planned_too():
    settings = Settings("flow", out="", data=DataSettings(path="toy://shapes"), model=ModelSettings(toy="tiny"))
    assert f"{6 * 4 * 4 + 8} tokens, batch 1" in plan.table(settings)


def _saved_units(family: str, kind: str) -> float:
    width, image, text = 256, 1016, 8
    module = small_networks.network(family, torch.bfloat16, hidden_size=width, axes_dim=[16, 56, 56])
    module.requires_grad_(kind == "trained")
    if kind == "adapted":
        add_lora(module, rank=2)
    vec = torch.randn(1, width).bfloat16().requires_grad_(kind != "frozen")
    pe = module.pe_embedder(torch.zeros(1, image + text, 3))
    sizes = (image, text) if family == "1.5" else (image + text,)
    tokens = [torch.randn(1, size, width).bfloat16().requires_grad_() for size in sizes]
    block = (module.double_blocks if family == "1.5" else module.single_blocks)[0]
    make_out_of_place([block])
    counted = {tensor.untyped_storage().data_ptr() for tensor in (*module.parameters(), pe)}
    saved = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in counted:
            saved[storage.data_ptr()] = storage
        return tensor

    fused = {"optimized_attention_override": lambda _, *args, **options: attention_pytorch(*args, **options)}
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        block(*tokens, vec, pe, transformer_options=fused)
    return sum(storage.nbytes() for storage in saved.values()) / ((image + text) * width * 2)
