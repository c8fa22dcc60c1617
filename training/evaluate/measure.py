"""Measures a model on held-out prompts: codec, melody, text, continuation, collapse. Any MusicGen that the engine opens.

All seeds are fixed. What is asked for is drawn by the synthesizer; what comes out is judged by a critic
(`listening`) that was taught by the synthesizer alone, plain and behind the model's codec, and by the chroma that a melody model
hears.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from ...musicgen.audio import Audio, convert
from ...musicgen.codes import Codes
from ...musicgen.conditioning.chroma import chroma, tiled
from ...musicgen.config import GenerationParams, MelodyConfig
from ...musicgen.loading import Loaded
from ..codec import train as codec_training
from ..codec.spectral import mel_distance, si_sdr_db
from ..data.jangdan import JANGDAN
from ..data.modes import MODES
from ..data.pieces import Clip, Label, clip, draw_label, play
from ..data.words import describe
from ..recipe import CODEC
from .listening import Critic, tempo_bpm

T = TypeVar("T")

DURATION_S, PROMPT_S, CONTINUED_S, COLLAPSE_S = 8.0, 3.0, 9.0, 4.0
TEMPO_TOLERANCE, IN_MODE = 0.08, 0.7  # a clip keeps to its mode if so many frames have one of its tones
_BATCH, _CODEC_S = 8, 4.0
_SILENCE_DB, _FEWEST_CODES, _STEADY_DB = -50.0, 6, 0.5
_CHROMA = MelodyConfig()
HEARING_HZ = CODEC.sample_rate_hz  # models of other rates are heard at this one too


@dataclass(frozen=True)
class Finding:
    """One measured number, with what it should be. Neither `at_least` nor `at_most`: only reported.

    chance: the same measure of the same music against what was asked of another piece. ceiling: of the synthesizer's own
    music behind the same codec, which no language model on that codec can be expected to pass.
    """

    name: str
    value: float
    at_least: float | None = None
    chance: float | None = None
    ceiling: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "value", float(self.value))

    @property
    def good(self) -> bool | None:
        if self.at_least is None and self.at_most is None:
            return None
        above = self.at_least is None or self.value >= self.at_least
        return bool(above and (self.at_most is None or self.value <= self.at_most))

    @property
    def goal(self) -> str:
        """`0.85`, `at most 3`, or nothing."""
        return " to ".join(
            f"{word}{bound:g}" for word, bound in (("", self.at_least), ("at most ", self.at_most)) if bound is not None
        )

    def __str__(self) -> str:
        goal = f"  (goal {self.goal}: {'met' if self.good else 'missed'})" if self.goal else ""
        bounds = "".join(
            f", {name} {value:.3f}" for name in ("chance", "ceiling") if (value := getattr(self, name)) is not None
        )
        return f"{self.name:<58} {self.value:9.3f}{bounds}{goal}"


@dataclass(frozen=True)
class Example:
    """Something made, with what it was made from, for the pictures."""

    name: str
    text: str
    samples: Tensor  # [L]
    label: Label
    melody: Tensor | None = None  # [L] what was to be followed


def codec_findings(model: Loaded, n: int) -> list[Finding]:
    """Reconstruction of held-out clips from all codebooks and from the first alone."""
    codec, rate_hz = model.codec, model.config.codec.sample_rate_hz
    n_codebooks = len(codec.quantizer.layers)
    waves = [torch.from_numpy(clip("held-out", i, _CODEC_S, rate_hz).samples)[None] for i in range(n)]
    result = []
    for used in (n_codebooks, 1):
        decoded = [codec_training.through(codec, wave, used) for wave in waves]
        mel = float(
            np.mean([float(mel_distance(ours, wave, rate_hz)) for ours, wave in zip(decoded, waves, strict=True)])
        )
        sdr = float(np.mean([float(si_sdr_db(ours, wave)) for ours, wave in zip(decoded, waves, strict=True)]))
        books = "codebook" if used == 1 else "codebooks"
        result.append(
            (
                Finding(f"codec, {used} {books}: mel distance, log10", mel),
                Finding(f"codec, {used} {books}: SI-SDR, dB", sdr),
            )
        )
    (mel, sdr), (mel_one, sdr_one) = result
    gain = Finding(f"codec: mel distance with 1 over that with {n_codebooks}", mel_one.value / mel.value, 1.1)
    return [
        mel,
        sdr,
        mel_one,
        sdr_one,
        gain,
        Finding("codec: SI-SDR gained by the others, dB", sdr.value - sdr_one.value, 1.0),
    ]


def melody_findings(model: Loaded, n: int, cfg: float) -> tuple[list[Finding], list[Example]]:
    """How many chroma frames of a melody come out again, and how many of another melody's do by chance."""
    labels = (made for made in _clips(lambda label: label.instrument != "none", DURATION_S))
    through = coded(model)
    wanted, heard, best, examples = [], [], [], []
    for number, made in zip(range(n), labels, strict=False):
        text = _text(made.label, number)
        melody = torch.from_numpy(made.samples)
        conditioning = model.conditioner.encode_text([text])
        conditioning = model.conditioner.encode_melody(conditioning, Audio(melody[None, None], HEARING_HZ), "off")
        codes = model.model.generate(conditioning, _params(DURATION_S, number, cfg))
        samples = _mono(model.codec.decode(codes))[0]
        wanted.append(_chroma(melody))
        heard.append(_chroma(samples))
        best.append(_chroma(through(melody)))
        examples.append(Example(f"melody-{number}", text, samples, made.label, melody))
    own = float(np.mean([_alike(a, b) for a, b in zip(wanted, heard, strict=True)]))
    others = float(np.mean([_alike(melody, notes) for melody, notes in zip(_others(wanted), heard, strict=True)]))
    ceiling = float(np.mean([_alike(a, b) for a, b in zip(wanted, best, strict=True)]))
    return [
        Finding("melody: chroma cosine with the melody", own, 0.6, others, ceiling),
        Finding("melody: difference", own - others, 0.3, 0.0, ceiling - others),
    ], examples


