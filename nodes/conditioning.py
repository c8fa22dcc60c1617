"""Text, melody -> conditioning."""

from typing import Any

import torch

from ..musicgen.conditioning import STEM_CHOICES, Conditioning, Mixture
from ..musicgen.conditioning.picture import chroma_picture
from . import host
from .host import Managed
from .inputs import Node, checked
from .sockets import AUDIO, CATEGORY, CONDITIONER, CONDITIONING, audio_in
from .widgets import choice, socket, text


class MusicGenText(Node):
    DESCRIPTION = (
        "Describes the music in words: genre, mood, instruments, tempo. Left empty, the music is unconditional: the "
        "model makes up its own, or takes the text of its card, as pansori-mini does. A second one can feed the sampler's 'negative' with what to avoid."
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
        }

    @checked()
    def encode(self, conditioner: Managed, text: str) -> tuple:
        warning = conditioner.module.warning(text)
        if warning:
            host.show_text(warning)
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
        return (result, chroma_picture(melody) if melody is not None else torch.zeros(1, 12, 12, 3))
