"""AUDIO -> levelled AUDIO."""

from ..musicgen import audio as engine
from .inputs import Node, checked
from .sockets import AUDIO, CATEGORY, audio_in, audio_out
from .widgets import choice, number, socket, switch


class MusicGenNormalize(Node):
    DESCRIPTION = (
        "Sets the level of a clip. loudness: to a loudness as the ear hears it; peak: its highest peak to a given "
        "headroom; rms: its average level to a given headroom; clip: only cuts the peaks above a given headroom. "
        "Works on any audio."
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
                    engine.STRATEGIES, "How the level is set; each uses only the settings that name it."
                ),
            },
            "optional": {
                "loudness_lufs": number(
                    -14.0, -70.0, 0.0, 0.5,
                    "Strategy loudness: how loud, in LUFS. -14 is what streaming services play at.",
                ),
                "peak_headroom_db": number(
                    1.0, 0.0, 60.0, 0.1,
                    "Strategies peak and clip: how far below full scale the highest peak is put, or peaks are cut, in dB.",
                ),
                "rms_headroom_db": number(
                    18.0, 0.0, 60.0, 0.1,
                    "Strategy rms: how far below full scale the average level is put, in dB.",
                ),
                "compressor": switch(
                    False,
                    "Strategy loudness: on = bend loud passages softly (tanh) instead of cutting the peaks above full "
                    "scale.",
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
        )
        return (audio_out(levelled),)
