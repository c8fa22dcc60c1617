"""Text encoders: in the checkpoint, by name in the folders of text encoders, in the Hugging Face cache, on its hub."""

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ..checkpoints.checkpoint import Checkpoint, TextEncoderSource
from ..checkpoints.formats.t5 import read_t5
from ..config import TextConfig
from ..dependencies import require
from ..errors import CheckpointError
from ..foreign import guarded
from . import hub

logger = logging.getLogger(__name__)

_FILES = (
    "config.json",
    "model*.safetensors",
    "*.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "spiece.model",
)


def find_text_encoder(checkpoint: Checkpoint, dirs: Sequence[Path]) -> TextEncoderSource | None:
    """The checkpoint's own text encoder with its tokenizer, or the one that its settings name; None if it is not on this machine.

    CheckpointError for one that is damaged, not a T5, or of another width.
    """
    own, text = checkpoint.text_encoder, checkpoint.config.text
    if own.weights and own.tokenizer_json:
        return own
    folder = own.folder or next(_folders(text.name, dirs), None) or hub.snapshot(text.name, ("config.json",))
    return None if folder is None else _read(folder, text)


def fetch_text_encoder(checkpoint: Checkpoint, dirs: Sequence[Path]) -> TextEncoderSource:
    """As `find_text_encoder`, but one that is nowhere is downloaded into the Hugging Face cache.

    CheckpointError names the folders looked in and what to put there.
    """
    if (source := find_text_encoder(checkpoint, dirs)) is not None:
        return source
    text = checkpoint.config.text
    library = require("huggingface_hub", "Downloading the text encoder")
    try:
        with guarded(f"https://huggingface.co/{text.name}", "could not be downloaded"):
            logger.info("downloading the text encoder %s from the Hugging Face hub", text.name)
            download: Callable[..., str] = library.snapshot_download
            folder = Path(download(text.name, allow_patterns=list(_FILES), local_files_only=hub.is_offline()))
        return _read(folder, text)
    except CheckpointError as error:
        looked = ", ".join(str(Path(parent) / text.name) for parent in dirs) or "no models folder"
        raise CheckpointError(
            f"The text encoder '{text.name}' was found neither in {looked} nor in the Hugging Face cache, and {error}. "
            f"Download config.json, model.safetensors, tokenizer.json and tokenizer_config.json (or spiece.model) from "
            f"that address into {Path(dirs[0]) / text.name if dirs else 'models/text_encoders/' + text.name}."
        ) from error


def _folders(name: str, dirs: Sequence[Path]) -> Iterator[Path]:
    for parent in dirs:
        for candidate in (Path(parent) / name, Path(parent) / name.rpartition("/")[2]):
            if (candidate / "config.json").is_file():
                yield candidate


def _read(folder: Path, text: TextConfig) -> TextEncoderSource:
    source = read_t5(folder)
    if source.config["d_model"] != text.dim:
        raise CheckpointError(
            f"the text encoder in {folder} is {source.config['d_model']} wide, but the checkpoint was trained with "
            f"{text.name}, {text.dim} wide. Remove it, or put the right one there."
        )
    return source
