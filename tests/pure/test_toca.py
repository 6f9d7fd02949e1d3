"""ToCa and DuCa: some tokens go through the module, the others keep what they had."""

import pytest
import torch

from disca.methods import METHODS
from disca.methods.scheduled.toca import Tokens
from disca.methods.seam.method import ATTENTION, FIRST, SITES
from disca.methods.seam.whats import Reuse

KEPT = torch.arange(24.0).view(2, 6, 2)
NOW = -KEPT - 1


def place(step: int = 1, block: int = 0, blocks: int = 3) -> dict:
    return {"step": step, "block": block, "blocks": blocks, "site": "img_mlp"}


def answer(what: Tokens, context: dict):
    asked = []
    (made,) = what.answer((KEPT,), [KEPT], [], lambda index: asked.append(index) or NOW[:, index], context)
    return made, asked


def test_at_ratio_0_no_module_runs_and_the_answer_is_what_is_kept():
    made, asked = answer(Tokens(0.0), place())
    assert Tokens(0.0).picks(6, place()) is None and asked == [] and made is KEPT


def test_at_ratio_1_every_token_is_the_modules_own():
    made, _ = answer(Tokens(1.0, slope=0.0), place())
    assert torch.equal(made, NOW)


def test_only_the_tokens_that_were_picked_change():
    what, before = Tokens(0.5, slope=0.0), KEPT.clone()
    made, (index,) = answer(what, place())
    others = [token for token in range(6) if token not in index]
    assert len(index) == 3
    assert torch.equal(made[:, index], NOW[:, index]) and torch.equal(made[:, others], KEPT[:, others])
    assert torch.equal(KEPT, before)


def test_what_was_made_takes_the_place_of_what_was_kept():
    what = Tokens(0.5)
    assert what.renews and what.renewed([NOW], [KEPT])[0] is NOW


def test_at_least_one_token_is_picked():
    assert len(Tokens(0.001).picks(6, place())) == 1
    assert len(Tokens(0.5, slope=1.0).picks(6, place(block=2))) == 1  # whose share is 0
    assert len(Tokens(0.5).picks(1, place())) == 1


def test_the_first_block_takes_most_tokens_and_the_mean_is_the_ratio():
    counts = [len(Tokens(0.1, slope=0.5).picks(1000, place(block=block, blocks=5))) for block in range(5)]
    assert counts == [150, 125, 100, 75, 50]
    assert [len(Tokens(0.1, slope=0.0).picks(1000, place(block=block))) for block in range(3)] == [100] * 3
    assert len(Tokens(1.0).picks(10, place())) == 10  # one and a half of them
    assert len(Tokens(0.2).picks(10, place(blocks=1))) == 3


def test_tokens_are_drawn_anew_for_each_step_block_and_seed_and_alike_every_time():
    def drawn(seed=0, **where):
        return tuple(Tokens(0.1, 0.0, seed).picks(200, place(**where)).tolist())

    assert drawn() == drawn() == tuple(sorted({*drawn()}))
    assert len({drawn(), drawn(step=2), drawn(block=1), drawn(seed=1), drawn(step=0, block=1)}) == 5


def test_every_token_is_picked_in_time():
    picked = {token for step in range(100) for token in Tokens(0.1, 0.0).picks(50, place(step)).tolist()}
    assert picked == {*range(50)}


def test_the_answer_has_the_type_of_what_is_kept():
    (made,) = Tokens(0.5).answer((KEPT,), [KEPT.bfloat16()], [], lambda index: NOW[:, index], place())
    assert made.dtype == torch.bfloat16


@pytest.mark.parametrize("name", ["ToCa", "DuCa"])
def test_attention_is_reused_and_mlps_run_for_some_tokens(name):
    way, *others = METHODS[name](ratio=0.3, slope=0.2).ways()
    assert way.where == SITES
    assert all(isinstance(way.at(site), Reuse) for site in ATTENTION)
    assert all(way.at(site) == Tokens(0.3, 0.2) for site in ("img_mlp", "txt_mlp", "all"))
    assert [(type(other.what), other.where) for other in others] == [(Reuse, FIRST)] * (name == "DuCa")
