"""Stand-ins for ComfyUI's own blocks: to the bit when they watch, and nothing runs in vain when they answer."""

import gc
import weakref
from collections import defaultdict
from collections.abc import Iterator
from types import SimpleNamespace

import comfy.ops
import pytest
import torch
from comfy.ldm.flux.layers import DoubleStreamBlock, EmbedND, SingleStreamBlock
from graph import relative_error
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from disca.models.block_kind import BlockKind, BlockSize
from disca.models.family import DOUBLE_BLOCKS, SINGLE_BLOCKS
from disca.models.linear_rows import has_plain_rows, rows_from
from disca.models.standins import OVERRIDE, answering, has_sites, recording, runs_spare_rows

WIDTH, HEADS, TEXT, IMAGE, BATCH = 64, 4, 5, 7, 2
TOKENS = TEXT + IMAGE
KINDS = {"double": DOUBLE_BLOCKS, "single": SINGLE_BLOCKS}
OPERATIONS = {"casting": comfy.ops.manual_cast, "plain": comfy.ops.disable_weight_init}
CASES = ("plain", "masked", "modulated")
PARTS_IMG, PARTS_TXT = (
    [(0, 3, 0), (3, None, 1)],
    [(0, None, 1)],
)  # first tokens by the first vec, the rest by the second
SITES = [("double", DOUBLE_BLOCKS.sites), ("double", ("img_attn", "txt_attn")), ("double", ("img_mlp",))] + [
    ("single", sites) for sites in (("attn", "all"), ("attn",), ("all",))
]
MODULATION = {
    "double": {f"{stream}_{name}" for stream in ("img", "txt") for name in ("mod", "mod.lin", "norm1", "norm2")},
    "single": {"modulation", "modulation.lin", "pre_norm", "mlp_act"},  # the activation of a stub
}

pytestmark = pytest.mark.usefixtures("one_thread", "_inference")


