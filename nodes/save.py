"""AUDIO -> files in ComfyUI's output folder."""

from dataclasses import replace

from ..musicgen import audio as engine
from . import host
from .inputs import Node, checked
from .sockets import AUDIO, CATEGORY, audio_in, cut_short_of
from .widgets import choice, socket, text

FORMATS = ("wav", "mp3", "flac", "opus")

BIT_DEPTHS = {"16": "s16", "24": "s24", "32 float": "f32"}


class MusicGenSaveAudio(Node):
    DESCRIPTION = (
        "Saves audio in ComfyUI's output folder and plays it. FLAC, MP3 and Opus files carry the workflow: drop one on "
        "the canvas to open it again. Each item of a batch gets its own file."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = (
        "save audio",
        "export audio",
        "save wav",
        "save mp3",
        "save flac",
        "save opus",
        "play audio",
        "preview audio",
    )
    OUTPUT_NODE = True
    FUNCTION = "save"
    RETURN_TYPES = (AUDIO,)
    RETURN_NAMES = ("audio",)
    OUTPUT_TOOLTIPS = ("The sound as it came in.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "audio": socket(AUDIO, "The sound to save: any sample rate (Hz); mp3 takes 1 or 2 channels."),
                "filename_prefix": text(
                    "audio/musicgen",
                    "Where to save below the output folder, and how the file's name begins; a number is added. Can hold "
                    "%date:yyyy-MM-dd%, %year%, %month%, %day%, %hour%, %minute%, %second%.",
                ),
                "format": choice(
                    FORMATS,
                    "wav: no loss; the workflow goes into a .json file beside it. flac: no loss, smaller, carries the "
                    "workflow. mp3, opus: small, carry the workflow.",
                ),
            },
            "optional": {
                "bit_depth": choice(
                    list(BIT_DEPTHS),
                    "Precision of wav and flac (bits a sample). 24 and 32 float keep more for further work; 32 float is "
                    "for wav only. mp3 and opus have none.",
                ),
            },
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    @checked()
    def save(
        self,
        audio: dict,
        filename_prefix: str,
        format: str,
        bit_depth: str = "16",
        prompt: dict | None = None,
        extra_pnginfo: dict | None = None,
    ) -> dict:
        sound = audio_in(audio)
        sample_format = BIT_DEPTHS[bit_depth] if format in ("wav", "flac") else "s16"
        metadata = host.file_metadata(prompt, extra_pnginfo, cut_short_of(audio))
        saved, number = [], 0
        for i in range(sound.samples.shape[0]):
            if i == 0 or "%batch_num%" in filename_prefix:
                location = host.save_location(filename_prefix.replace("%batch_num%", str(i)))
                number = max(number, location.counter - 1)
            number += 1
            file = engine.write_new(
                replace(sound, samples=sound.samples[i : i + 1]),
                location.files(format, number),
                format,
                sample_format=sample_format,
                metadata=metadata or None,
                check=host.check_interrupted,
            )
            saved.append({"filename": file.name, "subfolder": location.subfolder, "type": "output"})
        return {"ui": {"audio": saved}, "result": (audio,)}
