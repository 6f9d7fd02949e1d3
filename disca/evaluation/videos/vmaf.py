"""VMAF (Netflix) of two videos, by the FFmpeg that imageio-ffmpeg carries, with its model."""

import importlib
import json
import tempfile
from pathlib import Path

from torch import Tensor

from .ffmpeg import LEAST_SIDE, RATE, eight_bits, escaped
from .metrics import Metric, Missing

NAME = "VMAF"


def vmaf(reference: Tensor, video: Tensor) -> Metric | Missing:
    """0 to 100 for each frame, of videos [T, H, W, 3] in 0..1."""
    if (side := min(reference.shape[1:3])) < LEAST_SIDE:
        return Missing(NAME, f"it needs {LEAST_SIDE:d} pixels on each side and the video has {side:d}")
    try:
        library = importlib.import_module("imageio_ffmpeg")
        library.get_ffmpeg_exe()
    except (ImportError, RuntimeError):  # not there, or without a program for this system
        return Missing(NAME, "it needs an FFmpeg with libvmaf: pip install imageio-ffmpeg")
    with tempfile.TemporaryDirectory() as folder:
        log, whole = Path(folder, "log.json"), Path(folder, "reference.rgb")
        whole.write_bytes(eight_bits(reference).tobytes())
        try:
            _run(library, whole, video, log)
            frames = [frame["metrics"]["vmaf"] for frame in json.loads(log.read_text(encoding="utf-8"))["frames"]]
        except OSError:  # the program ended, or wrote no log
            return Missing(NAME, "the FFmpeg of imageio-ffmpeg does not run libvmaf here: update imageio-ffmpeg")
    return Metric(NAME, frames, sum(frames) / len(frames), True)


def _run(library, reference: Path, video: Tensor, log: Path) -> None:
    height, width = video.shape[1:3]
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width:d}x{height:d}", "-r", f"{RATE:d}"]
    chain = f"[0]format=yuv420p[b];[1]format=yuv420p[a];[a][b]libvmaf=log_fmt=json:log_path={escaped(log)}"
    sink = library.write_frames(
        "-",
        (width, height),
        fps=RATE,
        codec="rawvideo",
        macro_block_size=1,
        ffmpeg_log_level="error",
        input_params=["-i", str(reference), *raw],  # the first of the inputs; what is sent is the second
        output_params=["-lavfi", chain, "-f", "null"],
    )
    sink.send(None)
    for frame in eight_bits(video):
        sink.send(frame)
    sink.close()
