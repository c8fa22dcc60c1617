"""Finds out which format a checkpoint has, and opens it."""

from pathlib import Path

from ..errors import CheckpointError
from .adapter import Adapter
from .checkpoint import Checkpoint
from .containers.safetensors import FP16_FILE, INDEX_FILE, WEIGHTS_FILE, looks_like_safetensors
from .formats import audiocraft, bare, converted, huggingface, peft
from .formats.codecs import CODEC_FILE, FindCodec


def detect(folder: Path) -> str | None:
    """The format of the checkpoint in `folder`, None if there is none. Reads config.json at most.

    A folder of adapters is none, whatever settings of their base were saved beside them.
    """
    if peft.adapter_folders(folder):
        return None
    has_audiocraft = (folder / audiocraft.LM_FILE).is_file()
    if not huggingface.is_huggingface(folder):
        return "audiocraft" if has_audiocraft else None
    # A copy of a published repository has both. Hugging Face's brings the text encoder along.
    weights = (WEIGHTS_FILE, FP16_FILE, INDEX_FILE)
    if has_audiocraft and not any((folder / name).is_file() for name in weights):
        return "audiocraft"
    return "huggingface"


def open_checkpoint(
    path: Path, format: str | None = None, *, codec_required: bool = True, find_codec: FindCodec | None = None
) -> Checkpoint:
    """Read the headers of the checkpoint `path`, a folder or one file, and check that nothing is missing or left over.

    A file is known by its content, whatever its name. `format` ("audiocraft" or "huggingface") chooses where a
    folder has both; by itself it takes the second. codec_required False: for a checkpoint whose weights are put
    into another model, audiocraft's codec is neither looked for nor opened, and its shape is only assumed.
    find_codec: looks for a codec that the checkpoint only names and that is not beside it (`ModelStore.open`).
    CheckpointError names the file and the tensor or setting for anything missing, damaged, unsafe or unsupported.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"{path} does not exist. Give the folder or the file of a checkpoint.")
    if path.is_dir() and peft.adapter_folders(path):
        raise peft.IsAdapterError(path)
    if path.is_file():
        if looks_like_safetensors(path):
            return converted.open_converted(path)
        return audiocraft.open_torch_file(path, codec_required, find_codec)
    found = format or detect(path)
    if found is None:
        raise CheckpointError(
            f"{path} holds no MusicGen checkpoint: it needs either {audiocraft.LM_FILE} and {CODEC_FILE} "
            f"(audiocraft), or {huggingface.CONFIG_FILE} with the model_type musicgen or musicgen_melody and "
            f"{WEIGHTS_FILE} (Hugging Face)."
        )
    if found == "audiocraft":
        return audiocraft.open_audiocraft(path, codec_required, find_codec)
    return huggingface.open_huggingface(path)


def open_fine_tune(path: Path, base: Checkpoint) -> Checkpoint | Adapter:
    """As `open_checkpoint`, for weights that are put into `base`: an adapter, or weights without settings, which are then the base's."""
    try:
        return open_checkpoint(path, codec_required=False)
    except peft.IsAdapterError:
        return peft.open_adapter(Path(path))
    except bare.NoSettingsError as error:
        return bare.as_fine_tune(error.weights, base)
