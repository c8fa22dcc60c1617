"""Adapters (LoRA, DoRA) in the form of Hugging Face's PEFT: a folder with settings and tensors, or one file with both."""

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from ...errors import CheckpointError
from ..adapter import Adapter, Module
from ..containers.safetensors import looks_like_safetensors, read_with_metadata
from ..containers.torch_zip import TorchFile
from ..settings import Settings
from ..weights.fill import check_finite
from ..weights.lazy import Stored
from .peft_names import CODEC, is_adapter_name, is_flat, parse
from .peft_settings import AdapterSettings, read_settings

logger = logging.getLogger(__name__)

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILES = ("adapter_model.safetensors", "adapter_model.bin")
CONFIG_KEY = "adapter_config"  # of a file's metadata: the text of adapter_config.json
_CONFIG_KEYS = (CONFIG_KEY, "peft_config", "lora_adapter_metadata", "config")
_MODEL_FILES = ("model.safetensors", "model.safetensors.index.json", "model.fp16.safetensors", "state_dict.bin")
_SHOWN = 4


def holds_adapter(folder: Path) -> bool:
    """True for a folder with an adapter, whatever else is in it; of a whole model, the settings of an adapter are a remnant."""
    if any((folder / name).is_file() for name in WEIGHTS_FILES):
        return True
    return (folder / CONFIG_FILE).is_file() and not any((folder / name).is_file() for name in _MODEL_FILES)


def adapter_folders(folder: Path) -> list[Path]:
    """`folder` itself if it holds an adapter, else the folders in it that do: PEFT makes one for each named adapter."""
    if holds_adapter(folder):
        return [folder]
    if any((folder / name).is_file() for name in _MODEL_FILES):
        return []
    try:
        return sorted(child for child in folder.iterdir() if child.is_dir() and holds_adapter(child))
    except OSError:  # absent, or not ours to read
        return []


def open_adapter(path: Path) -> Adapter:
    """The adapter in a folder or a file. CheckpointError for anything missing, damaged or unsupported."""
    file = _file_of(path)
    tensors, metadata = _read(file)
    modules = _modules(tensors, file)
    settings = _settings(path, file, metadata, modules)
    settings.check_effort(len(modules), str(path))
    name = path.name if path.is_dir() else path.parent.name if path.name in WEIGHTS_FILES else path.stem
    return Adapter(path, file, name or path.stem, settings, modules, metadata)


class IsAdapterError(CheckpointError):
    """An adapter was given where a whole model is needed."""

    def __init__(self, path: Path):
        super().__init__(
            f"{path} is an adapter (LoRA), no whole model: it needs the base that it was made for. Load that one, and give the "
            "adapter to Apply MusicGen Fine-Tune, --weights or --replicate-weights."
        )


def names_adapter(names: Iterable[object]) -> bool:
    """Whether the tensors of these names are those of an adapter."""
    return any(isinstance(name, str) and is_adapter_name(name) for name in names)


def find_table(contents: object) -> dict | None:
    """The tensors of an adapter in an unpickled object, itself or a level deeper."""
    if not isinstance(contents, dict):
        return None
    tables = [
        contents,
        *(contents[key] for key in ("state_dict", "lora", "model") if isinstance(contents.get(key), dict)),
    ]
    return next((table for table in tables if names_adapter(table)), None)


def _file_of(path: Path) -> Path:
    if not path.is_dir():
        return path
    folders = adapter_folders(path)
    if len(folders) > 1:
        names = ", ".join(folder.name for folder in folders)
        raise CheckpointError(f"{path} holds {len(folders)} adapters: {names}. Give the folder of one of them.")
    folder = folders[0] if folders else path
    file = next((folder / name for name in WEIGHTS_FILES if (folder / name).is_file()), None)
    if file is None:
        raise CheckpointError(
            f"{folder} holds the settings of an adapter ({CONFIG_FILE}), but not its weights: it needs {' or '.join(WEIGHTS_FILES)}. "
            "Put the file there."
        )
    return file


