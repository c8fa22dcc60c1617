"""Findings of general music: each with its goal, between chance and the synthesizer behind the same codec."""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ....musicgen.audio import FADE_MS, Audio, fade
from ....musicgen.config import GenerationParams
from ....musicgen.loading import Loaded
from ...data.instruments import INSTRUMENTS
from ...data.render import Synthesizer, levelled
from ...data.songs import song
from ...days import figures
from ...onegpu.figures import codec_figures
from ...recipe import CLIP_S
from ..measure import HEARING_HZ, Finding, _alike, _chroma, _generated, _mono, _others
from . import asked as asking
from .asked import Asked
from .heard import (
    clicks_at_its_edges,
    hummed,
    is_cut,
    is_silent,
    tempo_bpm,
    tempo_off,
    tones_of,
    transposed,
    whistled,
)  # fmt: skip
from .judge import Coded, Heard, Judge, rendered

DURATION_S, TEMPO_S, SILENCE_S, MELODY_S, LONG_S = 6.0, 8.0, 2.5, 8.0, 60.0
_PART_S, _KEPT_PERCENT, _LEAST_OF_ONE = 10.0, 4.0, 0.6
_AT_ONCE = 8  # clips
_TIMBRES = {"piano": 0, "guitar": 24, "violin": 40, "hum": None, "whistle": None}  # General MIDI, None: made here
_FOLLOWING = ("piano", "flute", "synth lead", "violin")  # what plays it
_SPEED_GOAL_S, _LOST_DB, _BANDWIDTH_KHZ = 3.0, 2.0, 6.0


@dataclass(frozen=True)
class Tools:
    """What all measurements need. judge: None where no part asks it. coded: clips [L] at HEARING_HZ -> what the model's codec makes of them."""

    model: Loaded
    judge: Judge | None
    own: Synthesizer  # that the model was trained by
    foreign: Synthesizer  # of another soundfont
    coded: Coded
    cfg: float = 3.0

    def made(self, asked: Sequence[Asked], duration_s: float) -> list[Tensor]:
        return _generated(self.model, [one.text for one in asked], duration_s, self.cfg)

    def played(self, asked: Sequence[Asked], duration_s: float) -> list[Tensor]:
        """The synthesizer's pieces that are what was asked for, plain."""
        songs = [asking.piece(one, number, duration_s) for number, one in enumerate(asked)]
        return [torch.from_numpy(samples) for samples in rendered(self.own, songs, duration_s, 1)]

    def heard(self, sounds: Sequence[Tensor]) -> list[Heard]:
        assert self.judge is not None  # taught for the parts that call this
        return [self.judge.hear(samples, HEARING_HZ) for samples in sounds]


def through_codec(model: Loaded) -> Coded:
    """Clips [L] of one length at HEARING_HZ -> as long as the codec gives them back."""

    def coded(clips: Sequence[Tensor]) -> list[Tensor]:
        result: list[Tensor] = []
        for first in range(0, len(clips), _AT_ONCE):
            rows = torch.stack(list(clips[first : first + _AT_ONCE]))[:, None]
            result += list(_mono(model.codec.decode(model.codec.encode(Audio(rows, HEARING_HZ)))))
        return result

    return coded


Table = dict[str, dict[str, float]]


def instrument_findings(tools: Tools, n: int, alone_by_chance: float | None = None) -> tuple[list[Finding], Table]:
    """Instruments alone: whether the one is heard that was named, and nothing beside it. A table by instrument.

    alone_by_chance: share of clips of texts for more than one player that sound as if one played.
    """
    asked = asking.instruments(n)
    heard = tools.heard(tools.made(asked, DURATION_S))
    plain = tools.played(asked, DURATION_S)
    best, bare = tools.heard(tools.coded(plain)), tools.heard(plain)
    wrong = asking.others(asked, "lead")

    def named(who: Sequence[Heard], what: Sequence[Asked]) -> list[bool]:
        return [ear.instrument == one.lead for ear, one in zip(who, what, strict=True)]

    right, chance, ceiling = named(heard, asked), named(heard, wrong), named(best, asked)
    table = by(asked, "lead", {"heard": right, "chance": chance, "ceiling": ceiling, "plain": named(bare, asked)})
    for name, row in table.items():
        row["alone"] = _share([ear.alone for ear, one in zip(heard, asked, strict=True) if one.lead == name])
    lowest, worst = (min(table, key=lambda name: table[name][column]) for column in ("heard", "ceiling"))
    kept = [one.kept for one in asked]
    alone = [ear.alone and not ear.drums for ear in heard]
    return [
        Finding("instrument named is heard", _share(right), 0.85, _share(chance), _share(ceiling)),
        Finding(f"instrument heard least ({lowest})", table[lowest]["heard"], _LEAST_OF_ONE, table[lowest]["chance"], table[worst]["ceiling"]),
        Finding("instruments heard in 0.6 of their clips", _share([row["heard"] >= _LEAST_OF_ONE for row in table.values()]), 1.0,
                _share([row["chance"] >= _LEAST_OF_ONE for row in table.values()]), _share([row["ceiling"] >= _LEAST_OF_ONE for row in table.values()])),
        Finding("instrument, by words kept from training", _of(right, kept), None, _of(chance, kept), _of(ceiling, kept)),
        Finding("instrument, by its first word", _of(right, kept, False), None, _of(chance, kept, False), _of(ceiling, kept, False)),
        Finding("the judge, training soundfont, plain: instrument", _share(named(bare, asked)), None, _share(named(bare, wrong))),
        Finding("alone: one player, no drums", _share(alone), 0.85, alone_by_chance, _share([ear.alone and not ear.drums for ear in best])),
    ], table  # fmt: skip


