"""The training nodes train in a process of their own, and what happens to it is said in the graph."""

import importlib
import os
import shutil
import signal
import sys
import threading
import time
from io import BytesIO
from pathlib import Path

import comfy.model_management
import comfy.utils
import folder_paths
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from disca.toy.network import new_network
from disca.toy.world import condition, random_scene
from disca.training.contract.method_settings import PairSettings
from disca.training.contract.settings import MemorySettings
from disca.training.contract.yaml_settings import read_settings
from disca.training.data.dataset import open_dataset
from disca.training.network.roles import add_embedder

sys.path.insert(1, str(Path(__file__).resolve().parents[1] / "training"))

BASE, MEANFLOW = "toy_base.safetensors", "toy_meanflow.safetensors"
SHARED = {
    "dataset": "toy://shapes",
    "optimizer": {"optimizer": "custom", "lr": 1e-3, "warmup": 0, "decay": "none", "weight_decay": 0.0, "clip": 1.0}
    | {"ema": 0.0, "batch": 2, "accumulate": 1},
    "memory": {"memory": "auto"},
    "record": {"record": "no previews"},
    "seed": 0,
    "guidance_low": 1.0,
    "guidance_high": 5.0,
}
PREDICTOR = {"model_name": MEANFLOW, "method": {"method": "default"}, "mse_iterations": 2, "gan_iterations": 1}
CUSTOM = {"method": "custom", "delta_max": 0.3, "depth": 1, "form": "residual", "start": "identity", "gan_weight": 1.0}
CUSTOM |= {
    "gan_ramp": 10,
    "gan_cap": 2.0,
    "lr_discriminator": 1e-4,
    "discriminator_blocks": 2,
    "pairs_trajectory": 0.0,
    "pairs_cached": 0.0,
    "full_steps": 3,
    "shift_low": 1.0,
    "shift_high": 5.0,
    "adaptive": 0.5,
}
CUSTOM_MEMORY = {
    "memory": "custom",
    "recompute_blocks": True,
    "adamw_8bit": False,
    "fp8": False,
    "offload_activations": False,
}
LORA = {"model_name": BASE, "weights": {"weights": "LoRA", "rank": 4, "alpha": 0.0}, "iterations": 2}


@pytest.fixture(scope="module", autouse=True)
def output(tmp_path_factory):
    """ComfyUI's output folder."""
    folder, before = tmp_path_factory.mktemp("output"), folder_paths.get_output_directory()
    folder_paths.set_output_directory(str(folder))
    yield folder
    folder_paths.set_output_directory(before)


@pytest.fixture(scope="module", autouse=True)
def files(model_folders):
    """A toy network without and with the second time embedding."""
    network = new_network("tiny", seed=0)
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.05)
    save_file(network.state_dict(), model_folders.diffusion_models / BASE)
    add_embedder(network, "time_r_in")
    save_file(network.state_dict(), model_folders.diffusion_models / MEANFLOW)


@pytest.fixture(scope="module")
def train(call):
    """The outputs of a training node; inputs left out are small ones."""

    def run(node: str, name: str, **inputs):
        return call(node, **({**SHARED, "run": name} | inputs))

    return run


@pytest.fixture(scope="module")
def predictor_run(train):
    """A Predictor that was trained for three iterations."""
    return train("DiscaTrainPredictor", "predictor", **PREDICTOR | {"record": previews_at_the_end(3)})


@pytest.fixture
def told(pack, monkeypatch):
    """The texts that a training put on its node."""
    texts = []
    monkeypatch.setattr(pack("disca.server.progress"), "show", texts.append)
    return texts


OWN_PREVIEWS = {f"preview_{name}": 0 for name in ("width", "height", "frames")} | {
    "preview_prompts": "",
    "preview_text_encoder1": "none",
    "preview_text_encoder2": "none",
    "preview_vae": "none",
}


def previews_at_the_end(iteration: int) -> dict:
    """The input `record` that makes them."""
    steps = {"preview_every": iteration, "preview_steps": 1, "preview_shift": 5.0, "preview_guidance": 3.0}
    return {"record": "custom", "save_every": 1, "keep": 2} | steps | OWN_PREVIEWS


