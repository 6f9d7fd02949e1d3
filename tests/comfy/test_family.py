"""A new model family is a row: Wan, one stream with cross-attention, runs reuse and a Predictor of its own blocks."""

import importlib

import comfy.ops
import comfy.sample
import comfy.samplers
import comfy.supported_models
import pytest
import torch
from comfy.ldm.wan.model import WanAttentionBlock, WanModel
from comfy.model_patcher import ModelPatcher
from graph import relative_error
from torch import nn

from disca.methods import METHODS

INSIDE = [name for name, cache in METHODS.items() if cache().method().looks_inside]
WHOLE = [name for name, cache in METHODS.items() if name not in INSIDE and not cache().method().computes]
WIDTH, TEXT, STEPS = 48, 16, 6
SIZES = {"dim": WIDTH, "ffn_dim": 64, "num_heads": 2, "num_layers": 3, "text_dim": TEXT, "text_len": 8, "freq_dim": 32}
SIGMAS = torch.linspace(1.0, 0.0, STEPS + 1)
CPU = torch.device("cpu")


class WanPredictor(nn.Module):
    """A block of Wan's over the mean of the current embeddings and the cached features."""

    def __init__(self):
        super().__init__()
        self.block = WanAttentionBlock("t2v_cross_attn", WIDTH, 64, 2, operation_settings=FLOAT)
        self.calls = 0

    def forward(self, x, cached, **context):
        self.calls += 1
        return self.block((x + cached) / 2.0, **context)


FLOAT = {"operations": comfy.ops.disable_weight_init, "device": CPU, "dtype": torch.float32}


def random_weights(module: nn.Module) -> None:
    with torch.inference_mode():
        for parameter in module.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.05)


@pytest.fixture(scope="module")
def row(pack):
    """Wan as a family: all that the pack is told of it."""
    family, layout = pack("disca.models.family"), pack("disca.weights.predictor_layout")
    blocks = family.BlockKind(
        key="double_block",
        attribute="blocks",
        streams=("img",),
        context={"txt": "context", "vec": "e", "pe": "freqs"},
        made_of=lambda: WanAttentionBlock,
        count="num_layers",
        size=family.BlockSize(weights=11, passed=9, adapted=21),
    )
    return family.Family(
        layout=layout.PredictorLayout("wan", "Wan 2.1", ("fusion",), "blocks", lambda spec: {}, "", 0, ""),
        predictor=lambda spec, settings: WanPredictor(),
        kinds=(blocks,),
        includes=lambda network: isinstance(network, WanModel),
        model="WAN21_T2V",
        latent="Wan21",
        text="WAN",
        made_of=lambda: WanModel,
        first_frame=False,
        config={"image_model": "wan2.1", "model_type": "t2v", **SIZES},
        published=None,
        widths=lambda network: (network.dim, network.num_heads),
        texts=lambda network: {"cross_attn": family.Text(3, TEXT)},
        caption_tokens=512,
        patches="patch_embedding.weight",
        text_tokens=(),
        sizes=("dim", "num_heads"),
        r_in="",
    )


@pytest.fixture
def wan(row, pack, monkeypatch):
    """A small MODEL of ComfyUI's own Wan, its family known to the pack."""
    monkeypatch.setitem(pack("disca.models.family").FAMILIES, "wan", row)
    config = row.comfy_config()
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({})
    random_weights(model)
    return ModelPatcher(model, CPU, CPU)


def attached(pack, model, name: str, anchors: tuple[int, ...], compute=None):
    """The MODEL with a method on all but the anchors, and the reports of its runs."""
    rule = pack("disca.methods.seam.anchors").AtAnchors(pack("disca.schedule").Anchors(anchors))
    disca = pack("disca.methods.scheduled.disca").disca
    method = disca(rule) if name == "DisCa" else pack("disca.methods").METHODS[name]().method(rule)
    patched, reports = pack("disca.host.attach").attach(model, method, compute=compute), []
    run = pack("disca.host.running.run")
    patched.add_callback_with_key(run.ON_REPORT, "test", reports.append)
    return patched, reports


