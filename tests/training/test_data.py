"""A dataset gives back what was put in, whatever happens in between, or says in a sentence what is wrong."""

import json
import os
import time
from collections import Counter
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from disca.training.data import remote as remote_room
from disca.training.data import tensors
from disca.training.data.dataset import DatasetWriter, collate, open_dataset, order, require_fits, unconditional
from disca.training.data.index import INDEX, NULL, sample_name
from disca.training.data.remote import RemoteFolder
from disca.training.data.tensors import file_hash

ENCODER = "an encoder"
EMPTY = {"context": torch.full((2, 6), 0.5)}


def sample(number: int, frames: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(number)
    latent = torch.randn(4, frames, 8, 8, generator=generator).bfloat16()
    return {"latent": latent, "context": torch.randn(3, 6, generator=generator)}


def write(folder, numbers, encoder: str = ENCODER, family: str = "1.5", prune: bool = False) -> None:
    with DatasetWriter(str(folder), encoder, family, EMPTY) as writer:
        for number in numbers:
            if (key := f"item-{number}") in writer:
                writer.claim([key], f"caption {number}", f"{number}.mp4")
            else:
                writer.add(key, sample(number), f"caption {number}", f"{number}.mp4")
        if prune:
            writer.prune({f"item-{number}" for number in numbers})


def file_of(folder, number: int):
    return folder / sample_name(f"item-{number}")


def keys(folder) -> list[str]:
    return [item.key for item in open_dataset(str(folder)).index.items]


def files(folder) -> dict[str, str]:
    return {str(path.relative_to(folder)): file_hash(path) for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def folder(tmp_path):
    """A dataset of ten samples."""
    write(tmp_path / "data", range(10))
    return tmp_path / "data"


def test_every_sample_comes_back_as_it_was_written(folder):
    dataset = open_dataset(str(folder))
    for i in (9, 0, 4):
        assert all(torch.equal(dataset[i][name], tensor) for name, tensor in sample(i).items())
    assert torch.equal(dataset.null["context"], EMPTY["context"])


def test_a_dataset_is_its_index_the_null_and_a_file_for_each_sample(folder):
    samples = {str(file_of(folder, number).relative_to(folder)) for number in range(10)}
    assert files(folder).keys() - {".lock"} == {INDEX, NULL, *samples}


def test_a_tensor_of_zeros_takes_no_room_and_comes_back(tmp_path):
    concat = torch.zeros(50, 2, 8, 8, dtype=torch.bfloat16)
    write_one(tmp_path / "with", sample(0) | {"concat": concat})
    write_one(tmp_path / "without", sample(0))
    sizes = [open_dataset(str(tmp_path / name)).index.items[0].size for name in ("with", "without")]
    assert 0 <= sizes[0] - sizes[1] < 100 < concat.nbytes
    assert torch.equal(open_dataset(str(tmp_path / "with"))[0]["concat"], concat)


def write_one(folder, tensors: dict[str, torch.Tensor]) -> None:
    with DatasetWriter(str(folder), ENCODER, "1.5", EMPTY) as writer:
        writer.add("a", tensors)


class Killed(BaseException):
    """The process is gone: nothing after it runs, but for what Python unwinds."""


def killed_at(monkeypatch, moment: int, before: bool) -> None:
    """Has the moment-th change to a folder be the last, or not be made at all."""
    left = [moment]

    def deadly(change):
        def run(*args, **kwargs):
            left[0] -= 1
            if left[0] < 0 or (before and left[0] == 0):
                raise Killed
            result = change(*args, **kwargs)
            if left[0] == 0:
                raise Killed
            return result

        return run

    monkeypatch.setattr(tensors.os, "replace", deadly(os.replace))
    monkeypatch.setattr(Path, "unlink", deadly(Path.unlink))


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("moment", range(1, 14))
def test_killed_at_any_moment_and_run_again_a_build_gives_the_bytes_of_an_unbroken_one(
    tmp_path, monkeypatch, moment, before
):
    builds = [(range(4), False), (range(2, 7), True)]  # four samples; then three more come while two are pruned
    for numbers, prune in builds:
        write(tmp_path / "whole", numbers, prune=prune)
    ended = 0
    with monkeypatch.context() as patched, suppress(Killed):
        killed_at(patched, moment, before)
        for numbers, prune in builds:
            write(tmp_path / "killed", numbers, prune=prune)
            ended += 1
    assert ended < 2, "nothing was killed"
    if ended:
        assert len(keys(tmp_path / "killed")) in (4, 5), "it is as it was before the build, or after"
    for numbers, prune in builds[ended:]:
        write(tmp_path / "killed", numbers, prune=prune)
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_an_interrupted_writer_goes_on_with_what_it_left(tmp_path):
    with pytest.raises(KeyboardInterrupt), DatasetWriter(str(tmp_path), ENCODER, "1.5", EMPTY) as writer:
        for number in range(5):
            writer.add(f"item-{number}", sample(number))
        raise KeyboardInterrupt
    with DatasetWriter(str(tmp_path), ENCODER, "1.5") as writer:
        assert [f"item-{number}" in writer for number in range(10)] == [True] * 5 + [False] * 5


def test_what_another_build_left_unfinished_is_neither_taken_nor_lost(folder):
    with pytest.raises(KeyboardInterrupt), DatasetWriter(str(folder), ENCODER, "1.5") as writer:
        writer.add("item-10", sample(10), source="10.mp4")
        raise KeyboardInterrupt
    write(folder, range(5))
    assert len(open_dataset(str(folder))) == 10
    with DatasetWriter(str(folder), ENCODER, "1.5") as writer:
        assert "item-10" in writer


def test_a_second_run_writes_only_what_is_new(folder):
    before = files(folder)
    write(folder, range(11))
    after = files(folder)
    assert {name for name in before if before[name] != after.get(name)} <= {INDEX, ".lock"}
    assert len(open_dataset(str(folder))) == 11


def test_a_source_with_another_caption_gives_way_to_it_and_frees_its_room(folder):
    with DatasetWriter(str(folder), ENCODER, "1.5") as writer:
        writer.add("item-3-new", sample(30), caption="better", source="3.mp4")
    captions = [item.caption for item in open_dataset(str(folder)).index.items if item.source == "3.mp4"]
    assert captions == ["better"] and writer.replaced == ["3.mp4"]
    assert not file_of(folder, 3).exists()


def test_of_two_captions_of_a_build_the_later_stays(tmp_path):
    with DatasetWriter(str(tmp_path), ENCODER, "1.5", EMPTY) as writer:
        for number, caption in enumerate(("first", "second")):
            writer.add(f"item-{number}", sample(number), caption, source="3.mp4")
    assert [item.caption for item in open_dataset(str(tmp_path)).index.items] == ["second"]


def test_without_a_caption_a_batch_has_the_text_of_the_null_and_nothing_else_of_the_captions():
    (batch,) = collate([sample(i) | {"txt_byt5": torch.ones(2, 3), "concat": torch.ones(1)} for i in (0, 1)], [0, 1])
    twin = unconditional(batch, EMPTY)
    assert torch.equal(twin["context"], EMPTY["context"].expand(2, 2, 6))
    assert set(twin) == {"latent", "context", "concat", "index"}


def test_pruning_leaves_the_named_samples_and_frees_the_room_of_the_others(folder):
    with DatasetWriter(str(folder), ENCODER, "1.5") as writer:
        assert writer.prune({"item-0"}) == 9
    assert [path.name for path in folder.rglob("item-*")] == ["item-0.safetensors"]
    assert torch.equal(open_dataset(str(folder))[0]["latent"], sample(0)["latent"])


def test_pruning_frees_the_room_of_builds_that_did_not_end(folder):
    with pytest.raises(KeyboardInterrupt), DatasetWriter(str(folder), ENCODER, "1.5") as writer:
        writer.add("item-10", sample(10))
        raise KeyboardInterrupt
    file_of(folder, 11).with_name("item-11.safetensors.partial").write_bytes(b"cut")
    write(folder, range(10), prune=True)
    assert {path.name for path in folder.rglob("item-*")} == {f"item-{number}.safetensors" for number in range(10)}


def test_pruning_leaves_somebody_elses_files(folder):
    others = ["notes.txt", "it/notes.txt", "it/item-99.safetensors.bak", "it/other.safetensors", "it/Item.safetensors"]
    for name in others:
        (folder / "samples" / name).touch()
    (folder / "item-98.safetensors").touch()
    (folder / "samples" / "it" / "item-97.safetensors").mkdir()
    write(folder, range(2), prune=True)
    assert all((folder / "samples" / name).exists() for name in [*others, "it/item-97.safetensors"])
    assert (folder / "item-98.safetensors").exists()


def test_a_full_disk_leaves_what_was_written_and_says_so(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    before = files(folder)
    with monkeypatch.context() as patched:
        patched.setattr("disca.training.data.tensors.save_file", full)
        with pytest.raises(OSError, match="No space left.*bytes are free there.*run the same again to continue"):
            write(folder, range(12))
    assert files(folder) == before
    write(folder, range(12))
    assert len(open_dataset(str(folder))) == 12


def test_the_fingerprint_is_of_the_samples_not_of_the_order_in_which_they_came(tmp_path, folder):
    write(tmp_path / "backwards", reversed(range(10)))
    write(tmp_path / "fewer", range(9))
    found = [open_dataset(str(path)).fingerprint for path in (folder, tmp_path / "backwards", tmp_path / "fewer")]
    assert found[0] == found[1] != found[2]


def test_a_file_cut_short_is_named_with_its_bytes_and_made_again(folder, caplog):
    path = file_of(folder, 1)
    needed = path.stat().st_size
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=rf"item-1.*has 1,000 bytes, {needed:,} are needed.*run the builder"):
        open_dataset(str(folder))
    write(folder, range(10))
    assert "1 samples are missing or damaged" in caplog.text and "item-1.safetensors' cannot be" in caplog.text
    assert keys(folder) == [f"item-{i}" for i in range(10)]


def test_a_missing_file_is_named_and_made_again(folder):
    file_of(folder, 1).unlink()
    with pytest.raises(ValueError, match="item-1.safetensors' is missing, though the index lists it"):
        open_dataset(str(folder))
    write(folder, range(10))
    assert torch.equal(open_dataset(str(folder))[1]["latent"], sample(1)["latent"])


@pytest.mark.parametrize("place", [0, 8, -1])
def test_a_changed_byte_is_found_when_its_sample_is_read(folder, place):
    path = file_of(folder, 3)
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    dataset = open_dataset(str(folder))
    with pytest.raises(ValueError, match="item-3.safetensors' is damaged .its SHA-256 is not the one in the index"):
        dataset[3]
    assert dataset[4]


def test_a_sample_that_goes_while_it_is_trained_on_is_named(folder):
    dataset = open_dataset(str(folder))
    file_of(folder, 3).unlink()
    with pytest.raises(ValueError, match="item-3.safetensors' is missing"):
        dataset[3]


def test_a_changed_byte_of_the_null_is_found(folder):
    null = folder / NULL
    content = null.read_bytes()
    null.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match="null.safetensors' is damaged .its SHA-256 is not the one in the index"):
        open_dataset(str(folder))


@pytest.mark.parametrize("name", ["samples", "samples/it", INDEX])
def test_what_stands_in_the_place_of_the_datasets_files_is_named(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.mkdir() if name == INDEX else path.touch()
    with pytest.raises((OSError, ValueError), match=f"{path.name}' cannot be .*Take away what is in its place, or"):
        write(tmp_path, range(1))


def test_a_folder_in_the_place_of_a_sample_is_named(tmp_path):
    file_of(tmp_path, 0).mkdir(parents=True)
    with pytest.raises(OSError, match="item-0.safetensors' could not be written"):
        write(tmp_path, range(1))


@pytest.mark.parametrize("key", ["", "..", "../a", "a/b", "a.b", "A", "é", "a" * 101, "a\n"])
def test_a_key_that_is_no_files_name_everywhere_is_refused_and_found_nowhere(folder, key):
    with DatasetWriter(str(folder), ENCODER, "1.5") as writer:
        assert key not in writer
        with pytest.raises(ValueError, match="cannot be the key of a sample: use up to 100 small letters"):
            writer.add(key, sample(0))


@pytest.mark.parametrize(
    ("tensors", "zeros"),
    [
        ({"latent": torch.zeros(2)}, "{}"),
        ({"latent": torch.zeros(4, 2, 2, 2)}, "{}"),
        (sample(1), None),
        (sample(1), "["),
        (sample(1), "[" * 100_000),
        (sample(1), '["y"]'),
        (sample(1), '{"y": 1}'),
        (sample(1), '{"y": [1, "a"]}'),
        (sample(1), '{"y": [' + "1" * 5000 + "]}"),
        (sample(1), '{"y": [9, 9999999999]}'),
        (sample(1), '{"latent": [4, 2, 8, 8]}'),
    ],
)
def test_a_file_that_could_not_stand_in_the_index_is_made_anew_with_a_sentence(folder, caplog, tensors, zeros):
    save_file(tensors, file_of(folder, 10), zeros and {"zeros": zeros})
    write(folder, range(11))
    assert "item-10.safetensors' cannot be a sample" in caplog.text and "It is made anew" in caplog.text
    assert torch.equal(open_dataset(str(folder))[2]["latent"], sample(10)["latent"]), keys(folder)


def test_without_an_index_samples_are_still_not_encoded_again(folder):
    before = files(folder)
    (folder / INDEX).unlink()
    with DatasetWriter(str(folder), ENCODER, "1.5", EMPTY) as writer:
        for number in range(10):
            assert f"item-{number}" in writer
            writer.claim([f"item-{number}"], f"caption {number}", f"{number}.mp4")
    assert files(folder) == before


def test_a_dataset_in_shards_is_neither_opened_nor_added_to(tmp_path):
    (tmp_path / INDEX).write_text('{"format": 1, "family": "1.5", "shards": [], "items": []}')
    for use in (open_dataset, lambda path: write(path, range(1))):
        with pytest.raises(ValueError, match="format 1, and format 2 is needed. Run the builder .* into a new folder"):
            use(str(tmp_path))
    assert not (tmp_path / "samples").exists()


def test_a_missing_index_is_named(tmp_path):
    with pytest.raises(ValueError, match="no index.json in .*it is not a dataset"):
        open_dataset(str(tmp_path / "nowhere"))


def test_an_empty_dataset_is_refused(tmp_path):
    write(tmp_path, [])
    with pytest.raises(ValueError, match="holds no samples"):
        open_dataset(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format": 1}, "format 1, and format 2 is needed. Run the builder of this version into a new folder"),
        ({"format": 3}, "format 3, and format 2 is needed"),
        ({"items": [{"key": "a"}]}, "damaged"),
        ({"null": {"name": "../../secret", "size": 1, "sha256": ""}}, "a file is named '../../secret'"),
    ],
)
def test_an_index_of_another_kind_is_refused(folder, change, told):
    content = json.loads((folder / INDEX).read_text()) | change
    (folder / INDEX).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=told):
        open_dataset(str(folder))