def during(out: Path, found: str, act) -> None:
    """Calls `act` once there is a file of this pattern in the run's folder."""

    def wait() -> None:
        while not (paths := list(out.glob(found))):
            time.sleep(0.05)
        act(paths[0])

    threading.Thread(target=wait, daemon=True).start()


def sampled(call, model) -> torch.Tensor:
    """What a model makes of a toy scene in two steps."""
    told = condition(random_scene(3).attributes)
    positive = [[told["context"], {"pooled_output": told["y"], "guidance": 3.0}]]
    latent = {"samples": torch.zeros(1, 16, 6, 12, 12)}
    settings = {"positive": positive, "latent_image": latent, "seed": 1, "steps": 2, "shift": 5.0, "denoise": 1.0}
    return call("DiscaSample", model=model, **settings)[0]["samples"]


def test_each_training_begins_with_what_the_one_before_it_gave(train, output, predictor_run):
    """Three stages wired in a graph, the last with a Predictor to go on from; model_name is left unread."""
    first, _ = predictor_run
    model, _ = train("DiscaTrainCFG", "stage_1", **LORA)
    model, _ = train("DiscaTrainMeanFlow", "stage_2", **LORA, method={"method": "default"}, model=model)
    train("DiscaTrainPredictor", "stage_3", **PREDICTOR, model=model, predictor=first)
    runs = output / "disca" / "runs"
    begun = [read_settings(runs / f"stage_{stage}" / "run.yaml") for stage in (2, 3)]
    given = [runs / f"stage_{stage}" / "export" / "model.safetensors" for stage in (1, 2)]
    assert [settings.model.path for settings in begun] == [str(path) for path in given]
    assert begun[1].predictor.path == str(runs / "predictor" / "export" / "predictor.safetensors")


def test_what_is_no_file_begins_no_training(train, call, output, pack):
    (model,) = call("DiscaLoadModel", model_name=MEANFLOW, weight_dtype="default")
    changed, unknown = model.clone(), model.clone()
    changed.add_patches({"diffusion_model.img_in.proj.weight": ("diff", (torch.zeros(1),))})
    unknown.cached_patcher_init = None
    for given, told in ((changed, "with a LoRA on it.*ModelSave"), (unknown, "not loaded from one file")):
        with pytest.raises(ValueError, match=told):
            train("DiscaTrainPredictor", "none", **PREDICTOR, model=given)
    with pytest.raises(ValueError, match="none of DisCa's own"):
        loaded = pack("disca.models.checks").LoadedLesa(model, None)
        train("DiscaTrainPredictor", "none", **PREDICTOR, predictor=loaded)
    assert not (output / "disca" / "runs" / "none").exists()


def test_the_trained_predictor_predicts_in_a_graph(predictor_run, call, apply):
    (model,) = call("DiscaLoadModel", model_name=MEANFLOW, weight_dtype="default")
    patched = apply(model, predictor_run[0], "0")
    assert not torch.equal(sampled(call, patched), sampled(call, model))


def test_a_custom_method_reaches_the_run(train, output):
    inputs = PREDICTOR | {"mse_iterations": 1, "gan_iterations": 0}
    train("DiscaTrainPredictor", "custom", **inputs | {"method": CUSTOM | {"pairs_line": 0.4}})
    predictor = read_settings(output / "disca" / "runs" / "custom" / "run.yaml").predictor
    assert (predictor.delta_max, predictor.depth, predictor.adaptive) == (0.3, 1, 0.5)
    assert (predictor.full_steps, predictor.shift, predictor.gan_ramp, predictor.gan_cap) == (3, (1.0, 5.0), 10, 2.0)
    assert predictor.pairs == PairSettings(line=0.4)
    with pytest.raises(ValueError, match="the shares of line, trajectory and cached pairs are all 0"):
        train("DiscaTrainPredictor", "none", **inputs | {"method": CUSTOM | {"pairs_line": 0.0}})


