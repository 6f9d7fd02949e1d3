"""Text from outside stands in messages as one short line that every log can encode."""

from pathlib import Path, PureWindowsPath

import pytest
import torch

from disca.messages import cause, listing, quoted


@pytest.mark.parametrize(
    "value",
    ["\ud800", "a\nb\r\x1b[2J\u2028c", "x" * 10**6, Path("\udcff/x\ny"), ["\ud800"] * 10**5, {"k\ud800": [[["\n"]]]}],
)
def test_a_quoted_value_is_one_short_line_of_utf8(value):
    shown = quoted(value)
    shown.encode("utf-8")
    assert len(shown) < 2000 and shown.isprintable()


class Odd:
    def __init__(self, shown):
        self.shown = shown

    def __repr__(self):
        if self.shown is None:
            raise KeyError
        return self.shown


UNSAYABLE = {
    "a long number": 10**6000,
    "a repr that fails": Odd(None),
    "a repr that is no line": Odd("\ud800\nb"),
    "a tensor": torch.zeros(9, 9),
    "nested lists": [[[["x" * 999] * 9] * 9] * 9],
}


@pytest.mark.parametrize("kind", UNSAYABLE)
def test_a_value_whose_repr_is_no_line_is_quoted_as_one(kind):
    shown = quoted(UNSAYABLE[kind])
    shown.encode("utf-8")
    assert shown and "\n" not in shown and len(shown) < 2100 and shown.isprintable()


def test_ordinary_text_is_quoted_as_it_is():
    assert quoted("a video.mp4") == "'a video.mp4'"
    assert quoted(Path("a") / "b") == f"'{Path('a') / 'b'}'"
    assert quoted(1.5) == "1.5" and quoted(None) == "None"


@pytest.mark.parametrize("kind", [str, PureWindowsPath])
def test_a_windows_path_is_quoted_as_it_is_typed(kind):
    assert quoted(kind(r"C:\models\new\u.safetensors")) == r"'C:\models\new\u.safetensors'"
    assert quoted(kind(r"\\server\share\a b")).startswith(r"'\\server\share\a b")


def test_a_backslash_is_doubled_beside_one_that_escapes():
    assert quoted("C:\\new\n") == repr("C:\\new\n")


def test_long_text_keeps_both_ends():
    shown = quoted("start" + "x" * 1000 + "end.mp4")
    assert shown.startswith("'start") and shown.endswith("end.mp4'") and "..." in shown


def test_a_list_says_how_many_more_there_are():
    assert listing(["a", "b", "c"], 2) == "'a', 'b' and 1 more" and listing([1]) == "1"
    listing(["\ud800"] * 9).encode("utf-8")


def test_what_an_error_says_is_text_and_not_endless():
    said = cause(ValueError("no \ud800\x1b[2J\nnext" + "x" * 10**6))
    said.encode("utf-8")
    assert said.startswith("no \\ud800\\x1b[2J\nnext") and len(said) < 2100
