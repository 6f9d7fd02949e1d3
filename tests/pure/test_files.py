"""Files that are whole or not there."""

from pathlib import Path

import pytest

from disca.files import remove, replacing


def test_a_file_is_replaced_when_what_is_written_is_whole(tmp_path):
    file = tmp_path / "state.json"
    for text in ("old", "new"):
        with replacing(file) as aside:
            aside.write_text(text)
            assert not file.exists() or file.read_text() == "old"
        assert file.read_text() == text
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_what_could_not_be_written_leaves_the_file_as_it_was(tmp_path, error):
    file = tmp_path / "state.json"
    file.write_text("old")
    with pytest.raises(error), replacing(file) as aside:
        aside.write_text("ne")
        raise error
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]


def test_a_link_is_removed_and_what_it_leads_to_stays(tmp_path):
    kept = tmp_path / "kept"
    kept.mkdir()
    for path in (tmp_path / "link", tmp_path / "folder", tmp_path / "file", tmp_path / "not there"):
        _make(path, kept)
        remove(path)
        assert not path.exists() and not path.is_symlink()
    assert kept.is_dir()


def _make(path: Path, kept: Path) -> None:
    if path.name == "link":
        path.symlink_to(kept)
    elif path.name == "folder":
        (path / "more").mkdir(parents=True)
    elif path.name == "file":
        path.touch()
