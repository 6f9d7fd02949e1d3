"""Pictures -> an MP4 file that every player shows."""

from collections.abc import Iterable
from pathlib import Path

import av
from PIL import Image

from ...files import replacing
from ...messages import cause, quoted

FPS = 24  # of all HunyuanVideos
BT709, STUDIO = 1, 1  # FFmpeg's numbers of the colours of video, and of its range
QUALITY = "18"  # of H.264: hardly to be told from what was decoded


def write_video(path: Path, pictures: Iterable[Image.Image], rate: int = FPS) -> None:
    """The pictures, all of one even size, as a video that is whole or not there; OSError if it cannot be written."""
    try:
        with replacing(path) as aside, av.open(str(aside), "w", format="mp4") as container:
            stream = container.add_stream("h264", rate=rate, options={"crf": QUALITY})
            stream.pix_fmt, context = "yuv420p", stream.codec_context
            context.colorspace = context.color_primaries = context.color_trc = BT709
            context.color_range = STUDIO
            for number, picture in enumerate(pictures):
                if not number:
                    stream.width, stream.height = picture.size
                frame = av.VideoFrame.from_image(picture)
                container.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace="ITU709")))
            container.mux(stream.encode(None))
    except (av.FFmpegError, ValueError) as error:  # a full disk, or an FFmpeg without H.264
        raise OSError(f"{quoted(path)} could not be written ({cause(error)})") from error
