"""Codes -> AUDIO."""

from ..musicgen.codes import Codes
from . import host
from .sockets import AUDIO, CATEGORY, CODEC, CODES, audio_out


class MusicGenDecode:
    DESCRIPTION = "Turns codes into sound with the checkpoint's own codec, EnCodec."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ("musicgen decode", "codes to audio", "encodec", "vae decode audio", "codec")
    FUNCTION = "decode"
    RETURN_TYPES = (AUDIO,)
    RETURN_NAMES = ("audio",)
    OUTPUT_TOOLTIPS = ("The sound, at the codec's sample rate (32000 Hz for the published models), mono or stereo.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "codec": (
                    CODEC,
                    {"tooltip": "The codec of the checkpoint that the codes were made with, from Load MusicGen."},
                ),
                "codes": (CODES, {"tooltip": "The music as codes, from MusicGen Sampler or MusicGen Encode Audio."}),
            },
        }

    def decode(self, codec: host.Managed, codes: Codes) -> tuple[dict]:
        audio = codec.run(lambda module: module.decode(codes, on_step=host.progress()))
        return (audio_out(audio),)
