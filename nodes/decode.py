"""Codes -> AUDIO: with the codec alone, or with MultiBand Diffusion."""

from ..musicgen.audio import FADE_MS, MAX_FADE_MS, MAX_FADE_OUT_S, Audio, fade, fade_out
from ..musicgen.audio.spectrogram import spectrogram_picture
from ..musicgen.codes import Codes
from . import host, live
from .inputs import Node, checked
from .sockets import AUDIO, CATEGORY, CODEC, CODES, DIFFUSION, audio_out
from .widgets import Widget, number, seed, socket

_SPECTROGRAM = (
    "A picture of the sound: time to the right, frequency (Hz, mel scale) upwards, levels from -90 dB (black) to 0 dB. "
    "Pictures of two decoders can be compared."
)
_CODEC = "The codec of the checkpoint that the codes were made with, from Load MusicGen."
_CODES = "The music as codes, from MusicGen Sampler or MusicGen Encode Audio."


def _fade_widget() -> Widget:
    return number(
        FADE_MS, 0.0, MAX_FADE_MS, 1.0,
        "Fade at both ends, in milliseconds, against clicks: models begin and end within a sound. 0 = off, the codec's "
        "very samples.",
    )  # fmt: skip


def _fade_out_widget() -> Widget:
    return number(
        0.0, 0.0, MAX_FADE_OUT_S, 0.5,
        "An ending: the last so many seconds fade to silence. 0 = off: the music stops at its length.",
    )  # fmt: skip


class MusicGenDecode(Node):
    DESCRIPTION = "Turns codes into sound with the checkpoint's own codec, EnCodec."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ("musicgen decode", "codes to audio", "encodec", "vae decode audio", "codec", "spectrogram")
    FUNCTION = "decode"
    RETURN_TYPES = (AUDIO, "IMAGE")
    RETURN_NAMES = ("audio", "spectrogram")
    OUTPUT_TOOLTIPS = (
        "The sound, at the codec's sample rate (32000 Hz for the published models), mono or stereo.",
        _SPECTROGRAM,
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {"codec": socket(CODEC, _CODEC), "codes": socket(CODES, _CODES)},
            "optional": {"fade_ms": _fade_widget(), "fade_out_s": _fade_out_widget()},
        }

    @checked()
    def decode(self, codec: host.Managed, codes: Codes, fade_ms: float = FADE_MS, fade_out_s: float = 0.0) -> tuple:
        audio = codec.run(lambda module: module.decode(codes, on_step=host.progress()))
        live.complete(codes, audio)
        return _outputs(audio, fade_ms, fade_out_s, codes)


class MusicGenDecodeDiffusion(Node):
    DESCRIPTION = (
        "Turns codes into sound with MultiBand Diffusion: clearer than EnCodec alone, and far slower (80 passes of a "
        "large network; meant for a GPU). Works for mono and stereo, and for music of any length."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = (
        "multiband diffusion",
        "multi band diffusion",
        "mbd",
        "diffusion decoder",
        "codes to audio",
        "high quality decode",
        "spectrogram",
    )
    FUNCTION = "decode"
    RETURN_TYPES = (AUDIO, "IMAGE")
    RETURN_NAMES = ("audio", "spectrogram")
    OUTPUT_TOOLTIPS = ("The sound, at the codec's sample rate (32000 Hz), mono or stereo.", _SPECTROGRAM)

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "codec": socket(CODEC, _CODEC),
                "diffusion": socket(DIFFUSION, "From Load MultiBand Diffusion."),
                "codes": socket(CODES, _CODES),
                "seed": seed(
                    "Decides the noise that the sound is made from (no unit). Same seed and codes, same sound. It "
                    "changes fine detail, not the music."
                ),
            },
            "optional": {"fade_ms": _fade_widget(), "fade_out_s": _fade_out_widget()},
        }

    @checked()
    def decode(
        self,
        codec: host.Managed,
        diffusion: host.Managed,
        codes: Codes,
        seed: int,
        fade_ms: float = FADE_MS,
        fade_out_s: float = 0.0,
    ) -> tuple:
        diffusion.module.check(codec.module)
        cancel = host.progress()
        plain, latents = codec.run(
            lambda module: (module.decode(codes, on_step=lambda *_: cancel(0, 1)), module.decode_latent(codes))
        )
        memory_bytes = diffusion.module.memory_bytes(codes, codec.module)
        audio = diffusion.run(lambda module: module.refine(plain, latents, seed, host.progress()), memory_bytes)
        return _outputs(audio, fade_ms, fade_out_s, codes)


def _outputs(audio: Audio, fade_ms: float, fade_out_s: float, codes: Codes) -> tuple:
    audio = fade_out(fade(audio, fade_ms), fade_out_s)
    return audio_out(audio, codes.cut_short), spectrogram_picture(audio)
