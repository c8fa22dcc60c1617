"""Finds checkpoints by name in the folders that models are kept in."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import CheckpointError
from . import audiocraft, huggingface
from .formats import detect

KNOWN = (
    "facebook/musicgen-small",
    "facebook/musicgen-medium",
    "facebook/musicgen-large",
    "facebook/musicgen-melody",
    "facebook/musicgen-melody-large",
    "facebook/musicgen-stereo-small",
    "facebook/musicgen-stereo-medium",
    "facebook/musicgen-stereo-large",
    "facebook/musicgen-stereo-melody",
    "facebook/musicgen-stereo-melody-large",
    "facebook/audiogen-medium",
)

MAX_DEPTH = 3  # folders below a models folder: owner/model, and one more for those who sort theirs
_SHOWN = 10


def list_models(dirs: Sequence[Path]) -> list[str]:
    """Names of all checkpoints in `dirs`, sorted: paths below the folder, with forward slashes.

    A name that several folders have is listed once; `resolve` refuses it, naming all of them.
    """
    names = {folder.relative_to(root).as_posix() for root in map(Path, dirs) for folder in _checkpoints(root)}
    return sorted(names, key=lambda name: (name.casefold(), name))


def resolve(name_or_path: str | Path, dirs: Sequence[Path], allow_paths: bool = False) -> Path:
    """The folder of the checkpoint `name_or_path`: a name as `list_models` gives it, or one of KNOWN.

    `allow_paths` also takes any existing folder; without it nothing outside `dirs` is looked at. CheckpointError
    for an unknown name (with what to download, and where to put it), and for a name that two folders have.
    """
    name = str(name_or_path)
    if allow_paths and name and Path(name).expanduser().is_dir():
        return Path(name).expanduser()
    if not _is_name(name):
        kind = "a folder that exists" if allow_paths else "one below the folder of models"
        raise CheckpointError(f"{name[:200]!r} is not a usable name of a model. Give {kind}, such as 'my-model'.")
    # A published model may also lie in a folder without its owner's name.
    for candidate in (name, name.rpartition("/")[2]) if name in KNOWN else (name,):
        folders = _distinct(Path(root) / candidate for root in dirs)
        found = [folder for folder in folders if detect(folder)]
        if len(found) > 1:
            raise CheckpointError(
                f"There are {len(found)} models named '{candidate}': {' and '.join(map(str, found))}. Rename or remove "
                "all but one."
            )
        if found:
            return found[0]
        if folders and any(folder.is_dir() and _holds_files(folder) for folder in folders):
            raise _incomplete(candidate, next(folder for folder in folders if _holds_files(folder)))
    raise missing_model_error(name, dirs)


def missing_model_error(name: str, dirs: Sequence[Path]) -> CheckpointError:
    """What to say when `name` is in none of `dirs`: for a published model, what to download and where to."""
    target = Path(dirs[0]) / name if dirs else Path("models") / "musicgen" / name
    if name in KNOWN:
        return CheckpointError(
            f"The model '{name}' is not in {_shown(dirs)}. Download {audiocraft.LM_FILE} and {audiocraft.CODEC_FILE} "
            f"from https://huggingface.co/{name} into {target}"
        )
    names = list_models(dirs)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    there = f"Found there: {', '.join(names[:_SHOWN])}{more}." if names else "No model was found there."
    return CheckpointError(
        f"There is no model '{name}' in {_shown(dirs)}. {there} Put the checkpoint ({audiocraft.LM_FILE} and "
        f"{audiocraft.CODEC_FILE}, or {huggingface.CONFIG_FILE} and {huggingface.WEIGHTS_FILE}) into {target}"
    )


def _incomplete(name: str, folder: Path) -> CheckpointError:
    there = sorted(entry.name for entry in folder.iterdir() if entry.is_file())[:_SHOWN]
    return CheckpointError(
        f"The folder of the model '{name}', {folder}, holds no checkpoint: it needs {audiocraft.LM_FILE} and "
        f"{audiocraft.CODEC_FILE}, or {huggingface.CONFIG_FILE} (model_type musicgen or musicgen_melody) and "
        f"{huggingface.WEIGHTS_FILE}. It has {', '.join(there)}."
    )


def _is_name(name: str) -> bool:
    """Whether `name` can only lead downwards: no '..', no drive, no root, no backslash."""
    return bool(re.fullmatch(r"[^/\\:*?\"<>|\x00-\x1f]+(/[^/\\:*?\"<>|\x00-\x1f]+)*", name)) and not any(
        part in (".", "..") or part.startswith("~") for part in name.split("/")
    )


def _distinct(folders: Iterator[Path]) -> list[Path]:
    """Existing folders, each once, whatever links lead to it."""
    seen: dict[str, Path] = {}
    for folder in folders:
        if folder.is_dir():
            seen.setdefault(os.path.realpath(folder), folder)
    return list(seen.values())


def _holds_files(folder: Path) -> bool:
    return any(entry.is_file() and not entry.name.startswith(".") for entry in folder.iterdir())


def _checkpoints(folder: Path, depth: int = MAX_DEPTH) -> Iterator[Path]:
    """Folders with a checkpoint below `folder`; what lies inside a checkpoint is its own."""
    try:
        children = sorted(child for child in folder.iterdir() if child.is_dir() and not child.name.startswith("."))
    except OSError:  # absent, or not ours to read
        return
    for child in children:
        if detect(child):
            yield child
        elif depth > 1:
            yield from _checkpoints(child, depth - 1)


def _shown(dirs: Sequence[Path]) -> str:
    return " or ".join(map(str, dirs)) or "any folder (none is set up for models)"
