"""Time-stretching: another tempo at the same pitch."""

import math

import numpy as np
import torch
from torch import Tensor

from ..dependencies import require
from ..errors import InputError
from .waveform import Audio

SLOWEST, FASTEST = 0.5, 2.0
_BLOCK = 1 << 16  # samples


def stretch(audio: Audio, speed: float, check=lambda: None) -> Audio:
    """`audio` [B, C, L] played `speed` times as fast (0.5 to 2) at its pitch: [B, C, round(L / speed)].

    By FFmpeg's filter atempo (waveform-similarity overlap-add), through PyAV. All channels are cut at the same places.
    check() is called for each second or so of sound; what it raises ends the work. Speed 1 is the audio itself.
    """
    if not SLOWEST <= speed <= FASTEST:
        raise InputError(f"'speed' must be from {SLOWEST:g} to {FASTEST:g}, got {speed:g}.")
    n_samples = max(1, round(audio.n_samples / speed))
    if n_samples == audio.n_samples:
        return audio
    clips = [_stretched(clip, audio.rate_hz, speed, n_samples, check) for clip in audio.samples]
    return Audio(torch.stack(clips), audio.rate_hz)


def _stretched(clip: Tensor, rate_hz: int, speed: float, n_samples: int, check) -> Tensor:
    """[C, L] -> [C, n_samples]; what atempo lacks at the end is silence."""
    av = require("av", "Time-stretching")
    layout = f"{len(clip)}c"
    graph = av.filter.Graph()
    source = graph.add(
        "abuffer", sample_rate=str(rate_hz), sample_fmt="flt", channel_layout=layout, time_base=f"1/{rate_hz}"
    )
    tempo, sink = graph.add("atempo", f"{speed:.9f}"), graph.add("abuffersink")
    source.link_to(tempo)
    tempo.link_to(sink)
    graph.configure()
    parts: list[np.ndarray] = []

    def pull() -> None:
        while True:
            try:
                parts.append(graph.pull().to_ndarray().reshape(-1, len(clip)))
            except (av.error.BlockingIOError, av.error.EOFError):
                return

    lead = 1 << math.ceil(math.log2(rate_hz / 24) - 1)  # half of atempo's window, by which it plays early
    samples = np.pad(clip.T.numpy(), ((lead, lead), (0, 0)))  # packed, as atempo takes and gives them
    for start in range(0, len(samples), _BLOCK):
        check()
        frame = av.AudioFrame.from_ndarray(samples[start : start + _BLOCK].reshape(1, -1), "flt", layout)
        frame.sample_rate, frame.pts = rate_hz, start
        graph.push(frame)
        pull()
    graph.push(None)
    pull()
    made = np.concatenate(parts or [samples[:0]])[:n_samples].T
    return torch.from_numpy(np.pad(made, ((0, 0), (0, n_samples - made.shape[1]))))
