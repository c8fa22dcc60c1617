"""A song with new music under its voice: stems, hearing, chords, generation, alignment to the song's beats, mix.

Each stage is a function of its own, which the nodes call one by one; here they are called in a row.
Source: `sakemin/cog-musicgen-remixer`, whose faults (order of anchors, a voice in mono, levels by single samples, silence from a
silent voice, a dial without effect) are not repeated.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from .analysis.alignment import MAX_THRESHOLD, Alignment, Beats, align, fitted
from .analysis.choices import THRESHOLD_BEATS
from .analysis.hearing import Heard, hear
from .audio import FADE_MS, Audio, fade
from .audio.mixing import check_gain, is_audible, mix
from .codes import Codes
from .conditioning.chord_times import TimedChords
from .conditioning.chords import MAX_STRENGTH
from .config import PARAMETERS, GenerationParams, check_text
from .errors import InputError
from .loading import Loaded
from .multiband import Diffusion
from .render import OnProgress, RenderRequest, on_device, render
from .separation import Stems, load_separator, separate_stems
from .units import FASTEST_BPM

logger = logging.getLogger(__name__)

VOCALS_DB = -2.0  # loudness of the voice against the music's
SPARE = 0.03  # by which the music is made longer than the song, so that it lasts where it must be played faster
Separate = Callable[[Audio, Callable[[int, int], None]], Stems]
"""A song [1, C, L] and on_step(done, total) -> its stems."""


@dataclass(frozen=True)
class Remixed:
    """The remix and everything that it was made of."""

    mix: Audio  # as long as the song
    background: Audio  # the music as the model made it
    background_synced: (
        Audio  # on the song's beats, as long as the song; `background` at that length where it could not be aligned
    )
    vocals: Audio  # of the song, at its sample rate, with its channels
    stems: Stems
    analysis: Heard  # of the song
    background_analysis: Heard | None  # None: nothing could be heard in it
    chords: TimedChords
    alignment: Alignment | None  # None: song or music have no pulse
    codes: Codes
    prompt: str  # as it was told, with the tempo
    notices: tuple[str, ...]  # fallbacks that were taken, a sentence each; they are logged as well


def remix(
    music: Audio,
    prompt: str,
    loaded: Loaded,
    *,
    device: torch.device,
    separate: Separate | None = None,
    stem_dirs: Sequence[Path] = (),
    params: GenerationParams | None = None,
    beat_sync_threshold: float | None = None,
    large_chord_voca: bool = True,
    chroma_coefficient: float = 1.0,
    vocals_db: float = VOCALS_DB,
    bpm: float = 0.0,
    meter: int = 0,
    beat_model: Path | None = None,
    diffusion: Diffusion | None = None,
    on_progress: OnProgress = lambda stage, done, total: None,
) -> Remixed:
    """New music after `prompt` on the chords and beats of one song [1, C, L], under the song's voice.

    separate: gives the stems of the song; None = Demucs with weights from `stem_dirs` (DependencyError, CheckpointError).
    params: how the music is made; its `duration_s` is the song's. beat_sync_threshold: seconds by which a beat may be moved
    once the whole has the song's tempo; None, 0 or -1 = half a beat. large_chord_voca: sevenths are heard as well as triads.
    chroma_coefficient: how strongly the chords are told, 0 to 2.5. vocals_db: loudness of the voice against the music's.
    bpm, meter, beat_model: as for `hear`. diffusion: decodes in place of the codec.
    on_progress(stage, done, total) is called several times a second; what it raises (Cancel) ends the work.

    Fallbacks, each a notice: a song or music without a pulse is not aligned; without a voice, the mix is the music alone.
    InputError: several clips, silence, shorter than 2 s or longer than 20 min, a model that takes neither chords nor melodies.
    """
    check_model(loaded)
    strength = chroma_coefficient
    if isinstance(strength, bool) or not isinstance(strength, (int, float)) or not 0 <= strength <= MAX_STRENGTH:
        raise InputError(
            f"'chroma_coefficient' must be a number from 0 to {MAX_STRENGTH:g} (1 = as trained), got {strength!r}"
        )
    check_gain("vocals_db", vocals_db)
    _threshold_beats(beat_sync_threshold, FASTEST_BPM)  # for its error, before anything is done
    check_text("prompt", prompt)
    notices: list[str] = []

    def stage(name: str) -> Callable[[int, int], None]:
        return lambda done, total: on_progress(name, done, total)

    def notice(text: str) -> None:
        logger.warning("remix: %s", text)
        notices.append(text)

    separate = separate or demucs_of(stem_dirs, device)
    vocabulary = "sevenths" if large_chord_voca else "triads"
    analysis = hear(music, bpm, meter, vocabulary, beat_model, stage("hearing the song"))
    stems = separate(music, stage("separating stems"))
    chords = TimedChords.heard(analysis.chords)
    if not analysis.bpm:
        notice("The song has no pulse: no tempo is told, and the music is not aligned.")
    if analysis.bpm:  # as a whole number, unlike the chord models' own program
        prompt = ", ".join(filter(None, (prompt, f"bpm : {round(analysis.bpm)}")))
    length_s = min(music.duration_s * (1 + SPARE), PARAMETERS["duration_s"].high)
    params = replace(params or GenerationParams(), duration_s=length_s, batch_size=1)
    request = RenderRequest(prompt, fade_ms=0.0, chords=chords, chord_strength=strength)
    background, codes = render(loaded, request, params, device, on_progress, diffusion=diffusion)
    background_analysis, aligned = None, None
    if analysis.bpm:
        try:
            background_analysis = hear(
                background, analysis.bpm, analysis.meter, "triads", beat_model, stage("hearing the music")
            )
        except InputError as error:  # it is silent, or too short
            notice(f"The music is not aligned: {error}")
        else:
            aligned = align(
                background, beats_of(background_analysis), beats_of(analysis), duration_s=music.duration_s,
                threshold_beats=_threshold_beats(beat_sync_threshold, analysis.bpm), on_step=stage("aligning"),
            )  # fmt: skip
            for text in aligned.notices:
                notice(text)
    synced = aligned.audio if aligned else fitted(background, music.duration_s)
    synced = fade(synced, FADE_MS)
    check = lambda: on_progress("mixing", 0, 1)  # noqa: E731
    parts, gains_db = [synced], [0.0]
    if is_audible(stems.vocals, music, check):
        parts, gains_db = [synced, stems.vocals], [0.0, vocals_db]
    else:
        notice("No voice is heard in the song: the mix is the music alone.")
    mixed = mix(parts, gains_db, check=check)
    for text in mixed.notices:
        logger.info("remix: %s", text)
    on_progress("mixing", 1, 1)
    return Remixed(
        mixed.audio, background, synced, stems.vocals, stems, analysis, background_analysis, chords,
        aligned.alignment if aligned else None, codes, prompt, tuple(notices),
    )  # fmt: skip


def check_model(loaded: Loaded) -> None:
    """InputError for a model that can be told no chords, before a song is heard for it."""
    if loaded.config.melody is None:
        raise InputError(
            f"{loaded.config.name} takes neither chords nor melodies, and a remix follows the song's chords. Load a chord checkpoint "
            "(musicgen-chord, musicgen-stereo-chord, ...), general-mini, or another melody model as an experiment."
        )


def demucs_of(stem_dirs: Sequence[Path], device: torch.device) -> Separate:
    """Demucs with weights from `stem_dirs`, on `device` while it runs. DependencyError, CheckpointError where it is not there."""
    loaded = load_separator(stem_dirs)

    def separate(song: Audio, on_step: Callable[[int, int], None]) -> Stems:
        with on_device(device, loaded) as separator:
            return separate_stems(song, separator, on_step)

    return separate


def voice_of(vocals: Audio) -> Separate:
    """In place of Demucs: a voice that is known, at the song's rate, as long as it."""
    return lambda song, on_step: Stems.of_voice(song, vocals)


def beats_of(heard: Heard) -> Beats:
    return Beats(heard.beats_s, heard.downbeats_s)


def _threshold_beats(threshold_s: float | None, bpm: float) -> float:
    """The contract's seconds in beats; None, 0 and -1 are the default."""
    if threshold_s is None or threshold_s in (0, -1):
        return THRESHOLD_BEATS
    if isinstance(threshold_s, bool) or not isinstance(threshold_s, (int, float)) or not 0 < threshold_s <= 10:
        raise InputError(
            f"'beat_sync_threshold' must be a number of seconds up to 10, or 0 or -1 for half a beat, got {threshold_s!r}"
        )
    return min(threshold_s * bpm / 60, MAX_THRESHOLD)
