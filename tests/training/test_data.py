"""A dataset gives back what was put in, whatever happens in between, or says in a sentence what is wrong."""

import json
import os
import time
from collections import Counter
from contextlib import nullcontext

import pytest
import torch
from safetensors.torch import save_file

from disca.training.data.dataset import DatasetWriter, collate, open_dataset, order, require_fits, unconditional
from disca.training.data.remote import RemoteFolder
from disca.training.data.shards import INDEX, file_hash

ENCODER = "an encoder"
NULL = {"context": torch.full((2, 6), 0.5)}


def sample(number: int, frames: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(number)
    latent = torch.randn(4, frames, 8, 8, generator=generator).bfloat16()
    return {"latent": latent, "context": torch.randn(3, 6, generator=generator)}


def write(folder, numbers, shard_bytes: int = 4000, encoder: str = ENCODER, family: str = "1.5") -> None:
    with DatasetWriter(str(folder), encoder, family, NULL, shard_bytes) as writer:
        for number in numbers:
            writer.add(f"item-{number}", sample(number), caption=f"caption {number}", source=f"{number}.mp4")


def files(folder) -> dict[str, str]:
    return {path.name: file_hash(path) for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def folder(tmp_path):
    """A dataset of ten samples in several shards."""
    write(tmp_path / "data", range(10))
    return tmp_path / "data"


def test_every_sample_comes_back_as_it_was_written(folder):
    dataset = open_dataset(str(folder))
    assert len(dataset.index.shards) > 2
    for i in (9, 0, 4):
        assert all(torch.equal(dataset[i][name], tensor) for name, tensor in sample(i).items())
    assert torch.equal(dataset.null["context"], NULL["context"])


def test_a_tensor_of_zeros_takes_no_room_and_comes_back(tmp_path):
    concat = torch.zeros(5, 2, 8, 8, dtype=torch.bfloat16)
    for name, extra in (("with", {"concat": concat}), ("without", {})):
        with DatasetWriter(str(tmp_path / name), ENCODER, "1.5", NULL) as writer:
            writer.add("a", sample(0) | extra)
    shards = [open_dataset(str(tmp_path / name)).index.shards[0].size for name in ("with", "without")]
    assert shards[0] == shards[1]
    assert torch.equal(open_dataset(str(tmp_path / "with"))[0]["concat"], concat)


def test_an_interrupted_writer_continues_to_the_same_bytes(tmp_path, folder):
    with pytest.raises(KeyboardInterrupt), DatasetWriter(str(tmp_path / "again"), ENCODER, "1.5", NULL, 4000) as writer:
        for number in range(5):
            writer.add(f"item-{number}", sample(number), caption=f"caption {number}", source=f"{number}.mp4")
        raise KeyboardInterrupt
    (tmp_path / "again" / "pending" / "000000009-item-9.safetensors").write_bytes(b"cut")
    with DatasetWriter(str(tmp_path / "again"), ENCODER, "1.5", NULL, 4000) as writer:
        assert [f"item-{number}" in writer for number in range(10)] == [True] * 5 + [False] * 5
        for number in range(10):
            writer.add(f"item-{number}", sample(number), caption=f"caption {number}", source=f"{number}.mp4")
    assert files(tmp_path / "again") == files(folder)


def test_a_kill_between_shard_and_index_loses_nothing(tmp_path, folder, monkeypatch):
    monkeypatch.setattr(DatasetWriter, "_append", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt), DatasetWriter(str(tmp_path / "again"), ENCODER, "1.5", NULL, 4000) as writer:
        for number in range(10):
            writer.add(f"item-{number}", sample(number), caption=f"caption {number}", source=f"{number}.mp4")
    monkeypatch.undo()
    write(tmp_path / "again", range(10))
    assert [item.key for item in open_dataset(str(tmp_path / "again")).index.items] == [f"item-{i}" for i in range(10)]
    assert torch.equal(open_dataset(str(tmp_path / "again"))[1]["latent"], sample(1)["latent"])


def test_a_second_run_writes_only_what_is_new(folder):
    before = files(folder)
    write(folder, range(11))
    after = files(folder)
    assert {name for name in before if before[name] != after.get(name)} == {INDEX}
    assert len(open_dataset(str(folder))) == 11


def test_a_source_with_another_caption_gives_way_to_it(folder):
    with DatasetWriter(str(folder), ENCODER, "1.5") as writer:
        writer.add("item-3-new", sample(30), caption="better", source="3.mp4")
    captions = [item.caption for item in open_dataset(str(folder)).index.items if item.source == "3.mp4"]
    assert captions == ["better"]


def test_of_two_captions_that_waited_for_the_same_shard_the_later_stays(tmp_path):
    with DatasetWriter(str(tmp_path), ENCODER, "1.5", NULL) as writer:
        for number, caption in enumerate(("first", "second")):
            writer.add(f"item-{number}", sample(number), caption, source="3.mp4")
    assert [item.caption for item in open_dataset(str(tmp_path)).index.items] == ["second"]


def test_without_a_caption_a_batch_has_the_text_of_the_null_and_nothing_else_of_the_captions():
    (batch,) = collate([sample(i) | {"txt_byt5": torch.ones(2, 3), "concat": torch.ones(1)} for i in (0, 1)], [0, 1])
    twin = unconditional(batch, NULL)
    assert torch.equal(twin["context"], NULL["context"].expand(2, 2, 6))
    assert set(twin) == {"latent", "context", "concat", "index"}


def test_pruning_leaves_the_named_items_and_drops_shards_without_any(folder):
    with DatasetWriter(str(folder), ENCODER, "1.5") as writer:
        assert writer.prune({"item-0"}) == 9
    assert [path.name for path in folder.glob("shard-*")] == ["shard-000000.safetensors"]
    assert torch.equal(open_dataset(str(folder))[0]["latent"], sample(0)["latent"])


def test_a_full_disk_leaves_what_was_written_and_says_so(folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    before = files(folder)
    with monkeypatch.context() as patched:
        patched.setattr("disca.training.data.shards.save_file", full)
        with pytest.raises(OSError, match="No space left.*bytes are free there.*run the same again to continue"):
            write(folder, range(12))
    assert {name: found for name, found in files(folder).items() if name in before} == before
    write(folder, range(12))
    assert len(open_dataset(str(folder))) == 12


def test_the_fingerprint_is_of_the_samples_not_of_the_shards(tmp_path, folder):
    write(tmp_path / "one", range(10), shard_bytes=10**9)
    write(tmp_path / "fewer", range(9))
    found = [open_dataset(str(path)).fingerprint for path in (folder, tmp_path / "one", tmp_path / "fewer")]
    assert found[0] == found[1] != found[2]


def test_a_shard_cut_short_is_named_with_its_bytes(folder):
    shard = folder / "shard-000001.safetensors"
    needed = shard.stat().st_size
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(ValueError, match=rf"shard-000001.*has 1,000 bytes, {needed:,} are needed.*run the builder"):
        open_dataset(str(folder))
    write(folder, range(10))
    assert {item.key for item in open_dataset(str(folder)).index.items} == {f"item-{i}" for i in range(10)}


def test_a_changed_byte_is_found_when_its_sample_is_read(folder):
    shard = folder / "shard-000000.safetensors"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    dataset = open_dataset(str(folder))
    with pytest.raises(ValueError, match="shard-000000.*item .* is not what was written"):
        [dataset[i] for i in range(10)]


def test_a_changed_byte_of_the_null_is_found(folder):
    null = folder / "null.safetensors"
    content = null.read_bytes()
    null.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match="null.safetensors' is damaged: its SHA-256 is not the one in the index"):
        open_dataset(str(folder))


def test_somebody_elses_files_named_nearly_like_shards_stay(folder):
    (folder / "shard-backup.safetensors").touch()
    (folder / "shard-000099.safetensors").mkdir()
    write(folder, range(11))
    assert (folder / "shard-backup.safetensors").exists() and (folder / "shard-000099.safetensors").exists()


@pytest.mark.parametrize("name", ["pending", INDEX])
def test_what_stands_in_the_place_of_the_datasets_files_is_named(tmp_path, name):
    (tmp_path / name).touch() if name == "pending" else (tmp_path / name).mkdir()
    with pytest.raises((OSError, ValueError), match=f"{name}' cannot be .*Take away what is in its place, or choose"):
        write(tmp_path, range(1))


def test_somebody_elses_files_in_pending_stay(folder):
    (folder / "pending" / "mine").mkdir(parents=True)
    (folder / "pending" / "notes.txt").write_text("mine")
    write(folder, range(11))
    assert (folder / "pending" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("tensors", "facts"),
    [
        ({"latent": torch.zeros(2)}, {}),
        ({"latent": torch.zeros(4, 2, 2, 2)}, {}),
        (sample(1), {"zeros/y": "1,a"}),
        (sample(1), {"zeros/y": "1" * 5000}),
        (sample(1), {"zeros/y": "9,9999999999"}),
    ],
)
def test_what_waits_and_could_not_stand_in_the_index_is_made_again(folder, tensors, facts):
    (folder / "pending").mkdir(exist_ok=True)
    waiting = folder / "pending" / "000000000-item-10.safetensors"
    save_file(tensors, waiting, {"caption": "a", "source": "b"} | facts)
    write(folder, range(11))
    assert torch.equal(open_dataset(str(folder))[10]["latent"], sample(10)["latent"])


def test_a_damaged_header_is_named(folder):
    shard = folder / "shard-000000.safetensors"
    shard.write_bytes(b"\xff" * shard.stat().st_size)
    with pytest.raises(ValueError, match="shard-000000.safetensors' is damaged"):
        open_dataset(str(folder))[0]


def test_a_missing_shard_and_a_missing_index_are_named(folder, tmp_path):
    (folder / "shard-000000.safetensors").unlink()
    with pytest.raises(ValueError, match="shard-000000.safetensors' is missing"):
        open_dataset(str(folder))
    with pytest.raises(ValueError, match="no index.json in .*it is not a dataset"):
        open_dataset(str(tmp_path / "nowhere"))


def test_an_empty_dataset_is_refused(tmp_path):
    write(tmp_path, [])
    with pytest.raises(ValueError, match="holds no samples"):
        open_dataset(str(tmp_path))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"format": 2}, "format 2, and format 1 is needed"),
        ({"items": [{"key": "a"}]}, "damaged"),
        ({"shards": [{"name": "../../secret", "size": 1, "sha256": ""}]}, "a file is named '../../secret'"),
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
        ("items", {"shard": "shard-000099.safetensors"}, "is in 'shard-000099.safetensors', which is not listed"),
        ("items", {"sha256": 5}, "'sha256' is 5"),
        ("items", {"more": 5}, "an item has 'more', which is not known"),
        ("shards", {"size": "1"}, "'size' is '1', but must be a whole number"),
        ("shards", {"size": -1}, "'size' is -1, but must be at least 0"),
        ("shards", {"name": ["a"]}, "'name' is .*, but must be a text"),
    ],
)
def test_what_is_wrong_in_an_index_is_said_before_memory_is_asked_for(folder, part, change, told):
    content = json.loads((folder / INDEX).read_text())
    shapes = {"shapes": content["items"][0]["shapes"] | change["shapes"]} if "shapes" in change else {}
    content[part][0] |= change | shapes
    (folder / INDEX).write_text(json.dumps(content))
    with pytest.raises(ValueError, match=told) as error:
        open_dataset(str(folder))
    assert "index.json' is damaged" in str(error.value)
    str(error.value).encode("utf-8")


