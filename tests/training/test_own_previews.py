"""Previews of a run's own prompts, and as videos: by real, small text encoders and VAEs in real files."""

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import small_networks
import torch
from PIL import Image, ImageChops
from safetensors.torch import load, load_file, save_file

from disca.toy.dataset import ToyDataset
from disca.training.contract.method_settings import PredictorSettings
from disca.training.contract.settings import (
    DataSettings,
    ModelSettings,
    OptimiserSettings,
    PreviewSettings,
    SaveSettings,
    Settings,
)
from disca.training.contract.yaml_settings import write_settings
from disca.training.data.dataset import DatasetWriter, open_dataset

sys.path.insert(1, os.path.dirname(__file__))
import av
import comfy.model_management
import comfy.sd
import tiny_encoders as tiny

from disca.models.family import FAMILIES
from disca.models.loading import load_network
from disca.toy.network import new_network
from disca.training.algorithms.sampling import sample
from disca.training.algorithms.scenes import scenes_of_prompts
from disca.training.choose import chosen
from disca.training.engine.loop import train
from disca.training.network import texts
from disca.training.network.export import export_network
from disca.training.network.roles import add_embedder
from disca.training.network.sample_prompts import prepare_previews, read_texts
from disca.training.network.vae import Decoder, free_models
from disca.training.network.velocity import Network
from disca.training.records.run_folder import RunFolder

POOLED = tiny.CLIP_L | {"hidden_size": 768}  # ComfyUI knows HunyuanVideo 1.0 with such a pooled text only
OPTIONS = tiny.TEXT_OPTIONS | {"clip_l_model_config": POOLED, "model_config": POOLED}  # its loader takes the second
CAPTION, OTHER = "A red square moves left.", "A blue circle rests."
ENCODERS = {"1.0": ("clip_l", "llama"), "1.5": ("qwen25_7b", "byt5_small")}
TIMES = torch.tensor([1.0, 0.5, 0.0])
CAPTION_PIXELS = 16

needs_gloo = pytest.mark.skipif(not torch.distributed.is_gloo_available(), reason="needs gloo")


class Files:
    """What a user would have: files of text encoders and VAEs of both families, a dataset, and a model."""

    def __init__(self, folder: Path):
        self.folder = folder
        for family, names in ENCODERS.items():
            clip = tiny.tiny_clip(family)
            for name in names:
                weights = getattr(clip.cond_stage_model, name).transformer.state_dict()
                save_file({key: weight.clone() for key, weight in weights.items()}, self.path(name))
            vae = tiny.tiny_vae(family).first_stage_model.state_dict()
            vae |= {name: 8.0 * weight for name, weight in vae.items() if "decoder.conv_out" in name}  # more contrast
            save_file(vae, self.path(f"vae-{family}"))
        self._add_dataset()
        network = new_network("tiny", 0)
        small_networks_fill(network)
        add_embedder(network, "time_r_in")
        torch.nn.init.normal_(network.time_r_in.out_layer.weight, std=0.1)
        settings = Settings("flow", str(folder), DataSettings("toy://shapes"))
        export_network(folder, network, {}, settings)

    def _add_dataset(self) -> None:
        encoder = texts.load_text_encoder("1.0", self.encoders("1.0"))
        with DatasetWriter(str(self.folder / "data"), "encoder", "1.0") as writer:
            writer.write_null(encoder.null())
            for i in range(2):
                latent = ToyDataset()[i]["latent"][:, :2, :4, :6].to(torch.bfloat16)
                writer.add(f"{i:032x}", {"latent": latent, **encoder.inputs(CAPTION)})

    def path(self, name: str) -> str:
        return str(self.folder / f"{name}.safetensors")

    def encoders(self, family: str) -> tuple[str, ...]:
        return tuple(map(self.path, ENCODERS[family]))

    def run(self, out: Path, algorithm: str = "predictor", iterations: int = 1, **preview) -> Settings:
        """A short run; by default a preview comes before the first iteration and after each."""
        given = {"every": 1, "steps": 2, "shift": 1.0, "guidance": 3.0, "seeds": (4, 5)}
        return Settings(
            algorithm,
            str(out),
            DataSettings(str(self.folder / "data")),
            ModelSettings(self.path("model"), dtype="fp32"),
            iterations=iterations,
            optimizer=OptimiserSettings(lr=1e-3, ema=0.5),
            predictor=PredictorSettings(mse_iterations=0, gan_iterations=iterations, full_steps=1),
            save=SaveSettings(every=1),
            preview=PreviewSettings(**given | preview),
            device="cpu",
        )

    def own(self, out: Path, *prompts: str, algorithm: str = "predictor", iterations: int = 1, **preview) -> Settings:
        """The same with prompts of its own."""
        given = {"prompts": prompts, "text_encoders": self.encoders("1.0")}
        return self.run(out, algorithm, iterations, **given | preview)


