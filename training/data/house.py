"""The clips of `clips/house music`: ten pieces of house, music that pansori-mini does not know, to try a training with.

Composed by `songs`, played by FluidSynth with FluidR3_GM (Frank Wen, MIT licence), 12 s each, as Opus.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from ...musicgen.audio import Audio
from ...musicgen.dependencies import require
from . import songs
from .grooves import GROOVES
from .render import Synthesizer

N_CLIPS, DURATION_S, RATE_HZ, BPM = 10, 12.0, 48_000, 120.0
LEADS = ("synth lead",)
TEXT = "house music, 120 bpm"
_SEED, _RMS, _PEAK, _BITS_A_SECOND = 77, 0.1, 0.98, 40_000


def clips(synthesizer: Synthesizer) -> Iterator[Audio]:
    """The clips [1, 1, L], at the synthesizer's rate."""
    number = made = 0
    while made < N_CLIPS:
        rng = np.random.default_rng([_SEED, number])
        song = songs.compose("house", GROOVES["house"], "ensemble", DURATION_S, rng, BPM)
        number += 1
        if song.facts.ends or not song.facts.drums or song.facts.lead not in LEADS:
            continue
        samples = synthesizer.play(song.parts, song.first_s, DURATION_S)
        samples = np.clip(_RMS / np.sqrt(np.mean(samples**2)) * samples, -_PEAK, _PEAK)
        made += 1
        yield Audio(torch.from_numpy(samples.astype(np.float32))[None, None], synthesizer.rate_hz)


def write_all(folder: Path, soundfont: Path) -> list[Path]:
    """Every clip as Opus with its text beside it; files of the same names are replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, clip in enumerate(clips(Synthesizer(soundfont, RATE_HZ)), start=1):
        paths.append(folder / f"house {number:02}.opus")
        _write_opus(clip, paths[-1])
        paths[-1].with_suffix(".txt").write_text(f"{TEXT}\n", encoding="utf-8")
    return paths


def _write_opus(clip: Audio, path: Path) -> None:
    av = require("av", "Writing Opus")
    with av.open(str(path), "w", format="opus") as container:
        stream = container.add_stream("libopus", rate=clip.rate_hz, layout="mono")
        stream.bit_rate = _BITS_A_SECOND
        frame = av.AudioFrame.from_ndarray(clip.samples[0].numpy(), format="flt", layout="mono")
        frame.sample_rate = clip.rate_hz
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
