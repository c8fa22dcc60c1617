"""Streaming of the codec's networks in chunks, with the result of one run over the full signal.

Both networks are convolutions, an LSTM and convolutions. The LSTM carries its state to the next chunk.
The convolutions get a chunk widened by their receptive field. The outputs that depend on the padding of
an inner edge are cut off; the ends of the signal keep the network's own padding:

    frames      0 . . . . . . . . . . . . . . . . n
    hidden      |--------[ widened ------ ]          LSTM has run up to here
    result               left[ chunk ]right
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


def split_at_lstm(network: nn.Module) -> tuple[list[nn.Module], nn.LSTM, list[nn.Module]]:
    """Split a network into the layers before its LSTM, the LSTM, and the layers after it."""
    layers = list(network.get_submodule("layers").children())
    ((index, lstm),) = ((i, m) for i, layer in enumerate(layers) for m in layer.children() if isinstance(m, nn.LSTM))
    return layers[:index], lstm, layers[index + 1 :]


@dataclass(frozen=True)
class Section:
    """Sequence of convolutions with `n_in` input and `n_out` output samples a frame; one of the two is 1.

    `check` is called before every layer: a second of audio is most of a second's work on two slow cores.
    """

    layers: list[nn.Module]
    n_in: int
    n_out: int
    check: Callable[[], object] | None = None
    left: int = field(init=False)  # frames of the receptive field before and after a frame
    right: int = field(init=False)

    def __post_init__(self) -> None:
        low, high = _inputs_of(self.layers, 0, self.n_out - 1)
        object.__setattr__(self, "left", -(low // self.n_in))
        object.__setattr__(self, "right", high // self.n_in)

    def widened(self, first: int, last: int, n_frames: int) -> tuple[int, int]:
        """Input frames (begin, end) for the output frames first..last-1, within the signal."""
        return max(0, first - self.left), min(n_frames, last + self.right)

    def run(self, x: Tensor, begin: int, first: int, last: int) -> Tensor:
        """Output of the frames first..last-1 from the widened input x, which starts at frame `begin`."""
        for layer in self.layers:
            if self.check:
                self.check()
            x = layer(x)
        return x[..., (first - begin) * self.n_out : (last - begin) * self.n_out]


class Streamer:
    """One run of a network over a signal, chunk after chunk; carries the LSTM's state and output from one to the next."""

    def __init__(self, front: Section, lstm: nn.LSTM, back: Section) -> None:
        self.front, self._lstm, self.back = front, lstm, back
        self._state: tuple[Tensor, Tensor] | None = None
        self._hidden: Tensor | None = None  # LSTM output of the frames begin..end-1
        self._begin = 0
        self.end = 0  # the LSTM has run up to here

    @property
    def ahead(self) -> int:
        """Frames that must follow an output frame before it is final."""
        return self.front.right + self.back.right

    def run(self, read: Callable[[int, int], Tensor], first: int, last: int, n_frames: int) -> Tensor:
        """Result of the frames first..last-1, which follow those of the run before, of a signal of `n_frames`.

        `read(first, last)` returns the input of the frames first..last-1; the last frame of the signal may be incomplete.
        """
        low, high = self.back.widened(first, last, n_frames)
        if high > self.end:
            wide_low, wide_high = self.front.widened(self.end, high, n_frames)
            x = self.front.run(read(wide_low, wide_high), wide_low, self.end, high).permute(2, 0, 1)
            y, self._state = self._lstm(x, self._state)
            y = (y + x).permute(1, 2, 0)
            self._hidden = y if self._hidden is None else torch.cat([self._hidden[..., low - self._begin :], y], dim=-1)
            self._begin, self.end = low, high
        assert self._hidden is not None
        return self.back.run(self._hidden[..., low - self._begin :], low, first, last)


def stream(
    front: Section, lstm: nn.LSTM, back: Section, read: Callable[[int, int], Tensor], n_frames: int, chunk: int
) -> Iterator[tuple[int, int, Tensor]]:
    """Yield (first, last, result of the frames first..last-1) for chunks of `chunk` frames; `read` as in Streamer.run."""
    streamer = Streamer(front, lstm, back)
    for first in range(0, n_frames, chunk):
        last = min(first + chunk, n_frames)
        yield first, last, streamer.run(read, first, last, n_frames)


def _inputs_of(layers: list[nn.Module], low: int, high: int) -> tuple[int, int]:
    """First and last input sample in the receptive field of the outputs low..high, ends of the audio included."""
    for layer in reversed(layers):
        if isinstance(layer, nn.ELU):
            continue
        if hasattr(layer, "block"):  # a residual block; its shortcut reaches no further than its convolutions
            low, high = _inputs_of(list(layer.get_submodule("block").children()), low, high)
            continue
        conv = layer.get_submodule("conv")
        assert isinstance(conv, (nn.Conv1d, nn.ConvTranspose1d))
        kernel, stride = conv.dilation[0] * (conv.kernel_size[0] - 1) + 1, conv.stride[0]
        left = math.ceil((kernel - stride) / 2)
        if isinstance(conv, nn.ConvTranspose1d):
            low, high = -((kernel - 1 - low - left) // stride), (high + left) // stride
        else:
            # Reflection padding of the last frame, up to stride - 1 samples more, reads samples further away
            # than the kernel reaches; likewise at the start.
            reach = max(left, (kernel - stride) // 2 + stride - 1)
            low, high = low * stride - reach, high * stride + reach
    return low, high
