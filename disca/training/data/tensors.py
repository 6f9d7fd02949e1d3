"""Files that are whole or not there: of tensors, and of anything else."""

import os
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ...files import replacing
from ...messages import cause, quoted


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """A safetensors file that is whole or not there, after a power cut too."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_aside(path, lambda aside: save_file(contiguous, aside, metadata))


def write_aside(path: Path, write: Callable[[Path], object]) -> None:
    """Has `write` make the file under another name and renames it; OSError in a sentence if that fails."""
    try:
        with replacing(path) as aside:
            write(aside)
            with aside.open("rb+") as file:
                os.fsync(file.fileno())
    except (OSError, SafetensorError) as error:
        free = shutil.disk_usage(path.parent).free if path.parent.is_dir() else 0
        raise OSError(
            f"{quoted(path)} could not be written ({cause(error)}); {free:,} bytes are free there. "
            "What was written before is whole: make room, and run the same again to continue."
        ) from error


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()
