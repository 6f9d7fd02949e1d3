"""Small videos that tests make, and what is read of them."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from disca.training.data.clips import Cut, Footage, find_windows, read_windows
from disca.training.data.folder import Clip, find_clips

ORIENTATIONS = [(turn, flip) for turn in (0, 90, 180, 270) for flip in (False, True)]


def make_video(path, values, fps=24, codec="mpeg4", times=None, rotation=0, flip=False, aspect=None) -> Path:
    """A video of 64x32 frames: grey of one value each, or pictures that are given."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation or flip:
            stream.set_display_rotation(rotation, hflip=flip)
        for i, value in enumerate(values):
            picture = np.broadcast_to(value, (32, 64, 3)).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times:
                frame.pts, frame.time_base = times[i], Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def raw_frame(planes: list[np.ndarray], pixels: str, **properties: int) -> av.VideoFrame:
    """A frame of these planes, as they are."""
    height, width = planes[0].shape
    frame = av.VideoFrame(width, height, pixels)
    for plane, values in zip(frame.planes, planes, strict=True):
        lines = np.zeros((plane.height, plane.line_size // values.itemsize), values.dtype)
        lines[:, : values.shape[1]] = values
        plane.update(lines.tobytes())
    for name, value in properties.items():
        setattr(frame, name, value)
    return frame


def write_frames(path, frames: list[av.VideoFrame], codec="ffv1", options=None, **properties: int) -> Path:
    """A video of these frames, 24 a second; `properties` are those of FFmpeg's codec context."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=24, options=options or {})
        stream.width, stream.height, stream.pix_fmt = frames[0].width, frames[0].height, frames[0].format.name
        for name, value in properties.items():
            setattr(stream.codec_context, name, value)
        for i, frame in enumerate(frames):
            frame.pts, frame.time_base = i, Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def joined(path, codec: str, *parts) -> None:
    """The packets of several videos as one: its frames change in their middle."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        number = 0
        for part in parts:
            with av.open(str(part)) as source:
                contents = [bytes(packet) for packet in source.demux(video=0) if packet.size]
            for content in contents:
                packet = av.Packet(content)
                packet.stream, packet.time_base = stream, Fraction(1, 24)
                packet.pts = packet.dts = number
                number += 1
                container.mux(packet)


def read(path, cut: Cut, caption: str = "a clip") -> Footage:
    """The clip at this path, which is given a caption."""
    path.with_suffix(".txt").write_text(caption)
    (clip,) = (clip for clip in find_clips(str(path.parent)) if clip.path == path)
    return read_clip(clip, cut)


def read_clip(clip: Clip, cut: Cut) -> Footage:
    """The first that is cut from the clip."""
    return next(read_windows(clip, cut, find_windows(clip, cut)))


def levels(pixels) -> list[int]:
    """The mean value of every frame, in tens."""
    return [round(value / 10) for value in (pixels.mean((1, 2, 3)) * 255).tolist()]
