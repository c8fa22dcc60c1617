"""Text, melody, chords -> conditioning."""

from typing import Any

from ..musicgen.conditioning import STEM_CHOICES, Conditioning, Mixture, Progression, encode_chords
from ..musicgen.conditioning import chord_list as listed
from ..musicgen.conditioning.chord_times import TimedChords
from ..musicgen.conditioning.chords import (
    BPM,
    MAX_STRENGTH,
    METER,
    STRENGTH,
    described,
    experiment,
)
from ..musicgen.conditioning.key import remark
from ..musicgen.conditioning.picture import chroma_picture
from ..musicgen.errors import InputError
from ..musicgen.units import FASTEST_BPM, SLOWEST_BPM, Meter, check_bpm, told
from . import host, reports
from .host import Managed
from .inputs import Node, checked
from .sockets import AUDIO, CATEGORY, CONDITIONER, CONDITIONING, audio_in
from .widgets import choice, number, socket, text


class MusicGenText(Node):
    DESCRIPTION = (
        "Describes the music in words: genre, mood, instruments, tempo. Left empty, the music is unconditional: the "
        "model makes up its own, or takes the text of its card, as general-mini and pansori-mini do. A second one can feed the sampler's 'negative' with what to avoid."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ("musicgen prompt", "music description", "text encode", "text conditioning", "negative prompt")
    FUNCTION = "encode"
    RETURN_TYPES = (CONDITIONING,)
    RETURN_NAMES = ("conditioning",)
    OUTPUT_TOOLTIPS = ("The encoded description, for MusicGen Sampler's positive or negative.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "conditioner": socket(CONDITIONER, "The text encoder, from Load MusicGen."),
                "text": text(
                    "",
                    "What the music is like, in English words. Empty = no description, or that of the model's card.",
                    multiline=True,
                    dynamicPrompts=True,
                    placeholder="warm lo-fi hip hop with a mellow piano and soft drums, 80 bpm",
                ),
            },
            "optional": {
                "bpm": number(
                    0.0, 0.0, FASTEST_BPM, 0.1,
                    "Tempo that is told behind the text, in the words of the chord models: bpm : 92.0 (beats a minute, 20 or "
                    "more). 0 = none.", round=0.001,
                ),
                "meter": text("", "Meter that is told behind the text, such as 4/4. Empty = none."),
            },
        }  # fmt: skip

    @checked()
    def encode(self, conditioner: Managed, text: str, bpm: float = 0.0, meter: str = "") -> tuple:
        text = told(text, check_bpm(bpm) if bpm else None, Meter.parse(meter) if meter.strip() else None)
        remarks = filter(None, [conditioner.module.warning(text), remark(conditioner.module, text)])
        if shown := "\n".join(remarks):
            reports.show(shown)
        return (conditioner.run(lambda module: module.encode_text([text])),)


class MusicGenMelody(Node):
    DESCRIPTION = (
        "Adds the melody of a recording to a description: the music follows its tune, in the sound that the text asks for. "
        "For the melody models only. In pieces longer than the recording it is followed around."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ("melody", "chroma", "tune", "hum to music", "melody conditioning", "follow a melody", "cover")
    FUNCTION = "encode"
    RETURN_TYPES = (CONDITIONING, "IMAGE")
    RETURN_NAMES = ("conditioning", "chroma")
    OUTPUT_TOOLTIPS = (
        "The description with the melody, for MusicGen Sampler's positive.",
        "What the model hears of the melody: the strongest of the 12 notes (C at the bottom) over one window, in seconds.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "conditioner": socket(CONDITIONER, "From Load MusicGen, of a melody model."),
                "conditioning": socket(CONDITIONING, "The description that the melody joins, from MusicGen Text."),
                "audio": socket(
                    AUDIO, "The recording whose melody is followed: any sample rate, 1 to 8 channels, any length."
                ),
                "stems": choice(
                    STEM_CHOICES,
                    "Take drums and bass away first, so that the melody stands out. auto: with Demucs if it is installed "
                    "with its weights, else the whole mix (the log says which). demucs: demand it. off: the whole mix.",
                    default="auto",
                ),
            },
        }

    @checked()
    def encode(self, conditioner: Managed, conditioning: Any, audio: dict, stems: str) -> tuple:
        clip, check = audio_in(audio), host.check_interrupted
        result = conditioner.run(
            lambda module: module.encode_melody(conditioning, clip, stems, host.stem_dirs(), check)
        )
        # The audiocraft engine makes its chroma when it generates: there is nothing to show.
        melody = result.leaves()[0].melody if isinstance(result, (Conditioning, Mixture)) else None
        return result, chroma_picture(melody)