@pytest.mark.parametrize(
    ("part", "change", "told"),
    [
        (
            "items",
            {"zeros": ["concat"], "shapes": {"concat": [10**12]}},
            "'concat' is 1000000000000, but must be at most",
        ),
        ("items", {"zeros": ["concat"], "shapes": {"concat": [10**6, 10**6]}}, "zeros is larger than a sample can be"),
        ("items", {"zeros": ["other"]}, "'zeros' is 'other', but must be one of"),
        ("items", {"zeros": ["latent"]}, "'zeros' is 'latent', but must be one of"),
        ("items", {"zeros": "context"}, "'zeros' is 'context', but must be a list"),
        ("items", {"zeros": [["context"]]}, "'zeros' is ..context.., but must be one of"),
        ("items", {"shapes": {"latent": [4, -2, 8, 8]}}, "'latent' is -2, but must be at least 0"),
        ("items", {"shapes": {"latent": [4, 2.5, 8, 8]}}, "'latent' is 2.5, but must be a whole number"),
        ("items", {"shapes": {"latent": [4, True, 8, 8]}}, "'latent' is True, but must be a whole number"),
        ("items", {"shapes": {"latent": ["4", 2, 8, 8]}}, "'latent' is '4', but must be a whole number"),
        ("items", {"shapes": {"latent": [4, 0, 8, 8]}}, "'latent' is .*must have 4 dimensions"),
        ("items", {"shapes": {"latent": [4]}}, "'latent' is .4., but must have 4 dimensions"),
        ("items", {"shapes": {"latent": None}}, "'shapes' is None, but must be a list"),
        ("items", {"shapes": {"latent": [1] * 99}}, "'latent' has 99 dimensions"),
        ("items", {"shapes": {"\ud800": [1]}}, "with characters in it that no file can hold"),
        ("items", {"key": 3}, "'key' is 3, but must be a text"),
        ("items", {"caption": "\ud800"}, "'caption' is .*with characters in it"),
        ("items", {"key": "../../secret"}, "'../../secret' cannot be the key of an item"),
        ("items", {"key": ".."}, "'..' cannot be the key of an item"),
        ("items", {"key": "item-1"}, "two items have the same key"),
        ("items", {"size": 2**40}, "'size' is 1099511627776, but must be at most"),
        ("items", {"sha256": 5}, "'sha256' is 5"),
        ("items", {"more": 5}, "an item has 'more', which is not known"),
        ("null", {"size": "1"}, "'size' is '1', but must be a whole number"),
        ("null", {"size": -1}, "'size' is -1, but must be at least 0"),
        ("null", {"name": ["a"]}, "a file is named"),
    ],
)
def test_what_is_wrong_in_an_index_is_said_before_memory_is_asked_for(folder, part, change, told):
    content = json.loads((folder / INDEX).read_text())
    shapes = {"shapes": content["items"][0]["shapes"] | change["shapes"]} if "shapes" in change else {}
    changed = content["items"][0] if part == "items" else content["null"]
    changed |= change | shapes
    (folder / INDEX).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=told) as error:
        open_dataset(str(folder))
    assert "index.json' is damaged" in str(error.value)
    str(error.value).encode("utf-8")


