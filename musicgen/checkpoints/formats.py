"""Finds out which format a checkpoint has, and opens it."""

from pathlib import Path

from ..errors import CheckpointError
from . import audiocraft, huggingface
from .checkpoint import Checkpoint


def detect(folder: Path) -> str | None:
    """The format of the checkpoint in `folder`, None if there is none. Reads config.json at most."""
    has_audiocraft = (folder / audiocraft.LM_FILE).is_file()
    if not huggingface.is_huggingface(folder):
        return "audiocraft" if has_audiocraft else None
    # A copy of a published repository has both. Hugging Face's brings the text encoder along.
    weights = (huggingface.WEIGHTS_FILE, huggingface.INDEX_FILE)
    if has_audiocraft and not any((folder / name).is_file() for name in weights):
        return "audiocraft"
    return "huggingface"


def open_checkpoint(path: Path, format: str | None = None) -> Checkpoint:
    """Read the headers of the checkpoint in the folder `path`, and check that nothing is missing or left over.

    `format` ("audiocraft" or "huggingface") chooses where a folder has both; by itself it takes the second.
    CheckpointError names the file and the tensor or setting for anything missing, damaged, unsafe or unsupported.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"{path} does not exist. Give the folder of a checkpoint.")
    if not path.is_dir():
        raise CheckpointError(f"{path} is a file. Give the folder that the checkpoint's files are in: {path.parent}")
    found = format or detect(path)
    if found is None:
        raise CheckpointError(
            f"{path} holds no MusicGen checkpoint: it needs either {audiocraft.LM_FILE} and {audiocraft.CODEC_FILE} "
            f"(audiocraft), or {huggingface.CONFIG_FILE} with the model_type musicgen or musicgen_melody and "
            f"{huggingface.WEIGHTS_FILE} (Hugging Face)."
        )
    return audiocraft.open_audiocraft(path) if found == "audiocraft" else huggingface.open_huggingface(path)
