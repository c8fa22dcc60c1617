"""ComfyUI as the nodes see it: models, memory, progress, files. The only importer of its modules, inside functions.

Outside ComfyUI (tests, scripts) everything here still works: on the CPU, without progress, with no model folder.
ComfyUI has always imported these modules before it loads a pack, so their presence tells where we are.
"""

import functools
import itertools
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

import torch
from torch import nn

from ..musicgen.codes import CutShort
from ..musicgen.errors import InputError
from ..musicgen.memory import release_once_dropped

log = logging.getLogger(__name__)

T = TypeVar("T")
OnStep = Callable[[int, int], None]

MODEL_FOLDER = "musicgen"
WEIGHT_SUFFIXES = {".safetensors", ".bin", ".th", ".pt", ".ckpt", ".json"}
MAX_PREFIX_BYTES = 255 - len("_00001_.opus.json") - 3  # of a file's name; more digits fit
UPDATE_INTERVAL_S = 0.1  # each progress message costs two sends to every open page


def _in_comfyui() -> bool:
    return "comfy.model_management" in sys.modules


def _folder_paths() -> Any:
    """ComfyUI's module of folders; None outside ComfyUI."""
    if "folder_paths" not in sys.modules:
        return None
    import folder_paths

    return folder_paths


# Folders


def register_model_folder() -> None:
    """Make `models/musicgen` known to ComfyUI, beside whatever extra_model_paths.yaml has already named so."""
    if (folder_paths := _folder_paths()) is None:
        return
    names = folder_paths.folder_names_and_paths
    known, suffixes = names.get(MODEL_FOLDER) or ((), ())
    paths = dict.fromkeys([*known, os.path.join(folder_paths.models_dir, MODEL_FOLDER)])
    names[MODEL_FOLDER] = (list(paths), {*suffixes, *WEIGHT_SUFFIXES})  # ends the views of hiddenswitch/ComfyUI


def _folders(name: str) -> list[Path]:
    folder_paths = _folder_paths()
    return [] if folder_paths is None else [Path(path) for path in folder_paths.get_folder_paths(name)]


def model_dirs() -> list[Path]:
    """Folders that hold checkpoints."""
    return _folders(MODEL_FOLDER)


def text_encoder_dirs() -> list[Path]:
    """Folders that hold text encoders shared by several checkpoints."""
    return _folders("text_encoders")


def stem_dirs() -> list[Path]:
    """Folders that may hold the weights of demucs."""
    folder_paths = _folder_paths()
    return [] if folder_paths is None else [Path(folder_paths.models_dir) / "demucs"]


def input_dirs() -> list[Path]:
    """The folder of files that the user brings."""
    folder_paths = _folder_paths()
    return [] if folder_paths is None else [Path(folder_paths.get_input_directory())]


# Memory


def model_device() -> torch.device:
    """Where language models run."""
    if not _in_comfyui():
        return torch.device("cpu")
    import comfy.model_management as mm

    return mm.get_torch_device()


def intermediate_device() -> torch.device:
    """Where ComfyUI keeps what travels between nodes."""
    if not _in_comfyui():
        return torch.device("cpu")
    import comfy.model_management as mm

    return mm.intermediate_device()


def _devices(role: str) -> tuple[torch.device, torch.device]:
    """Role -> where ComfyUI wants such a model to run, and to wait."""
    import comfy.model_management as mm

    if role == "text_encoder":
        return mm.text_encoder_device(), mm.text_encoder_offload_device()
    if role == "codec":
        return mm.vae_device(), mm.vae_offload_device()
    return mm.get_torch_device(), mm.unet_offload_device()


def _context() -> Any:
    """ComfyUI's prompt_id and node_id of what runs now; None where nothing does."""
    if not _in_comfyui():
        return None
    from comfy_execution.utils import get_executing_context

    return get_executing_context()


def executing_node() -> str | None:
    """Id of the node that runs now, or whose IS_CHANGED does; None outside ComfyUI."""
    return getattr(_context(), "node_id", None)


def show_text(text: str) -> None:
    """Show a text on the node that runs now, in the page. Nothing outside ComfyUI, and in cores that cannot."""
    node_id = executing_node()
    if node_id is None:
        return
    from server import PromptServer

    server = getattr(PromptServer, "instance", None)
    if server is not None:
        server.send_progress_text(text.replace("\n", "  \n"), node_id)  # a break in Markdown, which Nodes 2.0 reads