def small_networks_fill(network: torch.nn.Module) -> None:
    """Gives weights that are zero at first some that are not, so that prompts matter."""
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if not weight.any() and weight.ndim > 1:
                weight.normal_(std=0.05, generator=torch.Generator().manual_seed(len(name)))


@pytest.fixture(autouse=True, scope="module")
def _small():
    """ComfyUI's own loaders, told of the small sizes, in a process that trains."""
    with pytest.MonkeyPatch.context() as patch, small_networks.training_mode():
        patch.setattr(tiny, "TEXT_OPTIONS", OPTIONS)
        patch.setattr(comfy.sd, "load_clip", partial(comfy.sd.load_clip, model_options=OPTIONS))
        patch.setattr(comfy.sd, "VAE", partial(tiny.tiny_vae_of, comfy.sd.VAE))
        patch.setattr(texts, "model_without_weights", tiny.tiny_model)
        yield


@pytest.fixture(scope="module")
def files(tmp_path_factory, _small):
    return Files(tmp_path_factory.mktemp("files"))


def frames_of(path: Path) -> torch.Tensor:
    """All frames [T, H, W, 3] of a video in [0, 1]."""
    with av.open(str(path)) as video:
        return (
            torch.stack([torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in video.decode(video=0)]) / 255
        )


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """How far apart two videos are in brightness: H.264 keeps colours coarsely."""
    return ((a - b) @ torch.tensor([0.2126, 0.7152, 0.0722])).abs().mean().item()


def previews_in(out: Path, iteration: int = 0) -> dict[str, bytes]:
    """The files of a preview."""
    return {path.name: path.read_bytes() for path in (out / "previews").glob(f"step-{iteration:06d}*")}


def by_hand(files: Files, prompt: str, seed: int) -> torch.Tensor:
    """The video of a prompt with every step in full, from the files alone."""
    inputs = texts.load_text_encoder("1.0", files.encoders("1.0")).inputs(prompt)
    network = Network(load_network(files.path("model"), torch.float32), dtype=torch.float32)
    condition = {name: tensor[None] for name, tensor in inputs.items()}
    noise = torch.randn(16, 2, 4, 6, generator=torch.Generator().manual_seed(seed))
    latents = sample(
        lambda x, t, r: network.velocity(x, t, r, condition), noise[None].to(torch.bfloat16), TIMES
    ).float()
    vae = comfy.sd.VAE(sd=load_file(files.path("vae-1.0")))
    with torch.inference_mode():
        return vae.decode(FAMILIES["1.0"].latent_format().process_out(latents))[0].float()


def test_a_video_shows_the_decoded_sample_of_each_prompt_under_the_name_of_its_row(tmp_path, files):
    train(files.own(tmp_path, CAPTION, OTHER, vae=files.path("vae-1.0")), chosen)
    assert sorted(previews_in(tmp_path)) == ["step-000000-1.mp4", "step-000000-2.mp4", "step-000000.png"]
    wanted = [by_hand(files, CAPTION, 4), by_hand(files, OTHER, 5)]
    for number, video in enumerate(wanted, start=1):
        shown = frames_of(tmp_path / "previews" / f"step-000000-{number}.mp4")
        height = video.shape[1]
        assert shown.shape == (len(video), 2 * (CAPTION_PIXELS + height), video.shape[2], 3)
        first_row, other = shown[:, CAPTION_PIXELS : CAPTION_PIXELS + height], wanted[2 - number]
        assert distance(first_row, video) < 0.02 < 0.05 < distance(other, video)
        assert (first_row - video).mean((0, 1, 2)).abs().max() < 0.02  # red, green and blue
        assert shown[:, :CAPTION_PIXELS].amax() > 0.5  # its name


