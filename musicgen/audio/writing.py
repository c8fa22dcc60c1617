"""Audio files of four formats, written through PyAV: whole, or not at all."""

import contextlib
import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from ..dependencies import require
from ..errors import InputError
from ..outputs import DISK_FULL, atomic_file
from .conversion import convert
from .waveform import Audio

logger = logging.getLogger(__name__)

# FFmpeg's layout for each number of channels, as FLAC and Opus order them.
_LAYOUTS = ("mono", "stereo", "3.0", "quad", "5.0", "5.1", "6.1", "7.1")
_MPEG_RATES_HZ = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
_OPUS_RATES_HZ = (8000, 12000, 16000, 24000, 48000)
_MAX_COMMENT_BYTES = {
    "wav": 0,
    "flac": 2**24 - 2**12,
}  # FLAC's block has 24 bits for its size, shared with the encoder's own


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


def write(
    audio: Audio,
    path: str | os.PathLike,
    format: str | None = None,
    *,
    sample_format: str = "s16",
    metadata: Mapping[str, str] | None = None,
    replace: bool = True,
    check: Callable[[], None] | None = None,
) -> Path:
    """Write one clip [1, C, L] as wav, flac, mp3 or opus; `format` of None is taken from the suffix.

    sample_format: s16, s24 (wav, flac) or f32 (wav). MP3 (320 kbit/s) and Opus (160 kbit/s) are resampled to the
    next rate that they support. `metadata` goes into the file; WAV cannot hold it, nor FLAC more than 16 MB, so it goes
    to `<file>.json`. `check` is called for each second of audio; what it raises ends the work.
    Writing is atomic: an InputError, for a full disk too, leaves no file behind. FileExistsError where there is a
    file of that name and `replace` is off; of several processes that write to one name, one does.
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
    n_bytes = _comment_bytes(metadata or {})
    fits = n_bytes <= _MAX_COMMENT_BYTES.get(format, math.inf)
    inside, beside = (metadata, None) if fits else (None, metadata)
    if not fits and format != "wav":
        logger.warning("%s cannot hold %d bytes of metadata: it lies in %s.json beside it.", path, n_bytes, path.name)
    try:
        with contextlib.ExitStack() as files:
            if beside:
                sidecar = files.enter_context(atomic_file(path.with_name(path.name + ".json")))
                sidecar.write((json.dumps(_parsed(beside), indent=2) + "\n").encode())
            file = files.enter_context(atomic_file(path, replace))
            _encode(av, audio, file, encoding, inside or {}, check or (lambda: None))
    except (InputError, FileExistsError):
        raise
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(_cannot_write(path, error)) from error
    return path


def write_new(audio: Audio, paths: Iterable[Path], format: str | None = None, **options: Any) -> Path:
    """`write` under the first of `paths` that no file has. Of several processes, each gets a name of its own."""
    for path in paths:
        if os.path.lexists(path):
            continue
        try:
            return write(audio, path, format, replace=False, **options)
        except FileExistsError:  # written by another process meanwhile
            continue
    raise InputError("Cannot write the audio: every name for it is taken.")


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


def _encode(
    av: ModuleType,
    audio: Audio,
    sink: BinaryIO,
    encoding: _Encoding,
    metadata: Mapping[str, str],
    check: Callable[[], None],
) -> None:
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
            check()
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


def _comment_bytes(metadata: Mapping[str, str]) -> int:
    """Size of metadata as Vorbis comments, without the encoder's own."""
    return sum(5 + len(key.encode()) + len(value.encode()) for key, value in metadata.items())


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