@pytest.mark.parametrize("name", ["family", "encoder", "null", "items", "format"])
@pytest.mark.parametrize("value", [None, 3, "\ud800", [3], {"a": 1}])
def test_an_index_with_anything_anywhere_is_read_or_refused_in_a_sentence(folder, name, value):
    content = json.loads((folder / INDEX).read_text()) | {name: value}
    (folder / INDEX).write_text(json.dumps(content))
    with pytest.raises(ValueError, match="index.json") if (name, value) != ("null", None) else nullcontext() as error:
        open_dataset(str(folder))
    str(error and error.value).encode("utf-8")


@pytest.mark.parametrize("text", ["[" * 100_000, "null", "[]", "3", '{"format": ' + "9" * 5000 + "}", "\x00", ""])
def test_json_that_is_no_index_at_all_is_refused_in_a_sentence(folder, text):
    (folder / INDEX).write_text(text)
    with pytest.raises(ValueError, match="index.json' is not the index of a dataset"):
        open_dataset(str(folder))


def test_an_index_that_is_a_folder_is_refused_in_a_sentence(folder):
    (folder / INDEX).unlink()
    (folder / INDEX).mkdir()
    with pytest.raises(ValueError, match="index.json in .* cannot be read"):
        open_dataset(str(folder))


def test_a_tensor_of_another_shape_than_the_index_says_and_one_that_is_missing_are_named(folder):
    content = json.loads((folder / INDEX).read_text())
    content["items"][0]["shapes"]["context"] = [9, 6]
    content["items"][1]["shapes"]["more"] = [1]
    (folder / INDEX).write_text(json.dumps(content))
    dataset = open_dataset(str(folder))
    with pytest.raises(
        ValueError, match=r"item-0.safetensors' is damaged: 'context' has the shape \(3, 6\), not \(9, 6\)"
    ):
        dataset[0]
    with pytest.raises(ValueError, match="item-1.safetensors' is damaged: 'more' has the shape None"):
        dataset[1]


