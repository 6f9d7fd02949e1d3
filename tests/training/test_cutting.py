"""Clips of several sizes, lengths and places of a video come into one dataset, and a build goes on among them."""

import json
import os
import sys
from fractions import Fraction
from hashlib import sha256

import numpy as np
import pytest
import torch
from PIL import Image
from small_clips import joined, levels, make_video, read

from disca.training.data import clips as reading
from disca.training.data import recipe, windows
from disca.training.data.clips import Cut, find_windows, read_windows
from disca.training.data.dataset import open_dataset
from disca.training.data.folder import find_clips
from disca.training.data.tensors import file_hash
from disca.training.data.windows import Windows

COMFYUI = os.environ.get("COMFYUI_PATH")
if COMFYUI:
    sys.path.insert(1, os.path.dirname(__file__))
    import tiny_encoders as tiny

    from disca.training import build
    from disca.training.build import build_dataset
    from disca.training.network.encoder import Encoder

CHUNKS = Windows("chunks")
CUT = Cut(32, 16, 5, fps=0, windows=CHUNKS)


@pytest.fixture(scope="session")
def encoder():
    return Encoder(tiny.tiny_model("1.0"), tiny.tiny_vae("1.0"), tiny.tiny_clip("1.0"))


@pytest.fixture
def videos(tmp_path):
    """A video of 17 frames, one of 5 and a picture, with captions."""
    folder = tmp_path / "videos"
    folder.mkdir()
    make_video(folder / "long.mkv", range(10, 180, 10), codec="ffv1")
    make_video(folder / "short.mkv", range(90, 140, 10), codec="ffv1")
    Image.new("RGB", (40, 80), (200, 30, 30)).save(folder / "still.png")
    for name in ("long", "short", "still"):
        (folder / f"{name}.txt").write_text(f"A {name} one.")
    return folder


def clip_at(path):
    path.with_suffix(".txt").write_text("a clip")
    (clip,) = (clip for clip in find_clips(str(path.parent)) if clip.path == path)
    return clip


def all_levels(path, cut: Cut) -> list[list[int]]:
    """The grey of each frame of each clip, in tens."""
    clip = clip_at(path)
    return [levels(footage.pixels) for footage in read_windows(clip, cut, find_windows(clip, cut))]


def files(folder) -> dict[str, str]:
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def samples_of(folder, name: str) -> list[torch.Tensor]:
    """The latents of a video's samples, in the order of their keys."""
    dataset = open_dataset(str(folder))
    named = [i for i, item in enumerate(dataset.index.items) if item.source.split(" ")[0] == name]
    return [dataset[i]["latent"] for i in named]


@pytest.mark.parametrize(
    ("windows", "wanted"),
    [
        (Windows(), [[1, 2, 3, 4, 5]]),
        (CHUNKS, [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10], [11, 12, 13, 14, 15]]),
        (Windows("slide", stride=6), [[1, 2, 3, 4, 5], [7, 8, 9, 10, 11], [13, 14, 15, 16, 17]]),
        (Windows("slide", stride=4), [[1, 2, 3, 4, 5], [5, 6, 7, 8, 9], [9, 10, 11, 12, 13], [13, 14, 15, 16, 17]]),
        (Windows("uniform", count=2), [[1, 2, 3, 4, 5], [13, 14, 15, 16, 17]]),
        (Windows("uniform", count=1), [[7, 8, 9, 10, 11]]),
    ],
    ids=str,
)
@pytest.mark.parametrize("fps", [0, 24])
def test_the_clips_of_a_video_are_its_frames_at_their_places(tmp_path, windows, wanted, fps):
    make_video(tmp_path / "a.mkv", range(10, 180, 10), codec="ffv1")
    assert all_levels(tmp_path / "a.mkv", Cut(64, 32, 5, fps, windows=windows)) == wanted


def test_frames_of_uneven_length_are_counted_at_the_times_at_which_they_are_taken(tmp_path):
    make_video(tmp_path / "a.mkv", (10, 20, 30, 40, 50), codec="ffv1", times=[0, 1, 6, 7, 9])
    assert all_levels(tmp_path / "a.mkv", Cut(64, 32, 5, 24, windows=CHUNKS)) == [[1, 2, 2, 2, 3], [3, 3, 4, 4, 5]]