@pytest.fixture
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def draw(*shape: int, seed: int = 1, scale: float = 1.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def block_of(name: str, operations: str = "casting") -> nn.Module:
    """A small block of ComfyUI's with random weights, the same at each call."""
    settings = {"operations": OPERATIONS[operations], "dtype": torch.float32, "device": "cpu"}
    if name == "double":
        block = DoubleStreamBlock(WIDTH, HEADS, 4.0, qkv_bias=True, **settings)
    else:
        block = SingleStreamBlock(WIDTH, HEADS, 4.0, **settings)
    with torch.no_grad():
        for seed, parameter in enumerate(block.parameters()):
            parameter.copy_(draw(*parameter.shape, seed=seed, scale=0.1))
    return block


def arguments(name: str, case: str = "plain", seed: int = 1, time: int = 2, **options) -> dict:
    """What ComfyUI gives a handler; fresh tensors, as blocks write to them."""
    ids = torch.arange(TOKENS, dtype=torch.float32).view(1, -1, 1)
    mask = torch.zeros(1, 1, TOKENS, TOKENS).index_fill_(-1, torch.tensor([TEXT - 1]), -1e4)
    modulated = case == "modulated"
    args = {
        "img": draw(BATCH, IMAGE if name == "double" else TOKENS, WIDTH, seed=seed),
        "vec": draw(BATCH, *([2] if modulated else []), WIDTH, seed=time),
        "pe": EmbedND(WIDTH // HEADS, 256, [WIDTH // HEADS])(ids),
        "attention_mask": mask if case == "masked" else None,
        "transformer_options": options,
    }
    if name == "single":
        return args | {"modulation_dims": PARTS_IMG if modulated else None}
    parts = {"modulation_dims_img": PARTS_IMG, "modulation_dims_txt": PARTS_TXT}
    return args | {"txt": draw(BATCH, TEXT, WIDTH, seed=seed + 7)} | (parts if modulated else dict.fromkeys(parts))


def ran(kind: BlockKind, block, args: dict) -> Tensor:
    """All tokens that come out."""
    return torch.cat(list(kind.run(block, args).values()), dim=1)


def watched(name: str, block, args: dict, sites=None, **settings) -> tuple[Tensor, dict]:
    """What a recording gives, and for each site what went in and what came out."""
    seen = {}

    def saw(site: str, given: Tensor | None, made: Tensor) -> None:
        seen[site] = SimpleNamespace(given=None if given is None else given.clone(), made=made.clone())

    kind = KINDS[name]
    return ran(kind, recording(block, kind, sites or kind.sites, saw, **settings), args), seen


class Kept:
    """Answers with what is kept; picked tokens are made anew."""

    def __init__(self, made: Tensor, picked: Tensor | None = None, reads: bool = True):
        self.made, self.picked, self.reads = made, picked, reads

    def picks(self, tokens: int) -> Tensor | None:
        assert tokens == self.made.shape[1]
        return self.picked

    def __call__(self, given: Tensor, compute) -> Tensor:
        assert given.shape == (self.made if self.reads else self.made[:, :1]).shape
        if self.picked is None:
            return self.made
        return self.made.index_copy(1, self.picked, compute(self.picked))


def kept(seen: dict, sites, picked: Tensor | None = None) -> dict[str, Kept]:
    """An answer for each of the sites; attention never picks."""
    return {site: Kept(seen[site].made, None if site.endswith("attn") else picked) for site in sites}


def called(block: nn.Module) -> list[str]:
    """Filled with the names of the block's modules as they run."""
    names = []
    for name, module in block.named_modules():
        if name:
            module.register_forward_hook(lambda *_, name=name: names.append(name))
    return names


# Recordings


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("operations", OPERATIONS)
@pytest.mark.parametrize(("name", "sites"), SITES)
def test_a_recording_gives_the_blocks_bits(name, sites, operations, case):
    block = block_of(name, operations)
    result, seen = watched(name, block, arguments(name, case), sites)
    assert torch.equal(result, ran(KINDS[name], block, arguments(name, case)))
    assert set(seen) == set(sites)


@pytest.mark.parametrize("name", KINDS)
def test_neither_recording_nor_answering_changes_the_block(name):
    block = block_of(name)
    before = {path: dict(vars(module)) for path, module in block.named_modules()}
    children = {path: dict(module._modules) for path, module in block.named_modules()}
    _, seen = watched(name, block, arguments(name))
    ran(KINDS[name], answering(block, KINDS[name], kept(seen, seen)), arguments(name))
    assert {path: vars(module) for path, module in block.named_modules()} == before
    assert {path: module._modules for path, module in block.named_modules()} == children


@pytest.mark.parametrize("name", KINDS)
def test_a_recording_sees_what_goes_into_and_comes_out_of_the_real_modules(name):
    block, found = block_of(name), {}
    for path, module in block.named_modules():
        module.register_forward_hook(
            lambda _, given, made, path=path: found.update({path: SimpleNamespace(given=given[0], made=made)})
        )
    _, seen = watched(name, block, arguments(name))
    if name == "double":
        expected = {f"{stream}_mlp": found[f"{stream}_mlp"] for stream in ("img", "txt")}
        for site in ("img_attn", "txt_attn"):
            expected[site] = SimpleNamespace(given=found[f"{site}.qkv"].given, made=found[f"{site}.proj"].made)
    else:
        went_in, joined = found["linear1"].given, found["linear2"]
        expected = {
            "attn": SimpleNamespace(given=went_in, made=joined.given[..., :WIDTH]),
            "all": SimpleNamespace(given=went_in, made=joined.made),
        }
    for site, at in expected.items():
        assert torch.equal(seen[site].given, at.given) and torch.equal(seen[site].made, at.made), site


@pytest.mark.parametrize("name", KINDS)
def test_a_recording_without_given_sees_only_what_comes_out(name):
    block = block_of(name)
    result, seen = watched(name, block, arguments(name), given=False)
    _, both = watched(name, block, arguments(name))
    assert torch.equal(result, ran(KINDS[name], block, arguments(name)))
    for site, at in seen.items():
        assert at.given is None and torch.equal(at.made, both[site].made)


def test_the_attention_that_is_seen_holds_no_more_memory_than_its_own():
    sizes = []
    saw = lambda site, given, made: sizes.append(made.untyped_storage().nbytes() - made.nbytes)  # noqa: E731
    ran(SINGLE_BLOCKS, recording(block_of("single"), SINGLE_BLOCKS, ["attn"], saw), arguments("single"))
    assert sizes == [0]


# Answers


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("operations", OPERATIONS)
@pytest.mark.parametrize(("name", "sites"), SITES)
def test_what_was_recorded_answers_with_the_blocks_output(name, sites, operations, case):
    block = block_of(name, operations)
    expected, seen = watched(name, block, arguments(name, case))
    result = ran(KINDS[name], answering(block, KINDS[name], kept(seen, sites)), arguments(name, case))
    assert relative_error(result, expected) < 1e-6


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("name", "sites"), SITES)
def test_what_goes_in_where_nobody_reads_it_is_made_for_one_token(name, sites, case):
    block = block_of(name)
    _, seen = watched(name, block, arguments(name, case))
    expected = ran(KINDS[name], answering(block, KINDS[name], kept(seen, sites)), arguments(name, case))
    unread = {site: Kept(seen[site].made, reads=site == "attn") for site in sites}  # the MLP beside `attn` reads it
    lengths = defaultdict(list)
    for module in norms(block):
        module.register_forward_hook(lambda module, given, _: lengths[module].append(given[0].shape[1]))
    result = ran(KINDS[name], answering(block, KINDS[name], unread), arguments(name, case))
    assert torch.equal(result, expected)
    assert sum(length == [1] for length in lengths.values()) == len(set(sites) - {"attn"})


def norms(block: nn.Module) -> list[nn.Module]:
    """What all sites of the block are given comes from these."""
    return [module for name, module in block.named_children() if "norm" in name and name != "norm"]


def by_part(gate: Tensor, parts: list | None, tokens: int) -> Tensor:
    """A gate for each token."""
    if parts is None:
        return gate.expand(-1, tokens, -1)
    return torch.cat([gate[:, i : i + 1].expand(-1, len(range(tokens)[a:b]), -1) for a, b, i in parts], dim=1)


@pytest.mark.parametrize("case", CASES)
def test_a_double_block_adds_what_is_kept_by_the_gates_of_now(case):
    block = block_of("double")
    _, seen = watched("double", block, arguments("double", case))
    now = arguments("double", case, seed=3, time=4)
    expected = []
    for stream in ("img", "txt"):
        attention, mlp = getattr(block, f"{stream}_mod")(now["vec"])
        x, parts = now[stream], now[f"modulation_dims_{stream}"]
        x = x + by_part(attention.gate, parts, x.shape[1]) * seen[f"{stream}_attn"].made
        expected.append(x + by_part(mlp.gate, parts, x.shape[1]) * seen[f"{stream}_mlp"].made)
    result = ran(DOUBLE_BLOCKS, answering(block, DOUBLE_BLOCKS, kept(seen, seen)), now)
    assert relative_error(result, torch.cat(expected, dim=1)) < 1e-6


@pytest.mark.parametrize("case", CASES)
def test_a_single_block_adds_what_is_kept_by_the_gate_of_now(case):
    block = block_of("single")
    _, seen = watched("single", block, arguments("single", case))
    now = arguments("single", case, seed=3, time=4)
    gate = by_part(block.modulation(now["vec"])[0].gate, now["modulation_dims"], TOKENS)
    expected = now["img"] + gate * seen["all"].made
    result = ran(SINGLE_BLOCKS, answering(block, SINGLE_BLOCKS, kept(seen, ["all"])), now)
    assert relative_error(result, expected) < 1e-6


def after_attention(block: nn.Module, args: dict, attention: Tensor) -> Tensor:
    """What linear2 makes in a single block with that attention."""
    shift_scale = block.modulation(args["vec"])[0]
    x = block.pre_norm(args["img"])
    x = x * by_part(1 + shift_scale.scale, args["modulation_dims"], TOKENS)
    x = x + by_part(shift_scale.shift, args["modulation_dims"], TOKENS)
    mlp = nn.functional.gelu(block.linear1(x)[..., 3 * WIDTH :], approximate="tanh")
    return block.linear2(torch.cat((attention, mlp), dim=-1))


@pytest.mark.parametrize("case", CASES)
def test_with_attention_kept_the_mlp_of_a_single_block_is_that_of_now(case):
    block = block_of("single")
    _, seen = watched("single", block, arguments("single", case))
    now = arguments("single", case, seed=3, time=4)
    gate = by_part(block.modulation(now["vec"])[0].gate, now["modulation_dims"], TOKENS)
    expected = now["img"] + gate * after_attention(block, now, seen["attn"].made)
    result = ran(SINGLE_BLOCKS, answering(block, SINGLE_BLOCKS, kept(seen, ["attn"])), now)
    assert relative_error(result, expected) < 1e-6


@pytest.mark.parametrize("sites", [("img_mlp", "txt_mlp"), ("img_mlp",), ()])
def test_what_is_not_answered_runs(sites):
    block = block_of("double")
    _, seen = watched("double", block, arguments("double", "masked"))
    now = arguments("double", "masked", seed=3, time=4)
    fresh, _ = watched("double", block, arguments("double", "masked", seed=3, time=4))
    result = ran(DOUBLE_BLOCKS, answering(block, DOUBLE_BLOCKS, kept(seen, sites)), now)
    changed = (result != fresh).any(dim=(0, 2))
    assert changed[:IMAGE].all() == ("img_mlp" in sites) and changed[IMAGE:].all() == ("txt_mlp" in sites)


@pytest.mark.parametrize("name", KINDS)
def test_no_answer_at_all_is_the_block(name):
    block = block_of(name)
    expected = ran(KINDS[name], block, arguments(name, "masked"))
    assert torch.equal(ran(KINDS[name], answering(block, KINDS[name], {}), arguments(name, "masked")), expected)


@pytest.mark.parametrize("name", KINDS)
def test_what_is_answered_is_not_written_to(name):
    block = block_of(name)
    _, seen = watched(name, block, arguments(name, "modulated"))
    answers = kept(seen, seen)
    before = {site: answer.made.clone() for site, answer in answers.items()}
    ran(KINDS[name], answering(block, KINDS[name], answers), arguments(name, "modulated"))
    assert all(torch.equal(answer.made, before[site]) for site, answer in answers.items())


@pytest.mark.parametrize("name", KINDS)
def test_halves_beyond_their_range_are_clamped_as_ever(name):
    block, args = block_of(name).half(), arguments(name)
    halves = {key: value.half() if isinstance(value, Tensor) and key != "pe" else value for key, value in args.items()}
    _, seen = watched(name, block, {key: v.clone() if isinstance(v, Tensor) else v for key, v in halves.items()})
    answers = {site: Kept(torch.full_like(at.made, 6e4)) for site, at in seen.items()}
    halves |= {stream: torch.full_like(halves[stream], 6e4) for stream in KINDS[name].streams}
    halves["vec"] *= 50
    out = KINDS[name].run(answering(block, KINDS[name], answers), halves)[KINDS[name].streams[-1]]
    assert torch.isfinite(out).all() and out.abs().max() == 65504


# What runs


@pytest.mark.parametrize(("name", "sites"), SITES)
def test_nothing_runs_that_only_an_answered_site_needs(name, sites):
    block = block_of(name)
    _, seen = watched(name, block, arguments(name))
    every, attended = {path for path, _ in block.named_modules() if path}, []

    def other(
        attend, *args, **options
    ):  # another node's override, which has to be in the way of the real attention only
        attended.append(1)
        return attend(*args, **options)

    names, patched = called(block), []
    patches = {"attn1_output_patch": [lambda attn, _: patched.append(1) or attn]}
    options = {OVERRIDE: other, "patches": patches}
    ran(KINDS[name], answering(block, KINDS[name], kept(seen, sites)), arguments(name, **options))
    idle = {
        DOUBLE_BLOCKS.sites: every - MODULATION["double"],
        ("img_attn", "txt_attn"): {path for path in every if "_attn" in path},
        ("img_mlp",): {path for path in every if path.startswith("img_mlp")},
        ("attn", "all"): every - MODULATION["single"],
        ("all",): every - MODULATION["single"],
        ("attn",): {path for path in every if path.startswith("norm")},
    }[sites]
    assert set(names) == every - idle - {"img_attn", "txt_attn"}  # holders, which have no forward
    attention_runs = sites == ("img_mlp",)
    assert len(attended) == len(patched) == attention_runs
    assert len(names) == len(set(names))


def test_with_attention_kept_a_single_block_costs_its_mlp_and_a_row_of_q_k_v_for_each_head():
    block = block_of("single")
    _, seen = watched("single", block, arguments("single"))
    with FlopCounterMode(display=False) as counter:
        ran(SINGLE_BLOCKS, answering(block, SINGLE_BLOCKS, kept(seen, ["attn"])), arguments("single"))
    tokens = BATCH * TOKENS * WIDTH * (3 * HEADS + 4 * WIDTH + 5 * WIDTH)
    assert counter.get_total_flops() == 2 * (tokens + BATCH * WIDTH * 3 * WIDTH)


def test_picked_tokens_cost_their_share_alone():
    block, picked = block_of("single"), torch.tensor([1, 5, 8])
    _, seen = watched("single", block, arguments("single"))
    with FlopCounterMode(display=False) as counter:
        ran(SINGLE_BLOCKS, answering(block, SINGLE_BLOCKS, kept(seen, seen, picked)), arguments("single"))
    tokens = BATCH * len(picked) * WIDTH * (3 * HEADS + 4 * WIDTH + 5 * WIDTH)
    assert counter.get_total_flops() == 2 * (tokens + BATCH * WIDTH * 3 * WIDTH)


# Rows of a layer


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("made_of", [nn.Linear, comfy.ops.manual_cast.Linear, comfy.ops.disable_weight_init.Linear])
def test_rows_of_a_layer_give_what_they_give_in_the_whole(made_of, bias):
    layer = made_of(WIDTH, 3 * WIDTH, bias=bias, dtype=torch.float32, device="cpu")
    for seed, parameter in enumerate(layer.parameters()):
        parameter.copy_(draw(*parameter.shape, seed=seed))
    x = draw(BATCH, TOKENS, WIDTH)
    assert has_plain_rows(layer)
    assert relative_error(rows_from(layer, WIDTH, x), layer(x)[..., WIDTH:]) < 1e-6


def test_rows_are_those_of_a_weight_that_is_cast():
    layer = comfy.ops.manual_cast.Linear(WIDTH, 3 * WIDTH, dtype=torch.bfloat16, device="cpu")
    for seed, parameter in enumerate(layer.parameters()):
        parameter.copy_(draw(*parameter.shape, seed=seed))
    x = draw(BATCH, TOKENS, WIDTH)
    assert relative_error(rows_from(layer, WIDTH, x), layer(x)[..., WIDTH:]) < 1e-6


def with_functions(block: nn.Module) -> None:
    """As a LoRA waits in a layer whose weight is not patched beforehand."""
    block.linear1.weight_function = [lambda weight: weight + 0.1 * weight.flip(0)]
    block.linear1.bias_function = [lambda bias: bias * 2]


def with_a_hook(block: nn.Module) -> None:
    block.linear1.register_forward_hook(lambda _, given, made: made * 1.5)


def with_another_forward(block: nn.Module) -> None:
    inner = block.linear1.forward
    block.linear1.forward = lambda x: inner(x) * 1.5


class Doubling(comfy.ops.manual_cast.Linear):
    """A layer that computes in a way of its own, as those of quantised weights do."""

    def forward(self, x: Tensor) -> Tensor:
        """Twice the product."""
        return super().forward(x) * 2


def of_another_class(block: nn.Module) -> None:
    block.linear1.__class__ = Doubling


@pytest.mark.parametrize("change", [with_functions, with_a_hook, with_another_forward, of_another_class])
@pytest.mark.parametrize("operations", OPERATIONS)
def test_a_layer_that_is_more_than_its_weight_gives_the_same(operations, change):
    block = block_of("single", operations)
    change(block)
    expected, seen = watched("single", block, arguments("single"))
    result = ran(SINGLE_BLOCKS, answering(block, SINGLE_BLOCKS, kept(seen, ["attn"])), arguments("single"))
    picked = answering(block, SINGLE_BLOCKS, kept(seen, seen, torch.arange(TOKENS)))
    assert relative_error(result, expected) < 1e-6
    assert relative_error(ran(SINGLE_BLOCKS, picked, arguments("single")), expected) < 1e-6
    assert runs_spare_rows(block, SINGLE_BLOCKS, ["attn"]) == (change is not with_functions)


def test_only_kept_attention_of_a_single_block_can_run_rows_in_vain():
    block = block_of("single")
    with_a_hook(block)
    assert not runs_spare_rows(block, SINGLE_BLOCKS, ["all"])
    assert not runs_spare_rows(block_of("double"), DOUBLE_BLOCKS, ["img_attn", "txt_attn"])


# Picked tokens


@pytest.mark.parametrize("case", CASES)
def test_with_all_tokens_picked_the_mlps_of_a_double_block_are_exact(case):
    block = block_of("double")
    _, seen = watched("double", block, arguments("double", case))
    fresh, _ = watched("double", block, arguments("double", case, seed=3, time=4))
    answers = kept(seen, ["img_mlp"], torch.arange(IMAGE)) | kept(seen, ["txt_mlp"], torch.arange(TEXT))
    now = arguments("double", case, seed=3, time=4)
    assert relative_error(ran(DOUBLE_BLOCKS, answering(block, DOUBLE_BLOCKS, answers), now), fresh) < 1e-6


@pytest.mark.parametrize("case", CASES)
def test_with_all_tokens_picked_a_single_block_is_exact_but_for_its_attention(case):
    block = block_of("single")
    _, seen = watched("single", block, arguments("single", case))
    results = [
        ran(SINGLE_BLOCKS, answering(block, SINGLE_BLOCKS, answers), arguments("single", case, seed=3, time=4))
        for answers in (kept(seen, seen, torch.arange(TOKENS)), kept(seen, ["attn"]))
    ]
    assert relative_error(*results) < 1e-6


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(("name", "site", "picked"), [("double", "img_mlp", [2, 6]), ("single", "all", [0, 4, 11])])
def test_only_picked_tokens_are_made_anew(name, site, picked, case):
    block, kind, some = block_of(name), KINDS[name], torch.tensor(picked)
    _, seen = watched(name, block, arguments(name, case))
    fewest = ["attn", "all"] if name == "single" else [site]
    tokens = torch.arange(seen[site].made.shape[1])
    none, part, every = (
        kind.run(answering(block, kind, kept(seen, fewest, index)), arguments(name, case, seed=3, time=4))["img"]
        for index in (None, some, tokens)
    )
    rest = torch.tensor([token for token in tokens.tolist() if token not in picked])
    assert torch.equal(part[:, rest], none[:, rest])
    assert relative_error(part[:, some], every[:, some]) < 1e-6
    assert relative_error(part[:, some], none[:, some]) > 1e-3


@pytest.mark.parametrize("name", KINDS)
def test_each_row_of_a_batch_is_answered_as_it_would_be_alone(name):
    block, kind = block_of(name), KINDS[name]
    _, seen = watched(name, block, arguments(name))
    answers = kept(seen, seen, torch.tensor([1, 3]))
    both = ran(kind, answering(block, kind, answers), arguments(name, seed=3))
    for row in range(BATCH):
        one = {site: Kept(answer.made[row : row + 1], answer.picked) for site, answer in answers.items()}
        args = arguments(name, seed=3)
        args |= {key: args[key][row : row + 1] for key in (*kind.streams, "vec")}
        assert relative_error(ran(kind, answering(block, kind, one), args), both[row : row + 1]) < 1e-6


# Around a block


@pytest.mark.parametrize("name", KINDS)
def test_a_compiled_block_is_watched_and_answered(name):
    block, kind = block_of(name), KINDS[name]
    compiled = torch.compile(block, backend="eager")
    expected = ran(kind, block, arguments(name))
    result, seen = watched(name, compiled, arguments(name))
    assert torch.equal(result, expected) and set(seen) == set(kind.sites)
    names = called(block)
    answered = ran(kind, answering(compiled, kind, kept(seen, kind.sites)), arguments(name))
    assert relative_error(answered, expected) < 1e-6 and set(names) == MODULATION[name]


@pytest.mark.parametrize("name", KINDS)
def test_a_block_that_is_compiled_in_place_is_watched(name):
    block = block_of(name)
    block.compile(backend="eager")
    _, seen = watched(name, block, arguments(name))
    assert set(seen) == set(KINDS[name].sites)


@pytest.mark.parametrize("name", KINDS)
def test_another_nodes_attention_runs_in_a_recording(name):
    block, attended = block_of(name), []

    def other(attend, *args, **options) -> Tensor:
        attended.append(1)
        return attend(*args, **options) * 2

    options = {OVERRIDE: other}
    result, _ = watched(name, block, arguments(name, **options))
    assert attended == [1] and torch.equal(result, ran(KINDS[name], block, arguments(name, **options)))


@pytest.mark.parametrize("name", KINDS)
def test_the_options_of_the_other_blocks_stay_as_they_are(name):
    block = block_of(name)
    _, seen = watched(name, block, arguments(name))
    args = arguments(name, patches={"attn1_patch": []})
    ran(KINDS[name], answering(block, KINDS[name], kept(seen, seen)), args)
    assert args["transformer_options"] == {"patches": {"attn1_patch": []}}


@pytest.mark.parametrize("name", KINDS)
def test_nothing_that_was_seen_or_answered_outlives_the_call(name):
    block, kind, seen = block_of(name), KINDS[name], []
    _, made = watched(name, block, arguments(name))

    class Counted(Kept):
        def __call__(self, given, compute):
            answer = super().__call__(given, compute).clone()
            seen.extend(map(weakref.ref, (given, answer)))
            return answer

    def saw(site, given, made):
        seen.extend(map(weakref.ref, (given, made)))

    stand_ins = [recording(block, kind, kind.sites, saw)]
    for picked in (None, torch.tensor([1, 2])):
        answers = kept(made, kind.sites, picked)
        stand_ins.append(answering(block, kind, {site: Counted(a.made, a.picked) for site, a in answers.items()}))
    gc.disable()  # what hangs in a circle would wait for it
    try:
        for stand_in in stand_ins:
            ran(kind, stand_in, arguments(name, "masked"))
        assert len(seen) >= 10 - 4 * (name == "single") and not any(tensor() is not None for tensor in seen)
    finally:
        gc.enable()


def test_what_went_into_an_attention_is_gone_when_the_mlp_runs():
    went_in, alive = [], []

    def saw(site, given, made):
        alive.append([tensor() is not None for tensor in went_in])
        if site.endswith("attn"):
            went_in.append(weakref.ref(given))

    ran(DOUBLE_BLOCKS, recording(block_of("double"), DOUBLE_BLOCKS, DOUBLE_BLOCKS.sites, saw), arguments("double"))
    assert alive == [[], [False], [False], [False, False]]


def test_a_forward_that_was_put_into_a_block_has_no_sites():
    block = block_of("single")
    assert has_sites(block, SINGLE_BLOCKS) and has_sites(torch.compile(block, backend="eager"), SINGLE_BLOCKS)
    assert not has_sites(block, DOUBLE_BLOCKS)
    block.forward = lambda *args, **options: args[0]
    assert not has_sites(block, SINGLE_BLOCKS)


# What is refused


def test_half_an_attention_is_refused():
    with pytest.raises(ValueError, match="half of an attention.* Answer 'img_attn', 'txt_attn', or neither"):
        answering(block_of("double"), DOUBLE_BLOCKS, {"img_attn": None, "img_mlp": None})


@pytest.mark.parametrize(
    "made", [lambda *args: recording(*args, saw=None), lambda *args: answering(*args[:2], {"x": 0})]
)
def test_a_site_that_a_block_has_not_is_refused(made):
    with pytest.raises(ValueError, match="A 'single_block' has 'attn', 'all', not 'x'. Leave out"):
        made(block_of("single"), SINGLE_BLOCKS, ["x"])


def test_a_kind_of_blocks_without_sites_has_none():
    wan = BlockKind("double_block", "blocks", ("img",), {}, lambda: nn.Module, "depth", BlockSize(1, 1, 1))
    assert wan.sites == ()
    with pytest.raises(ValueError, match="has no sites, not 'attn'"):
        recording(nn.Module(), wan, ["attn"], saw=None)


def test_picked_tokens_without_an_attention_for_them_are_refused():
    block = block_of("single")
    _, seen = watched("single", block, arguments("single"))
    answers = kept(seen, ["all"], torch.tensor([1]))
    with pytest.raises(ValueError, match="'all' picks tokens, but 'attn' gives no attention for them"):
        ran(SINGLE_BLOCKS, answering(block, SINGLE_BLOCKS, answers), arguments("single"))
