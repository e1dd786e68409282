"""Read and write videos frame by frame, with PyAV.

PyAV rather than the OpenCV that finds the faces: it tells a damaged file from a finished one, gives every frame its
own time, and writes H.264, which every browser plays; OpenCV's wheels have no encoder for that.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import FabRecError, ImageError


__all__ = ["VideoFrame", "VideoReader", "VideoWriter"]

# The rate of a video that does not say how fast it is.
DEFAULT_RATE = 25.0
# Containers declare lengths that are a little off; what lacks more than this share and two frames was cut short.
COMPLETE_SHARE = 0.95
# Times are written in these units a second, which hold the usual frame rates without rounding.
TIME_UNITS = 90_000


@dataclass(frozen=True)
class VideoFrame:
    """A decoded frame.

    Attributes:
        index: Number of the frame, from 0.
        time: Seconds since the first frame; later than the time of the frame before.
        pixels: (H, W, 3) uint8 RGB, upright. H and W may change within a video.
    """

    index: int
    time: float
    pixels: np.ndarray


class VideoReader:
    """Reads the frames of a video one after the other and survives damaged ones.

    Args:
        path: The video; its first video stream that is no cover picture is read.

    Attributes:
        rate: Frames a second, as the file says.
        expected_frames: How many frames the file promises, roughly; 0 if it does not say.
        frames: How many have been read so far.
        damaged: Packets that could not be decoded so far.

    Raises:
        ImageError: If the file cannot be read or holds no video; the message does not name the file.
        ImportError: If PyAV is not installed.
    """

    def __init__(self, path: Path):
        self._av = _import_av()
        try:
            self._container = self._av.open(str(path))
        except PermissionError as error:
            raise ImageError("there is no permission to read it.") from error
        except (OSError, ValueError) as error:  # the errors of FFmpeg are one or the other
            raise ImageError(f"it cannot be read as a video: {_reason(error)}.") from error
        cover = self._av.stream.Disposition.attached_pic
        streams = [stream for stream in self._container.streams.video if not stream.disposition & cover]
        if not streams:
            self._container.close()
            raise ImageError("it holds no video, only sound or other data.")
        self._stream = streams[0]
        self._stream.thread_type = "AUTO"
        rate = self._stream.average_rate or self._stream.guessed_rate
        self.rate = float(rate) if rate else DEFAULT_RATE
        length = (self._container.duration or 0) / self._av.time_base
        self.expected_frames = int(self._stream.frames or length * self.rate)
        self.frames = self.damaged = 0
        self._broken = False

    @property
    def is_whole(self) -> bool:
        """Whether what has been read by the end is about all that the file promises, without damage."""
        missing = self.expected_frames - self.frames
        cut = missing > 2 and self.frames < COMPLETE_SHARE * self.expected_frames
        return not (cut or self.damaged or self._broken)

    def __iter__(self) -> Iterator[VideoFrame]:
        """Yield the frames; damaged ones are left out, and a file that breaks off ends there."""
        first, last = None, -math.inf
        for frame in self._decoded():
            # A file without times, or with times that stand still or go back, plays at its rate.
            time = float(frame.pts * frame.time_base) if frame.pts is not None and frame.time_base else math.nan
            first = time if first is None else first
            time -= first
            if not time > last:
                time = last + 1 / self.rate if self.frames else 0.0
            last = time
            pixels = frame.to_ndarray(format="rgb24")
            turns = round(getattr(frame, "rotation", 0) / 90) % 4
            yield VideoFrame(self.frames, time, np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels)
            self.frames += 1

    def close(self) -> None:
        """Let go of the file."""
        self._container.close()

    def _decoded(self) -> Iterator[Any]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except (OSError, ValueError):
                self._broken = True
                packet = None
            if packet is None:
                return
            try:
                yield from packet.decode()
            except self._av.EOFError:
                return
            except (OSError, ValueError):
                self.damaged += 1


class VideoWriter:
    """Writes an H.264 video in an MP4 file; frames of other sizes than the first one's are resized to it.

    Args:
        path: The file, overwritten if it is there.
        rate: Frames a second to declare; every frame is shown at its own time.

    Raises:
        ImportError: If PyAV is not installed.
        FabRecError: If the file cannot be written to.
    """

    def __init__(self, path: Path, rate: float):
        self._av = _import_av()
        self._path = path
        try:
            self._container = self._av.open(str(path), "w", format="mp4", options={"movflags": "faststart"})
        except OSError as error:
            raise FabRecError(f"cannot write to {path.parent}: {error.strerror or error}.") from error
        self._rate = Fraction(min(max(rate, 1.0), 240.0)).limit_denominator(1001)
        self._stream: Any = None
        self._last_time = -1

    def write(self, pixels: np.ndarray, time: float) -> None:
        """Encode a frame.

        Args:
            pixels: (H, W, 3) uint8 RGB. H.264 wants even sides: an odd last row or column is left out.
            time: Seconds since the first frame.

        Raises:
            FabRecError: If the disk is full, or the frame cannot be encoded.
        """
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(_even(pixels)), format="rgb24")
        if self._stream is None:
            self._open_stream(frame.width, frame.height)
        size = {"width": self._stream.width, "height": self._stream.height}
        frame = frame.reformat(**size, format="yuv420p")
        self._last_time = max(self._last_time + 1, round(time * TIME_UNITS))
        frame.pts, frame.time_base = self._last_time, Fraction(1, TIME_UNITS)
        self._mux(frame)

    def close(self) -> None:
        """Finish the file.

        Raises:
            FabRecError: If the disk is full.
        """
        if self._stream is not None:
            self._mux(None)
        try:
            self._container.close()
        except OSError as error:
            raise FabRecError(f"cannot write to {self._path.parent}: {error.strerror or error}.") from error

    def _open_stream(self, width: int, height: int) -> None:
        self._stream = self._container.add_stream(
            "libx264", rate=self._rate, options={"preset": "veryfast", "crf": "20"}
        )
        self._stream.width, self._stream.height, self._stream.pix_fmt = width, height, "yuv420p"
        self._stream.codec_context.time_base = Fraction(1, TIME_UNITS)

    def _mux(self, frame: Any) -> None:
        try:
            self._container.mux(self._stream.encode(frame))
        except (OSError, ValueError) as error:
            raise FabRecError(f"cannot write to {self._path.parent}: {_reason(error)}.") from error


def _import_av() -> Any:
    try:
        import av
        import av.stream
    except ImportError as error:
        raise ImportError("Reading videos needs PyAV: pip install 'fabrec-hf[video]'.") from error
    av.logging.set_level(None)  # what FFmpeg has to say is said in one line of ours
    return av


def _even(pixels: np.ndarray) -> np.ndarray:
    """Cut to even sides; a side of one pixel is doubled."""
    height, width = pixels.shape[:2]
    pixels = pixels[: max(1, height // 2 * 2), : max(1, width // 2 * 2)]
    return pixels.repeat(2 if height == 1 else 1, axis=0).repeat(2 if width == 1 else 1, axis=1)


def _reason(error: Exception) -> str:
    """Return FFmpeg's words without the number and the path around them."""
    return " ".join(str(getattr(error, "strerror", None) or error).split()).rstrip(".")
