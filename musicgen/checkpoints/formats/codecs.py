"""Finds the codec of a checkpoint in audiocraft's format: a file beside it, or only the name of a published one."""

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ...config import CodecConfig, LMConfig
from ...errors import CheckpointError
from ..containers.torch_zip import TorchFile
from ..settings import Settings
from ..weights.inventory import Inventory
from ..weights.lazy import Weight
from . import huggingface
from .audiocraft_settings import codec_config

logger = logging.getLogger(__name__)

CODEC_FILE = "compression_state_dict.bin"

# (name of a published codec, folder of the checkpoint that names it) -> a folder that holds it, None if it is nowhere.
FindCodec = Callable[[str, Path], Path | None]

_RATIOS = {32000: (8, 5, 4, 4), 16000: (8, 5, 4, 2)}  # of MusicGen's and AudioGen's codec


class MissingCodecError(CheckpointError):
    """The codec that a checkpoint names was not found. `name` is that of its repository."""

    def __init__(self, message: str, name: str):
        super().__init__(message)
        self.name = name


@dataclass(frozen=True)
class FoundCodec:
    """A codec's shape and weights, and in words where they are."""

    config: CodecConfig
    weights: dict[str, Weight]
    origin: str


@dataclass(frozen=True)
class CodecLayout:
    """What the language model's settings say of the codec: how many run side by side, codebooks used of each."""

    channels: int
    n_active: int | None

    @classmethod
    def of(cls, settings: Settings, stereo: bool) -> "CodecLayout":
        n_active = settings.get("compression_model_n_q", None)
        if n_active is not None:
            n_active = settings.integer("compression_model_n_q", most=64)
        return cls(2 if stereo else 1, n_active)


def stand_in(settings: Settings, lm: LMConfig, layout: CodecLayout) -> FoundCodec:
    """For a checkpoint that is wanted without its codec: the published shape at its sample rate, without weights."""
    rate_hz = settings.integer("sample_rate")
    ratios = _RATIOS.get(rate_hz, _RATIOS[32000])
    config = CodecConfig(rate_hz, ratios, lm.n_codebooks, lm.cardinality, channels=layout.channels)
    return FoundCodec(config, {}, "not in this file")


def open_codec(folder: Path, layout: CodecLayout, find: FindCodec | None) -> FoundCodec:
    """The codec in `folder`, or the one that the file there names. MissingCodecError if that is nowhere."""
    path = folder / CODEC_FILE
    package = TorchFile(path)
    table = package.contents
    if isinstance(table, dict) and "pretrained" in table:
        return open_named(table["pretrained"], str(path), folder, layout, find)
    if not isinstance(table, dict) or "best_state" not in table or "xp.cfg" not in table:
        raise CheckpointError(
            f"{path} is no codec exported by audiocraft: it has neither 'best_state' with 'xp.cfg' nor the name of a "
            "published codec"
        )
    config = codec_config(Settings.from_audiocraft(table["xp.cfg"], str(path)), layout.channels, layout.n_active)
    inventory = Inventory.renamed(package.tensors(table["best_state"], "best_state"), _codec_name, str(path))
    weights = inventory.take_codec(config)
    inventory.check()
    return FoundCodec(config, weights, str(path))


def _codec_name(name: str) -> str:
    """Audiocraft's name of a codec tensor -> that of transformers."""
    name = re.sub(r"^(encoder|decoder)\.model\.", r"\1.layers.", name)
    name = re.sub(r"^quantizer\.vq\.layers\.(\d+)\._codebook\.", r"quantizer.layers.\1.codebook.", name)
    return name.replace(".conv.conv.", ".conv.").replace(".convtr.convtr.", ".conv.")


def trained_with(settings: Settings) -> str:
    """The codec that a training run names: that of a published one. CheckpointError for one of the trainer's own."""
    value = settings.text("compression_model_checkpoint")
    if not value.startswith("//pretrained/"):
        raise CheckpointError(
            f"{settings.source} was trained with the codec {value[:100]!r}, which only its trainer has. Export the model "
            f"with its codec (audiocraft.utils.export), or put the codec's {CODEC_FILE} beside it as audiocraft names it."
        )
    return value.removeprefix("//pretrained/")


def open_named(name: object, source: str, folder: Path, layout: CodecLayout, find: FindCodec | None) -> FoundCodec:
    """The codec that the file `source` in `folder` only names: in or beside that folder, or where `find` finds it."""
    # The name comes from a file of unknown origin: it must not lead to network shares or anywhere else.
    if not isinstance(name, str) or not re.fullmatch(r"[\w.-]+(/[\w.-]+)*", name) or ".." in PurePosixPath(name).parts:
        raise CheckpointError(f"{source} names a codec in an unusual way: {str(name)[:100]!r}")
    short = PurePosixPath(name).name
    beside = (folder / name, folder / short, folder.parent / short, folder.parent / name, folder.parent.parent / name)
    found = next((path for path in beside if path != folder and holds_codec(path)), None)
    if found is None and find is not None:
        found = find(name, folder)
    if found is None:
        message = f"{source} holds no codec, only the name of one, '{name}', which was not found beside it"
        raise MissingCodecError(message, name)
    logger.info("%s names the codec %s: taken from %s", source, name, found)
    if not huggingface.is_encodec(found) and _has_weights(found):
        return open_codec(found, layout, None)
    config, weights = huggingface.open_encodec(found, layout.channels, layout.n_active)
    return FoundCodec(config, weights, str(found))


def holds_codec(folder: Path) -> bool:
    """Whether the weights of a codec are in `folder`, by themselves or within a model, and not only a name."""
    return huggingface.is_encodec(folder) or _has_weights(folder) or huggingface.is_huggingface(folder)


def _has_weights(folder: Path) -> bool:
    if not (folder / CODEC_FILE).is_file():
        return False
    contents = TorchFile(folder / CODEC_FILE).contents
    return isinstance(contents, dict) and "pretrained" not in contents
