"""The network while training: the same numbers as ComfyUI's, right gradients, right derivatives."""

import gc
from functools import partial

import pytest
import small_networks
import torch
from comfy.ldm.modules.attention import attention_pytorch

from disca.training.algorithms.derivative import CHUNK, attention_with_tangent, central_difference, dual_numbers
from disca.training.algorithms.probe import probe_derivative
from disca.training.network.roles import add_embedder
from disca.training.network.velocity import Network

FAMILIES = ["1.0", "1.5"]


@pytest.fixture(autouse=True)
def _training():
    with small_networks.training_mode():
        yield


def flow(network, condition):
    """u(x_t, t, r) of the network under one condition."""
    return lambda x_t, t, r, **options: network.velocity(x_t, t, r, condition, **options)


def in_double(family):
    """A network in fp64 and inputs for two samples with times of their own."""
    module = small_networks.network(family, torch.float64)
    x, t, r, condition = small_networks.inputs(family, torch.float64, batch=2)
    return module, x, t.double(), r.double(), {name: value.double() for name, value in condition.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_it_answers_as_comfyui_does_at_a_step_of_a_run(family):
    module = small_networks.network(family)
    x, t, r, condition = small_networks.inputs(family)
    options = {"sigmas": t, "sample_sigmas": torch.stack([t[0], r[0], torch.zeros(())])}
    with torch.no_grad():
        comfys = module(x.clone(), t * 1000.0, transformer_options=options, **condition)
        ours = Network(module).velocity(x, t, r, condition)
    torch.testing.assert_close(ours, comfys, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_sample_has_its_own_t_and_r(family):
    module, x, t, r, condition = in_double(family)
    network = Network(module)
    with torch.no_grad():
        together = network.velocity(x, t, r, condition)
        apart = [
            network.velocity(x[i : i + 1], t[i : i + 1], r[i : i + 1], {k: v[i : i + 1] for k, v in condition.items()})
            for i in range(2)
        ]
    torch.testing.assert_close(together, torch.cat(apart), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_the_same_with_and_without_recomputation(family):
    gradients = {}
    for recomputed in (False, True):
        module, x, t, r, condition = in_double(family)
        module.requires_grad_(True)
        Network(module, recomputed).velocity(x, t, r, condition).square().mean().backward()
        gradients[recomputed] = torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
    assert torch.equal(gradients[True], gradients[False])


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_the_slope_of_the_loss(family):
    """Breaks when ComfyUI's blocks come to change a tensor in place in a way that is not guarded against."""
    module, x, t, r, condition = in_double(family)
    network = Network(module.requires_grad_(True))
    loss = lambda: network.velocity(x, t, r, condition).square().mean()  # noqa: E731
    loss().backward()
    weights = [p for p in module.parameters() if p.grad is not None]
    size = torch.stack([p.grad.norm() for p in weights]).norm()
    ends = []
    with torch.no_grad():
        for step in (1e-5, -2e-5):
            for p in weights:
                p.add_(step * p.grad / size)
            ends.append(loss())
    torch.testing.assert_close((ends[0] - ends[1]) / 2e-5, size, rtol=1e-4, atol=0.0)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_inputs_are_left_as_they_were(family):
    module, x, t, r, condition = in_double(family)
    before = x.clone()
    Network(module).velocity(x.requires_grad_(True), t, r, condition).sum().backward()
    assert torch.equal(x, before) and x.grad.norm() > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_the_finite_difference_converges_to_the_exact_derivative(family):
    module, x, t, r, condition = in_double(family)
    u, v = flow(Network(module), condition), torch.ones_like(x)
    exact = dual_numbers(u, x, t, r, v)
    apart = [((central_difference(u, x, t, r, v, h) - exact).norm() / exact.norm()).item() for h in (4e-4, 1e-4)]
    assert exact.norm() > 0
    assert apart[1] < 0.01 and apart[1] < apart[0] / 4


def test_the_difference_is_one_sided_at_the_ends():
    square = lambda x_t, t, r: t.view(-1, 1) ** 2  # noqa: E731
    x, t, r = torch.zeros(2, 1), torch.tensor([1.0, 0.5]), torch.tensor([0.0, 0.5])
    slopes = central_difference(square, x, t, r, torch.zeros_like(x), h=0.1).flatten()
    torch.testing.assert_close(slopes, torch.tensor([1.9, 1.1]))


@pytest.mark.parametrize("mask", [None, (1, 1, 300), (2, 1, 300, 300)], ids=["whole", "keys", "queries and keys"])
def test_attention_has_the_tangent_of_its_formula(mask):
    """Of more rows than are computed at a time, with the masks of ComfyUI's blocks and of its refiner."""
    torch.manual_seed(0)
    q, k, v, dq, dk, dv = (torch.randn(2, 2, 300, 8, dtype=torch.float64) for _ in range(6))
    mask = None if mask is None else 3.0 * torch.randn(mask, dtype=torch.float64)

    def plain(q, k, v):
        scores = q @ k.transpose(-1, -2) / 8**0.5
        scores = scores if mask is None else scores + mask
        return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)

    with torch.autograd.forward_ad.dual_level():
        dual = [torch.autograd.forward_ad.make_dual(*pair) for pair in ((q, dq), (k, dk), (v, dv))]
        out = attention_with_tangent(None, *dual, 2, skip_reshape=True, mask=mask)
        ours = torch.autograd.forward_ad.unpack_dual(out).tangent
    _, exact = torch.func.jvp(plain, (q, k, v), (dq, dk, dv))
    assert q.shape[2] > CHUNK
    torch.testing.assert_close(ours, exact)


@pytest.mark.parametrize("heads_apart", [True, False])
@pytest.mark.parametrize("given", [{}, {"skip_output_reshape": True}], ids=["tokens", "heads"])
def test_attention_with_a_tangent_takes_and_gives_what_comfyuis_does(heads_apart, given):
    shape = (2, 2, 5, 8) if heads_apart else (2, 5, 16)
    q, k, v = (torch.randn(shape) for _ in range(3))
    options = {"skip_reshape": heads_apart, **given}
    torch.testing.assert_close(
        attention_with_tangent(None, q, k, v, 2, **options), attention_pytorch(q, k, v, 2, **options)
    )


def test_a_network_that_passes_no_derivative_on_is_refused_by_name_of_the_other_way():
    x, t = torch.randn(1, 3), torch.tensor([0.5])
    with pytest.raises(RuntimeError, match="Set meanflow.derivative to difference"):
        dual_numbers(lambda x_t, t, r, **options: x_t.detach() * 2.0, x, t, t - 0.1, x)


def test_differences_of_bf16_velocities_are_taken_in_fp32():
    x, t = torch.zeros(1, 2, dtype=torch.bfloat16), torch.tensor([0.5])
    slope = central_difference(lambda x_t, t, r: (x_t + t.view(-1, 1) * 3.0).bfloat16(), x, t, t - 0.1, x, h=0.125)
    assert slope.dtype == torch.float32
    torch.testing.assert_close(slope, torch.full((1, 2), 3.0), rtol=0.02, atol=0.0)


@pytest.mark.parametrize("family", FAMILIES)
def test_taps_are_the_image_tokens_after_their_blocks(family):
    module, x, t, r, condition = in_double(family)
    network = Network(module)
    with torch.no_grad():
        _, features = network.velocity_and_features(x, t, r, condition)
        taps = network.taps(x, t, r, condition, [network.blocks[0], network.blocks[-1]])
    tokens = x[0, 0].numel() // (4 if family == "1.0" else 1)
    assert [tap.shape[1] for tap in taps] == [tokens, tokens]
    torch.testing.assert_close(taps[1], features[0][:, -tokens:])
    assert not torch.allclose(taps[0], taps[1])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("made", ["taps", "features", "velocity", "answered"])
def test_what_a_pass_made_is_gone_with_its_graph(family, made):
    """Not when Python next looks for cycles: on a card that is many passes later."""
    network, (x, t, r, condition) = Network(small_networks.network(family)), small_networks.inputs(family, batch=2)
    x.requires_grad_(True)
    kept = [tensor.detach() for tensor in network.velocity_and_features(x, t, r, condition)[1]]
    weight = torch.ones(1, requires_grad=True)
    gc.collect()
    gc.disable()
    try:
        before = living()
        if made == "taps":
            outputs = network.taps(x, t, r, condition, network.blocks)
        elif made == "features":
            outputs = network.velocity_and_features(x, t, r, condition)[1]
        elif made == "velocity":
            outputs = [network.velocity(x, t, r, condition)]
        else:
            answer = partial(scaled, weight, kept)
            outputs = [network.answered_velocity(answer, x, t, r, condition)]
        torch.autograd.grad(sum(output.sum() for output in outputs), weight if made == "answered" else x)
        del outputs
        assert living() == before
    finally:
        gc.enable()


def scaled(weight, features, tokens, context):
    """An answer that a gradient reaches."""
    return [weight * each for each in features]


def living() -> int:
    """How many tensors of an activation's size there are."""
    return sum(type(each) is torch.Tensor and each.ndim == 3 for each in gc.get_objects())


@pytest.mark.parametrize(
    ("count", "expected"),
    [(1, [1]), (2, [0, 1]), (9, [0, 1])],
    ids=["the last of them", "both", "no more than there are"],
)
def test_tapped_blocks_are_spread_over_the_first_two_thirds(count, expected):
    network = Network(small_networks.network("1.5"))
    assert network.spread_blocks(count) == [network.blocks[place] for place in expected]
    deep = Network(small_networks.network("1.5", depth=12))
    assert deep.spread_blocks(4) == [deep.blocks[place] for place in (1, 3, 5, 7)]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_new_r_embedding_changes_nothing_where_r_is_t(family):
    module = small_networks.network(family, meanflow=False, meanflow_sum=family == "1.5")
    x, t, _, condition = small_networks.inputs(family)
    network = Network(module)
    with torch.no_grad():
        before = network.velocity(x, t, None, condition)
        add_embedder(module, "time_r_in")
        torch.testing.assert_close(network.velocity(x, t, t, condition), before)


def test_a_new_guidance_embedding_changes_nothing():
    module = small_networks.network("1.5")
    x, t, r, condition = small_networks.inputs("1.5")
    network = Network(module)
    with torch.no_grad():
        before = network.velocity(x, t, r, condition)
        add_embedder(module, "guidance_in")
        assert torch.equal(network.velocity(x, t, r, condition | {"guidance": torch.tensor([5.0])}), before)


def test_the_probe_says_when_r_has_no_effect():
    module = small_networks.network("1.0")
    module.time_r_in.out_layer.weight.data.zero_()
    x, t, _, condition = small_networks.inputs("1.0")
    network = Network(module)
    lines = probe_derivative(flow(network, condition), lambda x, t: network.velocity(x, t, None, condition), x, 0.01)
    assert "no effect" in lines[-1]


def test_the_probe_says_when_the_derivative_is_zero():
    module = small_networks.network("1.0")
    module.final_layer.linear.weight.data.zero_()
    x, t, _, condition = small_networks.inputs("1.0")
    network = Network(module)
    lines = probe_derivative(flow(network, condition), lambda x, t: torch.ones_like(x), x, 0.01)
    assert any("derivative is zero" in line for line in lines)


def test_training_outside_training_mode_is_refused():
    import comfy.model_management

    comfy.model_management.in_training = False
    with pytest.raises(RuntimeError, match="not in training mode"):
        Network(small_networks.network("1.0"))


def test_training_in_inference_mode_is_refused():
    with torch.inference_mode(), pytest.raises(RuntimeError, match="inference mode"):
        Network(small_networks.network("1.0"))


def test_an_r_for_a_network_without_time_r_in_is_refused():
    module = small_networks.network("1.0", meanflow=False)
    x, t, r, condition = small_networks.inputs("1.0")
    with pytest.raises(ValueError, match="no time_r_in"):
        Network(module).velocity(x, t, r, condition)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_the_same_with_the_kept_inputs_on_the_host(family):
    gradients = {}
    for offloaded in (False, True):
        module, x, t, r, condition = in_double(family)
        module.requires_grad_(True)
        Network(module, offloaded=offloaded).velocity(x, t, r, condition).square().mean().backward()
        gradients[offloaded] = torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])
    assert torch.equal(gradients[True], gradients[False])


def test_it_computes_in_the_type_it_is_told_whatever_the_weights_are_kept_as():
    module = small_networks.network("1.0")
    x, t, r, condition = small_networks.inputs("1.0")
    condition["guidance"] = torch.tensor([4.0])  # a thousand of it is the same in bf16
    with torch.no_grad():
        in_bf16 = Network(module, dtype=torch.bfloat16).velocity(x, t, r, condition)
        exact = Network(module).velocity(x, t, r, condition)
    assert in_bf16.dtype == torch.bfloat16 and module.time_in.in_layer.weight.dtype == torch.float32
    assert 0.0 < (in_bf16.float() - exact).norm() / exact.norm() < 0.1