def genre_findings(tools: Tools, n: int) -> tuple[list[Finding], Table, float]:
    """Whether the groove of the genre is heard; a table by genre; and in how many clips one seems to play alone."""
    asked = asking.genres(n)
    heard = tools.heard(tools.made(asked, DURATION_S))
    plain = tools.played(asked, DURATION_S)
    best, bare = tools.heard(tools.coded(plain)), tools.heard(plain)
    wrong = asking.others(asked, "genre")

    def named(who: Sequence[Heard], what: Sequence[Asked]) -> list[bool]:
        return [ear.style == one.genre for ear, one in zip(who, what, strict=True)]

    right, chance, ceiling = named(heard, asked), named(heard, wrong), named(best, asked)
    table = by(asked, "genre", {"heard": right, "chance": chance, "ceiling": ceiling, "plain": named(bare, asked)})
    return [
        Finding("genre's groove is recognised, of 12", _share(right), 0.75, _share(chance), _share(ceiling)),
        Finding("the judge, training soundfont, plain: genre", _share(named(bare, asked)), None, _share(named(bare, wrong))),
    ], table, _share([ear.alone and not ear.drums for ear in heard])  # fmt: skip


def tempo_findings(tools: Tools, n: int) -> list[Finding]:
    """Tempo by librosa against the text's; octave errors are taken out and counted apart."""
    asked = asking.tempos(n)
    best = tools.coded(tools.played(asked, TEMPO_S))
    own, theirs = ([tempo_bpm(one, HEARING_HZ) for one in each] for each in (tools.made(asked, TEMPO_S), best))
    wrong = asking.others(asked, "bpm")
    groups = [
        [tempo_off(bpm, one.bpm or 0) for bpm, one in zip(who, what, strict=True)]
        for who, what in ((own, asked), (own, wrong), (theirs, asked))
    ]
    columns = [
        ([off.percent for off in group], _share([off.octave for off in group if np.isfinite(off.percent)]))
        for group in groups
    ]
    (errors, octaves), (by_chance, octaves_by_chance), (at_best, octaves_at_best) = columns
    within = [_share([error <= _KEPT_PERCENT for error in each]) for each in (errors, by_chance, at_best)]
    return [
        Finding("tempo off by, median, %", statistics.median(errors), None, statistics.median(by_chance), statistics.median(at_best), 1.5),
        Finding("tempo off by, 90th percentile, %", _percentile(errors), None, _percentile(by_chance), _percentile(at_best)),
        Finding("tempo within 4 %", within[0], 0.8, within[1], within[2]),
        Finding("tempo heard an octave off (half, double, third)", octaves, None, octaves_by_chance, octaves_at_best),
    ]  # fmt: skip


def drum_findings(tools: Tools, n: int) -> list[Finding]:
    """ "no drums" for genres that have them, "with drums" for instruments that have none; each by chance as the other."""
    groups = []
    for asked in (asking.without_drums(n), asking.with_drums(n)):
        own, best = tools.made(asked, DURATION_S), tools.coded(tools.played(asked, DURATION_S))
        groups.append([_share([ear.drums for ear in tools.heard(each)]) for each in (own, best)])
    (without, without_best), (with_, with_best) = groups
    return [
        Finding("no drums, where none are asked for", 1 - without, 0.85, 1 - with_, 1 - without_best),
        Finding("drums, where they are asked for", with_, 0.85, without, with_best),
    ]


