"""Decoding of codes while they are still being written: what the frames so far decide, and no sample twice."""

import torch
from torch import Tensor

from . import stereo
from .encodec import Codec
from .streaming import Section, Streamer, split_at_lstm


class IncrementalDecoder:
    """Decoder of one clip, fed with its codes as they come.

    The LSTM's state and output are carried over, and a frame is decoded once its whole receptive field is there, so
    that the samples are those of a decode of the whole, and pieces join without a crossfade. Memory is that of the
    frames fed at once: nothing else is kept but the receptive field.
    """

    def __init__(self, codec: Codec) -> None:
        before, lstm, after = split_at_lstm(codec.decoder)
        self._codec = codec
        self._streamer = Streamer(Section(before, 1, 1), lstm, Section(after, 1, codec.config.hop))
        self._codes = torch.empty(1, codec.config.n_codebooks, 0, dtype=torch.long)  # frames begin..n_fed-1
        self._begin = 0
        self.n_fed = 0  # frames
        self.n_decoded = 0

    @property
    def overlap(self) -> int:
        """Frames of the receptive field around a chunk: what each call computes besides its own."""
        back = self._streamer.back
        return back.left + back.right

    @property
    def ahead(self) -> int:
        """Frames that must follow one before it can be decoded."""
        return self._streamer.ahead

    @torch.no_grad()
    def feed(self, codes: Tensor) -> Tensor:
        """The next codes [1, K, T] -> the samples [C, L] that they decide; L may be 0."""
        self._codes = torch.cat([self._codes, codes.to("cpu", torch.long)], dim=-1)
        self.n_fed += codes.shape[-1]
        return self._decode(self.n_fed - self.ahead)

    @torch.no_grad()
    def finish(self) -> Tensor:
        """The samples [C, L] of the frames that nothing follows."""
        return self._decode(self.n_fed)

    def _decode(self, last: int) -> Tensor:
        config, first = self._codec.config, self.n_decoded
        if last <= first:
            return torch.empty(config.channels, 0)
        samples = self._streamer.run(self._latents, first, last, self.n_fed)
        self.n_decoded = last
        needed = max(0, self._streamer.end - self._streamer.front.left)
        self._codes, self._begin = self._codes[..., needed - self._begin :].clone(), needed
        return samples.view(config.channels, -1).float().cpu()

    def _latents(self, first: int, last: int) -> Tensor:
        codes = self._codes[..., first - self._begin : last - self._begin]
        rows = stereo.separate(codes, self._codec.config.channels)
        return self._codec.quantizer.decode(rows.to(self._codec.device))
