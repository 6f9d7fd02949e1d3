"""A user's folder as it is: what is a clip is found with its caption, what is none is named and left."""

import os

import pytest
from PIL import Image

from disca.training.data import folder
from disca.training.data.account import NAMED, Account, UnusableError
from disca.training.data.folder import CAPTION_BYTES, find_clips

NFC, NFD = "caf\u00e9", "cafe\u0301"


def put(folder, *names: str, caption: str | None = None) -> None:
    """Files of these names, which need not be what they are named, and their captions."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"content")
        if caption is not None:
            path.with_suffix(".txt").write_text(caption, encoding="utf-8")


def link(path, target) -> None:
    try:
        path.symlink_to(target)
    except OSError:
        pytest.skip("no symbolic links here")


def found(folder) -> tuple[list[str], Account]:
    account = Account()
    return [clip.name for clip in find_clips(str(folder), account)], account


def test_a_folder_without_clips_is_refused(tmp_path):
    with pytest.raises(ValueError, match="There is no folder"):
        find_clips(str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match="holds no videos or pictures"):
        find_clips(str(tmp_path))
    put(tmp_path, "more/a.mp4")
    with pytest.raises(ValueError, match="No video in .* can be used.\n.*no caption .1.: 'more/a.mp4' .*'more/a.txt'"):
        find_clips(str(tmp_path))


def test_what_systems_and_programs_put_into_folders_is_passed_over_and_named(tmp_path):
    put(tmp_path, "a.mp4", "more/b.PNG", caption="words")
    put(tmp_path, "._a.mp4", ".DS_Store", "Thumbs.db", ".hidden/c.mp4", ".ipynb_checkpoints/a.png")
    put(tmp_path, "@eaDir/a.mp4/SYNOVIDEO_VIDEO_SCREENSHOT.jpg", "__MACOSX/._a.mp4", "more/._b.PNG")
    names, account = found(tmp_path)
    assert names == ["a.mp4", "more/b.PNG"]
    (kind,) = account.passed_over
    assert kind == "hidden or made by other programs"
    assert set(account.passed_over[kind]) == {
        "'._a.mp4'", "'.DS_Store'", "'Thumbs.db'", "'.hidden'", "'.ipynb_checkpoints'", "'@eaDir'", "'__MACOSX'",
        "'more/._b.PNG'",
    }  # fmt: skip


def test_a_folder_that_is_hidden_itself_is_read(tmp_path):
    put(tmp_path / ".clips", "a.mp4", caption="words")
    assert found(tmp_path / ".clips")[0] == ["a.mp4"]


def test_other_files_and_captions_without_a_video_are_named(tmp_path):
    put(tmp_path, "a.mp4", caption="words")
    others = ["b.wmv", "c.heic", *(f"more{number}.doc" for number in range(10)), "noend"]
    put(tmp_path, *others, "d.txt")
    account = found(tmp_path)[1]
    assert account.passed_over == {
        "captions without a video": ["'d.txt'"],
        "files of other kinds": [f"'{name}'" for name in others],
    }
    assert account.lines()[-1].endswith("(13): 'b.wmv', 'c.heic', 'more0.doc', 'more1.doc', 'more2.doc' and 8 more.")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (None, "has no caption"),
        (b"", "has an empty caption"),
        (b" \n\t", "has an empty caption"),
        (b"\xef\xbb\xbf", "has an empty caption"),
        (b"caf\xe9", "has a caption that is not UTF-8 text"),
        ("a cat".encode("utf-16"), "has a caption that is not UTF-8 text"),
        ("a cat".encode("utf-16-le"), "has a caption that is not UTF-8 text"),
        (b"\xed\xa0\x80", "has a caption that is not UTF-8 text"),  # a lone surrogate
        (b"x" * (CAPTION_BYTES + 1), "has too long a caption"),
        ("é".encode() * (CAPTION_BYTES // 2 + 1), "has too long a caption"),  # read to the middle of a letter
        (("x" + "🐈" * CAPTION_BYTES).encode(), "has too long a caption"),
        ("\u200b\u200d\ufeff \u2060\ufe0f".encode(), "has an empty caption"),  # nothing of it is seen
    ],
)
def test_a_clip_whose_caption_cannot_be_read_is_left_out_and_named(tmp_path, content, kind):
    put(tmp_path, "good.mp4", caption="words")
    put(tmp_path, "more/bad.mp4")
    if content is not None:
        (tmp_path / "more" / "bad.txt").write_bytes(content)
    names, account = found(tmp_path)
    assert names == ["good.mp4"]
    assert list(account.left_out) == [kind]
    assert account.left_out[kind][0].startswith("'more/bad.mp4'")


def test_a_caption_with_a_byte_order_mark_is_its_text(tmp_path):
    put(tmp_path, "a.mp4")
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfA cat.\r\n")
    assert find_clips(str(tmp_path))[0].caption == "A cat."


def test_names_in_either_unicode_form_are_the_same_name(tmp_path):
    put(tmp_path, f"{NFC}.mp4", f"b{NFD}.mp4", f"c{NFD}.png", f"c{NFC}.mp4")
    for name in (NFD, f"b{NFC}", f"c{NFD}"):
        (tmp_path / f"{name}.txt").write_text(name)
    names, account = found(tmp_path)
    assert names == sorted([f"{NFC}.mp4", f"b{NFD}.mp4", f"c{NFC}.mp4"])
    assert list(account.passed_over) == ["pictures beside a video of the same name"]


def test_endings_may_be_in_capitals(tmp_path):
    put(tmp_path, "A.MP4", "B.JpG")
    put(tmp_path, "A.TXT", "B.Txt")
    assert found(tmp_path)[0] == ["A.MP4", "B.JpG"]


def test_a_picture_beside_a_video_of_the_same_name_is_no_clip(tmp_path):
    put(tmp_path, "a.mp4", "b/a.png", caption="words")
    put(tmp_path, "a.png", "a.JPG", "a.gif")
    names, account = found(tmp_path)
    assert names == ["a.mp4", "b/a.png"]
    assert account.passed_over == {"pictures beside a video of the same name": ["'a.JPG'", "'a.gif'", "'a.png'"]}


def test_clips_that_share_a_name_are_both_taken_and_said(tmp_path):
    put(tmp_path, "a.mp4", "a.webm", "b.png", "b.jpg", "c.mp4", caption="words")
    names, account = found(tmp_path)
    assert names == ["a.mp4", "a.webm", "b.jpg", "b.png", "c.mp4"]
    assert account.changed == {"clips that share their name and caption": ["'a.mp4'", "'a.webm'", "'b.jpg'", "'b.png'"]}


def test_a_caption_that_is_a_link_out_of_the_folder_is_not_followed(tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    put(tmp_path / "clips", "a.mp4", "b.mp4", "c.mp4", "more/d.mp4")
    (tmp_path / "clips" / "words.txt").write_text("words")
    link(tmp_path / "clips" / "a.txt", tmp_path / "secret.txt")
    link(tmp_path / "clips" / "b.txt", "../secret.txt")
    link(tmp_path / "clips" / "c.txt", "words.txt")
    (tmp_path / "clips" / "more" / "step").symlink_to("../../secret.txt")
    link(tmp_path / "clips" / "more" / "d.txt", "step")
    account = Account()
    assert [clip.caption for clip in find_clips(str(tmp_path / "clips"), account)] == ["words"]
    left_out = account.left_out["has a caption that is a link out of the folder"]
    assert left_out == ["'a.mp4'", "'b.mp4'", "'more/d.mp4'"]


def test_a_caption_that_is_a_link_within_a_linked_folder_is_read(tmp_path):
    put(tmp_path / "elsewhere", "a.mp4", "deep/b.mp4")
    (tmp_path / "elsewhere" / "words.txt").write_text("words")
    (tmp_path / "clips").mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    put(tmp_path / "elsewhere", "c.mp4")
    link(tmp_path / "elsewhere" / "a.txt", "words.txt")
    link(tmp_path / "elsewhere" / "deep" / "b.txt", "../words.txt")
    link(tmp_path / "elsewhere" / "c.txt", tmp_path / "secret.txt")
    link(tmp_path / "clips" / "far", tmp_path / "elsewhere")
    account = Account()
    clips = find_clips(str(tmp_path / "clips"), account)
    assert {clip.name: clip.caption for clip in clips} == {"far/a.mp4": "words", "far/deep/b.mp4": "words"}
    assert account.left_out == {"has a caption that is a link out of the folder": ["'far/c.mp4'"]}


def test_a_linked_folder_is_entered_once_and_said(tmp_path):
    put(tmp_path / "elsewhere", "b.mp4", "deep/c.mp4", caption="words")
    put(tmp_path / "clips", "a.mp4", "own/d.mp4", caption="words")
    link(tmp_path / "clips" / "far", tmp_path / "elsewhere")
    link(tmp_path / "clips" / "again", tmp_path / "elsewhere")
    link(tmp_path / "clips" / "near", "own")
    link(tmp_path / "elsewhere" / "back", tmp_path / "clips")
    link(tmp_path / "clips" / "up", "..")
    link(tmp_path / "elsewhere" / "self", ".")
    names, account = found(tmp_path / "clips")
    assert sorted(name.rsplit("/", 1)[-1] for name in names) == ["a.mp4", "b.mp4", "c.mp4", "d.mp4"]
    (followed,) = account.changed["links out of the folder, followed"]
    assert "elsewhere" in followed
    told = [file for files in account.passed_over.values() for file in files]
    assert len(told) == 5 and {"'near'", "'up'"} < set(told)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_link_that_leads_nowhere_and_a_pipe_are_left_out(tmp_path):
    put(tmp_path, "good.mp4", caption="words")
    put(tmp_path, "piped.mp4", "words.mp4")
    link(tmp_path / "a.mp4", "nowhere.mp4")
    link(tmp_path / "long.mp4", "x" * 300)  # a name that no file can have
    link(tmp_path / "words.txt", "x" * 300)
    os.mkfifo(tmp_path / "b.mp4")
    os.mkfifo(tmp_path / "piped.txt")  # opening it would wait for a writer
    names, account = found(tmp_path)
    assert names == ["good.mp4"]
    assert account.left_out == {
        "is not a file, or a link that leads nowhere": ["'a.mp4'", "'b.mp4'", "'long.mp4'"],
        "has a caption that is not a file": ["'piped.mp4'", "'words.mp4'"],
    }


def test_a_name_that_is_not_unicode_is_spelt_out(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    try:
        Image.new("RGB", (4, 4)).save(tmp_path / f"{name}.png")
    except (OSError, UnicodeError):
        pytest.skip("the file system takes Unicode only")
    (tmp_path / f"{name}.txt").write_text("words")
    (tmp_path / f"{name}2.mp4").touch()
    names, account = found(tmp_path)
    assert names == ["caf\\udce9.png"]
    "\n".join([*names, *account.lines()]).encode()


def test_a_name_as_long_as_file_systems_allow_is_found_and_told_short(tmp_path):
    put(tmp_path, f"{'x' * 251}.mp4", caption="words")
    put(tmp_path, f"{'y' * 251}.mp4")
    names, account = found(tmp_path)
    assert names == [f"{'x' * 251}.mp4"]
    assert all(len(line) < 500 for line in account.lines())


def test_few_are_named_and_the_others_counted():
    account = Account()
    for i in range(NAMED + 7):
        account.leave_out(UnusableError(f"'{i}.mp4'", "is too short", "1 frame"))
    (line,) = account.lines()
    assert line.startswith("Left out because it is too short (12): '0.mp4' (1 frame), '1.mp4' (1 frame), ")
    assert line.endswith("'4.mp4' (1 frame) and 7 more.")


def test_the_names_of_many_clips_are_compared_once_each(tmp_path, monkeypatch):
    """Not each with each, which ten thousand clips would take minutes for."""
    put(tmp_path, *(f"{number}.mp4" for number in range(200)), caption="a clip")
    asked = []
    monkeypatch.setattr(folder, "_stem", lambda path, stem=folder._stem: asked.append(path) or stem(path))
    assert len(find_clips(str(tmp_path))) == 200
    assert len(asked) < 200 * 10