def test_text_that_is_no_index_is_refused(folder):
    (folder / INDEX).write_text("not JSON")
    with pytest.raises(ValueError, match="is not the index of a dataset"):
        open_dataset(str(folder))


def test_a_dataset_for_another_model_or_encoder_is_refused(folder):
    dataset = open_dataset(str(folder))
    require_fits(dataset, "1.5", 4, 6, ENCODER)
    with pytest.raises(ValueError, match="built for HunyuanVideo 1.5, but the model is HunyuanVideo 1.0"):
        require_fits(dataset, "1.0", 4, 6)
    with pytest.raises(
        ValueError, match="'0.mp4' in 'samples/it/item-0.*4 latent channels and text of width 6.*takes 16 and 6"
    ):
        require_fits(dataset, "1.5", 16, 6)
    with pytest.raises(ValueError, match="built with the encoder 'an encoder', but 'another'"):
        require_fits(dataset, "1.5", 4, 6, "another")
    with pytest.raises(ValueError, match="was built for HunyuanVideo 1.5 with the encoder 'an encoder'; this is"):
        DatasetWriter(str(folder), "another", "1.5")


@pytest.mark.parametrize("length", [1, 2, 3, 10, 64, 1000])
def test_each_epoch_draws_every_sample_once(length):
    for epoch in range(3):
        drawn = [order(length, 5, epoch * length + i) for i in range(length)]
        assert sorted(drawn) == list(range(length))


