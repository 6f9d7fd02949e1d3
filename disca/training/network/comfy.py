"""A ComfyUI to train with: found, put on the import path, and set up once, before anything of it is imported."""

import os
import sys
from pathlib import Path

import torch

from ...messages import quoted

PACK = Path(__file__).resolve().parents[3]


def prepare_comfy(device: str, training: bool = True) -> None:
    """Puts ComfyUI on the import path, for the CPU if that is the device; with gradients in reach for a training."""
    sys.path.insert(0, str(comfy_folder()))
    import comfy.options

    comfy.options.enable_args_parsing(False)
    from comfy.cli_args import args

    args.cpu = args.cpu or device == "cpu"
    if not training:
        return
    args.use_pytorch_cross_attention = True  # ComfyUI's other kernels are slow or have no gradient
    import comfy.model_management

    comfy.model_management.in_training = True  # else rotary embeddings have no gradient


def comfy_folder() -> Path:
    """ComfyUI's folder: COMFYUI_PATH, or the one whose custom_nodes the pack lies in."""
    named = os.environ.get("COMFYUI_PATH")
    folder = Path(named) if named else PACK.parents[1]
    if not (folder / "comfy" / "model_management.py").is_file():
        subject = "COMFYUI_PATH is" if named else "COMFYUI_PATH is not set, and the pack's grandparent folder is"
        raise RuntimeError(f"{subject} {quoted(folder)}, which is no ComfyUI. Set COMFYUI_PATH to ComfyUI's folder.")
    return folder


def choose_device(device: str) -> torch.device:
    """The device that `auto`, `cpu` or `cuda` asks for; RuntimeError if it is not there."""
    if device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError(
            "The settings ask for device: cuda, but PyTorch finds no CUDA device. "
            "Set device: cpu or auto, or run on a machine with a GPU and a PyTorch made for it."
        )
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)
