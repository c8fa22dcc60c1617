"""Finds checkpoints by name in the folders that models are kept in."""

import functools
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..checkpoints.formats import audiocraft, codecs, huggingface
from ..checkpoints.open import detect
from ..errors import CheckpointError
from . import hub
from .published import DIFFUSION, DIFFUSION_FILES, DIFFUSION_MODEL, KNOWN, SHIPPED, SHIPPED_FILE
from .sniff import sniff

MAX_DEPTH = 3  # folders below a models folder: owner/model, and one more for those who sort theirs
_SHOWN = 10


def list_models(dirs: Sequence[Path]) -> list[str]:
    """Names of all models in `dirs`, sorted: paths below the folder, with forward slashes.

    A model is a folder, or one file: converted, or of a training run that names a published codec.
    A name that several folders have is listed once; `resolve` refuses it, naming all of them.
    """
    return _names(dirs, {"model"})


def list_weights(dirs: Sequence[Path]) -> list[str]:
    """Names of everything in `dirs` that a fine-tune may be, sorted: all models, and weights without a codec."""
    return _names(dirs, {"model", "weights"})


def list_diffusion(dirs: Sequence[Path]) -> list[str]:
    """Names of all MultiBand Diffusion files in `dirs`, sorted."""
    return _names(dirs, {"diffusion"})


def _names(dirs: Sequence[Path], kinds: set[str]) -> list[str]:
    names = {path.relative_to(root).as_posix() for root in map(Path, dirs) for path in _checkpoints(root, kinds)}
    return sorted(names, key=lambda name: (name.casefold(), name))


def resolve(name_or_path: str | Path, dirs: Sequence[Path], allow_paths: bool = False) -> Path:
    """The folder or file of the checkpoint `name_or_path`: a name as `list_models` gives it, one of KNOWN, or SHIPPED.

    `allow_paths` also takes anything that exists; without it nothing outside `dirs` is looked at. CheckpointError
    for an unknown name (with what to download, and where to put it), and for a name that two folders have.
    """
    name = str(name_or_path)
    if allow_paths and name and Path(name).expanduser().exists():
        return Path(name).expanduser()
    if not _is_name(name):
        kind = "a folder or file that exists" if allow_paths else "one below the folder of models"
        raise CheckpointError(f"{name[:200]!r} is not a usable name of a model. Give {kind}, such as 'my-model'.")
    # A published model may also lie in a folder without its owner's name.
    for candidate in (name, name.rpartition("/")[2]) if name in KNOWN else (name,):
        there = _distinct(Path(root) / candidate for root in dirs)
        found = [path for path in there if path.is_file() or detect(path)]
        if len(found) > 1:
            raise CheckpointError(
                f"There are {len(found)} models named '{candidate}': {' and '.join(map(str, found))}. Rename or remove "
                "all but one."
            )
        if found:
            return found[0]
        if any(_holds_files(folder) for folder in there):
            raise _incomplete(candidate, next(folder for folder in there if _holds_files(folder)))
    if name == SHIPPED and SHIPPED_FILE.is_file():
        return SHIPPED_FILE
    raise missing_model_error(name, dirs)


def resolve_diffusion(name_or_path: str | Path, dirs: Sequence[Path], allow_paths: bool = False) -> Path:
    """The file of a MultiBand Diffusion model: a name as `list_diffusion` gives it, or DIFFUSION_MODEL.

    `allow_paths` also takes any file that exists. CheckpointError says what to download, and where to put it.
    """
    name = str(name_or_path)
    if allow_paths and name and Path(name).expanduser().is_file():
        return Path(name).expanduser()
    if not _is_name(name):
        raise CheckpointError(f"{name[:200]!r} is not a usable name of a MultiBand Diffusion file.")
    # The published one may also lie in the folder of models itself.
    for candidate in (name, name.rpartition("/")[2]) if name == DIFFUSION_MODEL else (name,):
        found = [path for path in _distinct(Path(root) / candidate for root in dirs) if path.is_file()]
        if len(found) > 1:
            raise CheckpointError(
                f"There are {len(found)} files named '{candidate}': {' and '.join(map(str, found))}. Remove all but one."
            )
        if found:
            return found[0]
    names = list_diffusion(dirs)
    there = f"Found there: {', '.join(names[:_SHOWN])}." if names else "None was found there."
    target = (Path(dirs[0]) if dirs else Path("models") / "musicgen") / DIFFUSION
    raise CheckpointError(
        f"There is no MultiBand Diffusion model '{name}' in {_shown(dirs)}. {there} Download {DIFFUSION_FILES[0]} from "
        f"{hub.endpoint()}/{DIFFUSION} into {target}"
    )