def test_epochs_and_seeds_differ_and_nothing_else_matters():
    epochs = [[order(1000, seed, epoch * 1000 + i) for i in range(1000)] for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_the_order_depends_on_no_draw_before_it():
    drawn = [order(1000, 0, position) for position in (2500, 3, 999, 1000)]
    torch.manual_seed(7)
    assert [order(1000, 0, position) for position in (1000, 999, 3, 2500)] == drawn[::-1]


def test_drawing_the_order_leaves_other_random_numbers_as_they_are():
    before = torch.get_rng_state()
    order(1_000_000, 3, 5_000_000)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_sample_is_as_likely_at_every_place():
    epochs = 4000
    drawn = [Counter(order(5, 0, epoch * 5 + place) for epoch in range(epochs)) for place in range(5)]
    expected = epochs / 5
    chi_squared = sum((count[i] - expected) ** 2 / expected for count in drawn for i in range(5))
    assert chi_squared < 40  # 16 degrees of freedom: 40 is exceeded once in a thousand


def test_neighbours_in_the_dataset_do_not_stay_neighbours():
    drawn = [order(10_000, 0, i) for i in range(10_000)]
    close = sum(abs(a - b) <= 1 for a, b in zip(drawn, drawn[1:], strict=False))
    assert close < 20  # two are expected by chance


def test_a_batch_holds_equal_shapes_and_keeps_the_positions():
    samples = [sample(0), sample(1, frames=3), sample(2), sample(3) | {"y": torch.ones(4)}]
    batches = collate(samples, [7, 8, 9, 10])
    assert [batch["index"].tolist() for batch in batches] == [[7, 9], [8], [10]]
    assert torch.equal(batches[0]["latent"], torch.stack([samples[0]["latent"], samples[2]["latent"]]))


def remote(folder) -> str:
    """The folder's files on fsspec's file system in memory, as a url."""
    fsspec = pytest.importorskip("fsspec")
    url = f"memory://{folder.name}-{time.monotonic_ns()}"
    for name in files(folder):
        fsspec.filesystem("memory").pipe(f"{url}/{Path(name).as_posix()}", (folder / name).read_bytes())
    return url


def test_no_dataset_is_written_to_a_url(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="'the dataset' is 's3://bucket/data'.* is not on this machine"):
        DatasetWriter("s3://bucket/data", ENCODER, "1.5")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("place", ["file", "file/data", "x" * 300, "x/" * 3000])
def test_a_place_where_no_dataset_can_be_is_refused_in_a_sentence(tmp_path, place):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="cannot be written to .*choose another folder"):
        DatasetWriter(str(tmp_path / place), ENCODER, "1.5")