def test_prompts_may_have_another_size_than_the_dataset(tmp_path, files):
    size = {"width": 64, "height": 32, "frames": 9}
    train(files.own(tmp_path, OTHER, vae=files.path("vae-1.0"), **size), chosen)
    shown = frames_of(tmp_path / "previews" / "step-000000-1.mp4")
    assert shown.shape == (9, 2 * (CAPTION_PIXELS + 32), 64, 3)


def test_another_prompt_gives_another_preview_and_the_same_prompt_the_same(tmp_path, files):
    for name, prompt in (("a", CAPTION), ("b", OTHER), ("c", OTHER)):
        train(files.own(tmp_path / name, prompt), chosen)
    a, b, c = (previews_in(tmp_path / name) for name in "abc")
    assert a.keys() == b.keys() == {"step-000000.png"} and a != b == c


def test_prompts_and_videos_change_no_number_of_the_training(tmp_path, files):
    train(files.run(tmp_path / "plain", every=0), chosen)
    train(files.own(tmp_path / "own", OTHER, vae=files.path("vae-1.0")), chosen)
    plain, own = (load_file(tmp_path / name / "export" / "predictor.safetensors") for name in ("plain", "own"))
    assert plain.keys() == own.keys() and all(torch.equal(plain[name], own[name]) for name in plain)


def test_a_vae_alone_shows_the_samples_of_the_dataset_and_changes_no_bit_of_the_picture(tmp_path, files):
    train(files.run(tmp_path / "without"), chosen)
    train(files.run(tmp_path / "with", vae=files.path("vae-1.0")), chosen)
    without, shown = previews_in(tmp_path / "without"), previews_in(tmp_path / "with")
    assert without.keys() == {"step-000000.png"}
    assert shown.keys() == {"step-000000.png", "step-000000-1.mp4", "step-000000-2.mp4"}
    assert shown["step-000000.png"] == without["step-000000.png"]
    assert not RunFolder(tmp_path / "with").prompts.exists()


def test_a_run_that_goes_on_does_not_load_the_text_encoders_again(tmp_path, files, monkeypatch):
    train(files.own(tmp_path, OTHER), chosen)
    before, written = previews_in(tmp_path), RunFolder(tmp_path).prompts.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(comfy.sd, "load_clip", lambda *given, **more: pytest.fail("text encoders were loaded"))
        train(files.own(tmp_path, OTHER, iterations=2), chosen)
    assert RunFolder(tmp_path).prompts.read_bytes() == written
    assert previews_in(tmp_path, 2) and previews_in(tmp_path) == before


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def one_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def other_prompts(path: Path) -> None:
    tensors = load_file(path)
    save_file({name: tensor + 1 for name, tensor in tensors.items()}, path, {"prompts": "of another run"})


def with_more_behind(path: Path) -> None:
    with path.open("ab") as file:
        file.truncate(path.stat().st_size + 2**20)


@pytest.mark.parametrize("damage", [Path.unlink, cut_short, one_bit, other_prompts, with_more_behind])
def test_prompts_that_are_not_whole_are_encoded_again(tmp_path, files, damage):
    settings = files.own(tmp_path, OTHER)
    dataset = open_dataset(settings.data.path)
    prepare_previews(settings, dataset)
    written = RunFolder(tmp_path).prompts
    wanted = load(written.read_bytes())
    damage(written)
    prepare_previews(settings, dataset)
    found = load_file(written)
    assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in found)


