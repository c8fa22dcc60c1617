"""Audio files of any format, read through PyAV as players do: what cannot be decoded is skipped, and said."""

import contextlib
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from ..dependencies import require
from ..errors import InputError
from .waveform import Audio, check_span, span

logger = logging.getLogger(__name__)

_GAP_S = 0.1  # distance of timestamps that rounding does not explain
_LENGTH_IN_HEADER = ("flac", "mov", "matroska")  # elsewhere FFmpeg's length is a guess
_OGG_TAIL = 2**17  # bytes; a page has at most 65,307


def read(
    path: str | os.PathLike, start_s: float = 0.0, end_s: float | None = None, *, end_may_exceed: bool = False
) -> Audio:
    """Read [1, C, L] from the first audio track of any audio or video file, or a stretch of it in seconds.

    Integers are scaled to -1..1, floating point samples are unchanged. `end_s` of None or below 0 is the end, and so
    is one past the end if `end_may_exceed`; decoding stops at `end_s`. What of the file cannot be decoded is skipped,
    with a warning in the log that says how much, or that the end is missing. InputError, naming the file, for
    anything that holds no audio.
    """
    path = Path(path)
    start_s, end_s = check_span(start_s, end_s)
    if os.path.isdir(path):
        raise InputError(f"{path} is a folder, not an audio file.")
    if not os.path.isfile(path):  # False for what can be no path, too
        raise InputError(f"Audio file {path} does not exist.")
    av = require("av", "Reading audio files")
    try:
        # An absolute path, for FFmpeg takes what is before a colon for a protocol.
        with av.open(os.path.abspath(path)) as container:
            if not container.streams.audio:
                raise InputError(f"{path} has no audio track.")
            samples, rate_hz, n_before = _decode(av, container, path, start_s, end_s)
    except InputError:
        raise
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as audio ({error}). It is damaged, or not an audio file.") from error
    n_samples = n_before + samples.shape[1]
    if end_may_exceed and end_s is not None and end_s > n_samples / rate_hz:
        end_s = None
    first, last = span(start_s, end_s, rate_hz, n_samples, str(path))
    try:
        return Audio(torch.from_numpy(samples[:, : last - first])[None], rate_hz)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


class _Damage:
    """What of a file was not decoded."""

    def __init__(self) -> None:
        self.n_packets = self.n_bytes = 0
        self.first_s = self.missing_s = 0.0
        self.is_cut = False
        self.error: Exception | None = None  # the first one

    def skip(self, error: Exception, n_bytes: int, at_s: float) -> None:
        if self.error is None:
            self.error, self.first_s = error, at_s
        self.n_packets += 1
        self.n_bytes += n_bytes

    def report(self, path: Path, length_s: float, announced_s: float | None, tolerance_s: float) -> None:
        """Warn of what was skipped and of what is missing."""
        if self.n_packets:
            logger.warning(
                "%s: %d bytes in %d parts that are not audio or damaged, the first after %.3f s, were skipped; "
                "%.3f s were read.", path, self.n_bytes, self.n_packets, self.first_s, length_s,
            )  # fmt: skip
        if announced_s is not None and length_s < announced_s - min(tolerance_s, 0.1 * announced_s):
            logger.warning(
                "%s is damaged or cut: only %.3f s of its %.3f s could be decoded.", path, length_s, announced_s
            )
            return
        if self.missing_s:
            logger.warning("%s is damaged: %.3f s of sound within it are missing.", path, self.missing_s)
        if self.is_cut:
            logger.warning("%s seems to be cut: its end is missing after %.3f s.", path, length_s)