def sample(model, batch: int = 1) -> torch.Tensor:
    guider = comfy.samplers.CFGGuider(model)
    text = torch.randn(1, 5, TEXT, generator=torch.Generator().manual_seed(2))
    guider.inner_set_conds({"positive": [[text, {}]], "negative": [[text * 0.5, {}]]})
    guider.set_cfg(3.0)
    latent = torch.zeros(batch, 16, 2, 4, 6)
    noise = torch.cat([torch.randn(latent[:1].shape, generator=torch.Generator().manual_seed(3))] * batch)
    return guider.sample(noise, latent, comfy.samplers.sampler_object("euler"), SIGMAS, disable_pbar=True, seed=0)


@pytest.mark.parametrize("method", [*WHOLE, "DisCa"])
def test_every_step_an_anchor_is_the_plain_model(method, wan, pack, row):
    compute = ModelPatcher(row.predictor(None, {}), CPU, CPU) if method == "DisCa" else None
    patched, _ = attached(pack, wan, method, tuple(range(STEPS)), compute)
    assert torch.equal(sample(patched), sample(wan))


@pytest.mark.parametrize("method", INSIDE)
def test_a_method_that_looks_inside_blocks_is_refused(method, wan, pack):
    with pytest.raises(ValueError, match=f"'{method}' looks inside blocks, which it cannot in those of Wan 2.1"):
        attached(pack, wan, method, (0, 1, 4))


def test_a_method_with_a_network_of_its_own_is_not_attached_without_it(wan, pack):
    with pytest.raises(ValueError, match="'DisCa' answers with a network of its own, but none is given"):
        attached(pack, wan, "DisCa", (0, 1, 4))


def test_every_room_imports_with_the_row_in_place(wan, pack):
    for name in (
        "training.budget.sizes",
        "training.budget.memory",
        "training.budget.plan",
        "training.network.encoder",
        "training.build",
    ):
        importlib.reload(pack(f"disca.{name}"))


def test_a_training_of_it_is_planned_by_the_row(wan, pack, row):
    network = wan.model.diffusion_model
    sizes = pack("disca.training.budget.sizes").sizes_of(
        {k: tuple(w.shape) for k, w in network.state_dict().items()}, 64
    )
    assert (sizes.family, sizes.width, sizes.counts) == (row, WIDTH, (SIZES["num_layers"],))
    assert sizes.block_weights == sum(weight.numel() for weight in network.blocks.parameters())


def test_reuse_runs_no_block_between_anchors(wan, pack):
    patched, reports = attached(pack, wan, "reuse", (0, 1, 4))
    calls = []
    hook = wan.model.diffusion_model.blocks[1].register_forward_pre_hook(lambda *_: calls.append(1))
    cached = sample(patched)
    hook.remove()
    assert len(calls) == 3 and "3 full + 3 cached" in str(reports[0])
    assert 1e-4 < relative_error(cached[None], sample(wan)[None]) < 1.0


def test_a_predictor_answers_between_anchors(wan, pack, row):
    predictor = row.predictor(None, {})
    random_weights(predictor)
    patched, reports = attached(pack, wan, "DisCa", (0, 1, 4), ModelPatcher(predictor, CPU, CPU))
    sample(patched)
    assert predictor.calls == 3 and "3 full + 3 predicted" in str(reports[0])


def test_a_batch_of_two_is_twice_one_video(wan, pack):
    patched, _ = attached(pack, wan, "TaylorSeer-Lite", (0, 1, 4))
    one, two = sample(patched), sample(patched, batch=2)
    assert relative_error(two, torch.cat([one, one])) < 1e-5


def test_without_the_row_the_model_is_refused_by_name(row, pack):
    config = row.comfy_config()
    config.set_inference_dtype(torch.float32, None)
    model = ModelPatcher(config.get_model({}), CPU, CPU)
    with pytest.raises(
        ValueError, match="This MODEL is a WAN21, but DisCa works on HunyuanVideo 1.0, HunyuanVideo 1.5"
    ):
        attached(pack, model, "reuse", (0,))