def _heard(audio: dict) -> TimedChords:
    """The chords of a recording. The code that hears is imported when it is needed."""
    from ..musicgen.analysis.progression import hear_progression

    return hear_progression(audio_in(audio), on_step=host.progress())


class MusicGenChords(Node):
    DESCRIPTION = (
        "Adds chords to a description: the music follows the progression, bar by bar at a tempo, in the sound that the text "
        "asks for. For chord models (musicgen-chord, musicgen-stereo-chord and their large ones) and general-mini; with other melody "
        "models it is an experiment. Longer music begins the chords anew."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = (
        "chords",
        "chord progression",
        "harmony",
        "lead sheet",
        "chord chart",
        "text chords",
        "musicgen chord",
        "chords from audio",
        "cover",
    )
    FUNCTION = "encode"
    RETURN_TYPES = (CONDITIONING, "IMAGE", "STRING")
    RETURN_NAMES = ("conditioning", "chroma", "chord_list")
    OUTPUT_TOOLTIPS = (
        "The description with the chords, for MusicGen Sampler's positive.",
        "What the model is told: the notes of the chords (C at the bottom) over one window, in seconds.",
        "One pass of the chords, written or heard, one a line: its start and its end in seconds, and its name, with tabs between them.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "conditioner": socket(
                    CONDITIONER, "From Load MusicGen, of a chord model or general-mini. Other melody models take chords too, as an experiment."
                ),
                "conditioning": socket(
                    CONDITIONING, "The description that the chords join, from MusicGen Text. They replace a melody."
                ),
                "chords": text(
                    "C G A:min F",
                    "A bar a word, chords of a bar by commas: C G,G:7 A:min. Or with bar lines: Am7 | F/C | G | %. "
                    "% is the bar before again, N no chord, x2 plays the line twice. The chords of a bar share it equally.",
                    multiline=True,
                    placeholder="Am7 | F/C | G | % |",
                ),
                "bpm": number(
                    BPM, SLOWEST_BPM, FASTEST_BPM, 0.1,
                    "Tempo in beats a minute, a beat being the lower number of 'meter'. It places the chords. Write it into "
                    "the text too, as the models' authors do: 4/4, bpm : 120.0.", round=0.001,
                ),
                "meter": text(METER, "Beats in a bar and their unit: 4/4, 3/4, 6/8 (six beats of an eighth)."),
                "strength": number(
                    STRENGTH, 0.0, MAX_STRENGTH, 0.05, "How strongly the chords are told (a factor). 1 = as trained, 0 = no notes.",
                ),
            },
            "optional": {
                "chord_list": text(
                    "",
                    "Chords at their own times, in place of 'chords', 'bpm' and 'meter': 'report' of Hear Music, or a line a chord with "
                    "its start and end in seconds and its name (0.00 2.13 A:min). Empty = none.",
                    multiline=True,
                ),
                "audio": socket(
                    AUDIO,
                    "A recording whose chords are followed at their times, in place of 'chords', 'bpm' and 'meter': one clip of 2 "
                    "seconds to 20 minutes. Major and minor chords are heard in it. Longer music begins them anew.",
                ),
            },
        }  # fmt: skip

    @checked()
    def encode(
        self,
        conditioner: Managed,
        conditioning: Any,
        chords: str,
        bpm: float,
        meter: str,
        strength: float,
        chord_list: str = "",
        audio: dict | None = None,
    ) -> tuple:
        timed = chord_list.strip()
        if timed and audio is not None:
            raise InputError("'chord_list' and 'audio' both give chords. Empty 'chord_list', or disconnect 'audio'.")
        if audio is not None:
            progression = _heard(audio)
        else:
            progression = TimedChords.parse(timed) if timed else Progression.parse(chords, bpm, meter)
        result = conditioner.run(lambda module: encode_chords(module, conditioning, progression, strength))
        notes = [described(progression), experiment(conditioner.module)]
        reports.show("\n".join(note for note in notes if note))
        return result, chroma_picture(result.leaves()[0].melody), listed(progression.chords())