def test_the_run_is_the_one_that_the_inputs_describe(predictor_run, output):
    settings = read_settings(output / "disca" / "runs" / "predictor" / "run.yaml")
    iterations = settings.predictor.mse_iterations, settings.predictor.gan_iterations
    assert (settings.algorithm, settings.data.batch, sum(iterations)) == ("predictor", 2, 3)
    assert (settings.optimizer.lr, settings.cfg.guidance, settings.preview.every) == (1e-3, (1.0, 5.0), 3)
    assert predictor_run[1].startswith("Done. The result is in")


def test_the_settings_of_other_trainers_reach_the_run(pack, tmp_path, monkeypatch):
    (tmp_path / "start.safetensors").touch()
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(tmp_path)], {".safetensors"}))
    run = pack("nodes.inputs.training_run")
    moves, data = run._optimizer("custom", lr=0.1, batch=2, caption_dropout=0.2, name="torch.optim.SGD",
                                 options="momentum: 0.9", decay="torch.optim.lr_scheduler.StepLR",
                                 decay_options="step_size: 5")  # fmt: skip
    assert data == {"batch": 2, "caption_dropout": 0.2}
    assert (moves.options, moves.decay_options) == ({"momentum": 0.9}, {"step_size": 5})
    _, _, validation, log = run._record("custom", validation_samples=3, validation_every=7, wandb="cats")
    assert (validation.samples, validation.every, log.wandb) == (3, 7, "cats")
    lora = run.lora_settings("LoRA", rank=4, lora_name="start.safetensors", targets="*attn* *mlp*")
    assert (lora.path, lora.targets) == (str(tmp_path / "start.safetensors"), ("*attn*", "*mlp*"))
    assert [(source.path, source.repeats) for source in run._sources("toy://shapes\n\n toy://shapes x 3")] == [
        ("toy://shapes", 1),
        ("toy://shapes", 3),
    ]


@pytest.mark.parametrize(
    "line, said", [("cats x many", "has the line 'cats x many'"), ("no cats", "no dataset 'no cats'")]
)
def test_a_line_that_names_no_dataset_is_refused(line, said, pack):
    with pytest.raises(ValueError, match=said):
        pack("nodes.inputs.training_run")._sources(line)


def test_prompts_of_ones_own_reach_the_run_one_by_one_and_files_with_their_paths(pack, tmp_path, monkeypatch):
    for folder, name in (("text_encoders", "llm.safetensors"), ("vae", "the_vae.safetensors")):
        (tmp_path / name).touch()
        monkeypatch.setitem(folder_paths.folder_names_and_paths, folder, ([str(tmp_path)], {".safetensors"}))
    chosen = {"preview_text_encoder1": "llm.safetensors", "preview_vae": "the_vae.safetensors", "preview_width": 64}
    record = previews_at_the_end(3) | {"preview_prompts": " A cat. \n\nA dog.\n", **chosen}
    _, preview, *_ = pack("nodes.inputs.training_run")._record(**record)
    assert (preview.prompts, preview.width, preview.frames) == (("A cat.", "A dog."), 64, 0)
    assert preview.text_encoders == (str(tmp_path / "llm.safetensors"),)
    assert preview.vae == str(tmp_path / "the_vae.safetensors")
    with pytest.raises(ValueError, match="'prompts' has texts, but 'text_encoders' names no files"):
        pack("nodes.inputs.training_run")._record(**record | {"preview_text_encoder1": "none"})
    with pytest.raises(ValueError, match="There is no file 'gone.safetensors' in models/vae"):
        pack("nodes.inputs.training_run")._record(**record | {"preview_vae": "gone.safetensors"})


def test_a_finished_run_shows_its_curves_and_previews(predictor_run, pack, output):
    out = output / "disca" / "runs" / "predictor"
    pictures = [
        pack("disca.server.training")._picture(path) for path in (out / "curves.png", *out.glob("previews/*3.png"))
    ]
    assert [tuple(picture) for picture in pictures] == [
        ("curves.png", "disca/runs/predictor"),
        ("step-000003.png", "disca/runs/predictor/previews"),
    ]