def test_a_remote_dataset_is_the_local_one(folder, tmp_path):
    here, there = open_dataset(str(folder)), open_dataset(remote(folder), cache=str(tmp_path / "cache"))
    assert here.fingerprint == there.fingerprint
    assert all(torch.equal(here[i]["latent"], there[i]["latent"]) for i in range(10))


def test_the_cache_keeps_to_its_limit_by_dropping_what_was_used_longest_ago(folder, tmp_path):
    found = [item.file for item in open_dataset(str(folder)).index.items]
    copies = RemoteFolder(remote(folder), str(tmp_path / "cache"), limit=int(2.5 * found[0].size))
    for i in (0, 1):
        os.utime(copies.locate(found[i]), (i, i))
    copies.locate(found[0])
    copies.locate(found[2])
    names = {path.name for path in (tmp_path / "cache").rglob("*.safetensors")}
    assert names == {"item-0.safetensors", "item-2.safetensors"}


def test_a_cache_of_many_files_is_not_looked_through_for_each(folder, tmp_path, monkeypatch):
    found = [item.file for item in open_dataset(str(folder)).index.items]
    limit = 10**6 + sum(file.size for file in found)
    looked = []
    monkeypatch.setattr(remote_room, "_copies", lambda cache, find=remote_room._copies: looked.append(1) or find(cache))
    copies = RemoteFolder(remote(folder), str(tmp_path / "cache"), limit)
    for file in found:
        copies.locate(file)
    assert len(looked) <= 1 + sum(file.size for file in found) / (limit / 100 - found[0].size)