@dataclass(frozen=True)
class Page:
    """The client that queued the prompt, and the node that runs now. Messages go to no one else."""

    server: Any
    client_id: str
    prompt_id: str
    node_id: str

    @property
    def is_open(self) -> bool:
        return self.client_id in getattr(self.server, "sockets", ())  # a worker of hiddenswitch/ComfyUI has no pages

    def send(self, event: str, data: dict[str, Any]) -> None:
        """Send an event with JSON data, to which the ids of node and prompt are added."""
        self.server.send_sync(event, {"node": self.node_id, "prompt_id": self.prompt_id, **data}, self.client_id)


def page() -> Page | None:
    """The page of the node that runs now; None without a server, or where nobody listens."""
    if (context := _context()) is None:
        return None
    from server import PromptServer

    server = getattr(PromptServer, "instance", None)
    client_id = getattr(server, "client_id", None)
    if server is None or client_id is None:
        return None
    prompt_id, node_id, *_ = context  # by place: hiddenswitch/ComfyUI calls the first one task_id
    page = Page(server, client_id, prompt_id, node_id)
    return page if page.is_open else None


@functools.cache
def _whole_patcher() -> type:
    """ComfyUI's ModelPatcher, for modules that are loaded and unloaded only as a whole.

    Captured decode steps and cuDNN's LSTM need all weights in one place, and plain torch layers left behind on the
    CPU fail at the next forward. So every load is a full one, even under --novram, and a request to unload a part
    frees nothing, upon which the manager unloads the whole. *args and **kwargs: later cores pass more.
    """
    from comfy.model_patcher import ModelPatcher

    class WholePatcher(ModelPatcher):
        def load(
            self, device_to=None, lowvram_model_memory=0, force_patch_weights=False, full_load=False, *args, **kwargs
        ):
            return super().load(device_to, lowvram_model_memory, force_patch_weights, True, *args, **kwargs)

        def partially_unload(self, *args, **kwargs):
            return 0

    return WholePatcher


def _patcher(module: nn.Module, role: str) -> Any:
    load_device, offload_device = _devices(role)
    return _whole_patcher()(module, load_device=load_device, offload_device=offload_device)


class Managed:
    """A module that ComfyUI's memory manager may move or drop. Travels between nodes in place of the module.

    Holds the patcher, and the patcher the module: once ComfyUI drops the wire's value, the weights are freed.
    """

    def __init__(self, module: nn.Module, role: str) -> None:
        # ModelPatcher sets attributes of its own, `device` among them, so it gets a shell. Its log shows the name.
        shell = type(type(module).__name__, (nn.Module,), {})()
        shell.module = module
        release_once_dropped(shell)
        self.patcher = _patcher(shell, role) if _in_comfyui() else SimpleNamespace(model=shell)

    @property
    def module(self) -> Any:
        """The module, wherever its weights are now: for its configuration, not to compute with."""
        return self.patcher.model.module

    def run(self, task: Callable[[Any], T], memory_bytes: int = 0) -> T:
        """task(module), with the module on its device and `memory_bytes` to spare there.

        Out of memory: everything else is unloaded and it is tried once more. A second failure is ComfyUI's to report.
        """
        self.load(memory_bytes)
        try:
            return task(self.module)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        # Only here, outside the except block, are the failed attempt's tensors let go.
        log.warning("out of memory; unloading all other models and trying once more")
        unload_all()
        self.load(memory_bytes)
        return task(self.module)

    def load(self, memory_bytes: int = 0) -> None:
        """Bring the module to its device, with `memory_bytes` to spare there."""
        if not _in_comfyui():
            return
        import comfy.model_management as mm

        mm.load_models_gpu([self.patcher], memory_required=memory_bytes, force_full_load=True)


def unload_all() -> None:
    """Free the device of all models."""
    if _in_comfyui():
        import comfy.model_management as mm

        mm.unload_all_models()
        mm.soft_empty_cache()


def is_out_of_memory(error: Exception) -> bool:
    if not _in_comfyui():
        return isinstance(error, torch.cuda.OutOfMemoryError)
    import comfy.model_management as mm

    is_oom = getattr(mm, "is_oom", None)  # later cores know more kinds
    return is_oom(error) if is_oom else isinstance(error, mm.OOM_EXCEPTION)


# Progress and Cancel


def check_interrupted() -> None:
    """Raise once the user has pressed Cancel."""
    if _in_comfyui():
        import comfy.model_management as mm

        mm.throw_exception_if_processing_interrupted()


def is_cancel(error: BaseException) -> bool:
    """True for what ComfyUI raises once the user has pressed Cancel; it then looks for the next Cancel."""
    if not _in_comfyui():
        return False
    import comfy.model_management as mm

    return isinstance(error, mm.InterruptProcessingException)