def test_a_lora_for_a_model_without_meanflow_gives_a_meanflow_model(train, call, output):
    inputs = LORA | {"method": {"method": "default"}}
    model, _ = train("DiscaTrainMeanFlow", "lora", **inputs)
    export = output / "disca" / "runs" / "lora" / "export"
    written, network = load_file(export / "model.safetensors"), model.model.diffusion_model
    assert {path.name for path in export.iterdir()} == {"lora.safetensors", "model.safetensors"}
    assert network.params.meanflow and any("time_r_in" in key for key in written)
    assert all(torch.equal(weight, written[name].to(weight)) for name, weight in network.state_dict().items())
    assert sampled(call, model).isfinite().all()


def test_an_interrupt_saves_and_stops(train, output, told):
    out = output / "disca" / "runs" / "interrupted"
    during(out, "log.jsonl", lambda _: comfy.model_management.interrupt_current_processing())
    inputs = LORA | {"weights": {"weights": "all"}}
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        train("DiscaTrainCFG", "interrupted", **inputs | {"iterations": 1_000_000})
    assert not comfy.model_management.processing_interrupted()
    (export,) = out.glob("export/*.safetensors")
    assert export.name == "model.safetensors" and list(out.glob("checkpoints/step-*/meta.json"))
    done = int(max(out.glob("checkpoints/step-*")).name.removeprefix("step-"))
    assert told[-2:] == [
        "Saving and stopping. Interrupt again to stop at once.",
        f"Stopped at {done} of 1000000 and saved. Queue again to go on.",
    ]
    assert not list(out.glob("worker/test_run_id_*"))


def test_an_interrupt_while_the_curves_are_drawn_saves_too(train, monkeypatch):
    """ComfyUI's own progress hook raises the interrupt then."""

    def hook(value, total, picture, **_) -> None:
        if value:
            comfy.model_management.interrupt_current_processing()
        comfy.model_management.throw_exception_if_processing_interrupted()

    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", hook)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        train("DiscaTrainCFG", "drawing", **LORA | {"iterations": 1_000_000, "weights": {"weights": "all"}})
    assert not comfy.model_management.processing_interrupted()


def test_a_second_interrupt_ends_the_run_at_once(train, output, told):
    interrupted = comfy.model_management.processing_interrupted

    def twice(_) -> None:
        for _ in range(2):
            comfy.model_management.interrupt_current_processing()
            while interrupted():
                time.sleep(0.01)

    out = output / "disca" / "runs" / "twice"
    during(out, "worker/*/attempt_0/0/stderr.log", twice)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        train("DiscaTrainCFG", "twice", **LORA)
    assert not (out / "log.jsonl").exists() and not (out / "worker" / "stop").exists()
    assert told[-1] == "Stopped at once. Queue again to go on from the last checkpoint."


def test_what_is_wrong_is_said_in_the_workers_words(train):
    with pytest.raises(RuntimeError, match=r"memory.swap_blocks is 100, but the network has \d+ blocks") as told:
        train("DiscaTrainCFG", "wrong", **LORA | {"memory": CUSTOM_MEMORY | {"swap_blocks": 100}})
    assert "Traceback" not in str(told.value)


def test_a_worker_that_is_killed_leaves_an_error_that_names_its_log(train, output, pack, monkeypatch):
    started = pack("disca.server.worker")._start

    def start(folder):
        process = started(folder)
        os.kill(process.pids()[0], signal.SIGKILL)
        return process

    monkeypatch.setattr(pack("disca.server.worker"), "_start", start)
    worker = output / "disca" / "runs" / "killed" / "worker"
    for _ in range(2):
        with pytest.raises(RuntimeError, match="The training was killed by signal 9.*The log is .*stderr.log"):
            train("DiscaTrainCFG", "killed", **LORA)
        assert len(list(worker.glob("test_run_id_*"))) == 1


def test_a_run_that_is_being_trained_elsewhere_is_refused_and_left_alone(train, predictor_run, pack, output):
    out = output / "disca" / "runs" / "predictor"
    (out / "stop").touch()
    with pack("disca.training.records.lock").run_lock(out):
        before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
        with pytest.raises(RuntimeError, match=f"This run is being trained by process {os.getpid()} on"):
            train("DiscaTrainPredictor", "predictor", **PREDICTOR)
        assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    (out / "stop").unlink()


