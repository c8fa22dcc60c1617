"""AUDIO -> the same music at the tempo that was asked for."""

from ..musicgen.analysis.choices import WAYS
from ..musicgen.units import FASTEST_BPM, SLOWEST_BPM, Meter
from . import host, reports
from .inputs import Node, checked
from .sockets import AUDIO, CATEGORY, audio_in, audio_out
from .widgets import choice, number, socket, text


class MusicGenTempo(Node):
    DESCRIPTION = (
        "Measures the tempo of music against the one that was asked for, and on wish stretches the music to it at the same "
        "pitch and moves its bars to the grid, so that it lines up with a project in a sequencer."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ("tempo", "bpm", "time stretch", "quantize", "grid", "align bars", "sync", "warp")
    FUNCTION = "fit"
    RETURN_TYPES = (AUDIO, "FLOAT", "STRING")
    RETURN_NAMES = ("audio", "bpm", "report")
    OUTPUT_TOOLTIPS = (
        "The music, changed as 'way' says.",
        "Its tempo as it is now, in beats a minute. 0 = no pulse is heard.",
        "What was measured and changed, in words.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "audio": socket(AUDIO, "The music, one clip of 2 seconds to 20 minutes."),
                "bpm": number(
                    120.0, SLOWEST_BPM, FASTEST_BPM, 0.1,
                    "Tempo that was asked for, in beats a minute. What is played is looked for within 30 % of it.", round=0.001,
                ),
                "meter": text("4/4", "Beats in a bar and their unit: 4/4, 3/4, 6/8 (six beats of an eighth)."),
                "way": choice(
                    WAYS,
                    "measure: the sound stays as it is. stretch: it gets the tempo, at the same pitch. stretch and align: then "
                    "its first bar begins at 0 as well.",
                    default="stretch and align",
                ),
            },
        }  # fmt: skip

    @checked()
    def fit(self, audio: dict, bpm: float, meter: str, way: str) -> tuple[dict, float, str]:
        from ..musicgen.analysis.fit import fit_tempo

        made = fit_tempo(audio_in(audio), bpm, Meter.parse(meter), way, host.progress())
        reports.show(made.report)
        return audio_out(made.audio), made.bpm, made.report