def progress() -> Callable[..., None]:
    """A new on_step(done, total, image): moves the node's progress bar, and raises once the user has pressed Cancel.

    Cancel is looked for at every call; the bar moves ten times a second, and always at the end or with a PIL image to show on the node.
    """
    if not _in_comfyui():
        return lambda done, total, image=None: None
    import comfy.model_management as mm
    import comfy.utils

    bar = comfy.utils.ProgressBar(1)
    last_s = -UPDATE_INTERVAL_S

    def on_step(done: int, total: int, image: Any = None) -> None:
        nonlocal last_s
        mm.throw_exception_if_processing_interrupted()
        now_s = time.monotonic()
        if done >= total or image is not None or now_s - last_s >= UPDATE_INTERVAL_S:
            last_s = now_s
            bar.update_absolute(done, total, *([] if image is None else [("JPEG", image, max(image.size))]))

    return on_step


# Saved files


@dataclass(frozen=True)
class SaveLocation:
    """Where files of one prefix go."""

    folder: Path
    subfolder: str  # of the output folder
    name: str  # beginning of the files' names
    counter: int  # after the highest there

    def files(self, format: str, first: int) -> Iterator[Path]:
        """Files by number, from `first` on."""
        for number in itertools.count(first):
            yield self.folder / f"{self.name}_{number:05}_.{format}"


def save_location(filename_prefix: str) -> SaveLocation:
    """The place that a prefix names. Makes the folder.

    Expands %year%, %month%, %day%, %hour%, %minute%, %second%. InputError for a prefix that leaves the output folder,
    or that no file can have. A link inside the output folder is followed, as ComfyUI's own nodes do.
    """
    folder_paths = _folder_paths()
    allowed = "Use something like audio/musicgen, without '..' and without a leading slash or drive."
    output_dir = os.path.abspath(folder_paths.get_output_directory())
    if "\0" in filename_prefix:
        raise InputError(f"'filename_prefix' holds a NUL character, got {filename_prefix!r}. {allowed}")
    target = os.path.abspath(os.path.join(output_dir, os.path.normpath(filename_prefix)))
    if not filename_prefix.strip() or target == output_dir or os.path.commonpath((output_dir, target)) != output_dir:
        raise InputError(
            f"'filename_prefix' must name files inside ComfyUI's output folder, got {filename_prefix!r}. {allowed}"
        )
    longest = max(Path(target).relative_to(output_dir).parts, key=lambda part: len(os.fsencode(part)))
    if len(os.fsencode(longest)) > MAX_PREFIX_BYTES:
        raise InputError(
            f"'filename_prefix' has a part of {len(os.fsencode(longest))} bytes, at most {MAX_PREFIX_BYTES} are allowed: "
            f"{longest[:60]!r}... Shorten it."
        )
    try:
        folder, name, counter, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory()
        )
    except Exception as error:  # a bare Exception where a later core refuses a link out of the output folder
        reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
        raise InputError(f"'filename_prefix' {filename_prefix[:200]!r} cannot be used: {reason}.") from error
    return SaveLocation(Path(folder), subfolder, name, counter)


def temp_folder(name: str) -> Path:
    """A folder of ours in ComfyUI's temp folder, which is emptied at its start. Makes it."""
    folder = Path(_folder_paths().get_temp_directory()) / name
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def nothing(reason: str) -> Any:
    """An output that carries nothing: what is wired to it does not run, and says why."""
    if not _in_comfyui():
        return None
    from comfy_execution.graph_utils import ExecutionBlocker

    return ExecutionBlocker(reason)


def file_metadata(prompt: dict | None, extra_pnginfo: dict | None, cut_short: CutShort | None = None) -> dict[str, str]:
    """What a saved file carries: the workflow, which dropping it on ComfyUI opens; the mark of a piece that a Cancel ended.

    Empty under --disable-metadata.
    """
    if _in_comfyui():
        from comfy.cli_args import args

        if args.disable_metadata:
            return {}
    # json's ASCII escapes are kept on purpose: the front end reads FLAC comments as Latin-1.
    metadata = {}
    if prompt is not None:
        # What IS_CHANGED said, which ComfyUI notes in each node and would believe of a prompt that is queued again.
        nodes = {id: {key: node[key] for key in node if key != "is_changed"} for id, node in prompt.items()}
        metadata["prompt"] = json.dumps(nodes)
    metadata.update({key: json.dumps(value) for key, value in (extra_pnginfo or {}).items()})
    if cut_short is not None:
        metadata["cut_short"] = json.dumps(asdict(cut_short))
    return metadata
