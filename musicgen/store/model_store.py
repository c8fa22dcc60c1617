"""Models by name: found in the folders that they are kept in, downloaded into the first of these when they are absent."""

import contextlib
import functools
import logging
import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from ..checkpoints.checkpoint import Checkpoint
from ..checkpoints.formats import audiocraft, codecs, huggingface
from ..checkpoints.formats.peft import IsAdapterError, adapter_folders
from ..checkpoints.open import detect, open_checkpoint
from ..errors import CheckpointError
from . import hub, published, sniff
from .transfer import fetch, wait_for
from .urls import FOLDER, allowed_hosts, fetch_url, file_of, is_url
from .web import Network, Web, shown

logger = logging.getLogger(__name__)

# model: loads by itself. weights: a fine-tune, which any model is too. Both may be an https address. diffusion: MultiBand
# Diffusion.
Kind = Literal["model", "weights", "diffusion"]
OnStep = Callable[[int, int], None]

ADAPTERS = "loras"  # a folder below that of models, where trainings put theirs: its name may be left out

_LISTED = {"model": {"model"}, "weights": {"model", "weights"}, "diffusion": {"diffusion"}}
_MAX_NAMES = 10  # in a message
_PART = re.compile(r"(?!\.\.?$|~)[^\\:*?\"<>|\x00-\x1f\ud800-\udfff]+")  # of a name, between its slashes