def melody_findings(tools: Tools, n: int) -> list[Finding]:
    """Share of chroma frames that are those of a melody of a timbre that the model was not trained with; none for a model
    that follows no melodies. At best: the synthesizer plays the melody, by the player that the text names."""
    follows = tools.model.config.melody
    if follows is None or follows.chords:
        return []
    findings = []
    for timbre, program in _TIMBRES.items():
        wanted, heard, played = [], [], []
        for number in range(max(2, n)):  # chance needs another
            melody = _melody(tools.foreign, program, timbre, number)
            player = _FOLLOWING[number % len(_FOLLOWING)]
            conditioning = tools.model.conditioner.encode_text([player])
            conditioning = tools.model.conditioner.encode_melody(
                conditioning, Audio(melody[None, None], HEARING_HZ), "off"
            )
            params = GenerationParams(duration_s=MELODY_S, seed=number, cfg=tools.cfg)
            codes = tools.model.model.generate(conditioning, params)
            heard.append(_chroma(_mono(tools.model.codec.decode(codes))[0]))
            wanted.append(_chroma(melody))
            played.append(_melody(tools.own, INSTRUMENTS[player].programs[0], player, number))
        best = [_chroma(one) for one in tools.coded(played)]
        value, chance, ceiling = (
            float(np.mean([_alike(a, b) for a, b in zip(each, frames, strict=True)]))
            for each, frames in ((wanted, heard), (_others(wanted), heard), (wanted, best))
        )
        findings.append(Finding(f"melody of {timbre}: chroma equal", value, 0.7, chance, ceiling))
    return findings


def silence_findings(tools: Tools, n: int) -> list[Finding]:
    """How many clips to empty and foreign texts are silent, beside the synthesizer's own behind the codec."""
    made = _generated(tools.model, asking.meaningless(n), SILENCE_S, tools.cfg)
    played = tools.coded(tools.played(asking.genres(1), SILENCE_S))
    ceiling = _share([is_silent(samples) for samples in played])
    return [Finding(f"silent, of {n} empty or unknown texts", sum(map(is_silent, made)), None, None, n * ceiling, 0.0)]


def ending_findings(tools: Tools, n: int) -> list[Finding]:
    """Whether music that is asked to end does so within its window, with the short fades that Decode gives each piece by itself;
    by chance: music that is not asked to."""
    asked = asking.endings(n)
    unasked = [replace(one, text=one.lead or one.genre or "", ends=False) for one in asked]
    groups = [tools.made(asked, CLIP_S), tools.made(unasked, CLIP_S), tools.coded(tools.played(asked, CLIP_S))]
    cut, clicks = (
        [_share([question(_decoded(samples), HEARING_HZ) for samples in group]) for group in groups]
        for question in (is_cut, clicks_at_its_edges)
    )
    return [
        Finding("with an ending: cut", cut[0], None, cut[1], cut[2], 0.0),
        Finding("with an ending: clicks at an edge", clicks[0], None, clicks[1], clicks[2], 0.0),
    ]


def long_findings(tools: Tools, n: int) -> list[Finding]:
    """Whether each 10 s of a piece of 60 s have the tempo and key of the first; by chance: of another piece's first."""
    asked = asking.long_pieces(n)
    parts = [[_each_tempo_and_tones(piece) for piece in each] for each in (tools.made(asked, LONG_S), tools.coded(tools.played(asked, LONG_S)))]  # fmt: skip
    own, best = parts
    moved = [*own[1:], own[0]]
    columns = [kept(own, own), kept(moved, own), kept(best, best)]
    names = ("tempo within 4 %", "key", "tempo and key")
    return [
        Finding(f"60 s piece keeps {name}", *(
            (values[0], 0.8 if name == names[-1] else None, values[1], values[2])
        )) for name, values in zip(names, zip(*columns, strict=True), strict=True)
    ]  # fmt: skip


def kept(firsts: Sequence[Sequence[tuple]], pieces: Sequence[Sequence[tuple]]) -> tuple[float, float, float]:
    """Shares of later parts with the (tempo, tones) of the first part: in tempo, in key, in both."""
    tempo, key = [], []
    for first, piece in zip(firsts, pieces, strict=True):
        bpm, tones = first[0]
        tempo += [bool(bpm) and tempo_off(part[0], bpm).percent <= _KEPT_PERCENT for part in piece[1:]]
        key += [transposed(part[1], tones) == 0 for part in piece[1:]]
    return _share(tempo), _share(key), _share([a and b for a, b in zip(tempo, key, strict=True)])