def test_a_second_server_is_refused_while_a_run_is_prepared(train, pack, output):
    lock = pack("disca.training.records.lock").FolderLock(
        output / "disca" / "runs" / "twin" / "worker", "This run", "trained"
    )
    with lock, pytest.raises(RuntimeError, match="This run is being trained by process"):
        train("DiscaTrainCFG", "twin", **LORA)


def damaged_png() -> bytes:
    """A picture that Pillow fails on with a SyntaxError."""
    file = BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    return file.getvalue().replace(b"IDAT", b"ID\xff\xfe")


def as_png(size: tuple[int, int], kind: str = "PNG") -> bytes:
    """A black picture."""
    file = BytesIO()
    Image.new("L", size).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x89PNG\r\n\x1a\n",
        damaged_png(),
        damaged_png()[:40],
        as_png((20000, 20000)),
        as_png((1, 4000)),
        as_png((8, 8), "BMP"),
    ]
    + [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"],
    ids=["empty", "cut", "SyntaxError", "cut later", "a bomb", "a thread", "a BMP", "PostScript"],
)
def test_a_damaged_preview_is_left_out_and_said_once(predictor_run, pack, output, tmp_path, caplog, content):
    out = tmp_path / "run"
    shutil.copytree(output / "disca" / "runs" / "predictor", out)
    (out / "previews" / "step-999999.png").write_bytes(content)
    pictures = pack("disca.server.progress").Pictures(pack("disca.training.records.run_folder").RunFolder(out))
    for _ in range(2):
        pictures._next, pictures._lines = 0.0, 0
        kind, sheet, _ = pictures.newer()
        assert sheet.size == Image.open(out / "curves.png").size
    told = [message for message in caplog.messages if "step-999999.png' cannot be shown" in message]
    assert len(told) == 1


def test_curves_that_cannot_be_drawn_do_not_end_the_watching(predictor_run, pack, output, tmp_path, caplog):
    out = tmp_path / "run"
    shutil.copytree(output / "disca" / "runs" / "predictor", out)
    shutil.rmtree(out / "worker")
    pictures = pack("disca.server.progress").Pictures(pack("disca.training.records.run_folder").RunFolder(out))
    assert pictures.newer() is None
    assert [message for message in caplog.messages if "cannot be shown" in message]


@pytest.mark.parametrize(
    "name",
    ["", "..", "../other", "/etc", ".", "a//b", "a/../..", "..\\x", "C:\\x", "x" * 300, "a/" * 200, "CON", "lpt1.txt"]
    + ["a\0b", "a\nb", "\ud800", "trailing.", " ", "a ", "what?", "conin$", "CONOUT$.x", "COM\u00b9", "lpt\u00b3.txt"],
)
def test_a_run_and_a_dataset_stay_in_their_folders_under_names_that_every_system_takes(train, output, name):
    for change in ("run", "dataset"):
        with pytest.raises(ValueError, match=f"'{change}' (is|has)") as told:
            train("DiscaTrainCFG", **{"name": "any"} | LORA | {change: name})
        str(told.value).encode("utf-8")
    assert not (output / "disca" / "runs" / "any").exists()


def test_a_run_whose_place_is_taken_by_a_file_is_refused_in_a_sentence(train, output):
    (output / "disca" / "runs").mkdir(parents=True, exist_ok=True)
    (output / "disca" / "runs" / "a_file").touch()
    with pytest.raises(ValueError, match="a_file.* cannot be made .*give the run another name"):
        train("DiscaTrainCFG", "a_file", **LORA)


@pytest.mark.parametrize("there", ["", "caf\u00e9/cats", "cafe\u0301/cats"])
def test_a_name_in_either_unicode_form_is_one_run(pack, output, there, tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "get_output_directory", lambda: str(tmp_path))
    (tmp_path / "disca" / "runs" / there).mkdir(parents=True)
    named = {pack("disca.server.folders").run_folder(f"{name}/cats") for name in ("caf\u00e9", "cafe\u0301")}
    assert named == {str(tmp_path / "disca" / "runs" / (there or "caf\u00e9/cats"))}


