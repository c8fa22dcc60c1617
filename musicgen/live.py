"""A piece while it is being written: what a Cancel can keep of it, and its sound within a share of the time."""

import time
from collections import deque
from collections.abc import Callable

import torch
from torch import Tensor

from .codec import Codec, IncrementalDecoder
from .codes import Codes, CutShort

Read = Callable[[int, int], Tensor]

SHARE = 0.025  # of the time that writing takes, for decoding beside it; 3 % are promised
MIN_FRAMES = 25  # of a chunk
MAX_CELLS = 100  # of a chunk, frames times channels: bounds its memory and the time to a Cancel
LEAD_FRAMES = 100  # of a continued clip, which are decoded before the new music
FIRST_S = 0.01  # of time to spend before the first chunk, whose cost is unknown
END_S = 0.05  # of time that may be spent in all once a piece is whole, where its share is less


class Written:
    """The finished frames of a run, as its `on_frames`. A run that begins again never makes them fewer."""

    def __init__(self, n_known: int = 0) -> None:
        self._n_known = n_known  # frames of the prompt
        self._n_frames = n_known
        self._read: Read | None = None

    def __call__(self, n_frames: int, read: Read) -> None:
        if n_frames > self._n_frames:
            self._n_frames, self._read = n_frames, read

    def cut_short(self, asked_s: float, frame_rate_hz: float, codec: str) -> Codes | None:
        """Codes of all rows so far, marked as shorter than the `asked_s` wanted; None where nothing new is finished."""
        if self._read is None:
            return None
        codes = self._read(0, self._n_frames)
        return Codes(codes, frame_rate_hz, codec, cut_short=CutShort(self._n_frames / frame_rate_hz, asked_s))


class Listener:
    """Decodes the first row of a run while it is written, as its `on_frames`; on_sound(position, samples [C, L]).

    Positions count samples from the start of the piece and follow one another without a gap, a run that begins again
    included. Time spent is held below `share` of the time that the run takes: a chunk is decoded once its cost, foreseen
    from those before, is allowed. Where decoding is dear, sound falls behind the writing rather than slowing it.
    """

    def __init__(
        self,
        codec: Codec,
        on_sound: Callable[[int, Tensor], None],
        share: float = SHARE,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._codec, self._on_sound, self._share, self._clock = codec, on_sound, share, clock
        self._decoder = IncrementalDecoder(codec)
        self._device: torch.device | None = None  # of the codec, once the run has begun
        self._max_frames = max(MIN_FRAMES, MAX_CELLS // codec.config.channels)
        self._first: int | None = None  # frame that decoding begins with
        self._n_frames = 0  # finished so far
        self._read: Read | None = None
        self._begun_s = 0.0
        self._frame_s: deque[float] = deque(maxlen=3)  # costs of a frame, those of the overlap included
        self.spent_s = self._least_s = 0.0

    @property
    def position(self) -> int:
        """Samples from the start of the piece to where the sound has come."""
        return ((self._first or 0) + self._decoder.n_decoded) * self._codec.config.hop

    @property
    def running_s(self) -> float:
        """Time since the first frames, without what was spent here."""
        return self._clock() - self._begun_s - self.spent_s

    def __call__(self, n_frames: int, read: Read) -> None:
        if self._first is None:
            self._first, self._begun_s = max(0, n_frames - LEAD_FRAMES), self._clock()
            self._device = self._codec.device
        if n_frames >= self._n_frames:
            self._n_frames, self._read = n_frames, read
            if min(self._waiting, self._max_frames) >= MIN_FRAMES:
                self._decode_if_allowed()

    def finish(self) -> None:
        """Decode what is left, as far as the time allows: END_S in all, however short the run was."""
        self._least_s = END_S
        while self._waiting and self._decode_if_allowed():
            pass
        if self._first is not None and not self._waiting and self._allowed(self._decoder.ahead):
            self._timed(self._decoder.finish, self._decoder.ahead)

    @property
    def _waiting(self) -> int:
        return self._n_frames - (self._first or 0) - self._decoder.n_fed

    def _decode_if_allowed(self) -> bool:
        # The cost of the first chunk, in which libraries prepare themselves, says little: another small one follows.
        n_frames = min(self._waiting, self._max_frames if len(self._frame_s) > 1 else MIN_FRAMES)
        # Weights that were moved in between, for want of memory, no longer fit the state carried over.
        if self._read is None or self._codec.device != self._device or not self._allowed(n_frames):
            return False
        first = (self._first or 0) + self._decoder.n_fed
        codes = self._read(first, first + n_frames)[:1]  # waits for a GPU, before the time is taken
        self._timed(lambda: self._decoder.feed(codes), n_frames)
        return True

    def _allowed(self, n_frames: int) -> bool:
        # The least of the last costs: one that was too low is made up for by waiting, one too high would not be noticed.
        cost_s = min(self._frame_s) * (n_frames + self._decoder.overlap) if self._frame_s else FIRST_S
        return self.spent_s + cost_s <= max(self._share * self.running_s, self._least_s)

    def _timed(self, decode: Callable[[], Tensor], n_frames: int) -> None:
        begun_s, position = self._clock(), self.position
        samples = decode()
        if samples.shape[-1]:
            self._on_sound(position, samples)
        took_s = self._clock() - begun_s
        self.spent_s += took_s
        self._frame_s.append(took_s / (n_frames + self._decoder.overlap))


def peaks(samples: Tensor, width: int) -> Tensor:
    """Lowest and highest sample of each `width`, over all channels: [C, L] -> [ceil(L / width), 2]."""
    n_bins = -(-samples.shape[-1] // width)
    padded = torch.nn.functional.pad(samples, (0, n_bins * width - samples.shape[-1]))
    bins = padded.view(len(samples), n_bins, width)
    return torch.stack([bins.amin(dim=(0, 2)), bins.amax(dim=(0, 2))], dim=-1)
