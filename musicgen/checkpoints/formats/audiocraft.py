"""Audiocraft's own formats: a folder with its two exported files, or one file of a training run.

The one file is what the Replicate trainer gives (`xp.cfg` and `model`, often named .tar though it is a zip file
of torch), a `checkpoint.th` of audiocraft's own training, or an exported language model by itself.
"""

from pathlib import Path

from ...config import ModelConfig
from ...errors import CheckpointError
from ..checkpoint import Checkpoint, TextEncoderSource
from ..containers.torch_zip import TorchFile
from ..settings import Settings
from ..weights.inventory import Inventory
from . import peft
from .audiocraft_names import LM_NAMES, plain_name, split_cross_attention, take_conditioner
from .audiocraft_settings import is_stereo, lm_config, melody_config, text_config
from .bare import NoSettingsError, find_bare, find_table
from .codecs import CODEC_FILE, CodecLayout, FindCodec, FoundCodec, open_codec, open_named, stand_in, trained_with

LM_FILE = "state_dict.bin"


def open_audiocraft(folder: Path, codec_required: bool, find_codec: FindCodec | None) -> Checkpoint:
    """The checkpoint in `folder`. CheckpointError for anything missing, damaged, unsafe or unsupported."""
    for name in (LM_FILE, CODEC_FILE) if codec_required else (LM_FILE,):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder} has no {name}. A checkpoint in audiocraft's format consists of {LM_FILE} and {CODEC_FILE}; "
                "put both in that folder."
            )
    return _open(TorchFile(folder / LM_FILE), folder.name, folder, folder / "text_encoder", codec_required, find_codec)


def open_torch_file(path: Path, codec_required: bool, find_codec: FindCodec | None) -> Checkpoint:
    """The checkpoint in one torch file, whatever its suffix. CheckpointError as for `open_audiocraft`."""
    return _open(TorchFile(path), path.stem, path, None, codec_required, find_codec)


def _open(
    package: TorchFile,
    name: str,
    path: Path,
    text_encoder: Path | None,
    codec_required: bool,
    find_codec: FindCodec | None,
) -> Checkpoint:
    state, written = _contents(package)
    settings = Settings.from_audiocraft(written, str(package.path))
    lm, layout = lm_config(settings), CodecLayout.of(settings, is_stereo(settings))
    codec = _codec(package, settings, layout, find_codec) if codec_required else stand_in(settings, lm, layout)
    segment_s = settings.number("dataset.segment_duration")
    config = ModelConfig(
        name=name,
        lm=lm,
        codec=codec.config,
        text=text_config(settings),
        melody=melody_config(settings, codec.config.sample_rate_hz, segment_s),
        segment_s=segment_s,
        # The defaults of audiocraft's MusicGen (windows of 30 s) and AudioGen (10 s).
        extend_stride_s=18.0 if segment_s > 18 else segment_s / 5,
    )
    inventory = Inventory.renamed(
        split_cross_attention(package.tensors(state, "the model")), plain_name, str(package.path)
    )
    lm_weights, conditioner = inventory.take_lm(lm, LM_NAMES), take_conditioner(inventory, config)
    inventory.check()
    source = TextEncoderSource(folder=text_encoder if text_encoder is not None and text_encoder.is_dir() else None)
    return Checkpoint(path, "audiocraft", config, lm_weights, conditioner, codec.weights, source, codec.origin)


def _contents(package: TorchFile) -> tuple[dict, object]:
    """The table of the language model's tensors, and the settings. Source: audiocraft `utils.export.export_lm`, `utils.export_legacy`."""
    table = package.contents
    if not isinstance(table, dict) or "xp.cfg" not in table:
        if peft.find_table(table) is not None:
            raise peft.IsAdapterError(package.path)
        if (state := find_table(table)) is not None:
            weights = find_bare(package.tensors(state, "the model"), package.path)
            if weights is not None:
                raise NoSettingsError(weights)
        raise CheckpointError(
            f"{package.path} is no model of audiocraft: it has no settings ('xp.cfg') beside its weights. A checkpoint has "
            "'xp.cfg' with 'best_state' or 'model'."
        )
    # An export has the weights in best_state, a training run one level deeper; the Replicate trainer has but `model`.
    for key in ("fsdp_best_state", "best_state", "model"):
        state = table.get(key)
        if isinstance(state, dict) and isinstance(state.get("model"), dict):
            state = state["model"]
        if not state:
            continue
        if not isinstance(state, dict):
            raise CheckpointError(f"{package.path}: '{key}' is no table of tensors")
        provider = table.get("condition_provider")  # separate in the oldest training runs
        if isinstance(provider, dict):
            state = {**state, **{f"condition_provider.{name}": value for name, value in provider.items()}}
        return state, table["xp.cfg"]
    raise CheckpointError(
        f"{package.path} is no model of audiocraft: it has settings, but no weights ('best_state', 'model')"
    )


def _codec(package: TorchFile, settings: Settings, layout: CodecLayout, find: FindCodec | None) -> FoundCodec:
    folder = package.path.parent
    if package.path.name == LM_FILE and (folder / CODEC_FILE).is_file():
        return open_codec(folder, layout, find)
    return open_named(trained_with(settings), str(package.path), folder, layout, find)
