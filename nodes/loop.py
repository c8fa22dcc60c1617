"""AUDIO -> a seamless loop of so many bars."""

from ..musicgen.analysis import CROSSFADE_MS, FASTEST_BPM, FOLLOWED, MAX_CROSSFADE_MS, Loop, make_loop
from ..musicgen.codes import Codes
from . import host, reports
from .inputs import Node, checked
from .sockets import AUDIO, CATEGORY, CODES, audio_in, audio_out
from .widgets import number, socket, whole


class MusicGenLoop(Node):
    DESCRIPTION = (
        "Cuts a loop of so many bars out of a longer piece, that begins again without a seam. The best place is searched "
        "for, and the join is measured. Generate the piece somewhat longer than the loop."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ("loop", "seamless loop", "bars", "bpm", "tempo", "crossfade", "sample loop")
    FUNCTION = "cut"
    RETURN_TYPES = (AUDIO, "FLOAT", "STRING")
    RETURN_NAMES = ("audio", "bpm", "report")
    OUTPUT_TOOLTIPS = (
        "The loop: exactly 'bars' bars long at the tempo of the output 'bpm'.",
        "Tempo of the loop, in beats a minute.",
        "What was found and measured, in words.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "audio": socket(AUDIO, "The piece, one clip: longer than the loop, best by a quarter."),
                "bars": whole(4, 1, 256, "Length of the loop, in bars."),
                "bpm": number(
                    0.0, 0.0, FASTEST_BPM, 0.1,
                    "Tempo that was asked for, in beats a minute. What the music really plays is measured near it, and "
                    "followed. 0 = measured alone, which can come out at half or double.", round=0.01,
                ),
                "meter": whole(4, 1, 32, "Beats in a bar: 4 for 4/4, 3 for a waltz."),
            },
            "optional": {
                "codes": socket(
                    CODES, "The codes that the piece was decoded from, uncut: places where they agree are preferred."
                ),
                "crossfade_ms": number(
                    CROSSFADE_MS, 0.0, MAX_CROSSFADE_MS, 1.0,
                    "How long what would follow the loop's end fades into its beginning, in milliseconds. 0 = a cut.",
                ),
            },
        }  # fmt: skip

    @checked()
    def cut(
        self,
        audio: dict,
        bars: int,
        bpm: float,
        meter: int,
        codes: Codes | None = None,
        crossfade_ms: float = CROSSFADE_MS,
    ) -> tuple[dict, float, str]:
        loop = make_loop(audio_in(audio), bars, meter, bpm, crossfade_ms, codes, host.check_interrupted)
        report = _report(loop, bars, meter, bpm)
        reports.show(report)
        return audio_out(loop.audio), loop.bpm, report


def _report(loop: Loop, bars: int, meter: int, asked_bpm: float) -> str:
    join = loop.join
    lines = [
        f"{bars} bars of {meter} beats at {loop.bpm:.2f} bpm: {loop.audio.duration_s:.3f} s, from {loop.start_s:.2f} s on.",
        f"Join: {join.level_db:.1f} dB in level ({join.level_percentile:.0f} % of ordinary places jump less), "
        f"{join.spectrum_db:.1f} dB in spectrum ({join.spectrum_percentile:.0f} %).",
    ]
    if loop.heard_bpm is None:
        lines.append(f"No pulse is heard near {asked_bpm:g} bpm: the loop has that tempo, but its bars may be none.")
    elif asked_bpm and abs(loop.heard_bpm / asked_bpm - 1) > FOLLOWED:
        off = 100 * (loop.heard_bpm / asked_bpm - 1)
        lines.append(
            f"The music does not keep the tempo asked for: {asked_bpm:g} bpm was asked, {loop.heard_bpm:.1f} is heard "
            f"({off:+.1f} %). The loop follows what is heard."
        )
    return "\n".join(lines)
