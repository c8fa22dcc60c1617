"""Plays parts by FluidSynth, through ctypes: no audio device, no MIDI file, faster than real time.

Source: the FluidSynth API reference. A synthesizer belongs to one process. Processes that are forked after `Synthesizer`
has been made share the memory of the soundfont.
"""

import ctypes
import logging
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from .score import DRUM_BANK, Part

SOUNDFONT = Path("/usr/share/sounds/sf3/MuseScore_General.sf3")  # of Debian's musescore-general-soundfont-small
_LIBRARIES = (  # of FluidSynth, each after those that it needs
    "libogg.so.0", "libvorbis.so.0", "libvorbisenc.so.2", "libFLAC.so.12", "libopus.so.0", "libmpg123.so.0",
    "libmp3lame.so.0", "libsndfile.so.1",
)  # fmt: skip
_NAME = "libfluidsynth.so.3"
_DRUM_CHANNEL, _CHANNELS = 9, 16
_VOLUME, _PAN, _REVERB, _CHORUS = 7, 10, 91, 93  # MIDI controllers
_RMS, _PEAK = 0.1, 0.9
_FADE = 100  # samples
_GAIN_STEP_DB = 3.0  # few gains: the same tone at another level is other codes
_BLOCK = 64  # samples that FluidSynth makes at once: when an event takes effect
_PANIC, _ERROR, _WARNING = range(3)  # FluidSynth's levels of messages
_Message = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
logger = logging.getLogger(__name__)


class Synthesizer:
    """A soundfont ready to play at `rate_hz`. OSError if the libraries do not load, ValueError if the soundfont does not.

    libraries: folder of FluidSynth and what it needs; None: the system's. Threads take turns: FluidSynth is told that it has
    one thread. Two at once left it with broken voices, and it wrote 30 MB of complaints a second.
    """

    def __init__(self, soundfont: Path, rate_hz: int, libraries: Path | None = None) -> None:
        self.rate_hz = rate_hz
        self._fluid = fluid = _load(libraries)
        self._turn = threading.Lock()
        for level in (_PANIC, _ERROR, _WARNING):
            fluid.fluid_set_log_function(level, _SAID.hear, None)
        settings = fluid.new_fluid_settings()
        for name, number in (("synth.sample-rate", rate_hz), ("synth.gain", 0.4)):
            fluid.fluid_settings_setnum(settings, name.encode(), ctypes.c_double(number))
        for name, whole in (
            ("synth.polyphony", 192), ("synth.midi-channels", _CHANNELS), ("synth.chorus.active", 0),
            ("synth.reverb.active", 1), ("synth.cpu-cores", 1), ("synth.threadsafe-api", 0), ("synth.min-note-length", 0),
        ):  # fmt: skip
            fluid.fluid_settings_setint(settings, name.encode(), whole)
        self._settings, self._owner = settings, fluid.new_fluid_synth(settings)
        self._font_id = fluid.fluid_synth_sfload(self._owner, str(soundfont).encode(), 0)
        if self._font_id < 0:
            raise ValueError(f"{soundfont} is no soundfont that FluidSynth can read")
        self._font = fluid.fluid_synth_get_sfont(self._owner, 0)

    def play(self, parts: Sequence[Part], first_s: float, duration_s: float, lead_s: float = 2.0) -> np.ndarray:
        """Mono samples [L] float32 from `first_s` on. Notes that began up to `lead_s` before it still sound."""
        with self._turn:
            # A new one for each piece: after a system reset, a piece differed by up to 0.3 with what was played before it.
            synth = self._fluid.new_fluid_synth(self._settings)
            font_id = self._fluid.fluid_synth_add_sfont(synth, self._font)
            try:
                _SAID.taken()
                samples = self._play(synth, font_id, parts, first_s, duration_s, lead_s)
                if complaint := _SAID.taken():
                    logger.warning("FluidSynth, playing %s: %s", ", ".join(part.name for part in parts), complaint)
            finally:
                self._fluid.fluid_synth_remove_sfont(synth, self._font)  # it is the owner's
                self._fluid.delete_fluid_synth(synth)
        return samples

    def _play(
        self, synth: int, font_id: int, parts: Sequence[Part], first_s: float, duration_s: float, lead_s: float
    ) -> np.ndarray:
        fluid = self._fluid
        begin_s = max(0.0, first_s - lead_s)
        events: list[tuple[int, int, int, int, int]] = []  # sample, 0 off or 1 on, channel, pitch, velocity
        for channel, part in zip(_channels(parts), parts, strict=True):
            fluid.fluid_synth_program_select(synth, channel, font_id, part.bank, part.program)
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
            done = self._write(synth, out, done, sample)
            if on:
                fluid.fluid_synth_noteon(synth, channel, pitch, velocity)
            else:
                fluid.fluid_synth_noteoff(synth, channel, pitch)
        self._write(synth, out, done, total)
        return out[skipped:total].mean(axis=1)

    def load(self, programs: Iterable[tuple[int, int]]) -> None:
        """Read the samples of (bank, program) now. KeyError if the soundfont has no such preset."""
        for bank, program in programs:
            if self._fluid.fluid_synth_program_select(self._owner, 0, self._font_id, bank, program):
                raise KeyError(f"the soundfont has no preset {bank}:{program}")

    def _write(self, synth: int, out: np.ndarray, first: int, last: int) -> int:
        if last > first:
            start = out[first:].ctypes.data  # of `out`, which lives on
            left, right = ctypes.c_void_p(start), ctypes.c_void_p(start + 4)
            self._fluid.fluid_synth_write_float(synth, last - first, left, 0, 2, right, 0, 2)
        return max(first, last)