def test_other_prompts_and_other_encoders_are_encoded_anew(tmp_path, files):
    dataset = open_dataset(files.run(tmp_path).data.path)
    prepare_previews(files.own(tmp_path, CAPTION), dataset)
    before = read_texts(files.own(tmp_path, CAPTION), dataset)
    prepare_previews(files.own(tmp_path, OTHER), dataset)
    (text,) = read_texts(files.own(tmp_path, OTHER), dataset)
    assert not torch.equal(before[0]["context"], text["context"])
    moved = tmp_path / "llama.safetensors"
    moved.write_bytes(Path(files.path("llama")).read_bytes())
    elsewhere = {"text_encoders": (files.path("clip_l"), str(moved))}
    read_texts(files.own(tmp_path, OTHER, **elsewhere), dataset)  # the same file in another place
    one_bit(moved)
    with pytest.raises(ValueError, match="it holds other prompts, or of other text encoders"):
        read_texts(files.own(tmp_path, OTHER, **elsewhere), dataset)


def pickled(folder: Path) -> str:
    path = folder / "vae.pt"
    torch.save({"a": torch.zeros(1)}, path)
    return str(path)


def damaged(folder: Path) -> str:
    path = folder / "damaged.safetensors"
    save_file({"decoder.conv_in.conv.weight": torch.zeros(8, 8)}, path)
    cut_short(path)
    return str(path)


@pytest.mark.parametrize(
    "wrong, told",
    [
        (lambda files, _: {"text_encoders": files.encoders("1.5")}, "cannot be loaded as those|something else of an"),
        (lambda files, _: {"text_encoders": files.encoders("1.0")[:1]}, "gives 768 values per token"),
        (lambda files, _: {"text_encoders": files.encoders("1.0")[1:] * 2}, "something else of an empty prompt"),
        (lambda files, _: {"text_encoders": (files.path("vae-1.0"),)}, "768 values per token"),
        (lambda files, _: {"vae": files.path("vae-1.5")}, "has 32 latent channels, but HunyuanVideo 1.0 has 16"),
        (lambda files, _: {"vae": files.path("llama")}, "The VAE file is none that ComfyUI knows"),
        (lambda files, folder: {"vae": pickled(folder)}, "is not a .safetensors file, but one that can run code"),
        (lambda files, folder: {"vae": damaged(folder)}, "is cut short or damaged"),
        (lambda files, folder: {"text_encoders": (damaged(folder),)}, "is cut short or damaged"),
        (
            lambda files, folder: {"text_encoders": (pickled(folder),)},
            "is not a .safetensors file, but one that can run",
        ),
    ],
)
def test_files_that_do_not_fit_are_refused_before_the_network_is_loaded(tmp_path, files, wrong, told):
    settings = files.own(tmp_path / "run", CAPTION, **wrong(files, tmp_path))
    settings = replace(settings, model=ModelSettings(str(tmp_path / "none.safetensors"), dtype="fp32"))
    with pytest.raises(ValueError, match=told):
        train(settings, chosen)


def test_the_toy_world_has_no_text_encoders(tmp_path, files):
    settings = replace(files.own(tmp_path, CAPTION), data=DataSettings("toy://shapes"))
    with pytest.raises(ValueError, match="something else of an empty prompt than those that the dataset was built"):
        train(settings, chosen)


def test_a_run_whose_videos_cannot_be_made_goes_on_and_says_so_once(tmp_path, files, caplog):
    vae = tmp_path / "vae.safetensors"
    vae.write_bytes(Path(files.path("vae-1.0")).read_bytes())

    def made_without_vae(settings, processes):
        made = chosen(settings, processes)
        vae.unlink()
        return made

    train(files.own(tmp_path, CAPTION, vae=str(vae)), made_without_vae)
    assert previews_in(tmp_path).keys() == previews_in(tmp_path, 0).keys() == {"step-000000.png"}
    assert previews_in(tmp_path, 1).keys() == {"step-000001.png"}
    assert [*(tmp_path / "previews").glob("*.partial")] == []
    assert (tmp_path / "export" / "predictor.safetensors").exists()
    assert sum("The previews could not be made into videos" in line for line in caplog.messages) == 1


def test_a_decoder_leaves_the_card_when_models_are_freed(files):
    decoder = Decoder(files.path("vae-1.0"), "1.0")
    decoder.frames(torch.zeros(16, 1, 2, 2))
    assert len(comfy.model_management.current_loaded_models) == 1
    free_models()
    assert comfy.model_management.current_loaded_models == []