def test_a_dataset_that_is_not_there_is_named_with_those_that_are(train, output):
    (output / "disca" / "datasets" / "cats").mkdir(parents=True)
    with pytest.raises(ValueError, match="There is no dataset 'dogs' in .* There are 'cats'."):
        train("DiscaTrainCFG", "any", **LORA | {"dataset": "dogs"})


def test_a_card_size_gives_settings_that_fit_on_it(pack, tmp_path):
    plan, settings = pack("disca.training.budget.plan"), pack("disca.training.contract.settings")
    published = pack("disca.training.budget.sizes").PUBLISHED
    run = settings.Settings("predictor", out=str(tmp_path), data=settings.DataSettings(path=""))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "sizes_of_run", lambda run: published["1.5"])
        small, large = (plan.fitted(run, card) for card in (24, 141))
        with pytest.raises(ValueError, match="does not fit on a card of 2 GB"):
            plan.fitted(run, 2)
    assert small.optimizer.name == "adamw_8bit" and small.model.weight_dtype == "fp8_e4m3fn"
    assert large == run and vars(large.memory) == vars(MemorySettings())


@pytest.fixture
def clips(pack, tmp_path, monkeypatch):
    """Inputs for a folder of clips, and that folder."""
    import tiny_encoders as tiny

    encoder = importlib.import_module(f"{pack('disca.training').__name__}.network.encoder")
    monkeypatch.setattr(encoder, "model_without_weights", tiny.tiny_model)
    before = folder_paths.get_input_directory()
    (tmp_path / "clips").mkdir()
    inputs = {"videos_name": "clips", "dataset": "reds", "family": "1.0", "fps": 0.0, "first_frame": False}
    inputs |= {"size": {"size": "custom", "width": 32, "height": 16, "frames": 1}}
    folder_paths.set_input_directory(str(tmp_path))
    yield inputs | {"vae": tiny.tiny_vae("1.0"), "clip": tiny.tiny_clip("1.0")}, tmp_path / "clips"
    folder_paths.set_input_directory(before)


def test_a_dataset_is_built_in_the_graph(call, clips, output):
    inputs, folder = clips
    Image.new("RGB", (32, 16), "red").save(folder / "red.png")
    (folder / "red.txt").write_text("all red")
    Image.new("RGB", (32, 16), "blue").save(folder / "blue.png")
    name, report = call("DiscaBuildDataset", **inputs)
    with pytest.raises(ValueError, match="no caption .1.: 'blue.png'"):
        call("DiscaBuildDataset", strict=True, **inputs)
    assert name == "reds" and "holds 1 samples, 1 of them new." in report
    assert "Left out because it has no caption (1): 'blue.png' (there is no 'blue.txt')." in report
    assert (output / "disca" / "datasets" / "reds" / "index.json").is_file()


