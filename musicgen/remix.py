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

from .analysis.alignment import THRESHOLD_BEATS, Alignment, align
from .analysis.hearing import Heard, hear
from .audio import Audio
from .audio.mixing import is_audible, mix
from .codes import Codes
from .conditioning.chord_times import TimedChords
from .config import GenerationParams
from .errors import InputError
from .loading import Loaded
from .multiband import Diffusion
from .render import OnProgress, RenderRequest, render
from .separation import Stems, load_separator, separate_stems
from .units import told

logger = logging.getLogger(__name__)

VOCALS_DB = -2.0  # loudness of the voice against the music's
Separate = Callable[[Audio, Callable[[int, int], None]], Stems]
"""A song [1, C, L] and on_step(done, total) -> its stems."""


@dataclass(frozen=True)
class Remixed:
    """The remix and everything that it was made of."""

    mix: Audio  # as long as the song
    background: Audio  # the music as the model made it
    background_synced: Audio  # on the song's beats, as long as the song; `background` at that length where it could not be aligned
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
    raise NotImplementedError  # the body follows in the next commits of this branch
