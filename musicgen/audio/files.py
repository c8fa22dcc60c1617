"""Audio files through PyAV: reading of any format, atomic writing of four."""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from ..dependencies import require
from ..errors import InputError
from ..outputs import DISK_FULL, atomic_file
from .waveform import Audio, check_span, convert, span

# FFmpeg's layout for each number of channels, as FLAC and Opus order them.
_LAYOUTS = ("mono", "stereo", "3.0", "quad", "5.0", "5.1", "6.1", "7.1")
_MPEG_RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_OPUS_RATES_HZ = (8000, 12000, 16000, 24000, 48000)


@dataclass(frozen=True)
class _Encoding:
    """Encoding of an audio file, in FFmpeg's names."""

    container: str
    codec: str
    frame_format: str  # sample format of the encoder's input
    bits: int = 0  # of integer samples, 0 = floating point
    max_channels: int = 8
    rates_hz: tuple[int, ...] = ()  # () = any
    bitrate: int = 0  # bits per second, 0 = lossless


_ENCODINGS = {
    ("wav", "s16"): _Encoding("wav", "pcm_s16le", "s16", bits=16),
    ("wav", "s24"): _Encoding("wav", "pcm_s24le", "s32", bits=24),
    ("wav", "f32"): _Encoding("wav", "pcm_f32le", "flt"),
    ("flac", "s16"): _Encoding("flac", "flac", "s16", bits=16),
    ("flac", "s24"): _Encoding("flac", "flac", "s32", bits=24),
    ("mp3", "s16"): _Encoding("mp3", "libmp3lame", "fltp", 0, 2, _MPEG_RATES_HZ, 320_000),
    ("opus", "s16"): _Encoding("opus", "libopus", "flt", 0, 8, _OPUS_RATES_HZ, 160_000),
}
FORMATS = tuple(dict.fromkeys(format for format, _ in _ENCODINGS))


