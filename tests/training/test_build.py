"""The builder stores what the network sees in ComfyUI, once for each video, and goes on where it was."""

import inspect
import os
import sys
from functools import partial
from hashlib import sha256

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from small_clips import make_video, read_clip

from disca.models.family import FAMILIES
from disca.training.data.clips import Cut
from disca.training.data.dataset import open_dataset, require_fits
from disca.training.data.folder import find_clips

COMFYUI = os.environ.get("COMFYUI_PATH")
if COMFYUI:
    sys.path.insert(1, os.path.dirname(__file__))
    import tiny_encoders as tiny

    from disca.training import build
    from disca.training.build import build_dataset
    from disca.training.network.encoder import Encoder, model_without_weights

CUT = Cut(32, 16, 5, fps=12)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"width": 850}, "Clips of 850x480 cannot be encoded: use multiples of 16"),
        ({"frames": 120}, "Clips of 120 frames .* for example 121"),
        ({"frames": 0}, "use 4n"),
        ({"fps": -1.0}, "-1.0 frames per second cannot be"),
        ({"fps": float("nan")}, "nan frames per second cannot be"),
        ({"width": 4096, "height": 4096, "frames": 1001}, "Clips of 4096x4096 with 1001 frames are more than fit into"),
        ({"width": 16 * 10**9}, "are more than fit into memory"),
    ],
)
def test_a_size_that_cannot_be_encoded_is_refused(settings, told):
    with pytest.raises(ValueError, match=told):
        Cut(**settings)


@pytest.fixture(scope="session")
def encoders(tmp_path_factory):
    """The tiny encoders of both families by their name."""
    made = {}
    for family in ("1.0", "1.5"):
        vision = tiny.tiny_vision(tmp_path_factory.mktemp("vision")) if family == "1.5" else None
        made[family] = tiny.tiny_model(family), tiny.tiny_vae(family), tiny.tiny_clip(family), vision
    return made


@pytest.fixture
def videos(tmp_path):
    """Three videos and a picture, with captions."""
    folder = tmp_path / "videos"
    (folder / "more").mkdir(parents=True)
    for i, name in enumerate(("a.mp4", "b.mkv", "more/c.avi")):
        make_video(folder / name, range(10 + i, 250, 10))
        (folder / name).with_suffix(".txt").write_text(f'Number {i} says "hello".')
    Image.new("RGB", (80, 80), (200, 30, 30)).save(folder / "d.png")
    (folder / "d.txt").write_text("Red.")
    return folder


def files(folder) -> dict[str, str]:
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def sample_of(folder, name: str) -> dict[str, torch.Tensor]:
    """The sample of a clip."""
    dataset = open_dataset(str(folder))
    (sample,) = [dataset[i] for i, item in enumerate(dataset.index.items) if item.source.split(" ")[0] == name]
    return sample


def seen_by_the_network(model, positive, latent) -> dict[str, torch.Tensor]:
    """What core's sampling hands the network in its one step."""
    import comfy.sample

    seen = {}

    def record(_, args, kwargs):
        seen.update({name: value for name, value in kwargs.items() if torch.is_tensor(value)}, x=args[0])

    hook = model.model.diffusion_model.register_forward_pre_hook(record, with_kwargs=True)
    with torch.inference_mode():
        comfy.sample.sample(
            model, torch.zeros_like(latent), 1, 1.0, "euler", "simple", positive, positive, latent, disable_pbar=True
        )
    hook.remove()
    return seen


def text_to_video(clip, caption):
    with torch.inference_mode():
        return clip.encode_from_tokens_scheduled(clip.tokenize(caption))


@pytest.mark.parametrize("family", ["1.0", "1.5"])
def test_text_to_video_samples_are_what_the_network_sees(encoders, videos, tmp_path, family):
    model, vae, clip, _ = encoders[family]
    build_dataset(str(videos), str(tmp_path / "data"), Encoder(model, vae, clip), CUT)
    sample = sample_of(tmp_path / "data", "a.mp4")
    (video, *_) = find_clips(str(videos))
    with torch.inference_mode():
        latent = vae.encode(read_clip(video, CUT).pixels)
    seen = seen_by_the_network(model, text_to_video(clip, video.caption), torch.zeros_like(latent))
    assert torch.equal(sample["latent"], model.model.process_latent_in(latent)[0].bfloat16())
    assert torch.equal(sample["context"], seen["context"][0].bfloat16())
    for name in {"1.0": ["y"], "1.5": ["txt_byt5"]}[family]:
        assert torch.equal(sample[name], seen[name][0].bfloat16())
    if family == "1.5":
        assert torch.equal(sample["concat"], seen["x"][0, 32:].bfloat16())
    require_fits(open_dataset(str(tmp_path / "data")), family, latent.shape[1], tiny.WIDTH)


