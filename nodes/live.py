"""What the page gets of a run while it goes on: seconds written and left, and with a codec the picture and the sound."""

import base64
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..musicgen.audio import Audio
from ..musicgen.codec import Codec
from ..musicgen.codes import Codes
from ..musicgen.errors import InputError
from ..musicgen.live import Listener, peaks
from . import host

log = logging.getLogger(__name__)

EVENT = "musicgen.live"
LISTEN = ("picture and sound", "picture", "off")
UPDATE_INTERVAL_S = 0.5  # between two lines of progress
PEAKS_A_FRAME = 2
_PEAKS_A_S = 100  # of a clip that is handed over whole
COMPLETED_S = 120.0  # of sound that `complete` sends: an hour would be 300 MB at once

Read = Callable[[int, int], Tensor]


@dataclass(frozen=True)
class _Unheard:
    """What a page lacks of a piece whose writing left no time for its sound."""

    page: host.Page
    sound: bool
    position: int  # samples that it has
    width: int  # samples of a peak


_unheard: WeakKeyDictionary[Codes, _Unheard] = WeakKeyDictionary()


class Live:
    """The `on_frames` of a run that a page is open for."""

    def __init__(
        self, page: host.Page, codec: Codec | None, sound: bool, n_known: int, asked_s: float, frame_rate_hz: float
    ) -> None:
        self._page, self._codec, self._sound = page, codec, sound
        self._known_s, self._asked_s, self._frame_rate_hz = n_known / frame_rate_hz, asked_s, frame_rate_hz
        self._listener = None if codec is None else Listener(codec, self._send_sound)
        self._begun_s = self._shown_s = time.monotonic()
        self._written_s = self._known_s
        about = {"total_s": asked_s, "known_s": self._known_s, "sound": sound}
        if codec is not None:
            config = codec.config
            about |= {"rate_hz": config.sample_rate_hz, "channels": config.channels, "bin": config.hop // PEAKS_A_FRAME}
        self._send("begin", **about)

    def __call__(self, n_frames: int, read: Read) -> None:
        self._written_s = max(self._written_s, n_frames / self._frame_rate_hz)
        if self._listener is not None:
            self._listen(lambda listener: listener(n_frames, read))
        now_s = time.monotonic()
        if now_s - self._shown_s >= UPDATE_INTERVAL_S:
            self._shown_s = now_s
            self._show_progress(now_s - self._begun_s)

    def finish(self, codes: Codes) -> None:
        """End of a whole piece: what is left of its sound, as far as time allows. `complete` sends the rest."""
        if self._listener is not None:
            self._listen(lambda listener: listener.finish())
        if self._listener is not None and self._codec is not None:
            hop, position = self._codec.config.hop, self._listener.position
            if position < codes.n_frames * hop:
                _unheard[codes] = _Unheard(self._page, self._sound, position, hop // PEAKS_A_FRAME)
        self.stop("finished", codes in _unheard)

    def stop(self, status: str, more: bool = False) -> None:
        """End of the run, and of all memory for it. more: sound that was not sent may come from `complete`."""
        position = 0 if self._listener is None else self._listener.position
        self._listener = None
        took_s = time.monotonic() - self._begun_s
        self._send("end", status=status, written_s=self._written_s, took_s=took_s, position=position, more=more)

    def _show_progress(self, running_s: float) -> None:
        new_s = self._written_s - self._known_s
        if new_s > 0:
            left_s = running_s / new_s * (self._asked_s - self._written_s)
            self._send("progress", written_s=self._written_s, left_s=left_s)

    def _listen(self, work: Callable[[Listener], None]) -> None:
        """Let the listener work; without it from now on where nobody listens any more, or memory is short."""
        assert self._listener is not None
        if not self._page.is_open:
            self._listener = None
            return
        try:
            work(self._listener)
        except Exception as error:
            if not host.is_out_of_memory(error):
                raise
            log.warning("Memory is short: the music is written without live sound.")
            self._listener = None

    def _send_sound(self, position: int, samples: Tensor) -> None:
        assert self._codec is not None
        self._send("sound", **_sound(position, samples, self._codec.config.hop // PEAKS_A_FRAME, self._sound))

    def _send(self, kind: str, **data: Any) -> None:
        self._page.send(EVENT, {"kind": kind, **data})


def live(codec: host.Managed | None, listen: str, model: Any, n_known: int, asked_s: float) -> Live | None:
    """Live for the page that queued this prompt; None where there is none. Loads the codec beside the model.

    InputError for the codec of another checkpoint, page or no page.
    """
    if codec is not None and listen != "off":
        _check_codec(codec.module, model)
    page = host.page()
    if page is None:
        return None
    heard = None
    if (
        codec is not None and listen != "off" and isinstance(codec.module, Codec)
    ):  # audiocraft's hands nothing over before its end
        codec.load()
        heard = codec.module
    return Live(page, heard, listen == LISTEN[0], n_known, asked_s, model.config.codec.frame_rate_hz)


def complete(codes: Codes, audio: Audio) -> None:
    """Send the page of a sampler what it lacks of the piece that it wrote, once that is decoded in any case: [B, C, L], of
    which the first row is heard. Nothing where all was sent, or other codes are decoded. After COMPLETED_S the picture alone."""
    unheard = _unheard.pop(codes, None)
    if unheard is None or not unheard.page.is_open:
        return
    samples, step = audio.samples[0], unheard.width * _PEAKS_A_S
    heard = unheard.position + round(COMPLETED_S * audio.rate_hz) if unheard.sound else 0
    for position in range(unheard.position, audio.n_samples, step):
        sound = _sound(position, samples[:, position : position + step], unheard.width, position < heard)
        unheard.page.send(EVENT, {"kind": "sound", "last": position + step >= audio.n_samples, **sound})


def play(clip: Audio) -> None:
    """Hand a whole clip [1, C, L] to the page, which shows and plays it on the node that runs now. Nothing where there is none."""
    page = host.page()
    if page is None:
        return
    samples, rate_hz, width = clip.samples[0], clip.rate_hz, max(1, clip.rate_hz // _PEAKS_A_S)

    def send(kind: str, **data: Any) -> None:
        page.send(EVENT, {"kind": kind, **data})

    send(
        "begin", total_s=clip.duration_s, known_s=0.0, sound=True, rate_hz=rate_hz, channels=clip.n_channels, bin=width
    )
    for position in range(0, clip.n_samples, _PEAKS_A_S * width):
        send("sound", **_sound(position, samples[:, position : position + _PEAKS_A_S * width], width, True))
    send("end", status="whole", written_s=clip.duration_s, took_s=0.0, position=clip.n_samples)


def _check_codec(codec: Any, model: Any) -> None:
    ours, theirs = codec.config.identity, model.config.codec.identity
    if ours != theirs:
        raise InputError(
            f"'codec' is {ours}, but the model writes codes of {theirs}. Connect the codec of the same Load MusicGen node, "
            "or unplug it."
        )


def _sound(position: int, samples: Tensor, width: int, with_pcm: bool) -> dict[str, Any]:
    """Samples [C, L] from `position` on for the page: their peaks, and themselves."""
    data = {"position": position, "length": samples.shape[-1], "peaks": _base64(peaks(samples, width), torch.int8)}
    return data | ({"pcm": _base64(samples.t(), torch.int16)} if with_pcm else {})


def _base64(samples: Tensor, dtype: torch.dtype) -> str:
    """Samples within -1..1 as whole numbers of full scale, little-endian."""
    scaled = (samples.clamp(-1, 1) * torch.iinfo(dtype).max).round().to(dtype)
    return base64.b64encode(scaled.contiguous().numpy().tobytes()).decode("ascii")
