"""Trim, encode (for continuation), save."""

from dataclasses import replace

from ..musicgen import audio as engine
from ..musicgen.audio.waveform import check_span
from ..musicgen.codes import Codes
from ..musicgen.errors import InputError
from . import host
from .inputs import Node, checked
from .sockets import AUDIO, CATEGORY, CODEC, CODES, audio_in, audio_out
from .widgets import choice, number, socket, text

MAX_TIME_S = 86400.0
FORMATS = ("wav", "mp3", "flac", "opus")

BIT_DEPTHS = {"16": "s16", "24": "s24", "32 float": "f32"}


class MusicGenTrimAudio(Node):
    DESCRIPTION = "Cuts a clip out of a longer sound, by start and end time. Sample rate and channels stay as they are."
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ("trim audio", "cut", "crop", "clip", "slice audio", "audio segment")
    FUNCTION = "trim"
    RETURN_TYPES = (AUDIO,)
    RETURN_NAMES = ("audio",)
    OUTPUT_TOOLTIPS = ("The part from start_s to end_s (seconds).",)

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "audio": socket(AUDIO, "The sound to cut: any sample rate, 1 to 8 channels."),
                "start_s": number(0.0, 0.0, MAX_TIME_S, 0.1, "Where the part begins, in seconds.", round=0.001),
                "end_s": number(
                    -1.0, -1.0, MAX_TIME_S, 0.1,
                    "Where the part ends, in seconds. -1 = at the end of the sound.", round=0.001,
                ),
            },
        }  # fmt: skip

    @classmethod
    def VALIDATE_INPUTS(cls, start_s: float = 0.0, end_s: float = -1.0) -> bool | str:
        try:
            check_span(start_s, end_s)
        except InputError as error:
            return str(error)
        return True

    def trim(self, audio: dict, start_s: float, end_s: float) -> tuple[dict]:
        return (audio_out(engine.trim(audio_in(audio), start_s, end_s)),)


class MusicGenEncode(Node):
    DESCRIPTION = (
        "Turns sound into codes that MusicGen Sampler can continue. The sound is converted to the codec's sample rate "
        "and channels by itself."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = (
        "musicgen encode",
        "audio to codes",
        "continue music",
        "continuation",
        "encodec",
        "vae encode audio",
    )
    FUNCTION = "encode"
    RETURN_TYPES = (CODES,)
    RETURN_NAMES = ("codes",)
    OUTPUT_TOOLTIPS = ("The sound as codes, for the prompt of MusicGen Sampler, or for MusicGen Decode.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "codec": socket(CODEC, "The codec of the checkpoint that will continue the sound, from Load MusicGen."),
                "audio": socket(AUDIO, "The sound to encode: any sample rate, 1 to 8 channels."),
            },
        }

    @checked()
    def encode(self, codec: host.Managed, audio: dict) -> tuple[Codes]:
        sound = audio_in(audio)
        return (codec.run(lambda module: module.encode(sound, on_step=host.progress())),)


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
        folder, filename, counter, subfolder = host.save_location(filename_prefix)
        metadata = host.file_metadata(prompt, extra_pnginfo)
        saved = []
        for i in range(sound.samples.shape[0]):
            name = f"{filename.replace('%batch_num%', str(i))}_{counter + i:05}_.{format}"
            engine.write(
                replace(sound, samples=sound.samples[i : i + 1]),
                folder / name,
                format,
                sample_format=sample_format,
                metadata=metadata or None,
            )
            saved.append({"filename": name, "subfolder": subfolder, "type": "output"})
        return {"ui": {"audio": saved}, "result": (audio,)}