def test_image_to_video_samples_are_what_the_network_sees(encoders, videos, tmp_path):
    from comfy_extras.nodes_hunyuan import HunyuanVideo15ImageToVideo

    model, vae, clip, vision = encoders["1.5"]
    build_dataset(str(videos), str(tmp_path / "data"), Encoder(model, vae, clip, vision), CUT, first_frame=True)
    sample = sample_of(tmp_path / "data", "a.mp4")
    (video, *_) = find_clips(str(videos))
    pixels = read_clip(video, CUT).pixels
    positive = text_to_video(clip, video.caption)
    with torch.inference_mode():
        given = {"width": 32, "height": 16, "length": 5, "batch_size": 1, "start_image": pixels[:1]}
        given["clip_vision_output"] = vision.encode_image(pixels[:1])
        positive, _, latent = HunyuanVideo15ImageToVideo.execute(positive, positive, vae, **given).result
    seen = seen_by_the_network(model, positive, latent["samples"])
    assert torch.equal(sample["concat"], seen["x"][0, 32:].bfloat16())
    assert sample["concat"][-1, 0].eq(1).all()  # the mask: the first frame is given
    for name in ("context", "txt_byt5", "clip_fea"):
        assert torch.equal(sample[name], seen[name][0].bfloat16())


def test_the_null_is_the_empty_caption(encoders, videos, tmp_path):
    model, vae, clip, _ = encoders["1.0"]
    build_dataset(str(videos), str(tmp_path / "data"), Encoder(model, vae, clip), CUT)
    ((context, options),) = text_to_video(clip, "")
    null = open_dataset(str(tmp_path / "data")).null
    assert set(null) == {"context", "y"}
    assert torch.equal(null["context"], context[0].bfloat16())
    assert torch.equal(null["y"], options["pooled_output"][0].bfloat16())