def coded(model: Loaded) -> Callable[[Tensor], Tensor]:
    """What the model's codec makes of a clip [L] at HEARING_HZ."""

    def through(samples: Tensor) -> Tensor:
        return _mono(model.codec.decode(model.codec.encode(Audio(samples[None, None], HEARING_HZ))))[0]

    return through


def critic_findings(critic: Critic, through: Callable[[Tensor], Tensor], n: int) -> list[Finding]:
    """How far the critic can be trusted: the same questions about held-out clips of the synthesizer, behind the codec."""
    clips = _clips(lambda label: label.jangdan is not None, DURATION_S)
    heard = [(made.label, through(torch.from_numpy(made.samples))) for _, made in zip(range(n), clips, strict=False)]
    labels, sounds = zip(*heard)
    (rhythm, player), chance = _all_obeyed(critic, labels, sounds), _all_obeyed(critic, _others(labels), sounds)
    noise = torch.randn(len(labels), len(sounds[0]), generator=torch.Generator().manual_seed(6))
    at = "the synthesizer behind the codec: "
    return [
        Finding(at + "the jangdan, tempo within 8 %", rhythm, chance=chance[0]),
        Finding(at + "buk alone, voice or instrument", player, chance=chance[1]),
        Finding(at + "tempo within 8 %", _in_tempo(labels, sounds), None, _in_tempo(_others(labels), sounds)),
        Finding("white noise: tempo within 8 %", _in_tempo(labels, list(0.1 * noise))),
    ]


def text_findings(
    model: Loaded, critic: Critic, n: int, cfg: float, between: bool = False, ceilings: Sequence[Finding] = ()
) -> tuple[list[Finding], list[Example]]:
    """Whether a critic hears the jangdan, at its tempo, and the players that the text asks for.

    ceilings: what `critic_findings` found.
    between: ask for any tempo between the slowest and the fastest at which the synthesizer plays a jangdan.
    """
    labels = _labels(lambda label: label.jangdan is not None, n)
    if between:
        rng = np.random.default_rng(5)
        labels = [replace(label, bpm=round(rng.uniform(*JANGDAN[label.jangdan].tempo_bpm))) for label in labels]
    texts = [_text(label, number, bpm=True) for number, label in enumerate(labels)]
    made = _generated(model, texts, DURATION_S, cfg)
    (rhythm, player), chance = _all_obeyed(critic, labels, made), _all_obeyed(critic, _others(labels), made)
    best = [finding.value for finding in ceilings[:2]] or [None, None]
    off = [100 * abs(_tempo(samples, label) / label.bpm - 1) for label, samples in zip(labels, made, strict=True)]
    examples = [Example(f"text-{number}", *row) for number, row in enumerate(zip(texts, made, labels, strict=True))]
    at = f"text, guidance {cfg:g}{', any tempo' if between else ''}: "
    return [
        Finding(at + "the jangdan asked for, tempo within 8 %", rhythm, 0.7, chance[0], best[0]),
        Finding(at + "buk alone, voice or instrument as asked for", player, 0.9, chance[1], best[1]),
        Finding(at + "tempo off by, median of %", np.median(off)),
    ], examples