class ModelStore:
    """The models in the folders `dirs`.

    A model is a folder, or one file: converted, or of a training run that names a published codec. Its name is its path
    below the folder, with forward slashes. Published models also go by their name on the hub, and are found without
    their owner's name and in huggingface_hub's cache too. allow_paths: anything that exists is found by its path;
    without it nothing outside `dirs` and that cache is looked at.
    """

    def __init__(self, dirs: Sequence[Path], allow_paths: bool = False, network: Network | None = None):
        self.dirs = [Path(folder) for folder in dirs]
        self._allow_paths = allow_paths
        self._network = network

    def list(self, kind: Kind = "model") -> Sequence[str]:
        """Names of all checkpoints of a kind in the folders, sorted. A name that several folders have is listed once."""
        kinds = _LISTED[kind]
        names = {
            path.relative_to(root).as_posix() for root in self.dirs for path in sniff.checkpoints_below(root, kinds)
        }
        return sorted(names, key=lambda name: (name.casefold(), name))

    def find(self, name: str | Path, kind: Kind = "model") -> Path:
        """The folder or file of a checkpoint that is on this machine.

        CheckpointError for an unknown name (with what to download, and where to put it), and for a name that two
        folders have.
        """
        path = self._locate(name, kind)
        if path is None:
            raise self._missing(str(name), kind)
        return path

    def check(self, name: str, kind: Kind = "model") -> None:
        """CheckpointError for what `ensure` could not give, as far as it shows without the network."""
        address = self._address(name, kind)
        if address is not None and self.dirs:
            self._web().check(address)
            return
        downloadable = published.repository_of(_text(name), kind) and self.dirs and not hub.is_offline()
        path = self._locate(name, kind)
        if path is None and not downloadable:
            raise self._missing(name, kind)
        if path is not None and kind == "model" and path.is_dir() and adapter_folders(path):
            raise IsAdapterError(path)

    def ensure(self, name: str | Path, on_step: OnStep, kind: Kind = "model") -> Path:
        """As `find`, but a published model that is absent is downloaded, and so is one given by an address.

        on_step(bytes there, bytes in all): what it raises stops the download, which a later call resumes.
        """
        name = _text(name)
        address = self._address(name, kind)
        if address is not None:
            if not self.dirs:
                raise CheckpointError(
                    f"There is no folder of models to download {shown(address)} into. Give a file's name."
                )
            return fetch_url(self._web(), address, self.dirs[0], on_step)
        repository = published.repository_of(name, kind)
        if repository and self.dirs and self._locate(name, kind) is None:
            self._download(repository, on_step)
        return self.find(name, kind)

    def open(self, path: Path, on_step: OnStep | None = None) -> Checkpoint:
        """The checkpoint at `path`. A codec that it only names is looked for here.

        The published codec is downloaded if it is absent and there is an `on_step`.
        """
        try:
            return open_checkpoint(path, find_codec=functools.partial(self._find_codec, on_step=on_step))
        except codecs.MissingCodecError as error:
            target = (self.dirs[0] if self.dirs else Path(path).parent) / error.name
            places = ", ".join(map(str, [*self.dirs, "the Hugging Face cache"]))
            advice = hub.by_hand(error.name, target)
            raise codecs.MissingCodecError(f"{error}, nor in {places}. {advice}", error.name) from error

    def _address(self, name: str | Path, kind: Kind) -> str | None:
        """Where a model is downloaded from that has no file of its name on this machine. An address is its own."""
        name = _text(name)
        if kind == "diffusion" or is_url(name):
            return None if kind == "diffusion" else name
        address = published.ADDRESSES.get(name)
        return address if address and self._locate(name, kind) is None else None

    def _locate(self, name: str | Path, kind: Kind) -> Path | None:
        """The checkpoint of a name, None if there is none. CheckpointError for a name that can mean two, or anything."""
        name = _text(name)
        path = _existing(name) if self._allow_paths else None
        if path is not None and (kind != "diffusion" or path.is_file()):
            return path
        address = "" if kind == "diffusion" else published.ADDRESSES.get(name, name)
        if is_url(address):
            downloaded = [file_of(address, root) for root in self.dirs]
            found = next((file for file in downloaded if file.is_file()), None)
            if found or address == name:
                return found
        if not _is_name(name):
            allowed = "a folder or file that exists" if self._allow_paths else "one below the folder of models"
            raise CheckpointError(
                f"{name[:200]!r} is not a usable name of a model. Give {allowed}, such as 'my-model'."
            )
        repository = published.repository_of(name, kind)
        for candidate in _candidates(name, kind, repository):
            paths = _distinct(root / candidate for root in self.dirs)
            found = [path for path in paths if path.is_file() or (kind != "diffusion" and _is_found(path))]
            if len(found) > 1:
                both = " and ".join(map(str, found))
                raise CheckpointError(f"There are {len(found)} models named '{candidate}': {both}. Rename all but one.")
            if found:
                return found[0]
        if kind != "diffusion" and (file := published.SHIPPED.get(name)) and file.is_file():
            return file
        return _cached(name, repository)

    def _missing(self, name: str, kind: Kind) -> CheckpointError:
        """The error for a name that nothing is found by: what to put where, and what there is."""
        places = " or ".join(map(str, self.dirs)) or "any folder (none is set up for models)"
        root = self.dirs[0] if self.dirs else Path("models") / "musicgen"
        for folder in _distinct(root / name for root in self.dirs):
            if kind != "diffusion" and any(file.is_file() and file.name[:1] != "." for file in folder.iterdir()):
                return _incomplete(name, folder)
        repository = published.repository_of(name, kind)
        if repository:
            return CheckpointError(
                f"The model '{name}' is not in {places}. {hub.by_hand(repository, root / repository)}"
            )
        if address := self._address(name, kind):
            return CheckpointError(
                f"{shown(address)} is not downloaded yet. It is when the model is loaded, into {root / FOLDER}."
            )
        noun, names = "model", self.list("weights")
        advice = (
            f"Put the checkpoint ({audiocraft.LM_FILE} and {codecs.CODEC_FILE}, or {huggingface.CONFIG_FILE} and "
            f"{huggingface.WEIGHTS_FILE}) into {root / name}, or give the name of a file with its suffix."
        )
        if kind == "weights":
            noun, advice = "fine-tune", f"Put a LoRA into {root / ADAPTERS}, or whole weights into {root}."
        if kind == "diffusion":
            noun, names = "MultiBand Diffusion model", self.list("diffusion")
            advice = f"Put the file into {root}, or take '{published.DIFFUSION_MODEL}', which is downloaded."
        more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
        there = f"Found there: {', '.join(names[:_MAX_NAMES])}{more}." if names else f"No {noun} was found there."
        return CheckpointError(f"There is no {noun} '{name}' in {places}. {there} {advice}")

    def _download(self, repository: str, on_step: OnStep) -> Path:
        """The folder of a repository, below the first folder of models, with all files that are needed of it.

        Files that are there already are kept.
        """
        folder = self.dirs[0] / repository
        if hub.is_offline():
            advice = hub.by_hand(repository, folder)
            raise CheckpointError(f"HF_HUB_OFFLINE forbids the download of {repository}. {advice}")
        files = [file for file in published.files_of(repository) if not (folder / file).is_file()]
        remotes = wait_for(lambda: hub.look_up(repository, folder, files), lambda: on_step(0, 1))
        total, before = sum(remote.size for remote in remotes.values()), 0
        logger.info("downloading %s (%.2f GB) into %s", repository, total / 1e9, folder)
        for file, remote in remotes.items():
            fetch(self._web(hub.endpoint()), remote, folder / file, lambda n, before=before: on_step(before + n, total))
            before += remote.size
        return folder

    def _find_codec(self, name: str, folder: Path, on_step: OnStep | None) -> Path | None:
        """A folder that holds the codec `name`, for a checkpoint in `folder` that only names it.

        Many published models hold the very codec that the others name.
        """
        short = PurePosixPath(name).name
        candidates = [root / candidate for root in self.dirs for candidate in dict.fromkeys((name, short))]
        candidates += [path for path in [hub.snapshot(name, published.TRANSFORMERS_FILES)] if path]
        if name == published.CODEC:
            for parent in dict.fromkeys([*self.dirs, folder.parent, folder.parent.parent]):
                music = [known for known in published.KNOWN if "musicgen" in known]
                candidates += [parent / path for known in music for path in (known, PurePosixPath(known).name)]
        for candidate in candidates:
            if candidate != folder and codecs.holds_codec(candidate):
                return candidate
        if name == published.CODEC and on_step is not None and self.dirs and not hub.is_offline():
            return self._download(published.CODEC, on_step)
        return None

    def _web(self, endpoint: str = hub.DEFAULT_ENDPOINT) -> Web:
        """The hosts that are downloaded from. An endpoint of the user's own may well be a mirror inside the house."""
        hosts = allowed_hosts(self.dirs[0] if self.dirs else Path())
        return Web(hosts, "" if endpoint == hub.DEFAULT_ENDPOINT else endpoint, self._network)


