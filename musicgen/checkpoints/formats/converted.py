"""Our own format: one safetensors file with everything a model needs. It holds no pickle and refers to no other file.

Tensors: `lm.*`, `conditioner.*`, `codec.*` under the engine's names, and `text_encoder.*` under those of transformers'
T5EncoderModel; `beat_tracker.*` where the model brings one. Metadata: `musicgen`, the configuration as JSON; `tokenizer`, the text of tokenizer.json; `sha256` of
all bytes behind the header.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from ...config import CodecConfig, LMConfig, MelodyConfig, ModelConfig, TextConfig
from ...errors import CheckpointError
from ..checkpoint import Checkpoint, TextEncoderSource
from ..containers.safetensors import read_with_metadata
from ..settings import Settings
from ..weights.expected import beat_tracker_shapes, codec_shapes, conditioner_shapes, lm_shapes
from ..weights.inventory import Inventory
from ..weights.lazy import Weight
from .bare import NoSettingsError, find_bare
from .codec_options import read_codec
from .peft import IsAdapterError, names_adapter
from .t5 import t5_config, take_t5

KEY = "musicgen"  # of the metadata
TOKENIZER_KEY = "tokenizer"
DIGEST_KEY = "sha256"
# 4: with a beat tracker; 3: texts are filled up; 2: a chord model. All others are written as version 1, which older programs read.
VERSION = 4
_MAX_ROWS = 1024


def open_converted(path: Path) -> Checkpoint:
    """The model in one file. CheckpointError for anything missing, damaged or not written by `convert`."""
    tensors, metadata = read_with_metadata(path)
    if KEY not in metadata:
        if names_adapter(tensors):
            raise IsAdapterError(path)
        if (weights := find_bare(tensors, path)) is not None:
            raise NoSettingsError(weights)
        raise CheckpointError(
            f"{path} is a safetensors file, but no whole model: it lacks the configuration that 'python -m musicgen "
            "convert' writes into it. Weights in Hugging Face's format are loaded by the name of their folder."
        )
    settings = Settings.from_text(metadata[KEY], f"{path} (metadata)")
    version = settings.integer("version")
    if version > VERSION:
        raise CheckpointError(f"{path} was written by a newer version of this program (format {version}). Update it.")
    config = _config(settings, path.stem)
    inventory = Inventory(tensors, str(path))
    shapes = {
        "lm": lm_shapes(config.lm),
        "conditioner": conditioner_shapes(config),
        "codec": codec_shapes(config.codec),
        "beat_tracker": beat_tracker_shapes(config.codec)
        if settings.expect("beat_tracker", True, False, default=False)
        else {},
    }
    parts: dict[str, dict[str, Weight]] = {
        part: {name: inventory.take(f"{part}.{name}", shape) for name, shape in table.items()}
        for part, table in shapes.items()
    }
    text = inventory.take_prefix("text_encoder.")
    source = TextEncoderSource()
    if text:
        table = t5_config(settings.section("text_encoder"))
        weights = take_t5(text, table, f"{path} (text_encoder)")
        source = TextEncoderSource(
            config=table, weights=weights, tokenizer_json=metadata.get(TOKENIZER_KEY, ""), origin=str(path)
        )
    inventory.check()
    return Checkpoint(
        path,
        "converted",
        config,
        parts["lm"],
        parts["conditioner"],
        parts["codec"],
        source,
        "in the same file",
        parts["beat_tracker"],
        metadata,
    )


def config_json(config: ModelConfig, text_encoder: Mapping | None, beat_tracker: bool = False) -> str:
    """The configuration as it is stored; `text_encoder` is the table of `t5_config`, beat_tracker whether there is one."""
    chords = config.melody is not None and config.melody.chords
    version = 4 if beat_tracker else 3 if config.text.n_rows else 2 if chords else 1
    table = {"version": version, **asdict(config), "text_encoder": text_encoder and dict(text_encoder)}
    if beat_tracker:
        table["beat_tracker"] = True
    for name in ("anchor_s", "change_s"):
        del table[name]  # the card's, which may be written anew
    if config.melody is not None and not chords:
        del table["melody"]["chords"]  # version 1 has no such field
    if not config.text.n_rows:
        del table["text"]["n_rows"]
    del table["name"], table["codec"]["fingerprint"]  # the name is the file's; the codebooks' digest is made at load
    return json.dumps(table)


def _config(settings: Settings, name: str) -> ModelConfig:
    lm, text = settings.section("lm"), settings.section("text")
    melody = None if settings.get("melody") is None else _melody(settings.section("melody"))
    return ModelConfig(
        name=name,
        lm=LMConfig(
            dim=lm.integer("dim", most=2**16),
            n_heads=lm.integer("n_heads", most=2**12),
            n_layers=lm.integer("n_layers", most=1000),
            ffn_dim=lm.integer("ffn_dim"),
            n_codebooks=lm.integer("n_codebooks", most=64),
            cardinality=lm.integer("cardinality"),
            delays=lm.integers("delays"),
            cross_attention=bool(lm.expect("cross_attention", True, False)),
        ),
        codec=_codec(settings.section("codec")),
        text=TextConfig(
            text.text("name"), text.integer("dim", most=2**16), text.integer("n_rows", 0, least=0, most=_MAX_ROWS)
        ),
        melody=melody,
        segment_s=settings.number("segment_s"),
        extend_stride_s=settings.number("extend_stride_s"),
    )


def _melody(melody: Settings) -> MelodyConfig:
    return MelodyConfig(
        n_chroma=melody.integer("n_chroma", most=256),
        radix2_exp=melody.integer("radix2_exp", most=20),
        n_frames=melody.integer("n_frames", most=2**16),
        chords=bool(melody.expect("chords", True, False, default=False)),
    )


def _codec(codec: Settings) -> CodecConfig:
    n_codebooks, channels = codec.integer("n_codebooks", most=128), codec.integer("channels", most=2)
    return read_codec(codec, "converted", n_codebooks, channels)
