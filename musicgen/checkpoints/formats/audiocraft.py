"""Audiocraft's own formats: a folder with its two exported files, or one file of a training run.

The one file is what the Replicate trainer gives (`xp.cfg` and `model`, often named .tar though it is a zip file
of torch), a `checkpoint.th` of audiocraft's own training, or an exported language model by itself.
"""

import re
from pathlib import Path

from ...config import ModelConfig
from ...errors import CheckpointError
from ..checkpoint import Checkpoint, TextEncoderSource
from ..containers.torch_zip import TorchFile
from ..settings import Settings
from ..weights.expected import conditioner_shapes
from ..weights.inventory import Inventory
from ..weights.lazy import Stored, Weight
from .audiocraft_settings import is_stereo, lm_config, melody_config, text_config
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
    state = _state(package)
    settings = Settings.from_audiocraft(package.contents["xp.cfg"], str(package.path))
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
    inventory = Inventory.renamed(_split(package.tensors(state, "the model")), _plain_name, str(package.path))
    lm_weights, conditioner = inventory.take_lm(lm, _LM_NAMES), _take_conditioner(inventory, config)
    inventory.check()
    source = TextEncoderSource(folder=text_encoder if text_encoder is not None and text_encoder.is_dir() else None)
    return Checkpoint(path, "audiocraft", config, lm_weights, conditioner, codec.weights, source, codec.origin)


def _state(package: TorchFile) -> dict:
    """The table of the language model's tensors. Source: audiocraft `utils.export.export_lm`, `utils.export_legacy`."""
    table = package.contents
    if not isinstance(table, dict) or "xp.cfg" not in table:
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
        return state
    raise CheckpointError(
        f"{package.path} is no model of audiocraft: it has settings, but no weights ('best_state', 'model')"
    )


def _codec(package: TorchFile, settings: Settings, layout: CodecLayout, find: FindCodec | None) -> FoundCodec:
    folder = package.path.parent
    if package.path.name == LM_FILE and (folder / CODEC_FILE).is_file():
        return open_codec(folder, layout, find)
    return open_named(trained_with(settings), str(package.path), folder, layout, find)


def _plain_name(name: str) -> str:
    """Models trained with torch's own attention have `self_attn.mha.in_proj_weight`: the same without `mha.`"""
    return re.sub(r"(self_attn|cross_attention)\.mha\.", r"\1.", name)


def _split(tensors: dict[str, Stored]) -> dict[str, Stored]:
    """`cross_attention.in_proj_weight` as two tensors: the query's rows, and those of key and value."""
    table = {}
    for name, tensor in tensors.items():
        if name.endswith("cross_attention.in_proj_weight") and tensor.shape:
            dim = tensor.shape[0] // 3
            table |= {f"{name}[q]": tensor.rows(0, dim), f"{name}[kv]": tensor.rows(dim, tensor.shape[0])}
        else:
            table[name] = tensor
    return table


_LAYER = "transformer.layers.{i}."
_LM_NAMES = {
    "embeddings": "emb.{k}.weight",
    "heads.weight": "linears.{k}.weight",
    "norm.weight": "out_norm.weight",
    "norm.bias": "out_norm.bias",
    "layers.norm_self.weight": _LAYER + "norm1.weight",
    "layers.norm_self.bias": _LAYER + "norm1.bias",
    "layers.qkv.weight": _LAYER + "self_attn.in_proj_weight",
    "layers.out.weight": _LAYER + "self_attn.out_proj.weight",
    "layers.norm_cross.weight": _LAYER + "norm_cross.weight",
    "layers.norm_cross.bias": _LAYER + "norm_cross.bias",
    "layers.cross_q.weight": _LAYER + "cross_attention.in_proj_weight[q]",
    "layers.cross_kv.weight": _LAYER + "cross_attention.in_proj_weight[kv]",
    "layers.cross_out.weight": _LAYER + "cross_attention.out_proj.weight",
    "layers.norm_ffn.weight": _LAYER + "norm2.weight",
    "layers.norm_ffn.bias": _LAYER + "norm2.bias",
    "layers.up.weight": _LAYER + "linear1.weight",
    "layers.down.weight": _LAYER + "linear2.weight",
}
_CONDITIONS = {"text_projection": "description", "melody_projection": "self_wav"}


def _take_conditioner(inventory: Inventory, config: ModelConfig) -> dict[str, Weight]:
    weights = {}
    for name, shape in conditioner_shapes(config).items():
        module, _, part = name.partition(".")
        weights[name] = inventory.take(
            f"condition_provider.conditioners.{_CONDITIONS[module]}.output_proj.{part}", shape
        )
    if config.melody:  # a Hann window, which the engine computes
        inventory.drop(r"condition_provider\.conditioners\.self_wav\.chroma\.spec\.window")
    return weights
