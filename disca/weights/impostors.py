"""What may stand where weights should: known by its name, first bytes or keys, each with what to do."""

import os
import re
from collections.abc import Collection

from ..messages import cause, quoted
from .layouts import EXPERTS_MARK, MODEL_MARK, prefix_of

PICKLED = (".ckpt", ".pt", ".pth", ".bin", ".pkl", ".pickle")
UNFINISHED = (".part", ".crdownload", ".download", ".aria2", ".incomplete", ".tmp")
PART = re.compile(r".*-(\d{1,9})-of-(\d{1,9})\.\w+")
HEAD = 256  # bytes that are looked at
AGAIN = "download the .safetensors file itself."
CONTENTS = (  # first bytes -> what it is, what to do
    (
        rb"version https://git-lfs",
        "a Git LFS pointer, which only says where the weights are",
        f"Run git lfs pull in its folder, or {AGAIN}",
    ),
    (rb"\s*<", "a web page or XML", f"The server may want you to log in or accept a licence: do so, then {AGAIN}"),
    (
        rb"GGUF",
        "GGUF under another name",
        f"Name it .gguf and load it with a GGUF pack's loader, whose MODEL DisCa takes, or {AGAIN}",
    ),
    (
        rb"PK\x03\x04|\x80[\x02-\x05]",
        "a PyTorch file, which can run code when it is opened",
        "Convert it with a tool you trust, or download the .safetensors version.",
    ),
    (rb"\x1f\x8b|7z\xbc\xaf|Rar!", "a packed archive", f"Unpack it, or {AGAIN}"),
)

KINDS = (  # how its keys begin -> what such a file is, what takes it
    (r"vae\.|(encoder|decoder)\.(conv_in|conv1|conv_out|down|up|mid|middle)", "a VAE", "core's Load VAE"),
    (
        r"text_model\.|encoder\.block\.\d+\.layer\.|model\.layers\.\d+\.|(model\.)?language_model\.",
        "a text encoder",
        "core's loaders of text encoders",
    ),
    (r"vision_model\.|(model\.)?visual\.", "a CLIP vision model", "core's Load CLIP Vision"),
    (r"(emb_params|clip_[lg]|t5xxl)$", "an embedding (textual inversion)", "models/embeddings"),
    (r"control_model\.|controlnet_|zero_convs\.", "a ControlNet", "core's Load ControlNet Model"),
    (r"latent_(tensor|format_version)", "a saved latent", "core's Load Latent"),
    (r"(.+\.)?fusion_mlp(_[a-z]+)?\.0\.weight$", "a DisCa Predictor", "DisCa Load Predictor"),
    (rf"(.+\.)?{re.escape(EXPERTS_MARK)}$", "DCM's two experts", "DisCa Load DCM Experts"),
    (rf"(.+\.)?{re.escape(MODEL_MARK)}$", "a HunyuanVideo model", "DisCa Load MeanFlow Model"),
)


def seems_to_be(keys: Collection[str]) -> str:
    """A sentence that says what a file with these keys is, and where it belongs; nothing if that is not known."""
    for pattern, what, where in KINDS:
        if any(re.match(pattern, key) for key in keys):
            return f" It seems to be {what}, which belongs in {where}."
    return ""


def refuse_name(path: str) -> None:
    """ValueError unless the name is that of a safetensors file, which says what it is instead."""
    name, end = quoted(os.path.basename(path)), os.path.splitext(path)[1].lower()
    if end in (".safetensors", ".sft"):
        return
    if end == ".gguf":
        raise ValueError(
            f"{name} is a GGUF file. Load a model of it with a GGUF pack's loader, whose MODEL DisCa takes; Predictors "
            "and LoRAs are needed as .safetensors."
        )
    if end in UNFINISHED:
        raise ValueError(f"{name} is an unfinished download. Wait for its end, or download it again.")
    if path.lower().endswith(".index.json"):
        raise ValueError(f"{name} only lists the parts of a model. Download the model as a single .safetensors file.")
    pickled = ", but one that can run code when it is opened" if end in PICKLED else ""
    raise ValueError(f"{name} is not a .safetensors file{pickled}. Convert it, or download the safetensors version.")


def refuse_content(path: str) -> None:
    """ValueError that says what the file is if its first bytes are those of something else than safetensors."""
    name, head = quoted(os.path.basename(path)), _head(path)
    if not head:
        raise ValueError(
            f"{name} in {quoted(os.path.dirname(os.path.abspath(path)))} is empty (0 bytes). Download it again."
        )
    size = os.path.getsize(path)
    if head[8:9] == b"{":  # a header in JSON after its length, whose bytes may be those of anything
        return
    for pattern, what, do in CONTENTS:
        if re.match(pattern, head):
            raise ValueError(f"{name} ({size:,} bytes) is not a safetensors file, but {what}. {do}")
    if all(byte in b"\t\n\r" or 32 <= byte < 127 for byte in head):
        text = quoted(head.decode().strip()[:80])
        raise ValueError(f"{name} ({size:,} bytes) is not a safetensors file, but text: {text}. Download it again.")


def refuse_experts(name: str, keys: Collection[str], wanted: str) -> None:
    """ValueError if the keys are those of DCM's two experts."""
    if prefix_of(keys, EXPERTS_MARK) is not None:
        raise ValueError(
            f"{quoted(name)} holds DCM's two experts, but {wanted} is needed here. Load it with DisCa Load DCM Experts."
        )


def refuse_folder(path: str) -> None:
    """ValueError if a folder stands there."""
    if os.path.isdir(path):
        raise ValueError(f"{quoted(path)} is a folder. Give the path of the .safetensors file in it.")


def refuse_part(path: str) -> None:
    """ValueError if the file is one of several parts of a model, by its name."""
    match = PART.fullmatch(os.path.basename(path))
    if match and int(match[2]) > 1:
        raise ValueError(
            f"{quoted(match[0])} is part {int(match[1]):d} of {int(match[2]):d} of a model, but DisCa reads one file. "
            "Download the model as a single .safetensors file, or join the parts."
        )


def _head(path: str) -> bytes:
    """The first bytes of the file; ValueError if it cannot be opened."""
    try:
        with open(path, "rb") as file:
            return file.read(HEAD)
    except OSError as error:
        raise ValueError(
            f"{quoted(path)} cannot be opened ({cause(error.strerror)}). Check the path, and that it may be read."
        ) from None
