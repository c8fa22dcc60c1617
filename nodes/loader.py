"""Checkpoint name -> model, conditioner, codec."""

from pathlib import Path

from ..musicgen.checkpoints import locate
from ..musicgen.config import PRECISIONS
from ..musicgen.errors import InputError, MusicGenError
from . import host
from .sockets import CATEGORY, CODEC, CONDITIONER, MODEL

DEFAULT_MODEL = "facebook/musicgen-small"
ENGINES = ("native", "audiocraft")


def _fingerprint(folder: Path) -> str:
    """Changes when a file of the checkpoint is replaced: names, sizes and times, not contents."""
    entries = []
    for path in sorted(folder.rglob("*")) if folder.is_dir() else [folder]:
        stat = path.stat()
        entries.append(f"{path}|{stat.st_size}|{stat.st_mtime_ns}")
    return "\n".join(entries)


class MusicGenLoader:
    DESCRIPTION = (
        "Loads a MusicGen checkpoint from models/musicgen: the language model that writes the music, the text encoder "
        "that reads your description, and the codec that turns codes into sound."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ("musicgen", "load musicgen", "music model", "text to music", "audiocraft", "checkpoint")
    FUNCTION = "load"
    RETURN_TYPES = (MODEL, CONDITIONER, CODEC)
    RETURN_NAMES = ("model", "conditioner", "codec")
    OUTPUT_TOOLTIPS = (
        "The language model, for MusicGen Sampler.",
        "The text encoder, for MusicGen Text.",
        "The EnCodec audio codec, for MusicGen Decode and MusicGen Encode Audio.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        installed = locate.list_models(host.model_dirs())
        names = list(dict.fromkeys([*installed, *locate.KNOWN]))
        return {
            "required": {
                "model": (
                    names,
                    {
                        "default": installed[0] if installed else DEFAULT_MODEL,
                        "tooltip": "Checkpoint in models/musicgen, installed ones first. The published names are "
                        "always listed; one that is not there yet tells you where to get it and where to put it.",
                    },
                ),
                "precision": (
                    list(PRECISIONS),
                    {
                        "default": "auto",
                        "tooltip": "Number format of the language model's weights. auto: float32 on a CPU, half "
                        "precision on a GPU that has it. int8 needs the least memory.",
                    },
                ),
            },
            "optional": {
                "engine": (
                    list(ENGINES),
                    {
                        "default": "native",
                        "tooltip": "native: this pack's own engine. audiocraft: Meta's library, if you have installed "
                        "it, for comparison.",
                    },
                ),
            },
        }

    @classmethod
    def VALIDATE_INPUTS(cls, model: str) -> bool | str:
        # Naming `model` switches off ComfyUI's list check, whose message does not say what to do.
        try:
            locate.resolve(model, host.model_dirs())
        except MusicGenError as error:
            return str(error)
        return True

    @classmethod
    def IS_CHANGED(cls, model: str, **_) -> str | float:
        try:
            return _fingerprint(locate.resolve(model, host.model_dirs()))
        except (MusicGenError, OSError):
            return float("nan")  # run it, so that it can say what is wrong

    def load(self, model: str, precision: str, engine: str = "native") -> tuple:
        path = locate.resolve(model, host.model_dirs())
        device, text_encoder_dirs = host.model_device(), host.text_encoder_dirs()
        if engine == "audiocraft":
            if precision != "auto":
                raise InputError(
                    f"'precision' {precision} cannot be chosen with the audiocraft engine, which picks its own. "
                    "Set 'precision' to auto, or 'engine' to native."
                )
            from ..reference import audiocraft

            loaded = audiocraft.load(path, device, text_encoder_dirs, name=model)
        else:
            from ..musicgen import pipeline

            loaded = pipeline.load(path, precision, device, text_encoder_dirs, name=model)
        return (
            host.Managed(loaded.model, "model"),
            host.Managed(loaded.conditioner, "text_encoder"),
            host.Managed(loaded.codec, "codec"),
        )
