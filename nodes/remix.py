"""A song apart and together again: AUDIO -> stems, AUDIO on the beats of other music, AUDIO of several."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..musicgen.analysis.choices import MAX_STRETCH, THRESHOLD_BEATS
from ..musicgen.audio.mixing import MAX_DB, MIN_DB, mix
from ..musicgen.errors import InputError
from . import host, reports
from .inputs import Node, checked, file_state, named_file
from .sockets import AUDIO, CATEGORY, audio_in, audio_out
from .widgets import Widget, number, socket, switch, text


class MusicGenStems(Node):
    DESCRIPTION = (
        "Takes a song apart with Demucs: voices, drums, bass, other instruments, and the rest, which is in none of them. All "
        "five together are the song. Needs the Python package demucs and its weights."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = (
        "stems",
        "demucs",
        "separate",
        "vocals",
        "acapella",
        "instrumental",
        "remove drums",
        "karaoke",
        "source separation",
    )
    FUNCTION = "separate"
    RETURN_TYPES = (AUDIO,) * 5
    RETURN_NAMES = ("vocals", "drums", "bass", "other", "rest")
    OUTPUT_TOOLTIPS = (
        "The voices, with the song's sample rate and channels.",
        "Drums and percussion.",
        "The bass.",
        "All other instruments.",
        "The song without the four others: what Demucs leaves out.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "audio": socket(
                    AUDIO, "The song: any sample rate, mono or stereo, any length. Of a batch, each clip by itself."
                ),
                "weights": text(
                    "",
                    "File name in models/demucs of weights of the kind HTDemucs. Empty = the standard ones, htdemucs, from "
                    "models/demucs or where Demucs itself keeps them.",
                ),
            },
        }

    @classmethod
    def VALIDATE_INPUTS(cls, weights: Any = None, input_types: Mapping[str, Any] | None = None) -> bool | str:
        try:
            if weights is not None:  # None: wired from another node
                _weights_file(weights)
        except InputError as error:
            return str(error)
        return super().VALIDATE_INPUTS(input_types or {})

    @classmethod
    def IS_CHANGED(cls, weights: str | None = None, **_: Any) -> str:
        try:
            return file_state(_weights_file(weights or ""))
        except (InputError, OSError):
            return ""

    @checked()
    def separate(self, audio: dict, weights: str) -> tuple:
        song, file = audio_in(audio), _weights_file(weights)
        from ..musicgen.separation import load_separator, memory_bytes, separate_stems

        separator = host.Managed(load_separator(host.stem_dirs(), file), "model")
        host.check_interrupted()
        memory = memory_bytes(separator.module)
        stems = separator.run(lambda module: separate_stems(song, module, host.progress()), memory)
        return tuple(audio_out(stem) for stem in (stems.vocals, stems.drums, stems.bass, stems.other, stems.rest))


def _weights_file(name: str) -> Path | None:
    hint = "Put weights of the kind HTDemucs there, or leave 'weights' empty for the standard ones."
    return named_file("weights", name, host.stem_dirs(), "models/demucs", hint)


class MusicGenAlign(Node):
    DESCRIPTION = (
        "Plays music so that its beats fall on those of other music: first the whole at one speed, then each beat to its place, at the "
        "same pitch. Beats without a partner are left out."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ("align", "beat sync", "beat match", "warp", "time stretch", "time map", "quantize", "remix")
    FUNCTION = "align"
    RETURN_TYPES = (AUDIO, "STRING")
    RETURN_NAMES = ("audio", "report")
    OUTPUT_TOOLTIPS = (
        "The music on the other's beats. Where nothing can be aligned, the music as it was, at the same length.",
        "How many beats are paired, how fast the music is played and by how much beats are moved; or why nothing is.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "audio": socket(AUDIO, "The music: any sample rate, 1 to 8 channels, which are cut at the same places."),
                "beats": text("", "Beats of the music: 'report' of Hear Music, or times in seconds by comma."),
                "target_beats": text(
                    "", "Beats that they are to fall on, of the song say: 'report' of Hear Music, or times in seconds by comma."
                ),
                "threshold_beats": number(
                    THRESHOLD_BEATS, 0.01, 2.0, 0.05,
                    "How far a beat may lie from its place, in beats, once the whole has its speed. Farther ones are left out.",
                    round=0.001,
                ),
                "max_stretch": number(
                    MAX_STRETCH, 1.0, 2.0, 0.05,
                    "How much faster or slower any part may be played (a factor). Beats that need more are left out.", round=0.001,
                ),
            },
            "optional": {
                "like": socket(AUDIO, "A sound whose length the result gets, such as the song. Without it the music keeps its own."),
                "threshold_s": number(
                    0.0, 0.0, 10.0, 0.01, "threshold_beats in seconds, which then counts in its place. 0 = threshold_beats counts.",
                    round=0.001,
                ),
            },
        }  # fmt: skip

    @checked()
    def align(
        self,
        audio: dict,
        beats: str,
        target_beats: str,
        threshold_beats: float,
        max_stretch: float,
        like: dict | None = None,
        threshold_s: float = 0.0,
    ) -> tuple[dict, str]:
        music, duration_s = audio_in(audio), None if like is None else audio_in(like, "like").duration_s
        from ..musicgen.analysis.alignment import MAX_THRESHOLD, Beats, align

        source, target = Beats.parse(beats), Beats.parse(target_beats, "target_beats")
        if threshold_s and target.period_s:
            threshold_beats = min(threshold_s / target.period_s, MAX_THRESHOLD)
        aligned = align(
            music, source, target, threshold_beats=threshold_beats,
            max_stretch=max_stretch, duration_s=duration_s, on_step=host.progress(),
        )  # fmt: skip
        reports.show(aligned.report)
        return audio_out(aligned.audio), aligned.report


def _gain(default: float = 0.0) -> Widget:
    return number(
        default,
        MIN_DB,
        MAX_DB,
        0.5,
        "Level of this sound, in dB; with 'matched', against the loudness that all are brought to.",
    )


class MusicGenMix(Node):
    DESCRIPTION = (
        "Mixes up to four sounds: brings them to the same loudness, gives each its gain, and adds them up. Stereo is kept, shorter "
        "ones end earlier, and the whole is made quieter where its peaks would be cut."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ("mix", "mixer", "combine audio", "merge audio", "add audio", "layer", "remix", "gain")
    FUNCTION = "mix"
    RETURN_TYPES = (AUDIO, "STRING")
    RETURN_NAMES = ("audio", "report")
    OUTPUT_TOOLTIPS = (
        "The mix, at the highest sample rate of the sounds.",
        "Loudness of each sound and the gain that it was played with.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        more = "Another sound: any sample rate; mono, or as many channels as the others."
        return {
            "required": {
                "audio_1": socket(AUDIO, "A sound: any sample rate; mono, or as many channels as the others."),
                "gain_1_db": _gain(),
                "matched": switch(
                    True,
                    "On = all sounds are brought to the loudness of the loudest before their gains (LUFS); silence keeps its level. "
                    "Off = gains alone.",
                ),
                "peak_headroom_db": number(
                    1.0, 0.0, 60.0, 0.1, "How far below full scale the highest peak of the mix may come, in dB."
                ),
            },
            "optional": {
                "audio_2": socket(AUDIO, more), "gain_2_db": _gain(),
                "audio_3": socket(AUDIO, more), "gain_3_db": _gain(),
                "audio_4": socket(AUDIO, more), "gain_4_db": _gain(),
            },
        }  # fmt: skip

    @checked()
    def mix(
        self,
        audio_1: dict,
        gain_1_db: float,
        matched: bool,
        peak_headroom_db: float,
        audio_2: dict | None = None,
        gain_2_db: float = 0.0,
        audio_3: dict | None = None,
        gain_3_db: float = 0.0,
        audio_4: dict | None = None,
        gain_4_db: float = 0.0,
    ) -> tuple[dict, str]:
        given = [(audio_1, gain_1_db), (audio_2, gain_2_db), (audio_3, gain_3_db), (audio_4, gain_4_db)]
        sounds = [
            (audio_in(audio, f"audio_{n}"), db) for n, (audio, db) in enumerate(given, 1) if n == 1 or audio is not None
        ]
        mixed = mix(
            [sound for sound, _ in sounds], [db for _, db in sounds], matched=matched, peak_headroom_db=peak_headroom_db,
            check=host.check_interrupted,
        )  # fmt: skip
        reports.show(mixed.report)
        return audio_out(mixed.audio), mixed.report