def _candidates(name: str, kind: Kind, repository: str | None) -> Sequence[str]:
    """The paths below a folder of models that a name may stand for, the likeliest first."""
    if repository:
        return name, name.rpartition("/")[2]
    if kind != "weights":
        return (name,)
    names = (name, f"{ADAPTERS}/{name}")
    return *names, *(
        f"{each}.safetensors" for each in names
    )  # a musician writes the name that was given to the training


def _is_found(folder: Path) -> bool:
    """Whether a folder holds a model, or an adapter, which is told from one when it is opened."""
    return detect(folder) is not None or bool(adapter_folders(folder))


def _cached(name: str, repository: str | None) -> Path | None:
    """A published model in huggingface_hub's cache: audiocraft's files, or those that transformers downloads."""
    if repository is None:
        return None
    if name == published.DIFFUSION_MODEL:
        folder = hub.snapshot(repository, published.files_of(repository))
        return folder / published.files_of(repository)[0] if folder else None
    return hub.snapshot(repository, published.files_of(repository)) or hub.snapshot(
        repository, published.TRANSFORMERS_FILES
    )


def _incomplete(name: str, folder: Path) -> CheckpointError:
    files = sorted(entry.name for entry in folder.iterdir() if entry.is_file())[:_MAX_NAMES]
    return CheckpointError(
        f"The folder of the model '{name}', {folder}, holds no checkpoint: it needs {audiocraft.LM_FILE} and "
        f"{codecs.CODEC_FILE}, or {huggingface.CONFIG_FILE} (model_type musicgen or musicgen_melody) and "
        f"{huggingface.WEIGHTS_FILE}. It has {', '.join(files)}."
    )


def _existing(name: str) -> Path | None:
    with contextlib.suppress(OSError, ValueError, RuntimeError):  # too long, not encodable, of an unknown user
        path = Path(name).expanduser()
        return path if name and path.exists() else None
    return None


def _is_name(name: str) -> bool:
    """Whether `name` can only lead downwards: no '..', no drive, no root, no backslash."""
    return len(name) <= 1000 and all(_PART.fullmatch(part) and len(part.encode()) <= 255 for part in name.split("/"))


def _text(name: object) -> str:
    if not isinstance(name, (str, Path)):
        raise CheckpointError(f"The name of a model must be text, got {ascii(name)[:200]}.")
    return str(name)


def _distinct(paths: Iterable[Path]) -> Sequence[Path]:
    """Those that exist, each once, whatever links lead to it."""
    distinct: dict[str, Path] = {}
    for path in paths:
        if path.exists():
            distinct.setdefault(os.path.realpath(path), path)
    return list(distinct.values())