def test_an_animation_has_clips_like_a_video(tmp_path):
    pictures = [Image.new("RGB", (64, 32), (grey,) * 3) for grey in range(10, 130, 10)]
    pictures[0].save(tmp_path / "a.png", save_all=True, append_images=pictures[1:], duration=50)
    cut = Cut(64, 32, 5, 20, windows=CHUNKS)
    assert all_levels(tmp_path / "a.png", cut) == [[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]]


@pytest.mark.parametrize("windows", [Windows(), CHUNKS, Windows("slide"), Windows("uniform")], ids=str)
def test_a_still_is_one_clip(tmp_path, windows):
    Image.new("RGB", (64, 32), (90,) * 3).save(tmp_path / "a.png")
    assert all_levels(tmp_path / "a.png", Cut(64, 32, 5, windows=windows)) == [[9]]


@pytest.mark.parametrize(("frames", "taken"), [(30, 9), (9, 9), (8, 5), (5, 5), (4, 1), (1, 1)])
def test_a_video_is_cut_to_the_longest_that_it_has_frames_for(tmp_path, frames, taken):
    path = make_video(tmp_path / "a.mkv", [90] * frames, codec="ffv1")
    assert len(read(path, Cut(64, 32, (1, 9, 5), 0)).frames) == taken


@pytest.mark.parametrize("windows", [Windows(), CHUNKS, Windows("slide"), Windows("uniform")], ids=str)
def test_a_video_shorter_than_every_length_is_left_out_with_its_frames(tmp_path, windows):
    path = make_video(tmp_path / "a.mkv", [90] * 4, codec="ffv1")
    with pytest.raises(ValueError, match="'a.mkv' is too short .4 frames at 24 per second, and 5 are needed"):
        read(path, Cut(64, 32, (9, 5), windows=windows))


@pytest.mark.parametrize("windows", [Windows(), CHUNKS, Windows("slide"), Windows("uniform")], ids=str)
def test_a_video_of_one_frame_is_one_clip_of_one(tmp_path, windows):
    make_video(tmp_path / "a.mkv", [90], codec="ffv1")
    assert all_levels(tmp_path / "a.mkv", Cut(64, 32, (5, 1), windows=windows)) == [[9]]


@pytest.mark.parametrize(
    ("size", "turn", "bucket"),
    [((64, 32), 0, (80, 48)), ((64, 32), 90, (48, 80)), ((64, 48), 0, (80, 48)), ((40, 40), 0, (64, 64))],
)
def test_a_clip_is_cut_to_the_bucket_of_the_shape_in_which_it_is_shown(tmp_path, size, turn, bucket):
    if size == (64, 32):
        path = make_video(tmp_path / "a.mp4", [90] * 2, rotation=turn)
    else:
        path = tmp_path / "a.png"
        Image.new("RGB", size).save(path)
    assert read(path, Cut(64, 64, 1, buckets=True)).frames.shape[1:3] == bucket[::-1]


def test_every_clip_of_a_video_has_the_size_of_its_first_frame_whichever_are_wanted(tmp_path):
    for name, aspect in (("wide", 1), ("high", 4)):
        make_video(tmp_path / f"{name}.avi", [90] * 5, aspect=Fraction(1, aspect))
    joined(tmp_path / "a.avi", "mpeg4", tmp_path / "wide.avi", tmp_path / "high.avi")
    clip, cut = clip_at(tmp_path / "a.avi"), Cut(64, 64, 5, 0, buckets=True, windows=CHUNKS)
    early, late = find_windows(clip, cut)
    sizes = [footage.frames.shape[1:3] for footage in read_windows(clip, cut, [early, late])]
    (alone,) = [footage.frames.shape[1:3] for footage in read_windows(clip, cut, [late])]
    assert [*sizes, alone] == [(48, 80)] * 3


@pytest.mark.parametrize("windows", [CHUNKS, Windows("slide", stride=2), Windows("uniform", count=30)], ids=str)
def test_no_more_pictures_are_held_than_one_clip_has(tmp_path, monkeypatch, windows):
    alive, most = set(), 0

    class Picture(np.ndarray):
        def __del__(self):
            alive.discard(id(self))

    def fitted(image, size):
        nonlocal most
        picture = np.asarray(image.resize(size)).view(Picture)
        alive.add(id(picture))
        most = max(most, len(alive))
        return picture

    monkeypatch.setattr(reading, "_fit", fitted)
    clip = clip_at(make_video(tmp_path / "a.mkv", range(10, 210, 2), codec="ffv1"))
    cut = Cut(64, 32, 9, 0, windows=windows)
    assert sum(1 for _ in read_windows(clip, cut, find_windows(clip, cut))) > 9
    assert most <= 10  # and the one at hand


