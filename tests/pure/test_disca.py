"""DisCa's method: what its Predictor is given, and when a run is told that one of two features goes by one."""

import pytest
import torch

from disca.methods.scheduled.disca import Learned, disca
from disca.methods.seam.anchors import AtAnchors
from disca.methods.seam.method import Span
from disca.models.predictor import DoubleStreamPredictor, SingleStreamPredictor
from disca.schedule import Anchors

WIDTH = 4
FEATURES = [torch.full((2, 3, WIDTH), float(step)) for step in range(4)]


def noting(*args, **given):
    """A Predictor that answers with what it is given."""
    return args, given


def kept(what: Learned, count: int) -> list[torch.Tensor]:
    """What is held after so many full steps."""
    held = []
    for features in FEATURES[:count]:
        held = list(what.keep((), [features], held, []))
    return held


def test_a_predictor_of_one_feature_is_given_the_last_ones_and_no_ages():
    args, given = Learned().answer([FEATURES[3]], kept(Learned(), 3), [Span(1, 0.1)], noting, {"arguments": {"pe": 1}})
    assert args[0] is FEATURES[3] and args[1] is FEATURES[2] and len(args) == 2
    assert given == {"pe": 1}


def test_a_predictor_of_two_features_is_given_both_and_how_far_in_sigma_they_are():
    ages = [Span(1, torch.tensor([0.1, 0.2])), Span(3, torch.tensor([0.25, 0.6]))]
    context = {"arguments": {"pe": 1}, "t": torch.tensor([0.5, 0.3])}
    args, given = Learned(2).answer([FEATURES[3]], kept(Learned(2), 3), ages, noting, context)
    assert args[1] is FEATURES[2] and given["before"] == [FEATURES[1]]
    torch.testing.assert_close(given["times"], torch.tensor([[0.5, 0.1, 0.15], [0.3, 0.2, 0.4]]))


def test_after_one_full_step_there_is_no_feature_before_and_no_distance():
    _, given = Learned(2).answer(
        [FEATURES[3]], kept(Learned(2), 1), [Span(1, 0.1)], noting, {"arguments": {}, "t": 0.9}
    )
    assert given["before"] == []
    torch.testing.assert_close(given["times"], torch.tensor([[0.9, 0.1, 0.0]]).expand(2, -1))


@pytest.mark.parametrize(
    ("anchors", "alone"), [((0, 1, 4), None), ((0, 4), 1), ((0,), 1), (tuple(range(6)), None), ((0, 1), None)]
)
def test_a_run_is_told_where_a_predictor_of_two_features_goes_by_one(anchors, alone):
    rule, sigmas = AtAnchors(Anchors(anchors)), [1 - i / 6 for i in range(7)]
    notice = disca(rule, features=2).notice(sigmas, "1.0")
    assert (notice is None) == (alone is None)
    assert alone is None or f"before step {alone} only one step is full" in notice


def test_a_run_is_told_where_a_predictor_of_one_feature_goes_by_old_ones():
    sigmas = [1 - i / 6 for i in range(7)]
    assert disca(AtAnchors(Anchors((0, 2, 4)))).notice(sigmas, "1.0") is None
    notice = disca(AtAnchors(Anchors((0, 1)))).notice(sigmas, "1.0")
    assert notice.startswith("step 5 predicts from features 0.67 older in sigma, predictors are trained for 0.2")


def still() -> SingleStreamPredictor:
    """A Predictor of two features without blocks whose every weight is 0: it damps as told by its last bias."""
    predictor = SingleStreamPredictor(WIDTH, 0, None, torch.nn.Linear, residual=True, features=2)
    for weight in predictor.parameters():
        torch.nn.init.zeros_(weight)
    return predictor


@torch.no_grad()
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_share_of_the_last_change_that_goes_on_is_learnt_for_each_channel(share):
    predictor = still()
    predictor.ages.damping[0][-1].bias.copy_(torch.tensor([share, 0.0, share, 0.0]))
    x, last, before = torch.randn(3, 2, 3, WIDTH)
    found = predictor(x, last, vec=torch.zeros(2, WIDTH), pe=None, before=[before], times=torch.rand(2, 3))
    expected = last + torch.tensor([share, 0.0, share, 0.0]) * (last - before)
    torch.testing.assert_close(found, expected)


@torch.no_grad()
@pytest.mark.parametrize("before", [None, []])
def test_without_the_features_before_it_goes_by_the_last_ones(before):
    predictor = still()
    predictor.ages.damping[0][-1].bias.fill_(1.0)
    x, last = torch.randn(2, 2, 3, WIDTH)
    assert torch.equal(
        predictor(x, last, vec=torch.zeros(2, WIDTH), pe=None, before=before, times=torch.rand(2, 3)), last
    )


class Noting(torch.nn.Module):
    """A block that gives its tokens back and notes the vector."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, *tokens, vec, pe):
        self.seen.append(vec)
        return tokens if len(tokens) > 1 else tokens[0]


@torch.no_grad()
@pytest.mark.parametrize("parts", [(), (2,)], ids=["one vector", "a vector for each part of the video"])
def test_blocks_are_told_the_ages_and_equal_ages_tell_the_same(parts):
    predictor = DoubleStreamPredictor(WIDTH, 1, Noting, torch.nn.Linear, residual=True, features=2)
    img, txt, c_img, c_txt, b_img, b_txt = torch.randn(6, 2, 3, WIDTH)
    vec = torch.zeros(2, *parts, WIDTH)
    for times in (torch.tensor([[0.5, 0.1, 0.1], [0.5, 0.1, 0.1]]), torch.tensor([[0.5, 0.1, 0.1], [0.5, 0.1, 0.3]])):
        predictor(img, txt, c_img, c_txt, vec=vec, pe=None, before=[b_img, b_txt], times=times)
    same, other = predictor.blocks[0].seen
    assert same.shape == vec.shape and torch.equal(same[0], same[1]) and same.any()
    assert torch.equal(other[0], same[0]) and not torch.allclose(other[1], other[0])