@pytest.mark.parametrize(
    ("change", "samples", "shape"),
    [
        ({"shorter": "5, 1"}, 1, [2, 2, 4]),
        ({"shorter": "5", "clips": "chunks"}, 2, [2, 2, 4]),
        ({"shorter": "5", "clips": "slide", "stride": 1}, 8, [2, 2, 4]),
        ({"shorter": "5", "clips": "uniform", "count": 3, "buckets": True}, 3, [2, 4, 2]),
    ],
)
def test_several_lengths_clips_and_sizes_are_built_in_the_graph(call, clips, output, change, samples, shape):
    inputs, folder = clips
    shown = [Image.new("RGB", (16, 32), (10 * i,) * 3) for i in range(12)]
    shown[0].save(folder / "grey.png", save_all=True, append_images=shown[1:])
    (folder / "grey.txt").write_text("getting lighter")
    inputs["size"] |= {"frames": 13}
    name = f"greys of {samples}"
    with pytest.raises(ValueError, match="too short .1.: 'grey.png' .12 frames, and 13 are needed"):
        call("DiscaBuildDataset", **inputs | {"dataset": name})
    call("DiscaBuildDataset", **inputs | change | {"dataset": name})
    items = open_dataset(str(output / "disca" / "datasets" / name)).index.items
    assert [list(item.shapes["latent"][1:]) for item in items] == samples * [shape]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"shorter": "61 one"}, "'shorter' is '61 one', but must be numbers of frames, such as 61 1"),
        ({"shorter": "60"}, "Clips of 60 frames cannot be encoded: use 4n . 1 frames"),
        ({"shorter": "-3"}, "'shorter' is -3, but must be at least 1"),
        ({"shorter": "9" * 3000}, "'shorter' is 9.*, but must be at most 1001"),
        ({"clips": "random"}, "'clips' is 'random', but must be one of 'first', 'chunks', 'slide', 'uniform'"),
        ({"clips": "slide", "stride": 0}, "'stride' is 0, but must be at least 1"),
        ({"clips": "uniform", "count": 0}, "'count' is 0, but must be at least 1"),
        ({"buckets": "yes"}, "'buckets' is 'yes', but must be true or false"),
    ],
)
def test_what_is_no_choice_of_clips_is_refused(call, clips, change, told):
    with pytest.raises(ValueError, match=told):
        call("DiscaBuildDataset", **clips[0], **change)


@pytest.mark.parametrize("name", ["inside", "checkpoints/step-000001", "checkpoints/step-000001/more"])
def test_a_run_within_another_run_is_refused(predictor_run, train, name):
    with pytest.raises(ValueError, match="lies in .*, which is a run itself and clears up in its folder"):
        train("DiscaTrainCFG", f"predictor/{name}", **LORA)


@pytest.mark.parametrize(
    "node, change, told",
    [
        ("DiscaTrainCFG", {"guidance_low": 8.0, "guidance_high": 1.0}, "'guidance' goes from 8 down to 1"),
        ("DiscaTrainCFG", {"guidance_low": float("nan")}, "'guidance_low' is nan, but must be a finite number"),
        ("DiscaTrainCFG", {"iterations": 10**9}, "'iterations' is 1000000000, but must be at most 10000000"),
        ("DiscaTrainCFG", {"weights": {"weights": "LoRA", "rank": 4, "alpha": float("inf")}}, "'alpha' is inf"),
        ("DiscaTrainCFG", {"weights": {"weights": "DoRA"}}, "'weights' is missing, .* one of 'LoRA', 'all'"),
        ("DiscaTrainCFG", {"optimizer": SHARED["optimizer"] | {"lr": float("nan")}}, "'lr' is nan"),
        ("DiscaTrainCFG", {"optimizer": SHARED["optimizer"] | {"batch": 10**6}}, "'batch' is 1000000"),
        (
            "DiscaTrainCFG",
            {"optimizer": SHARED["optimizer"] | {"decay": "\ud800"}},
            "'decay' is .* one of 'none', 'cosine'",
        ),
        ("DiscaTrainCFG", {"model_name": "\ud800"}, "There is no file .* in models/diffusion_models"),
        (
            "DiscaTrainPredictor",
            {"model_name": "other.safetensors"},
            "There is no file .* Choose one that is there, or",
        ),
        ("DiscaTrainCFG", {"seed": 2**40}, "'seed' is 1099511627776, but must be at most 4294967295"),
        ("DiscaTrainPredictor", {"mse_iterations": 0, "gan_iterations": 0}, "are both 0"),
        (
            "DiscaTrainPredictor",
            {"method": CUSTOM | {"pairs_line": 0.0}},
            "shares of line, trajectory and cached pairs are",
        ),
        ("DiscaTrainPredictor", {"method": CUSTOM | {"pairs_line": float("nan")}}, "'pairs_line' is nan"),
    ],
)
def test_what_no_run_could_be_is_refused_before_a_process_is_started(train, output, node, change, told):
    inputs = LORA if node == "DiscaTrainCFG" else PREDICTOR
    with pytest.raises(ValueError, match=told) as error:
        train(node, "never", **inputs | change)
    str(error.value).encode("utf-8")
    assert not (output / "disca" / "runs" / "never").exists()