@pytest.mark.parametrize(("family", "limit"), [("1.0", 256), ("1.5", 1000)])
def test_a_caption_longer_than_the_model_reads_is_cut_where_its_own_code_cuts_it_and_named(
    encoders, videos, tmp_path, family, limit
):
    model, vae, clip, _ = encoders[family]
    words = [f"word{i:d}" for i in range(limit)]
    (videos / "a.txt").write_text(" ".join(words))
    (videos / "b.txt").write_text(" ".join(words[: limit // 8]))
    built = build_dataset(str(videos), str(tmp_path / "data"), Encoder(model, vae, clip), CUT)
    context = sample_of(tmp_path / "data", "a.mp4")["context"]
    ((whole, _),) = text_to_video(clip, " ".join(words))
    assert len(context) == limit < whole.shape[1]
    assert torch.equal(context, whole[0, :limit].bfloat16())
    assert [line for line in built.account.lines() if "captions" in line] == [
        "Noted, captions longer than the model reads, without their ends (1): 'a.mp4'."
    ]


def test_an_interrupted_build_continues_to_the_same_bytes(encoders, videos, tmp_path):
    def interrupt(done, total):
        if done == 2:
            raise KeyboardInterrupt

    encoder = Encoder(*encoders["1.0"])
    whole = build_dataset(str(videos), str(tmp_path / "whole"), encoder, CUT)
    with pytest.raises(KeyboardInterrupt):
        build_dataset(str(videos), str(tmp_path / "data"), encoder, CUT, progress=interrupt)
    assert (whole.samples, whole.encoded) == (4, 4)
    assert build_dataset(str(videos), str(tmp_path / "data"), encoder, CUT).encoded == 2
    assert files(tmp_path / "data") == files(tmp_path / "whole")


def test_a_second_build_encodes_only_what_is_new(encoders, videos, tmp_path):
    encoder = Encoder(*encoders["1.0"])
    build_dataset(str(videos), str(tmp_path / "data"), encoder, CUT)
    assert build_dataset(str(videos), str(tmp_path / "data"), encoder, CUT)[:2] == (4, 0)
    (videos / "a.txt").write_text("Another caption.")
    assert build_dataset(str(videos), str(tmp_path / "data"), encoder, CUT)[:2] == (4, 1)
    for path in videos.glob("b.*"):
        path.unlink()
    assert build_dataset(str(videos), str(tmp_path / "data"), encoder, CUT).samples == 4
    assert build_dataset(str(videos), str(tmp_path / "data"), encoder, CUT, prune=True).samples == 3
    captions = {item.caption for item in open_dataset(str(tmp_path / "data")).index.items}
    assert captions == {"Another caption.", 'Number 2 says "hello".', "Red."}


def captions_by_source(folder) -> dict[str, str]:
    return {item.source.split(" ")[0]: item.caption for item in open_dataset(str(folder)).index.items}


def renamed(folder, old: str, new: str) -> None:
    for ending in (".mp4", ".txt"):
        os.replace(folder / f"{old}{ending}", folder / f"{new}{ending}")


def test_a_renamed_clip_keeps_its_sample_though_another_takes_its_name(encoders, videos, tmp_path):
    encoder = Encoder(*encoders["1.0"])
    build_dataset(str(videos), str(tmp_path / "data"), encoder, CUT)
    renamed(videos, "a", "z")
    make_video(videos / "a.mp4", range(90, 250, 10))
    (videos / "a.txt").write_text("Another clip.")
    assert build_dataset(str(videos), str(tmp_path / "data"), encoder, CUT)[:2] == (5, 1)
    found = captions_by_source(tmp_path / "data")
    assert (found["a.mp4"], found["z.mp4"]) == ("Another clip.", 'Number 0 says "hello".')


def test_of_clips_that_swap_their_names_each_caption_is_changed_on_its_own(encoders, videos, tmp_path):
    encoder = Encoder(*encoders["1.0"])
    make_video(videos / "b.mp4", range(90, 250, 10))
    os.replace(videos / "b.mkv", videos / "more" / "e.mkv")
    (videos / "more" / "e.txt").write_text("Moved.")
    build_dataset(str(videos), str(tmp_path / "data"), encoder, CUT)
    for old, new in (("a", "c"), ("b", "a"), ("c", "b")):
        renamed(videos, old, new)
    (videos / "a.txt").write_text("What was b.")
    assert build_dataset(str(videos), str(tmp_path / "data"), encoder, CUT)[:2] == (5, 1)
    found = captions_by_source(tmp_path / "data")
    assert (found["a.mp4"], found["b.mp4"]) == ("What was b.", 'Number 0 says "hello".')


def test_a_caption_that_is_set_back_wins_over_the_one_that_came_between(encoders, videos, tmp_path):
    def interrupt(done, total):
        if done == 1:
            raise KeyboardInterrupt

    encoder, caption = Encoder(*encoders["1.0"]), (videos / "a.txt").read_text()
    build_dataset(str(videos), str(tmp_path / "data"), encoder, CUT)
    (videos / "a.txt").write_text("Between.")
    with pytest.raises(KeyboardInterrupt):
        build_dataset(str(videos), str(tmp_path / "data"), encoder, CUT, progress=interrupt)
    (videos / "a.txt").write_text(caption)
    assert build_dataset(str(videos), str(tmp_path / "data"), encoder, CUT).samples == 4
    assert captions_by_source(tmp_path / "data")["a.mp4"] == caption


def test_of_equal_clips_with_equal_captions_one_is_taken_and_the_others_are_said(encoders, videos, tmp_path):
    for ending in (".mp4", ".txt"):
        (videos / "more" / f"a{ending}").write_bytes((videos / f"a{ending}").read_bytes())
    built = build_dataset(str(videos), str(tmp_path / "data"), Encoder(*encoders["1.0"]), CUT)
    assert built.samples == 4
    assert built.account.lines() == ["Passed over, the same as another clip, caption included (1): 'more/a.mp4'."]


def test_a_sample_that_goes_for_another_of_its_name_is_said(encoders, videos, tmp_path):
    encoder, other = Encoder(*encoders["1.0"]), tmp_path / "other"
    build_dataset(str(videos), str(tmp_path / "data"), encoder, CUT)
    other.mkdir()
    make_video(other / "a.mp4", range(90, 250, 10))
    (other / "a.txt").write_text("Of another folder.")
    built = build_dataset(str(other), str(tmp_path / "data"), encoder, CUT)
    assert built.samples == 4
    assert built.account.lines() == [
        "Noted, samples replaced by another clip or caption of the same name (1): 'a.mp4 32x16x5@12'."
    ]


def test_nothing_is_pruned_where_a_clip_was_left_out(encoders, videos, tmp_path):
    encoder = Encoder(*encoders["1.0"])
    build_dataset(str(videos), str(tmp_path / "data"), encoder, CUT)
    (videos / "a.txt").write_bytes(b"\xff\xfe\xff")
    built = build_dataset(str(videos), str(tmp_path / "data"), encoder, CUT, prune=True)
    assert built.samples == 4
    assert "nothing was pruned" in "\n".join(built.account.lines())


def test_other_weights_are_another_encoder(encoders, videos, tmp_path):
    model, vae, clip, _ = encoders["1.0"]
    encoder = Encoder(model, vae, clip)
    other = Encoder(model, tiny.tiny_vae("1.0", seed=1), clip)
    build_dataset(str(videos), str(tmp_path / "data"), encoder, CUT)
    assert encoder.fingerprint == Encoder(model, vae, clip).fingerprint != other.fingerprint
    with pytest.raises(ValueError, match="Use the models it was built with, or another folder"):
        build_dataset(str(videos), str(tmp_path / "data"), other, CUT)


def test_videos_that_cannot_be_used_are_left_out_and_named(encoders, videos, tmp_path):
    (videos / "a.mp4").write_bytes((videos / "a.mp4").read_bytes()[:200])
    make_video(videos / "b.mkv", [90] * 6)
    (videos / "d.png").write_bytes(b"no picture")
    encoder = Encoder(*encoders["1.0"])
    built = build_dataset(str(videos), str(tmp_path / "data"), encoder, CUT)
    assert built.samples == 1
    unreadable, short = built.account.faults()
    assert unreadable.startswith("Left out because it cannot be read (2): 'a.mp4' (") and "'d.png' (" in unreadable
    assert short == "Left out because it is too short (1): 'b.mkv' (3 frames at 12 per second, and 5 are needed)."
    with pytest.raises(ValueError, match="None of the videos could be used.\nLeft out because it cannot be read .2.: "):
        build_dataset(str(videos), str(tmp_path / "none"), encoder, Cut(32, 16, 401, 12))


def test_strict_ends_at_what_is_left_out_otherwise(encoders, videos, tmp_path):
    encoder = Encoder(*encoders["1.0"])
    make_video(videos / "b.mkv", [90] * 6)
    with pytest.raises(ValueError, match="'b.mkv' is too short .3 frames"):
        build_dataset(str(videos), str(tmp_path / "data"), encoder, CUT, strict=True)
    (videos / "d.txt").unlink()
    with pytest.raises(ValueError, match=r"has no caption \(1\): 'd.png' \(there is no 'd.txt'\)"):
        build_dataset(str(videos), str(tmp_path / "data"), encoder, CUT, strict=True)
    assert build_dataset(str(videos), str(tmp_path / "data"), encoder, CUT).samples == 2


def test_what_was_changed_is_told_with_the_names(encoders, videos, tmp_path):
    make_video(videos / "a.mp4", range(10, 130, 20), fps=6)
    Image.new("RGBA", (80, 80), (200, 30, 30, 0)).save(videos / "d.png")
    built = build_dataset(str(videos), str(tmp_path / "data"), Encoder(*encoders["1.0"]), CUT)
    assert built.samples == 4
    assert built.account.lines() == [
        "Noted, frames repeated, for it has fewer than 12 a second (1): 'a.mp4' (about 6).",
        "Noted, transparent pixels put on white (1): 'd.png'.",
    ]


def test_a_name_that_is_not_unicode_goes_into_the_dataset_with_its_bytes_spelt_out(encoders, tmp_path):
    (tmp_path / "videos").mkdir()
    try:
        Image.new("RGB", (32, 16)).save(tmp_path / "videos" / os.fsdecode(b"caf\xe9.png"))
    except (OSError, UnicodeError):
        pytest.skip("the file system takes Unicode only")
    (tmp_path / "videos" / os.fsdecode(b"caf\xe9.txt")).write_text("Black.")
    build_dataset(str(tmp_path / "videos"), str(tmp_path / "data"), Encoder(*encoders["1.0"]), CUT)
    (item,) = open_dataset(str(tmp_path / "data")).index.items
    assert item.source.startswith("caf\\udce9.png ")


def test_a_second_builder_on_the_same_dataset_is_told_who_is_at_it(encoders, videos, tmp_path):
    def second(done, total):
        with pytest.raises(RuntimeError, match=f"dataset is being built by process {os.getpid()} on"):
            build_dataset(str(videos), str(tmp_path / "data"), encoder, CUT)

    encoder = Encoder(*encoders["1.0"])
    assert build_dataset(str(videos), str(tmp_path / "data"), encoder, CUT, progress=second).encoded == 4


def test_a_damaged_null_is_made_again(encoders, videos, tmp_path):
    encoder = Encoder(*encoders["1.0"])
    build_dataset(str(videos), str(tmp_path / "data"), encoder, CUT)
    null = tmp_path / "data" / "null.safetensors"
    content = null.read_bytes()
    null.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    build_dataset(str(videos), str(tmp_path / "data"), encoder, CUT)
    assert null.read_bytes() == content and len(open_dataset(str(tmp_path / "data"))) == 4


def test_encoders_of_another_model_are_refused(encoders, videos, tmp_path):
    model, vae, clip, _ = encoders["1.0"]
    with pytest.raises(ValueError, match="The VAE has 32 latent channels, but HunyuanVideo 1.0 has 16"):
        Encoder(model, encoders["1.5"][1], clip)
    with pytest.raises(ValueError, match="gives 32 values per token, but HunyuanVideo 1.0 takes 4096"):
        Encoder(model_without_weights("1.0"), vae, clip).text("a caption")
    with pytest.raises(ValueError, match="HunyuanVideo 1.0 has no input for a first frame"):
        build_dataset(str(videos), str(tmp_path / "data"), Encoder(model, vae, clip), CUT, first_frame=True)


def test_a_model_without_weights_gives_the_same_samples(encoders, videos, monkeypatch):
    model, vae, clip, vision = encoders["1.5"]
    monkeypatch.setitem(FAMILIES["1.5"].config, "context_in_dim", tiny.WIDTH)
    bare, full = Encoder(model_without_weights("1.5"), vae, clip, vision), Encoder(model, vae, clip, vision)
    pixels = torch.rand(5, 16, 32, 3)
    samples = [encoder.sample(pixels, encoder.text("A word."), first_frame=True) for encoder in (bare, full)]
    assert bare.fingerprint == full.fingerprint
    assert all(torch.equal(samples[0][name], samples[1][name]) for name in samples[1])


def test_the_command_builds_and_goes_on(encoders, videos, tmp_path, monkeypatch, caplog):
    command = ["--videos", str(videos), "--out", str(tmp_path / "data"), "--vae", "v.safetensors"]
    command += ["--text-encoders", "t.safetensors", "--width", "32", "--height", "16", "--frames", "5", "--fps", "12"]
    assert build.main(command) == 2
    assert "'v.safetensors' is not a .safetensors file that is there" in caplog.text
    monkeypatch.setattr(build, "_load_encoder", lambda options: Encoder(*encoders["1.0"]))
    caplog.set_level("INFO")
    assert [build.main(command), build.main(command)] == [0, 0]
    assert "holds 4 samples, 4 of them new" in caplog.text and "holds 4 samples, 0 of them new" in caplog.text


def test_the_command_loads_the_files_it_is_given(encoders, tmp_path, monkeypatch):
    import comfy.sd

    _, vae, clip, _ = encoders["1.0"]
    signature, given = inspect.signature(comfy.sd.load_clip), {}

    def load_clip(*args, **kwargs):  # ComfyUI makes text encoders of their full size only
        given.update(signature.bind(*args, **kwargs).arguments)
        return clip

    monkeypatch.setattr(comfy.sd, "load_clip", load_clip)
    monkeypatch.setattr(comfy.sd, "VAE", partial(tiny.tiny_vae_of, comfy.sd.VAE))
    save_file(vae.first_stage_model.state_dict(), tmp_path / "vae.safetensors")
    (tmp_path / "text.safetensors").touch()
    paths = ["--vae", str(tmp_path / "vae.safetensors"), "--text-encoders", str(tmp_path / "text.safetensors")]
    options = build._parser().parse_args(["--videos", "", "--out", "", "--model", "1.0", "--cpu", *paths])
    loaded = build._load_encoder(options)
    assert given == {"ckpt_paths": paths[3:], "clip_type": comfy.sd.CLIPType.HUNYUAN_VIDEO}
    assert loaded.fingerprint == Encoder(*encoders["1.0"]).fingerprint
