"""Plays parts by FluidSynth, through ctypes: no audio device, no MIDI file, faster than real time.

Source: the FluidSynth API reference. A synthesizer belongs to one process. Processes that are forked after `Synthesizer`
has been made share the memory of the soundfont.
"""

import ctypes
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from .score import DRUM_BANK, Part

_LIBRARIES = (  # of FluidSynth, each after those that it needs
    "libogg.so.0", "libvorbis.so.0", "libvorbisenc.so.2", "libFLAC.so.12", "libopus.so.0", "libmpg123.so.0",
    "libmp3lame.so.0", "libsndfile.so.1",
)  # fmt: skip
_NAME = "libfluidsynth.so.3"
_DRUM_CHANNEL, _CHANNELS = 9, 16
_VOLUME, _PAN, _REVERB, _CHORUS = 7, 10, 91, 93  # MIDI controllers
_BLOCK = 64  # samples that FluidSynth makes at once: when an event takes effect


class Synthesizer:
    """A soundfont ready to play at `rate_hz`. OSError if the libraries do not load, ValueError if the soundfont does not.

    libraries: folder of FluidSynth and what it needs; None: the system's.
    """

    def __init__(self, soundfont: Path, rate_hz: int, libraries: Path | None = None) -> None:
        self.rate_hz = rate_hz
        self._fluid = fluid = _load(libraries)
        settings = fluid.new_fluid_settings()
        for name, number in (("synth.sample-rate", rate_hz), ("synth.gain", 0.4)):
            fluid.fluid_settings_setnum(settings, name.encode(), ctypes.c_double(number))
        for name, whole in (
            ("synth.polyphony", 192), ("synth.midi-channels", _CHANNELS), ("synth.chorus.active", 0),
            ("synth.reverb.active", 1), ("synth.cpu-cores", 1), ("synth.threadsafe-api", 0), ("synth.min-note-length", 0),
        ):  # fmt: skip
            fluid.fluid_settings_setint(settings, name.encode(), whole)
        self._synth = fluid.new_fluid_synth(settings)
        self._font = fluid.fluid_synth_sfload(self._synth, str(soundfont).encode(), 0)
        if self._font < 0:
            raise ValueError(f"{soundfont} is no soundfont that FluidSynth can read")

    def play(self, parts: Sequence[Part], first_s: float, duration_s: float, lead_s: float = 2.0) -> np.ndarray:
        """Mono samples [L] float32 from `first_s` on. Notes that began up to `lead_s` before it still sound."""
        fluid, synth = self._fluid, self._synth
        fluid.fluid_synth_system_reset(synth)
        begin_s = max(0.0, first_s - lead_s)
        events: list[tuple[int, int, int, int, int]] = []  # sample, 0 off or 1 on, channel, pitch, velocity
        for channel, part in zip(_channels(parts), parts, strict=True):
            fluid.fluid_synth_program_select(synth, channel, self._font, part.bank, part.program)
            for control, value in ((_VOLUME, part.level), (_PAN, part.pan), (_REVERB, part.reverb), (_CHORUS, 0)):
                fluid.fluid_synth_cc(synth, channel, control, value)
            for note in part.notes:
                if begin_s <= note.start_s < first_s + duration_s:
                    start = round((note.start_s - begin_s) * self.rate_hz)
                    stop = round((note.start_s + note.duration_s - begin_s) * self.rate_hz)
                    events.append((start, 1, channel, note.pitch, note.velocity))
                    events.append((max(stop - _BLOCK, start + _BLOCK), 0, channel, note.pitch, 0))
        skipped = round((first_s - begin_s) * self.rate_hz)
        total = skipped + round(duration_s * self.rate_hz)
        out = np.zeros((total + _BLOCK, 2), np.float32)
        done = 0
        for sample, on, channel, pitch, velocity in sorted(events):
            if sample >= total:
                break
            done = self._write(out, done, sample)
            if on:
                fluid.fluid_synth_noteon(synth, channel, pitch, velocity)
            else:
                fluid.fluid_synth_noteoff(synth, channel, pitch)
        self._write(out, done, total)
        return out[skipped:total].mean(axis=1)

    def load(self, programs: Iterable[tuple[int, int]]) -> None:
        """Read the samples of (bank, program) now. KeyError if the soundfont has no such preset."""
        for bank, program in programs:
            if self._fluid.fluid_synth_program_select(self._synth, 0, self._font, bank, program):
                raise KeyError(f"the soundfont has no preset {bank}:{program}")

    def _write(self, out: np.ndarray, first: int, last: int) -> int:
        if last > first:
            start = out[first:].ctypes.data  # of `out`, which lives on
            left, right = ctypes.c_void_p(start), ctypes.c_void_p(start + 4)
            self._fluid.fluid_synth_write_float(self._synth, last - first, left, 0, 2, right, 0, 2)
        return max(first, last)


def _channels(parts: Sequence[Part]) -> list[int]:
    """A MIDI channel for each part; kits have the tenth, or those at the end."""
    free = iter([c for c in range(_CHANNELS) if c != _DRUM_CHANNEL])
    return [_DRUM_CHANNEL if part.bank == DRUM_BANK else next(free) for part in parts]


def _load(libraries: Path | None) -> ctypes.CDLL:
    if libraries is None:
        fluid = ctypes.CDLL(_NAME)
    else:
        for name in _LIBRARIES:
            ctypes.CDLL(str(libraries / name), mode=ctypes.RTLD_GLOBAL)
        fluid = ctypes.CDLL(str(libraries / _NAME))
    pointer, number = ctypes.c_void_p, ctypes.c_int
    for name, result, arguments in (
        ("new_fluid_settings", pointer, ()),
        ("fluid_settings_setnum", number, (pointer, ctypes.c_char_p, ctypes.c_double)),
        ("fluid_settings_setint", number, (pointer, ctypes.c_char_p, number)),
        ("new_fluid_synth", pointer, (pointer,)),
        ("fluid_synth_sfload", number, (pointer, ctypes.c_char_p, number)),
        ("fluid_synth_system_reset", number, (pointer,)),
        ("fluid_synth_program_select", number, (pointer, number, number, number, number)),
        ("fluid_synth_cc", number, (pointer, number, number, number)),
        ("fluid_synth_noteon", number, (pointer, number, number, number)),
        ("fluid_synth_noteoff", number, (pointer, number, number)),
        ("fluid_synth_write_float", number, (pointer, number, pointer, number, number, pointer, number, number)),
    ):
        function = getattr(fluid, name)
        function.restype, function.argtypes = result, list(arguments)
    return fluid