def levelled(samples: np.ndarray, dynamics: str) -> np.ndarray:
    """To a level that follows the dynamics, in steps of _GAIN_STEP_DB, without clipping, and faded in. Mono [L]."""
    samples = samples.copy()
    samples[:_FADE] *= np.linspace(0, 1, _FADE, dtype=np.float32)
    decibels = {"soft": -7.0, "medium": -2.0, "loud": 1.0}[dynamics]
    loud = np.abs(samples) > 0.02 * max(1e-6, float(np.abs(samples).max()))
    rms = float(np.sqrt(np.mean(samples[loud] ** 2))) if loud.any() else 1e-6
    gain = min(_RMS * 10 ** (decibels / 20) / max(rms, 1e-6), _PEAK / max(float(np.abs(samples).max()), 1e-6))
    gain_db = _GAIN_STEP_DB * np.floor(20 * np.log10(gain) / _GAIN_STEP_DB)
    return (10 ** (gain_db / 20) * samples).astype(np.float32)


class _Said:
    """FluidSynth's messages: how many there were, and the first. What it would write has no bound."""

    def __init__(self) -> None:
        self._count, self._first = 0, ""
        self.hear = _Message(self._hear)  # for C, which calls it as long as the process lives

    def taken(self) -> str:
        """What was said since the last time, as one line; empty if nothing was."""
        count, first = self._count, self._first
        self._count, self._first = 0, ""
        return f"{first} ({count} messages)" if count else ""

    def _hear(self, _level: int, message: bytes, _data: object) -> None:
        self._first = self._first or message.decode("utf-8", "replace")
        self._count += 1


_SAID = _Said()  # one for the process, as FluidSynth has one way to say things


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
        ("fluid_set_log_function", pointer, (number, _Message, pointer)),
        ("new_fluid_settings", pointer, ()),
        ("fluid_settings_setnum", number, (pointer, ctypes.c_char_p, ctypes.c_double)),
        ("fluid_settings_setint", number, (pointer, ctypes.c_char_p, number)),
        ("new_fluid_synth", pointer, (pointer,)),
        ("fluid_synth_sfload", number, (pointer, ctypes.c_char_p, number)),
        ("delete_fluid_synth", None, (pointer,)),
        ("fluid_synth_get_sfont", pointer, (pointer, number)),
        ("fluid_synth_add_sfont", number, (pointer, pointer)),
        ("fluid_synth_remove_sfont", number, (pointer, pointer)),
        ("fluid_synth_program_select", number, (pointer, number, number, number, number)),
        ("fluid_synth_cc", number, (pointer, number, number, number)),
        ("fluid_synth_noteon", number, (pointer, number, number, number)),
        ("fluid_synth_noteoff", number, (pointer, number, number)),
        ("fluid_synth_write_float", number, (pointer, number, pointer, number, number, pointer, number, number)),
    ):
        function = getattr(fluid, name)
        function.restype, function.argtypes = result, list(arguments)
    return fluid