def _decode(av: ModuleType, container, path: Path, start_s: float, end_s: float | None) -> tuple[np.ndarray, int, int]:
    """Decode the interval within the file: samples [C, n] float32, their rate, the number of samples before them."""
    stream = container.streams.audio[0]
    parts: list[np.ndarray] = []
    rate_hz, channels, position = 0, 0, 0
    first, last = 0, None
    damage = _Damage()
    origin_s = None  # time of the first sample by the file's timestamps
    for frame in _frames(av, container, stream, path, damage):
        if not rate_hz:
            rate_hz, channels = frame.sample_rate, len(frame.layout.channels)
            first = round(start_s * rate_hz)
            last = None if end_s is None else round(end_s * rate_hz)
        elif (frame.sample_rate, len(frame.layout.channels)) != (rate_hz, channels):
            raise InputError(
                f"{path} changes from {rate_hz} Hz, {channels} channels to {frame.sample_rate} Hz, "
                f"{len(frame.layout.channels)} channels after {position / rate_hz:.3f} s. Convert it to one format."
            )
        if frame.pts is not None:
            offset_s = float(frame.pts * frame.time_base) - position / rate_hz
            gap_s = 0.0 if origin_s is None else offset_s - origin_s
            if origin_s is None or abs(gap_s) > _GAP_S:
                origin_s = offset_s
                damage.missing_s += max(0.0, gap_s)
        begin, end = max(0, first - position), frame.samples if last is None else min(frame.samples, last - position)
        if begin < end:
            parts.append(_as_float(frame, channels)[:, begin:end])
        position += frame.samples
        if last is not None and position >= last:
            break
    else:
        if damage.error and not position:
            raise damage.error
        if position:
            damage.is_cut = damage.is_cut or _is_cut(container, path)
            # Encoders round lengths up, and count what they put in front; FLAC's is exact.
            tolerance_s = 0.0 if container.format.name == "flac" else _GAP_S
            damage.report(path, position / rate_hz, _announced_s(container, stream), tolerance_s)
    if not position:
        raise InputError(f"{path} holds no audio: its track has no samples.")
    n_before = min(first, position)
    samples = np.empty((channels, sum(part.shape[1] for part in parts)), dtype=np.float32)
    end = samples.shape[1]
    while parts:  # each part is freed as it is copied, so the audio is not held twice
        part = parts.pop()
        samples[:, end - part.shape[1] : end] = part
        end -= part.shape[1]
    return samples, rate_hz, n_before


def _frames(av: ModuleType, container, stream, path: Path, damage: _Damage) -> Iterator:
    """Frames of a track. A packet that cannot be decoded is counted and skipped; more of them than good ones raise."""
    packets = container.demux(stream)
    n_good, time_s = 0, 0.0
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError as error:
            if not n_good:
                raise
            damage.error, damage.is_cut = damage.error or error, True
            return
        if packet is None:
            break
        try:
            frames = packet.decode()
        except av.FFmpegError as error:
            if not n_good and container.format.name == "flac":  # its header is lost, and what follows is guessed
                raise
            damage.skip(error, packet.size, time_s)
            continue
        n_good += bool(packet.size)
        for frame in frames:
            time_s += frame.samples / frame.sample_rate
            yield frame
    if damage.error is not None and damage.n_packets > n_good:
        raise damage.error


def _as_float(frame, channels: int) -> np.ndarray:
    """Samples [C, n] float32 of one decoded frame; the full scale of integers becomes 1."""
    array = frame.to_ndarray()
    if not frame.format.is_planar:
        array = array.reshape(-1, channels).T
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    full = 2.0 ** (8 * array.itemsize - 1)
    zero = full if array.dtype.kind == "u" else 0.0
    return ((array.astype(np.float64) - zero) / full).astype(np.float32)


def _announced_s(container, stream) -> float | None:
    """Length of a track by its file's header, None where the header has none."""
    if not container.format.name.startswith(_LENGTH_IN_HEADER):
        return None
    if stream.duration:
        return float(stream.duration * stream.time_base)
    tag = re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)\W*", stream.metadata.get("DURATION", ""))  # Matroska's
    if tag:
        hours, minutes, seconds = map(float, tag.groups())
        return 3600 * hours + 60 * minutes + seconds
    if container.duration and len(container.streams) == 1:
        return container.duration / 1e6
    return None


def _is_cut(container, path: Path) -> bool:
    """Whether the file ends before its container does. Of WAV and Ogg; others say a length, or cannot be told."""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        if container.format.name == "wav":
            file.seek(4)
            riff = int.from_bytes(file.read(4), "little") + 8
            return size < riff - 1 < 2**32 - 2  # streams have all bits set for a length that is not known
        if container.format.name == "ogg":
            file.seek(max(0, size - _OGG_TAIL))
            tail = file.read()
            return _is_cut_page(tail[tail.rfind(b"OggS") :])
    return False


def _is_cut_page(page: bytes) -> bool:
    """Whether an Ogg page is incomplete, or not marked as the last of its track. Source: RFC 3533."""
    n_header = 27 + page[26] if len(page) > 26 else 27
    return len(page) < n_header or len(page) < n_header + sum(page[27:n_header]) or not page[5] & 4