def codec_findings(tools: Tools, n: int) -> tuple[list[Finding], dict]:
    """What the codec gives back, by `days/figures.py` and `onegpu/figures.py`."""
    kinds = {kind: figures.clips(kind, tools.own, max(2, n)) for kind in figures.KINDS}
    table = figures.figures(tools.model.codec, kinds)
    comb = table["comb at the frame rate"]
    mixed = codec_figures(tools.model.codec, _mixed(tools.own, 2 * n))
    found = [
        Finding(f"codec, {kind}: SI-SDR, dB", row["si_sdr_db"], row["asked_db"], row["chance_db"], row["unquantized_db"])
        for kind, row in table.items() if kind in figures.KINDS
    ]  # fmt: skip
    found.append(Finding("codec, lines at the frame rate over the gaps, dB", comb["db"], None, None, comb["of_clips_db"], comb["asked_db"]))  # fmt: skip
    drums, voice, lost = table["drums"], table["voice"], "lost_above_500_hz_db"
    found += [
        Finding("codec, drums: lost above 500 Hz, dB", drums[lost], None, drums[f"{lost}_chance"], drums[f"{lost}_unquantized"], _LOST_DB),
        Finding("codec, voice: bandwidth at -20 dB, kHz", voice["bandwidth_hz"] / 1000, _BANDWIDTH_KHZ, None, voice["bandwidth_hz_of_clips"] / 1000),
    ]  # fmt: skip
    used = tools.model.config.codec.n_codebooks
    found.append(Finding("codec, mixed clips: SI-SDR, dB", mixed[f"si_sdr_db_{used}"]))
    found.append(Finding("codec, mixed clips: mel distance, log10", mixed[f"mel_distance_{used}"]))
    return found, {**table, "mixed": mixed}


def speed_findings(tools: Tools) -> list[Finding]:
    """Seconds for 8 s of music, text to waveform, the better of two after one that warms up."""
    taken = []
    for _ in range(3):
        begun = time.perf_counter()
        _generated(tools.model, ["pop song with drums, 110 bpm"], 8.0, tools.cfg)
        taken.append(time.perf_counter() - begun)
    return [Finding("seconds for 8 s of music", min(taken[1:]), at_most=_SPEED_GOAL_S)]


def by(asked: Sequence[Asked], what: str, columns: dict[str, Sequence[bool]]) -> Table:
    """Shares by what was asked: {name: {column: share}}."""
    rows: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for column, flags in columns.items():
        for one, flag in zip(asked, flags, strict=True):
            rows[getattr(one, what)][column].append(flag)
    return {name: {column: _share(flags) for column, flags in row.items()} for name, row in rows.items()}


def _melody(synthesizer: Synthesizer, program: int | None, timbre: str, number: int) -> Tensor:
    """A line of its own played by a General MIDI program, or hummed or whistled. [L]"""
    piece = asking.piece(Asked("", lead="flute", genre="folk", alone=True), 100 + number, MELODY_S)
    if program is None:
        sing: Callable = hummed if timbre == "hum" else whistled
        return sing(piece.line, MELODY_S, HEARING_HZ, np.random.default_rng(number))
    part = replace(piece.parts[0], program=program, level=INSTRUMENTS["piano"].level)
    lower = 12 if timbre == "guitar" else 0
    part.notes = [replace(note, pitch=note.pitch - lower) for note in piece.parts[0].notes]
    samples = synthesizer.play([part], piece.first_s, MELODY_S)
    return torch.from_numpy(levelled(samples, "medium"))


def _decoded(samples: Tensor) -> Tensor:
    """[L] as MusicGen Decode gives it by default."""
    return fade(Audio(samples[None, None], HEARING_HZ), FADE_MS).samples[0, 0]


def _mixed(synthesizer: Synthesizer, n: int) -> Tensor:
    """[n, L] the first held-out clips."""
    rows = []
    for number in range(n):
        piece = song("held-out", number, CLIP_S)
        samples = synthesizer.play(piece.parts, piece.first_s, CLIP_S)
        rows.append(levelled(samples, piece.facts.dynamics))
    return torch.from_numpy(np.stack(rows))


def _each_tempo_and_tones(samples: Tensor) -> list[tuple[float | None, np.ndarray]]:
    """Of each 10 s."""
    length = round(_PART_S * HEARING_HZ)
    parts = samples[: len(samples) // length * length].split(length)
    return [tempo_and_tones(part) for part in parts]


def tempo_and_tones(samples: Tensor) -> tuple[float | None, np.ndarray]:
    return tempo_bpm(samples, HEARING_HZ), tones_of(samples, HEARING_HZ)


def _share(flags: Sequence[bool]) -> float:
    return sum(flags) / max(1, len(flags))


def _of(flags: Sequence[bool], kinds: Sequence[bool], kind: bool = True) -> float:
    return _share([flag for flag, one in zip(flags, kinds, strict=True) if one == kind])


def _percentile(values: Sequence[float]) -> float:
    return float(np.percentile(values, 90, method="lower"))