def test_other_files_in_a_cache_stay(folder, tmp_path):
    (tmp_path / "cache" / "checkpoints").mkdir(parents=True)
    model = tmp_path / "cache" / "checkpoints" / "model.safetensors"
    model.write_bytes(bytes(10**5))
    found = [item.file for item in open_dataset(str(folder)).index.items]
    copies = RemoteFolder(remote(folder), str(tmp_path / "cache"), limit=found[0].size)
    for file in found[:3]:
        copies.locate(file)
    assert model.exists()


def test_a_file_that_arrives_damaged_is_not_kept(folder, tmp_path):
    url = remote(folder)
    import fsspec

    fsspec.filesystem("memory").pipe(f"{url}/samples/it/item-0.safetensors", b"damaged")
    dataset = open_dataset(url, cache=str(tmp_path / "cache"))
    with pytest.raises(ValueError, match=f"^'{url}/samples/it/item-0.safetensors' came twice with 7 bytes.*Upload it"):
        dataset[0]
    assert not list((tmp_path / "cache").rglob("item-0*"))
    assert torch.equal(dataset[1]["latent"], sample(1)["latent"])


def test_a_file_that_does_not_arrive_is_named(folder, tmp_path):
    url = remote(folder)
    import fsspec

    dataset = open_dataset(url, cache=str(tmp_path / "cache"))
    fsspec.filesystem("memory").rm(f"{url}/samples/it/item-0.safetensors")
    with pytest.raises(ValueError, match=f"^'{url}/samples/it/item-0.safetensors' cannot be fetched .*Check the conn"):
        dataset[0]
    assert not list((tmp_path / "cache").rglob("item-0*"))


def test_an_index_that_does_not_arrive_is_named(folder, tmp_path, monkeypatch):
    def refused(*_):
        raise Exception("403, message='Forbidden'")  # as aiohttp's and botocore's are, which are no OSError

    url = remote(folder)
    monkeypatch.setattr("fsspec.implementations.memory.MemoryFileSystem.cat_file", refused)
    with pytest.raises(ValueError, match=f"index.json in '{url}' cannot be read .403, message='Forbidden'"):
        open_dataset(url, cache=str(tmp_path / "cache"))


def test_a_cache_in_the_place_of_a_file_is_refused_in_a_sentence(folder, tmp_path):
    (tmp_path / "cache").touch()
    with pytest.raises(ValueError, match="cache.* cannot be made .*set data.cache to another folder"):
        open_dataset(remote(folder), cache=str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("url", "cache", "told"),
    [
        ("memory://nothing", "cache", "no index.json in 'memory://nothing'"),
        ("memory://nothing", "", "set data.cache to a folder"),
        ("nosuch://bucket/data", "cache", "cannot be read: Protocol not known"),
    ],
)
def test_a_url_that_cannot_be_read_is_named(url, cache, told, tmp_path):
    pytest.importorskip("fsspec")
    with pytest.raises(ValueError, match=told):
        open_dataset(url, cache=cache and str(tmp_path / cache))


def test_without_fsspec_a_url_is_refused_in_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(ValueError, match="cannot be read: .*fsspec.* Install it with pip"):
        open_dataset("memory://data", cache=str(tmp_path))