@pytest.mark.parametrize("name", ["family", "encoder", "null", "shards", "items", "format"])
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
    with pytest.raises(ValueError, match=r"damaged at item 'item-0': 'context' has the shape \[3, 6\], not \[9, 6\]"):
        dataset[0]
    with pytest.raises(ValueError, match="damaged at item 'item-1'"):
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
        ValueError, match="'0.mp4' in 'shard-000000.*4 latent channels and text of width 6.*takes 16 and 6"
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
    assert order(10**12, 0, 12345) == order(10**12, 0, 12345)  # far more than could be listed


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
    for path in folder.iterdir():
        fsspec.filesystem("memory").pipe(f"{url}/{path.name}", path.read_bytes())
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
    shards = open_dataset(str(folder)).index.shards
    folder = RemoteFolder(remote(folder), str(tmp_path / "cache"), limit=sum(part.size for part in shards[:2]))
    for i in (0, 1):
        os.utime(folder.locate(shards[i]), (i, i))
    folder.locate(shards[0])
    folder.locate(shards[2])
    assert {path.name for path in (tmp_path / "cache").glob("*/*")} == {shards[0].name, shards[2].name}


def test_a_shard_that_arrives_damaged_is_not_kept(folder, tmp_path):
    url = remote(folder)
    import fsspec

    fsspec.filesystem("memory").pipe(f"{url}/shard-000000.safetensors", b"damaged")
    dataset = open_dataset(url, cache=str(tmp_path / "cache"))
    with pytest.raises(ValueError, match=f"^'{url}/shard-000000.safetensors' came twice with 7 bytes.*Upload it again"):
        dataset[0]
    assert not list((tmp_path / "cache").glob("*/shard-000000*"))


def test_a_shard_that_does_not_arrive_is_named(folder, tmp_path):
    url = remote(folder)
    import fsspec

    dataset = open_dataset(url, cache=str(tmp_path / "cache"))
    fsspec.filesystem("memory").rm(f"{url}/shard-000000.safetensors")
    with pytest.raises(ValueError, match=f"^'{url}/shard-000000.safetensors' cannot be fetched .*Check the connection"):
        dataset[0]
    assert not list((tmp_path / "cache").glob("*/shard-000000*"))


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