def continuation_findings(model: Loaded, n: int, cfg: float) -> tuple[list[Finding], list[Example]]:
    """Whether what follows a prompt of 3 s has its tempo and its mode, and whether the join is heard."""
    join = int(PROMPT_S * HEARING_HZ)
    through = coded(model)
    labels, parts, clicks, best, examples = [], [], [], [], []
    clips = _clips(lambda label: label.buk and label.instrument != "none", PROMPT_S)
    for number, made in zip(range(n), clips, strict=False):
        label, text = made.label, _text(made.label, number, bpm=False)
        prompt = model.codec.encode(Audio(torch.from_numpy(made.samples)[None, None], HEARING_HZ))
        conditioning = model.conditioner.encode_text([text])
        codes = model.model.generate(conditioning, _params(CONTINUED_S, number, cfg), prompt)
        samples = _mono(model.codec.decode(codes))[0]
        labels.append(label)
        parts.append(samples[join:])
        rng = np.random.default_rng([8, number])
        best.append(through(torch.from_numpy(play(label, CONTINUED_S, HEARING_HZ, rng).samples))[join:])
        clicks.append(_clicks(samples, join))
        examples.append(Example(f"continuation-{number}", text, samples, label))
    others = _others(labels)
    tempo = (_in_tempo(labels, parts), 0.7, _in_tempo(others, parts), _in_tempo(labels, best))
    mode = (_in_mode(labels, parts), 0.7, _in_mode(others, parts), _in_mode(labels, best))
    return [
        Finding("continuation: tempo carried on within 8 %", *tempo),
        Finding("continuation: mode carried on", *mode),
        Finding("continuation: joins without a click", 1 - float(np.mean(clicks)), 1.0),
    ], examples