def read(path: str | os.PathLike, start_s: float = 0.0, end_s: float | None = None) -> Audio:
    """Read [1, C, L] from the first audio track of any audio or video file, or a stretch of it in seconds.

    Integers are scaled to -1..1, floating point samples are unchanged. `end_s` of None or below 0 is the
    end; decoding stops there. InputError, naming the file, for anything that cannot be read.
    """
    path = Path(path)
    start_s, end_s = check_span(start_s, end_s)
    if os.path.isdir(path):
        raise InputError(f"{path} is a folder, not an audio file.")
    if not os.path.isfile(path):  # False for what can be no path, too
        raise InputError(f"Audio file {path} does not exist.")
    av = require("av", "Reading audio files")
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise InputError(f"{path} has no audio track.")
            samples, rate_hz, n_before = _decode(container, path, start_s, end_s)
    except InputError:
        raise
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as audio ({error}). It is damaged, or not an audio file.") from error
    first, last = span(start_s, end_s, rate_hz, n_before + samples.shape[1], str(path))
    try:
        return Audio(torch.from_numpy(samples[:, : last - first])[None], rate_hz)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def write(
    audio: Audio,
    path: str | os.PathLike,
    format: str | None = None,
    *,
    sample_format: str = "s16",
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write one clip [1, C, L] as wav, flac, mp3 or opus; `format` of None is taken from the suffix.

    sample_format: s16, s24 (wav, flac) or f32 (wav). MP3 (320 kbit/s) and Opus (160 kbit/s) are resampled to the
    next rate that they support. `metadata` goes into the file; WAV cannot hold it, so it goes to `<file>.json`.
    Writing is atomic: an InputError, for a full disk too, leaves no file behind.
    """
    path = Path(path)
    if audio.samples.shape[0] != 1:
        raise InputError(f"{path} can hold one clip, got a batch of {audio.samples.shape[0]}. Write them one by one.")
    format = _format_of(path, format)
    encoding = _encoding_of(format, sample_format)
    if audio.n_channels > encoding.max_channels:
        raise InputError(
            f"{format} holds at most {encoding.max_channels} channels, but the audio has {audio.n_channels}. "
            "Save it as wav or flac, or mix it down to stereo."
        )
    for key, value in (metadata or {}).items():
        if not isinstance(key, str) or not isinstance(value, str) or not key:
            raise InputError(f"metadata must map text to text, got {key!r}: {value!r}")
    if encoding.rates_hz and audio.rate_hz not in encoding.rates_hz:
        above = [rate for rate in encoding.rates_hz if rate > audio.rate_hz]
        audio = convert(audio, min(above, default=max(encoding.rates_hz)), audio.n_channels)
    av = require("av", "Writing audio files")
    inside, beside = (None, metadata) if format == "wav" else (metadata, None)
    try:
        with contextlib.ExitStack() as files:
            if beside:
                sidecar = files.enter_context(atomic_file(path.with_name(path.name + ".json")))
                sidecar.write((json.dumps(_parsed(beside), indent=2) + "\n").encode())
            _encode(av, audio, files.enter_context(atomic_file(path)), encoding, inside or {})
    except InputError:
        raise
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(_cannot_write(path, error)) from error
    return path


def _decode(container, path: Path, start_s: float, end_s: float | None) -> tuple[np.ndarray, int, int]:
    """Decode the interval within the file: samples [C, n] float32, their rate, the number of samples before them."""
    stream = container.streams.audio[0]
    parts: list[np.ndarray] = []
    rate_hz, channels, position = 0, 0, 0
    first, last = 0, None
    for frame in container.decode(stream):
        if not rate_hz:
            rate_hz, channels = frame.sample_rate, len(frame.layout.channels)
            first = round(start_s * rate_hz)
            last = None if end_s is None else round(end_s * rate_hz)
        elif (frame.sample_rate, len(frame.layout.channels)) != (rate_hz, channels):
            raise InputError(
                f"{path} changes from {rate_hz} Hz, {channels} channels to {frame.sample_rate} Hz, "
                f"{len(frame.layout.channels)} channels after {position / rate_hz:.3f} s. Convert it to one format."
            )
        begin, end = max(0, first - position), frame.samples if last is None else min(frame.samples, last - position)
        if begin < end:
            parts.append(_as_float(frame, channels)[:, begin:end])
        position += frame.samples
        if last is not None and position >= last:
            break
    else:
        _check_complete(container, stream, path, position / rate_hz if rate_hz else 0.0)
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


def _check_complete(container, stream, path: Path, length_s: float) -> None:
    """InputError where decoding skipped damaged parts. Only FLAC's header knows; elsewhere the length is a guess."""
    if container.format.name != "flac" or not stream.duration:
        return
    announced_s = float(stream.duration * stream.time_base)
    if length_s < announced_s:
        raise InputError(f"{path} is damaged: only {length_s:.3f} s of its {announced_s:.3f} s can be decoded.")


def _format_of(path: Path, format: str | None) -> str:
    name = path.suffix[1:].lower() if format is None else format
    if name not in FORMATS:
        cause = f"{path.name!r} has the suffix {path.suffix!r}" if format is None else f"got {format!r}"
        raise InputError(f"unknown audio format: {cause}, but the formats are {', '.join(FORMATS)}.")
    return name


def _encoding_of(format: str, sample_format: str) -> _Encoding:
    encoding = _ENCODINGS.get((format, sample_format))
    if encoding is None:
        known = ", ".join(sample for name, sample in _ENCODINGS if name == format)
        raise InputError(f"'sample_format' of {format} must be one of {known}, got {sample_format!r}")
    return encoding


def _encode(av: ModuleType, audio: Audio, sink: BinaryIO, encoding: _Encoding, metadata: Mapping[str, str]) -> None:
    """Encode and mux audio into an open binary file, one second at a time."""
    output = _DeferredErrorFile(sink)
    layout = _LAYOUTS[audio.n_channels - 1]
    container = av.open(output, mode="w", format=encoding.container)
    try:
        container.metadata.update(metadata)
        stream = container.add_stream(encoding.codec, rate=audio.rate_hz)
        stream.codec_context.layout = layout
        stream.codec_context.format = encoding.frame_format
        if encoding.bitrate:
            stream.bit_rate = encoding.bitrate
        for start in range(0, audio.n_samples, audio.rate_hz):
            array = _for_encoder(audio.samples[0, :, start : start + audio.rate_hz], encoding)
            frame = av.AudioFrame.from_ndarray(array, format=encoding.frame_format, layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = audio.rate_hz, start, Fraction(1, audio.rate_hz)
            container.mux(stream.encode(frame))
            output.check()
        container.mux(stream.encode(None))
    finally:
        container.close()  # writes the trailer, and goes back to the header
    output.check()
    sink.flush()


def _for_encoder(samples: Tensor, encoding: _Encoding) -> np.ndarray:
    """Encoder input of samples [C, n]: planar [C, n] or interleaved [1, n * C]; integers are rounded and clipped."""
    samples = samples.detach().cpu()
    if encoding.bits:
        full = 2 ** (encoding.bits - 1)  # FFmpeg's own scale: 32768 for 16 bits, so that reading gives the same back
        integers = (samples.double() * full).round_().clamp_(-full, full - 1).to(torch.int32)
        container_bits = int(encoding.frame_format[1:])
        array = (integers * 2 ** (container_bits - encoding.bits)).numpy().astype(f"int{container_bits}")
    else:
        array = (samples.clamp(-1, 1) if encoding.bitrate else samples).numpy()
    planar = encoding.frame_format.endswith("p")
    return np.ascontiguousarray(array if planar else array.T.reshape(1, -1))


class _DeferredErrorFile:
    """File that FFmpeg writes to; `check` raises the first OSError of a write.

    FFmpeg ignores a failed write of its last buffer, and an exception in its callback may surface in the call of
    another file. So the callbacks report success.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._error: OSError | None = None

    def write(self, data: bytes) -> int:
        self._try(self._file.write, data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._try(self._file.seek, offset, whence)

    def tell(self) -> int:
        return self._try(self._file.tell)

    def check(self) -> None:
        if self._error:
            raise self._error

    def _try(self, call: Callable[..., int], *args) -> int:
        if not self._error:
            try:
                return call(*args)
            except OSError as error:
                self._error = error
        return 0


def _parsed(metadata: Mapping[str, str]) -> dict:
    """Metadata with JSON values parsed; other text is unchanged."""
    parsed = {}
    for key, value in metadata.items():
        try:
            parsed[key] = json.loads(value)
        except ValueError:
            parsed[key] = value
    return parsed


def _cannot_write(path: Path, error: Exception) -> str:
    reason = getattr(error, "strerror", None) or str(error)
    message = f"Cannot write {path}: {reason}."
    if getattr(error, "errno", None) in DISK_FULL:
        with contextlib.suppress(OSError):
            free = shutil.disk_usage(path.parent).free
            message += f" {free} bytes are free in {path.parent}: free some space there, or save to another folder."
    return message