def _read(file: Path) -> tuple[dict[str, Stored], dict[str, str]]:
    if looks_like_safetensors(file):
        return read_with_metadata(file)
    package = TorchFile(file)
    return package.tensors(find_table(package.contents) or package.contents, "the adapter"), {}


def _modules(tensors: Mapping[str, Stored], file: Path) -> dict[str, Module]:
    """The tensors by module. CheckpointError for names that no adapter has, for two of one meaning, for no adapter at all."""
    found: dict[str, dict[str, Stored]] = {}
    paths: dict[str, str] = {}
    foreign, ignored = [], []
    for name, tensor in tensors.items():
        parsed = parse(name)
        if parsed is None:
            foreign.append(name)
            continue
        module, role, path = parsed
        if (
            module.startswith(CODEC) and role == "bias"
        ):  # PEFT's bias="all" stores them, and no training of ours moves them
            ignored.append(name)
            continue
        if role in found.setdefault(module, {}):
            raise CheckpointError(
                f"{file} holds '{role}' of {module[:200]} twice, under two names: several adapters in one file are not read"
            )
        found[module][role] = tensor
        paths[module] = path
    if foreign:
        raise CheckpointError(
            f"{file}: {len(foreign)} of its tensors have names that no LoRA has ({_listed(foreign)}). It is of another kind of "
            "adapter, or no adapter."
        )
    if not any(role.startswith("lora") for roles in found.values() for role in roles):
        raise CheckpointError(f"{file} holds no adapter: none of its tensors is a lora_A or lora_B")
    if ignored:
        logger.warning(
            "%s: %d biases of the codec are ignored, which is never trained (%s)", file, len(ignored), ignored[0]
        )
    return {module: Module(paths[module], roles) for module, roles in found.items()}


def _settings(path: Path, file: Path, metadata: Mapping[str, str], modules: Mapping[str, Module]) -> AdapterSettings:
    """From adapter_config.json beside the tensors, from their file's metadata, or from a JSON file of the same name."""
    beside = file.with_name(CONFIG_FILE) if path.is_dir() or file.name in WEIGHTS_FILES else file.with_suffix(".json")
    if beside.is_file():
        return read_settings(Settings.from_json(beside))
    for key in _CONFIG_KEYS:
        if key in metadata:
            return read_settings(Settings.from_text(metadata[key], f"{file} (metadata, {key})"))
    if "lora_alpha" in metadata:
        return read_settings(Settings(_loose(metadata), f"{file} (metadata)"))
    # kohya leaves alpha out where it is the rank.
    if any("alpha" in module.tensors for module in modules.values()) or any(map(is_flat, modules)):
        return AdapterSettings()
    raise CheckpointError(
        f"{file} does not say how strong its changes are (lora_alpha). Put its {CONFIG_FILE} beside it"
        f"{'' if file.name in WEIGHTS_FILES else f', as {beside.name}'}, or give the folder that the trainer wrote."
    )


def _loose(metadata: Mapping[str, str]) -> dict:
    """Metadata are texts: those that are JSON become what they say."""
    table = {}
    for key, text in metadata.items():
        try:
            table[key] = json.loads(text) if len(text) < 10_000 else text
        except (ValueError, RecursionError):
            table[key] = text
    known = (
        "peft_type",
        "r",
        "lora_alpha",
        "use_rslora",
        "use_dora",
        "alpha_pattern",
        "init_lora_weights",
        "base_model_name_or_path",
    )
    return {key: table[key] for key in known if key in table}


def check_values(adapter: Adapter) -> None:
    """Read every tensor. CheckpointError for values that are no numbers; a warning where nothing is changed."""
    is_zero = True
    for module in adapter.modules.values():
        for role, tensor in module.tensors.items():
            if not tensor.dtype.is_floating_point:
                continue  # named with what else does not fit
            values = tensor.read()
            check_finite(values, f"{adapter.file}: '{tensor.label}'")
            is_zero = is_zero and not (role not in ("lora_A", "lora_embedding_B", "alpha") and values.any())
    if is_zero:
        logger.warning(
            "%s changes nothing: its B is zero everywhere, as before the first step of a training", adapter.path
        )


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(name[:200] for name in names[:_SHOWN]) + more