def collapse_findings(model: Loaded, n: int, cfg: float) -> list[Finding]:
    """How many of `n` seeds end in silence, in one note without end, or in a handful of codes."""
    rng, alive = np.random.default_rng(4), []
    texts = [describe(draw_label(rng), rng) for _ in range(n)]
    for start in range(0, n, _BATCH):
        codes = _codes(model, texts[start : start + _BATCH], COLLAPSE_S, cfg, start)
        for row, samples in zip(codes.codes, _mono(model.codec.decode(codes)), strict=True):
            blocks = samples.unfold(0, HEARING_HZ // 20, HEARING_HZ // 20).pow(2).mean(1).clamp(min=1e-12)
            level_db = 10 * blocks.log10()
            loud = float(10 * blocks.mean().log10()) > _SILENCE_DB
            alive.append(loud and float(level_db.std()) > _STEADY_DB and len(row[0].unique()) >= _FEWEST_CODES)
    return [Finding(f"no collapse in {n} seeds", float(np.mean(alive)), 1.0)]


def speed_findings(model: Loaded, cfg: float) -> list[Finding]:
    """Seconds for 8 s of music, text to waveform, after a first run that warms up."""
    for _ in range(2):
        begun = time.perf_counter()
        model.codec.decode(_codes(model, ["slow pansori, a rough deep voice over the buk drum"], DURATION_S, cfg, 0))
        taken_s = time.perf_counter() - begun
    return [Finding("seconds for 8 s of music", taken_s)]


# --- what is asked for


def _labels(wanted: Callable[[Label], bool], n: int) -> list[Label]:
    """`n` labels of a stream of their own, that no clip of either split uses."""
    rng, labels = np.random.default_rng([3, 1]), []
    while len(labels) < n:
        label = draw_label(rng)
        if wanted(label):
            labels.append(label)
    return labels


def _clips(wanted: Callable[[Label], bool], duration_s: float) -> Iterator[Clip]:
    """Held-out clips, beyond those that training is measured by."""
    number = 10_000
    while True:
        made = clip("held-out", number, duration_s, HEARING_HZ)
        number += 1
        if wanted(made.label):
            yield made


def _text(label: Label, number: int, bpm: bool | None = None) -> str:
    """A description; `bpm` says whether it must or must not name the tempo."""
    rng = np.random.default_rng([number, 7])
    while True:
        text = describe(label, rng)
        if bpm is None or ("bpm" in text) == bpm:
            return text


# --- what is made


def _params(duration_s: float, seed: int, cfg: float) -> GenerationParams:
    return GenerationParams(duration_s=duration_s, seed=seed, cfg=cfg)


def _codes(model: Loaded, texts: Sequence[str], duration_s: float, cfg: float, seed: int) -> Codes:
    return model.model.generate(model.conditioner.encode_text(texts), _params(duration_s, seed, cfg))


def _generated(model: Loaded, texts: Sequence[str], duration_s: float, cfg: float) -> list[Tensor]:
    """Mono clips [L], several at a time."""
    made: list[Tensor] = []
    for start in range(0, len(texts), _BATCH):
        codes = _codes(model, texts[start : start + _BATCH], duration_s, cfg, start)
        made += list(_mono(model.codec.decode(codes)))
    return made


def _mono(audio: Audio) -> Tensor:
    """[B, L] at HEARING_HZ."""
    return convert(audio, HEARING_HZ, 1).samples[:, 0]


# --- what is heard


def _chroma(samples: Tensor) -> Tensor:
    """One-hot frames [F, 12] of 8 s or less, as a melody model hears them."""
    n_frames = 1 + len(samples) // (2**_CHROMA.radix2_exp // 4)
    return tiled(chroma(samples, HEARING_HZ, _CHROMA, n_frames), n_frames)


def _alike(a: Tensor, b: Tensor) -> float:
    """Mean cosine similarity of frames, which for one-hot frames is the share of equal ones."""
    n = min(len(a), len(b))
    return float((a[:n] * b[:n]).sum(dim=1).mean())


def _obeyed(critic: Critic, label: Label, samples: Tensor) -> tuple[bool, bool]:
    """Whether the jangdan is heard, at its tempo; whether the players are."""
    heard = critic.hear(samples, HEARING_HZ)
    kept = abs(_tempo(samples, label) / label.bpm - 1) <= TEMPO_TOLERANCE
    return heard.rhythm == label.jangdan and kept, _group(heard.player) == _group(label.instrument)


def _all_obeyed(critic: Critic, labels: Sequence[Label], sounds: Sequence[Tensor]) -> tuple[float, float]:
    """Shares of clips in which the jangdan is heard, at its tempo; and the players."""
    rhythm, player = np.mean([_obeyed(critic, label, samples) for label, samples in zip(labels, sounds)], axis=0)
    return float(rhythm), float(player)


def _others(items: Sequence[T]) -> list[T]:
    """The items moved on by more than a third of their number: each in the place of another."""
    n = len(items)
    return [items[(i + 1 + n // 3) % n] for i in range(n)]


def _tempo(samples: Tensor, label: Label) -> float:
    assert label.jangdan is not None  # a plain scale is not asked for
    return tempo_bpm(samples, HEARING_HZ, label.jangdan)


def _in_tempo(labels: Sequence[Label], sounds: Sequence[Tensor]) -> float:
    """Share of clips within 8 % of their label's tempo."""
    off = [abs(_tempo(samples, label) / label.bpm - 1) for label, samples in zip(labels, sounds)]
    return float(np.mean([error <= TEMPO_TOLERANCE for error in off]))


def _in_mode(labels: Sequence[Label], sounds: Sequence[Tensor]) -> float:
    """Share of clips whose frames are mostly of their label's mode, in its key."""
    shares = []
    for label, samples in zip(labels, sounds):
        assert label.mode is not None and label.tonic is not None  # the buk alone is not asked for
        tones = [(label.tonic + tone) % 12 for tone in MODES[label.mode].tones]
        shares.append(np.isin(_chroma(samples).argmax(1).numpy(), tones).mean())
    return float(np.mean(np.array(shares) >= IN_MODE))


def _group(player: str) -> str:
    return player if player in ("none", "voice") else "instrument"


def _clicks(samples: Tensor, join: int) -> bool:
    """Whether the waveform bends more sharply within 1 ms of the join than anywhere within a second of it, by half."""
    bend, near_by = samples.diff(n=2).abs(), HEARING_HZ // 1000
    near = float(bend[join - near_by : join + near_by].max())
    before = bend[max(0, join - HEARING_HZ) : join - 2 * near_by]
    around = torch.cat([before, bend[join + 2 * near_by : join + HEARING_HZ]])
    return near > 1.5 * float(around.max())