def test_a_video_as_it_was_always_cut_keeps_its_key(encoder, videos, tmp_path):
    build_dataset(str(videos), str(tmp_path / "data"), encoder, Cut(32, 16, 5, fps=12))
    keys = {item.source: item.key for item in open_dataset(str(tmp_path / "data")).index.items}
    content = [file_hash(videos / "long.mkv"), "A long one.", "32x16x5@12", False, encoder.fingerprint, 2]
    assert keys["long.mkv 32x16x5@12"] == sha256(json.dumps(content).encode()).hexdigest()[:32]


def test_a_dataset_holds_samples_of_every_size_and_length(encoder, videos, tmp_path):
    cut = Cut(64, 64, (9, 5), 0, buckets=True, windows=CHUNKS)
    build_dataset(str(videos), str(tmp_path / "data"), encoder, cut)
    names = ("long.mkv", "short.mkv", "still.png")
    shapes = [tuple(one.shape[1:]) for name in names for one in samples_of(tmp_path / "data", name)]
    assert shapes == [(3, 6, 10), (2, 6, 10), (1, 10, 6)]


def test_each_clip_of_a_video_is_the_sample_of_its_frames(encoder, videos, tmp_path):
    build_dataset(str(videos), str(tmp_path / "data"), encoder, CUT)
    clip = clip_at(videos / "long.mkv")
    (text, pixels) = (
        encoder.text("A long one."),
        [one.pixels for one in read_windows(clip, CUT, find_windows(clip, CUT))],
    )
    found = samples_of(tmp_path / "data", "long.mkv")
    assert len(found) == len(pixels) == 3
    assert all(torch.equal(one, encoder.sample(of, text)["latent"]) for one, of in zip(found, pixels, strict=True))


@pytest.mark.parametrize("windows", [CHUNKS, Windows("slide", stride=3), Windows("uniform", count=4)], ids=str)
@pytest.mark.parametrize("moment", range(1, 5))
def test_a_build_that_is_interrupted_within_a_video_goes_on_there_to_the_same_bytes(
    encoder, videos, tmp_path, windows, moment
):
    steps = []

    def interrupt(done, total):
        steps.append(done)
        if len(steps) == moment:
            raise KeyboardInterrupt

    cut = Cut(32, 16, 5, fps=0, windows=windows)
    whole = build_dataset(str(videos), str(tmp_path / "whole"), encoder, cut)
    with pytest.raises(KeyboardInterrupt):
        build_dataset(str(videos), str(tmp_path / "data"), encoder, cut, progress=interrupt)
    made = len(list((tmp_path / "data" / "samples").rglob("*.safetensors")))
    assert (
        build_dataset(str(videos), str(tmp_path / "data"), encoder, cut).encoded == whole.samples - made < whole.samples
    )
    assert files(tmp_path / "data") == files(tmp_path / "whole")


def test_a_second_build_decodes_nothing(encoder, videos, tmp_path, monkeypatch):
    build_dataset(str(videos), str(tmp_path / "data"), encoder, CUT)
    monkeypatch.setattr(recipe, "find_windows", None)
    assert build_dataset(str(videos), str(tmp_path / "data"), encoder, CUT, prune=True)[:2] == (5, 0)


def test_a_clip_that_was_lost_is_made_again(encoder, videos, tmp_path):
    build_dataset(str(videos), str(tmp_path / "data"), encoder, CUT)
    whole = files(tmp_path / "data")
    for path in (tmp_path / "data").rglob("*-2.safetensors"):
        path.unlink()
    assert build_dataset(str(videos), str(tmp_path / "data"), encoder, CUT)[:2] == (5, 1)
    assert files(tmp_path / "data") == whole