def is_installed(name: str, dirs: Sequence[Path]) -> bool:
    """Whether the published model `name` is in `dirs`, with or without its owner's name."""
    names = (name, name.rpartition("/")[2])
    return any(detect(Path(root) / candidate) for root in dirs for candidate in names)


def missing_model_error(name: str, dirs: Sequence[Path]) -> CheckpointError:
    """What to say when `name` is in none of `dirs`: for a published model, what to download and where to."""
    target = Path(dirs[0]) / name if dirs else Path("models") / "musicgen" / name
    if name in KNOWN:
        return CheckpointError(
            f"The model '{name}' is not in {_shown(dirs)}. Download {audiocraft.LM_FILE} and {codecs.CODEC_FILE} "
            f"from {hub.endpoint()}/{name} into {target}"
        )
    names = list_weights(dirs)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    there = f"Found there: {', '.join(names[:_SHOWN])}{more}." if names else "No model was found there."
    return CheckpointError(
        f"There is no model '{name}' in {_shown(dirs)}. {there} Put the checkpoint ({audiocraft.LM_FILE} and "
        f"{codecs.CODEC_FILE}, or {huggingface.CONFIG_FILE} and {huggingface.WEIGHTS_FILE}) into {target}, or give the "
        "name of a file with its suffix."
    )


def _incomplete(name: str, folder: Path) -> CheckpointError:
    there = sorted(entry.name for entry in folder.iterdir() if entry.is_file())[:_SHOWN]
    return CheckpointError(
        f"The folder of the model '{name}', {folder}, holds no checkpoint: it needs {audiocraft.LM_FILE} and "
        f"{codecs.CODEC_FILE}, or {huggingface.CONFIG_FILE} (model_type musicgen or musicgen_melody) and "
        f"{huggingface.WEIGHTS_FILE}. It has {', '.join(there)}."
    )


def _is_name(name: str) -> bool:
    """Whether `name` can only lead downwards: no '..', no drive, no root, no backslash."""
    return bool(re.fullmatch(r"[^/\\:*?\"<>|\x00-\x1f]+(/[^/\\:*?\"<>|\x00-\x1f]+)*", name)) and not any(
        part in (".", "..") or part.startswith("~") for part in name.split("/")
    )


def _distinct(paths: Iterator[Path]) -> list[Path]:
    """Those that exist, each once, whatever links lead to it."""
    seen: dict[str, Path] = {}
    for path in paths:
        if path.exists():
            seen.setdefault(os.path.realpath(path), path)
    return list(seen.values())


def _holds_files(folder: Path) -> bool:
    return any(entry.is_file() and not entry.name.startswith(".") for entry in folder.iterdir())


def _checkpoints(folder: Path, kinds: set[str], depth: int = MAX_DEPTH) -> Iterator[Path]:
    """Checkpoints of these kinds below `folder`; what lies inside the folder of a checkpoint is its own."""
    try:
        children = sorted(child for child in folder.iterdir() if not child.name.startswith("."))
    except OSError:  # absent, or not ours to read
        return
    for child in children:
        if child.is_file():
            if kind_of(child) in kinds:
                yield child
        elif detect(child):
            if "model" in kinds:
                yield child
        elif depth > 1:
            yield from _checkpoints(child, kinds, depth - 1)


def kind_of(path: Path) -> str | None:
    """What a file seems to be: see `sniff`."""
    try:
        stat = path.stat()
        return _sniffed(path, stat.st_size, stat.st_mtime_ns)
    except OSError:
        return None


@functools.lru_cache(maxsize=1000)
def _sniffed(path: Path, size: int, mtime_ns: int) -> str | None:
    """ComfyUI asks for the list of models often: each version of a file is looked at once."""
    return sniff(path)


def _shown(dirs: Sequence[Path]) -> str:
    return " or ".join(map(str, dirs)) or "any folder (none is set up for models)"
