"""AUDIO -> tempo, bars, key, chords, sections, and MIDI."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..musicgen.analysis.choices import MAX_METER, VOCABULARIES
from ..musicgen.tempo import FASTEST_BPM, SLOWEST_BPM
from . import host, reports
from .inputs import Node, checked, named_file
from .score import save_numbered
from .sockets import AUDIO, CATEGORY, audio_in
from .widgets import choice, number, socket, text, whole

if TYPE_CHECKING:
    from ..musicgen.analysis.hearing import Heard


class MusicGenAnalyze(Node):
    DESCRIPTION = (
        "Hears tempo, meter, bars, key, chords and sections of a piece, each with a confidence, and writes its melody, chords "
        "and drums as MIDI."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = (
        "analyze",
        "bpm",
        "tempo",
        "beats",
        "key",
        "chords",
        "midi",
        "transcribe",
        "sections",
        "downbeats",
    )
    FUNCTION = "hear"
    RETURN_TYPES = ("FLOAT", "STRING", "STRING", "STRING", "STRING", "STRING", "IMAGE", "STRING")
    RETURN_NAMES = ("bpm", "meter", "downbeats", "key", "chords", "report", "picture", "midi_file")
    OUTPUT_TOOLTIPS = (
        "Tempo in beats a minute. 0 = no pulse is heard.",
        "Beats in a bar, as 4/4. Empty = not heard.",
        "Times of the first beat of each bar, in seconds, by comma.",
        "The key, as C major or A minor. Empty = no chords are heard.",
        "The chords from the first downbeat on: bars by space, chords of a bar by comma, as C G,G:7 A:min. N = no chord.",
        "Everything that is heard, as JSON: times, confidences (0 to 1), sections, melody, drums and notices.",
        "Sections, chords, bars, melody and drums over time.",
        "Path of the MIDI file. Empty unless midi_prefix names one.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "audio": socket(AUDIO, "The piece, one clip of 2 seconds to 20 minutes: any sample rate, 1 to 8 channels."),
                "bpm": number(
                    0.0, 0.0, FASTEST_BPM, 0.1,
                    "Tempo that is expected, in beats a minute; the one within 30 % of it is heard. 0 = any, which can come "
                    "out at half or double.", round=0.01,
                ),
                "meter": whole(0, 0, MAX_METER, "Beats in a bar, if they are known. 0 = 3/4, 4/4 or 6/8, as heard."),
                "vocabulary": choice(
                    VOCABULARIES,
                    "triads: major and minor chords. sevenths: 7, maj7 and min7 too, which are heard less surely.",
                ),
                "midi_prefix": text(
                    "",
                    "Where to save melody, chords and drums as MIDI below the output folder, as midi/heard; a number is added. "
                    "Empty = no file.",
                ),
                "beat_model": text(
                    "",
                    "File name in models/musicgen of a checkpoint of beat-this, which then tracks the beats. Needs the Python "
                    "package beat-this, which brings no weights. Empty = the built-in tracker.",
                ),
            },
        }  # fmt: skip

    @classmethod
    def VALIDATE_INPUTS(
        cls, bpm: float | None = None, meter: int | None = None, input_types: dict | None = None
    ) -> Any:
        fault = super().VALIDATE_INPUTS(input_types or {})
        if bpm and bpm < SLOWEST_BPM:
            return f"'bpm' must be from {SLOWEST_BPM:g} to {FASTEST_BPM:g}, or 0 to have it heard, got {bpm:g}"
        return "'meter' must be 2 or more, or 0 to have it heard, got 1" if meter == 1 else fault

    @checked()
    def hear(self, audio: dict, bpm: float, meter: int, vocabulary: str, midi_prefix: str, beat_model: str) -> tuple:
        sound, model = audio_in(audio), _model_file(beat_model)
        from ..musicgen.analysis import hearing

        heard = hearing.hear(sound, bpm, meter, vocabulary, model, host.progress())
        midi_file = str(save_numbered(hearing.midi_bytes(heard), midi_prefix, "mid")[0]) if midi_prefix.strip() else ""
        downbeats = ", ".join(f"{time_s:.3f}" for time_s in heard.downbeats_s)
        reports.show(_summary(heard))
        picture = hearing.hearing_picture(heard)
        return heard.bpm, heard.meter_text, downbeats, heard.key, heard.chord_text, heard.as_json(), picture, midi_file


def _model_file(name: str) -> Path | None:
    hint = "Put a checkpoint of beat-this there, or leave 'beat_model' empty for the built-in tracker."
    return named_file("beat_model", name, host.model_dirs(), "models/musicgen", hint)


def _summary(heard: "Heard") -> str:
    """The main findings with their confidences, a line each."""
    lines = [
        f"{heard.bpm:.1f} bpm ({heard.bpm_confidence:.2f}), {heard.meter_text} ({heard.meter_confidence:.2f}), "
        f"downbeats ({heard.downbeats_confidence:.2f})"
        if heard.bpm
        else "no pulse",
        f"{heard.key or 'no key'} ({heard.key_confidence:.2f}), chords ({heard.chords_confidence:.2f}): {heard.chord_text[:200]}",
        "sections: " + ", ".join(f"{section.label} {section.start_s:.1f} s" for section in heard.sections),
        *heard.notices,
    ]
    return "\n".join(lines)
