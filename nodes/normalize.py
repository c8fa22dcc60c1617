"""AUDIO -> levelled AUDIO."""

from ..musicgen import audio as engine
from . import host
from .inputs import Node, checked
from .sockets import AUDIO, CATEGORY, audio_in, audio_out, cut_short_of
from .widgets import choice, number, socket, switch


class MusicGenNormalize(Node):
    DESCRIPTION = (
        "Sets the level of a clip. loudness: to a loudness as the ear hears it, as far as the peaks allow; peak: its highest peak to a given "
        "headroom; rms: its average level to a given headroom; clip: only cuts the peaks above a given headroom; "
        "audiocraft: to a loudness, peaks cut at full scale. Works on any audio."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ("normalize audio", "normalise", "loudness", "LUFS", "peak", "RMS", "level", "volume")
    FUNCTION = "normalize"
    RETURN_TYPES = (AUDIO,)
    RETURN_NAMES = ("audio",)
    OUTPUT_TOOLTIPS = ("The levelled sound, at the sample rate it came in with.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "audio": socket(AUDIO, "The sound to level: any sample rate, 1 to 8 channels."),
                "strategy": choice(
                    engine.LEVELLINGS, "How the level is set; each uses only the settings that name it."
                ),
            },
            "optional": {
                "loudness_lufs": number(
                    -14.0, -70.0, 0.0, 0.5,
                    "Strategies loudness and audiocraft: how loud, in LUFS. -14 is what streaming services play at.",
                ),
                "peak_headroom_db": number(
                    1.0, 0.0, 60.0, 0.1,
                    "How far below full scale the highest peak is put (peak), may come (loudness), or is cut (clip), in dB.",
                ),
                "rms_headroom_db": number(
                    18.0, 0.0, 60.0, 0.1,
                    "Strategy rms: how far below full scale the average level is put, in dB.",
                ),
                "compressor": switch(
                    False,
                    "Strategies loudness and audiocraft: on = reach the loudness by bending peaks softly (tanh). Off = "
                    "loudness ends where the peaks reach their headroom, and audiocraft cuts them at full scale.",
                ),
            },
        }  # fmt: skip

    @checked()
    def normalize(
        self,
        audio: dict,
        strategy: str,
        loudness_lufs: float = -14.0,
        peak_headroom_db: float = 1.0,
        rms_headroom_db: float = 18.0,
        compressor: bool = False,
    ) -> tuple[dict]:
        levelled = engine.normalize(
            audio_in(audio),
            strategy,
            loudness_lufs=loudness_lufs,
            peak_headroom_db=peak_headroom_db,
            rms_headroom_db=rms_headroom_db,
            compressor=compressor,
            check=host.check_interrupted,
        )
        return (audio_out(levelled, cut_short_of(audio)),)