class FirstFrames:
    """Samples of HunyuanVideo 1.5 with first frames."""

    family, null = "1.5", {"context": torch.zeros(2, 4)}

    def __len__(self) -> int:
        return 3

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        frames = 1 + i // 2  # the last is longer
        return {
            "latent": torch.full((32, frames, 2, 4), float(i)),
            "concat": torch.full((33, frames, 2, 4), float(i)),
            "clip_fea": torch.full((5, 6), float(i)),
            "context": torch.zeros(7, 4),
        }


def test_encoding_draws_no_random_number_of_the_training(tmp_path, files):
    settings, dataset = files.own(tmp_path, OTHER, text_encoders=files.encoders("1.5")), FirstFrames()
    dataset.null = texts.load_text_encoder("1.5", files.encoders("1.5")).null()
    before = torch.get_rng_state()
    prepare_previews(settings, dataset)
    assert torch.equal(torch.get_rng_state(), before)
    (text,) = read_texts(settings, dataset)
    assert text.keys() == dataset.null.keys() and not torch.equal(text["context"], dataset.null["context"])


def test_prompts_take_first_frames_of_the_samples_in_turn(files):
    texts_given = [{"context": torch.full((3, 4), float(i))} for i in range(3)]
    settings = files.own(files.folder, "a", "b", "c", seeds=(1, 2, 0)).preview
    scenes = scenes_of_prompts(settings, FirstFrames(), texts_given)
    assert [scene.batch["index"].tolist() for scene in scenes] == [[1], [0], [1]]  # 2 has another length
    assert [scene.batch["concat"].unique().tolist() for scene in scenes] == [[1.0], [0.0], [1.0]]
    assert [scene.batch["context"].unique().tolist() for scene in scenes] == [[0.0], [1.0], [2.0]]
    assert all("clip_fea" in scene.batch and scene.null["context"].shape == (1, 2, 4) for scene in scenes)


def test_prompts_of_a_size_of_their_own_have_no_first_frame(files):
    settings = files.own(files.folder, "a", seeds=(1,), frames=9, width=80).preview
    (scene,) = scenes_of_prompts(settings, FirstFrames(), [{"context": torch.ones(3, 4)}])
    assert scene.noise.shape == scene.batch["latent"].shape == (1, 32, 3, 2, 5)
    assert scene.batch["concat"].shape == (1, 33, 3, 2, 5) and not scene.batch["concat"].any()
    assert "clip_fea" not in scene.batch and "clip_fea" not in scene.null


def launched(settings: Settings, folder: Path) -> subprocess.CompletedProcess:
    """The command on two processes, as a user starts it."""
    write_settings(settings, folder / "run.yaml")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, "-m", "disca.training", str(folder / "run.yaml")],
        capture_output=True, text=True, env=environment, timeout=1800, cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip


@needs_gloo
def test_two_processes_sample_the_prompts_that_one_has_encoded(tmp_path, files):
    settings = files.own(tmp_path / "two", OTHER)
    prepare_previews(settings, open_dataset(settings.data.path))  # small encoders are known to this process only
    done = launched(settings, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    train(files.own(tmp_path / "one", OTHER), chosen)
    assert previews_in(tmp_path / "two").keys() == previews_in(tmp_path / "one").keys() == {"step-000000.png"}
    one, two = (Image.open(tmp_path / name / "previews" / "step-000000.png") for name in ("one", "two"))
    assert max(high for _, high in ImageChops.difference(one, two).getextrema()) <= 2  # of 255


@needs_gloo
def test_where_prompts_cannot_be_encoded_both_processes_end(tmp_path, files):
    done = launched(files.own(tmp_path / "run", OTHER, text_encoders=(files.path("vae-1.0"),)), tmp_path)
    assert done.returncode != 0
    assert "values per token, but HunyuanVideo 1.0 takes" in done.stderr + done.stdout
    assert "The main process could not begin, and says why." in done.stderr + done.stdout
