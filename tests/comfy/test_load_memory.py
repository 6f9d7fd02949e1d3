"""Loading a split-layout file takes little more memory than the weights themselves."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from comfy.ldm.hunyuan_video.model import HunyuanVideo
from safetensors.torch import save_file

from disca.weights import layouts

PACK = Path(__file__).resolve().parents[2]

COMMON = dict(
    image_model="hunyuan_video", context_in_dim=64, mlp_ratio=4.0, axes_dim=[16, 56, 56], theta=256, qkv_bias=True,
    guidance_embed=False, meanflow=True,
)  # fmt: skip
SETTINGS = {
    "1.0 tensor-parallel": dict(
        in_channels=16, out_channels=16, vec_in_dim=768, hidden_size=1792, num_heads=14, depth=1, depth_single_blocks=1,
        patch_size=[1, 2, 2], byt5=False, use_cond_type_embedding=False, vision_in_dim=None, meanflow_sum=False,
    ),
    "1.5 split": dict(
        in_channels=65, out_channels=32, vec_in_dim=None, hidden_size=2048, num_heads=16, depth=1,
        depth_single_blocks=0, patch_size=[1, 1, 1], byt5=True, use_cond_type_embedding=True, vision_in_dim=1152,
        meanflow_sum=True,
    ),
}  # fmt: skip

LOAD = """
import json, sys
import torch
sys.path.insert(0, sys.argv[1])
from disca.training.network.comfy import prepare_comfy
prepare_comfy("cpu", training=False)
from disca.models.loading import load_meanflow_model

def memory(name):  # mapped pages counted; VmHWM is the peak
    line = next(line for line in open("/proc/self/status") if line.startswith(name))
    return int(line.split()[1]) * 1024

imports = memory("VmRSS")
for path in sys.argv[2:]:
    with open("/proc/self/clear_refs", "w") as peak:
        peak.write("5")  # forgets the peak so far
    with torch.inference_mode():
        model = load_meanflow_model(path)
    weights = sum(p.numel() * p.element_size() for p in model.model.diffusion_model.parameters())
    print(json.dumps({"imports": imports, "peak": memory("VmHWM"), "weights": weights}), flush=True)
    del model
"""


def split_file(settings, path) -> int:
    """Writes weights of that size, split as the authors publish them; gives their bytes."""
    with torch.device("meta"):
        network = HunyuanVideo(**COMMON, **settings, operations=torch.nn)
    weights = {}
    for key, tensor in network.state_dict().items():
        key, rows = layouts.published_key(key), settings["hidden_size"]
        if "blocks." in key and ("_attn_qkv" in key or "linear1" in key) and "refiner" not in key:
            names = [key.replace("_attn_qkv", f"_attn_{part}") for part in "qkv"]
            if "linear1" in key:
                names = [key.replace("linear1", f"linear1_{part}") for part in ("q", "k", "v", "mlp")]
            sizes = [rows, rows, rows, tensor.shape[0] - 3 * rows][: len(names)]
            for name, size in zip(names, sizes, strict=True):
                weights[name] = torch.full((size, *tensor.shape[1:]), 0.01)
        else:
            weights[key.replace(".linear2.", ".linear2.fc.")] = torch.full(tensor.shape, 0.01)
    save_file(weights, path)
    return sum(tensor.nbytes for tensor in weights.values())


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Layout -> bytes of the file's tensors, and what one process that loads all the files says of its memory."""
    if not os.access("/proc/self/clear_refs", os.W_OK):
        pytest.skip("needs Linux to measure the peak")
    folder = tmp_path_factory.mktemp("large")
    paths = {layout: folder / f"{layout}.safetensors" for layout in SETTINGS}
    try:
        sizes = [split_file(SETTINGS[layout], path) for layout, path in paths.items()]
        command = [sys.executable, "-c", LOAD, str(PACK), *map(str, paths.values())]
        done = subprocess.run(command, capture_output=True, text=True, timeout=1200, cwd=folder)
    finally:
        for path in paths.values():
            path.unlink(missing_ok=True)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return dict(zip(SETTINGS, zip(sizes, told, strict=True), strict=True))


@pytest.mark.parametrize("layout", SETTINGS)
def test_peak_memory_stays_close_to_the_size_of_the_file(layout, measured, capsys):
    size, told = measured[layout]
    limit = 1.15 * size + 1e9
    with capsys.disabled():
        print(
            f"\n{layout}: {size / 1e9:.2f} GB of tensors, peak {told['peak'] / 1e9:.2f} GB of the process, "
            f"{(told['peak'] - told['imports']) / 1e9:.2f} GB of it by loading; limit {limit / 1e9:.2f} GB"
        )
    assert size >= 1e9 and told["weights"] == size
    assert told["peak"] < limit