def test_the_clips_of_a_video_go_together_for_those_of_another_of_its_name(encoder, videos, tmp_path):
    build_dataset(str(videos), str(tmp_path / "data"), encoder, CUT)
    make_video(videos / "long.mkv", range(10, 120, 10), codec="ffv1")
    built = build_dataset(str(videos), str(tmp_path / "data"), encoder, CUT)
    assert built[:2] == (4, 2)
    assert built.account.lines() == [
        "Noted, samples replaced by another clip or caption of the same name (1): 'long.mkv 32x16x5@0 chunks'."
    ]


def test_pruning_leaves_the_clips_that_are_asked_for(encoder, videos, tmp_path):
    slide = Cut(32, 16, 5, fps=0, windows=Windows("slide", stride=4))
    build_dataset(str(videos), str(tmp_path / "data"), encoder, CUT)
    assert build_dataset(str(videos), str(tmp_path / "data"), encoder, slide).samples == 11
    assert build_dataset(str(videos), str(tmp_path / "data"), encoder, slide, prune=True).samples == 6
    build_dataset(str(videos), str(tmp_path / "new"), encoder, slide)
    assert files(tmp_path / "data") == files(tmp_path / "new")


def test_of_a_video_with_too_many_clips_the_first_are_taken_and_it_is_said(encoder, videos, tmp_path, monkeypatch):
    for module in (windows, recipe):
        monkeypatch.setattr(module, "MOST_CLIPS", 2)
    built = build_dataset(str(videos), str(tmp_path / "data"), encoder, CUT)
    assert built.samples == 4
    assert built.account.lines() == [
        "Noted, videos of more than 2 clips, of which the first are taken (1): 'long.mkv'."
    ]
    assert build_dataset(str(videos), str(tmp_path / "data"), encoder, CUT).encoded == 0


def test_a_video_longer_than_is_counted_is_left_out(tmp_path, monkeypatch):
    path, cut = make_video(tmp_path / "a.mkv", [90] * 12, codec="ffv1"), Cut(64, 32, 5, 0, windows=Windows("uniform"))
    for module in (windows, reading):
        monkeypatch.setattr(module, "MOST_FRAMES", 9)
    with pytest.raises(ValueError, match=r"'a.mkv' has more than 9 frames \(split it\)"):
        read(path, cut)


def test_a_video_damaged_in_a_late_clip_is_left_out_whole(encoder, videos, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 32, 64, 3))
    path = make_video(videos / "long.mkv", noise, codec="ffv1")
    content = bytearray(path.read_bytes())
    for place in range(len(content) * 3 // 4, len(content) * 3 // 4 + 2000, 7):
        content[place] ^= 0xFF
    path.write_bytes(content)
    assert len(read(path, Cut(32, 16, 5, fps=0)).frames) == 5
    built = build_dataset(str(videos), str(tmp_path / "data"), encoder, CUT)
    assert built.samples == 2
    (fault,) = built.account.faults()
    assert fault.startswith("Left out because it cannot be read (1): 'long.mkv' (")


@pytest.mark.parametrize(
    ("frames", "told"),
    [
        ((121, 60), "Clips of 60 frames cannot be encoded: use 4n . 1 frames, for example 61"),
        ((121, 0), "Clips of 0 frames .* for example 1"),
        ((), "Clips of 0 lengths were asked for: give 1 to 16"),
        (tuple(range(1, 81, 4)), "Clips of 20 lengths were asked for"),
        ((1, 10001), "848x480 with 10001 frames are more than fit into memory"),
    ],
)
def test_lengths_that_cannot_be_encoded_are_refused(frames, told):
    with pytest.raises(ValueError, match=told):
        Cut(frames=frames)


def test_the_command_takes_sizes_lengths_and_clips(encoder, videos, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(build, "_load_encoder", lambda options: encoder)
    command = ["--videos", str(videos), "--out", str(tmp_path / "data"), "--vae", "v", "--text-encoders", "t"]
    command += ["--width", "32", "--height", "32", "--fps", "0", "--buckets", "--frames", "9", "5", "--clips", "slide"]
    assert build.main([*command, "--stride", "4"]) == 0
    assert len(samples_of(tmp_path / "data", "long.mkv")) == 3
    assert build.main([*command, "--stride", "0"]) == 2
    assert "'stride' is 0, but must be at least 1." in caplog.text
    with pytest.raises(SystemExit):
        build.main([*command, "--clips", "random"])
