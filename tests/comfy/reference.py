"""What the pack gives, kept to compare with after a change that is to change nothing.

    bash scripts/test.sh tests/comfy/reference.py --reference /tmp/before      writes what is not in the folder yet
    bash scripts/test.sh tests/comfy/reference.py --reference /tmp/before      compares with what is, bit for bit

Golden runs, the toy's videos by every preset, 20 iterations of each toy training with what they export, the figures
of the toy's benchmark, and the prompts of the workflows. Bits hold on one machine and one number of threads only.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import graph
import pytest
import recipes
import torch
import yaml
from safetensors.torch import load_file, save_file

from disca.schedule import PRESETS
from disca.toy import world

PACK = Path(__file__).resolve().parents[2]
STAGES = ("base", "cfg", "meanflow", "predictor")
ITERATIONS = 20
PREVIEW = {"every": ITERATIONS, "seeds": [0, 1], "steps": 4, "shift": 1.0, "guidance": 3.0}


@pytest.fixture
def same(request):
    """Compares tensors and text with the folder's, or writes them there if they are new."""
    folder = request.config.getoption("reference")
    if folder is None:
        pytest.skip("no --reference FOLDER")

    def compare(name: str, tensors: dict[str, torch.Tensor], text: str = "") -> None:
        file = Path(folder) / f"{name}.safetensors"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, file)
            file.with_suffix(".txt").write_text(text, encoding="utf-8")
        expected = load_file(file)
        assert tensors.keys() == expected.keys()
        different = [key for key, tensor in tensors.items() if not torch.equal(tensor, expected[key])]
        assert different == []
        assert text == file.with_suffix(".txt").read_text(encoding="utf-8")

    return compare


@pytest.mark.parametrize("case", recipes.CASES)
def test_golden_runs(case, same, call, load, apply):
    model, predictor = load(case)
    run = recipes.golden(case)
    full = graph.sample_golden(call, model, run)
    cached = graph.sample_golden(call, apply(model, predictor, " ".join(map(str, run.meta["step_list"]))), run)
    names = ("full_u", "full_x", "cached_u", "cached_x")
    same(f"golden {case}", dict(zip(names, (*full, *cached), strict=True)))


def test_toy_videos(same, call):
    original, meanflow, predictor = call("DiscaToyModels")
    objects = {"front_shape": "circle", "front_colour": "red", "front_direction": "right", "front_speed": "medium"}
    objects |= {"back_shape": "square", "back_colour": "blue", "back_direction": "left", "back_speed": "slow"}
    (positive,) = call("DiscaToyPrompt", **objects)
    (negative,) = call("ConditioningZeroOut", conditioning=positive)
    latent = {"samples": torch.zeros(2, world.CHANNELS, world.FRAMES, world.SIZE // 2, world.SIZE // 2)}
    videos = {}
    for name, preset in PRESETS.items():
        (schedule,) = call("DiscaCacheSchedule", plan={"plan": "preset", "preset": name})
        for device in ("auto", "cpu"):
            (patched,) = call(
                "DiscaApplyPredictor", model=meanflow, predictor=predictor, schedule=schedule, cache_device=device
            )
            for cfg in (1.0, 3.0):
                times = {"steps": preset.steps, "shift": 1.0, "denoise": 1.0, "cfg": cfg, "negative": negative}
                out = call("DiscaSample", model=patched, positive=positive, latent_image=latent, seed=7, **times)[0]
                videos[f"{name}, {device}, cfg {cfg:g}"] = out["samples"]
    (guider,) = call("CFGGuider", model=original, positive=positive, negative=negative, cfg=3.0)
    (sigmas,) = call("DiscaMeanFlowSigmas", steps=20, shift=1.0, denoise=1.0)
    (euler,) = call("KSamplerSelect", sampler_name="euler")
    noise = torch.randn(latent["samples"].shape, generator=torch.Generator().manual_seed(7))
    videos["original"] = guider.sample(noise, latent["samples"], euler, sigmas, disable_pbar=True, seed=0)
    same("toy videos", videos)


@pytest.mark.parametrize("lora", [False, True], ids=["all weights", "LoRA"])
@pytest.mark.parametrize("stage", STAGES)
def test_trainings(stage, lora, same, tmp_path):
    if lora and stage not in ("cfg", "meanflow"):
        pytest.skip("no LoRA in this training")
    settings = yaml.safe_load((PACK / "training" / "toy" / f"{stage}.yaml").read_text(encoding="utf-8"))
    if path := settings["model"].get("path"):
        settings["model"]["path"] = str((PACK / "training" / "toy" / path).resolve())
    settings |= {"out": str(tmp_path / "run"), "save": {"every": 10, "keep": 1}, "preview": PREVIEW, "device": "cpu"}
    settings |= {"lora": {"rank": 4}} if lora else {}
    if stage == "predictor":
        settings["predictor"] |= {"mse_iterations": 12, "gan_iterations": ITERATIONS - 12}
    else:
        settings["iterations"] = ITERATIONS
    file = tmp_path / "run.yaml"
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    python("-m", "disca.training", str(file))
    exported = {}
    for path in sorted((tmp_path / "run" / "export").glob("*.safetensors")):
        prefix = f"{path.stem}." if lora else ""
        exported |= {prefix + key: tensor for key, tensor in load_file(path).items()}
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    log = [{name: value for name, value in line.items() if name != "seconds"} for line in lines]
    same(f"training {stage}{' LoRA' if lora else ''}", exported, "\n".join(map(json.dumps, log)))


def test_figures_of_the_toy(same):
    same("toy figures", {}, python("benchmarks/toy_world.py"))


def test_prompts_of_the_workflows(same):
    files = sorted((PACK / "tests" / "workflows").glob("*.json"))
    same("prompts", {}, "\n".join(file.read_text(encoding="utf-8") for file in files))


def python(*arguments: str) -> str:
    """What a program of the pack prints."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    program = [sys.executable, *arguments]
    done = subprocess.run(program, cwd=PACK, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout
