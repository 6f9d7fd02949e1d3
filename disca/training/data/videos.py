"""The frames of a video, as a player shows them: by FFmpeg's decoders and filters."""

import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import av
from av.stream import Disposition
from PIL import Image

from .pictures import PIXELS, Note, Shot, on_ground, require_size

# FFmpeg looks at the content, not at the name: without these a playlist named .mp4 would fetch what it lists
OPTIONS = {
    "format_whitelist": "mov,mp4,matroska,webm,avi,gif",
    "protocol_whitelist": "file",
    "max_pixels": str(PIXELS),
}
HDR = (16, 18)  # FFmpeg's numbers of the transfers PQ and HLG
SWSCALE = "flags=lanczos+accurate_rnd+full_chroma_int"
SQUARE = r"w=max(1\,round(iw*max(sar\,1))):h=max(1\,round(ih*max(1/sar\,1))):eval=frame"
TO_SDR = "out_primaries=bt709:out_transfer=bt709:intent=perceptual"
DEINTERLACED, TONE_MAPPED = "deinterlaced", "tone-mapped from HDR"
NOT_TONE_MAPPED = "HDR taken as it is, for this PyAV cannot tone-map"
ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}  # FFmpeg's own decoders know no transparency
NO_ALPHA = "transparency ignored, for this PyAV cannot decode it"
SLANT = 0.02  # of a display matrix, about a degree: more is no quarter turn

Matrix = tuple[int, ...]


def video(path: Path, note: Note) -> Iterator[Shot]:
    """The frames at their times; ValueError if there is none, or if one is damaged."""
    with av.open(str(path), options=OPTIONS) as container:
        streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
        if not streams:
            raise ValueError("there is no video in it")
        (stream, *_) = streams
        require_size(stream.codec_context.width, stream.codec_context.height)
        stream.thread_type, stream.codec_context.options = "AUTO", {"max_pixels": str(PIXELS)}
        screen = _Screen(stream, note)
        for frame in _progressive(_decoded(container, stream, note), note):
            if frame.is_corrupt:
                raise ValueError(f"damaged at {frame.time or 0.0:.2f} seconds")
            yield Shot(frame.time, partial(screen.show, frame))


def _decoded(container: av.container.InputContainer, stream: av.VideoStream, note: Note) -> Iterator[av.VideoFrame]:
    if stream.metadata.get("alpha_mode") == "1" and stream.codec_context.name in ALPHA:
        try:
            context = av.CodecContext.create(ALPHA[stream.codec_context.name], "r")
        except ValueError:  # a PyAV that was built without it
            note(NO_ALPHA)
        else:
            context.options = {"max_pixels": str(PIXELS)}
            return (frame for packet in container.demux(stream) for frame in context.decode(packet))
    return container.decode(stream)


class _Screen:
    """Makes pictures of frames: colours, pixels made square, turned as the file asks."""

    def __init__(self, stream: av.VideoStream, note: Note):
        self._context, self._note = stream.codec_context, note
        # what the container says holds for all frames; if it says nothing, each frame says it
        stated, coded = stream.sample_aspect_ratio, stream.codec_context.sample_aspect_ratio
        self._aspect = [("setsar", f"{stated.numerator}/{stated.denominator}")] if stated and stated != coded else []
        self._graph = self._kind = None

    def show(self, frame: av.VideoFrame) -> Image.Image:
        kind = (frame.width, frame.height, frame.format.name, self._context.color_trc in HDR)
        if kind != self._kind:
            self._graph, self._kind = self._made(frame, kind[-1]), kind
        self._graph.push(frame)
        return on_ground(_turned(Image.fromarray(self._graph.vpull().to_ndarray()), _matrix(frame)), self._note)

    def _made(self, frame: av.VideoFrame, hdr: bool) -> av.filter.Graph:
        through = frame.format.has_palette or any(part.is_alpha for part in frame.format.components)
        end = ("format", "rgba" if through else "rgb24")
        if hdr:
            try:
                graph = _graph(frame, *self._aspect, ("scale", f"{SQUARE}:{SWSCALE}:{TO_SDR}"), end)
                self._note(TONE_MAPPED)
                return graph
            except (av.FFmpegError, ValueError):  # before FFmpeg 8
                self._note(NOT_TONE_MAPPED)
        return _graph(frame, *self._aspect, ("scale", f"{SQUARE}:{SWSCALE}"), end)


def _progressive(frames: Iterator[av.VideoFrame], note: Note) -> Iterator[av.VideoFrame]:
    """The frames, from the first interlaced one on through bwdif, which leaves the others as they are."""
    graph = kind = None
    for frame in frames:
        if graph is None and not frame.interlaced_frame:
            yield frame
            continue
        found = (frame.width, frame.height, frame.format.name)
        if found != kind:
            yield from _through(graph, None)
            graph, kind = _graph(frame, ("bwdif", "mode=send_frame:deint=interlaced")), found
            note(DEINTERLACED)
        yield from _through(graph, frame)
    yield from _through(graph, None)


def _through(graph: av.filter.Graph | None, frame: av.VideoFrame | None) -> Iterator[av.VideoFrame]:
    """What the graph has ready once it is given a frame, or the end."""
    if graph is None:
        return
    graph.vpush(frame)
    while True:
        try:
            yield graph.vpull()
        except (av.BlockingIOError, av.EOFError):
            return


def _graph(frame: av.VideoFrame, *filters: tuple[str, str]) -> av.filter.Graph:
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format.name, time_base=frame.time_base
    )
    graph.link_nodes(source, *(graph.add(*given) for given in filters), graph.add("buffersink"))
    graph.configure()
    return graph


def _matrix(frame: av.VideoFrame) -> Matrix | None:
    data = frame.side_data.get("DISPLAYMATRIX")
    return struct.unpack("=9i", bytes(data)) if data else None


def _turned(image: Image.Image, matrix: Matrix | None) -> Image.Image:
    """A display matrix takes the place (x, y) to (ax + cy, bx + dy)."""
    if matrix is None:
        return image
    a, b, _, c, d = matrix[:5]
    along, across = max(abs(a), abs(d)), max(abs(b), abs(c))
    if min(along, across) > SLANT * max(along, across):
        raise ValueError("it is to be shown at a slant, and only quarter turns can be")
    if across > along:
        image, a, d = image.transpose(Image.Transpose.TRANSPOSE), c, b
    if a < 0:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return image.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if d < 0 else image
