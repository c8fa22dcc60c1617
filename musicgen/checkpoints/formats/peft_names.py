"""Names of an adapter's tensors: which module each belongs to, under its name in transformers, and what it is to it.

Sources of the names: PEFT's `save_pretrained` on transformers' MusicGen, MusicGen Melody and their decoders; PEFT on
audiocraft's `LMModel`; kohya's `lora_down`, `lora_up` and `alpha`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from ...config import LMConfig, ModelConfig
from ..weights.expected import conditioner_shapes, lm_shapes
from .huggingface import LM_NAMES, PROJECTIONS

TEXT_ENCODER, CODEC = "text_encoder.", "audio_encoder."

# The end of a tensor's name -> what it is. `(?:\.[\w-]+)?` is the name of the adapter, which a plain state dict has.
_ADAPTER = r"(?:\.(?!weight$|bias$)[\w-]+)?"
_ROLES = tuple(
    (re.compile(pattern + "$"), role)
    for pattern, role in (
        (rf"\.lora_A{_ADAPTER}(?:\.weight)?", "lora_A"),
        (rf"\.lora_B{_ADAPTER}(?:\.weight)?", "lora_B"),
        (rf"\.lora_B{_ADAPTER}\.bias", "lora_B.bias"),
        (rf"\.lora_embedding_A{_ADAPTER}", "lora_embedding_A"),
        (rf"\.lora_embedding_B{_ADAPTER}", "lora_embedding_B"),
        (rf"\.lora_magnitude_vector{_ADAPTER}(?:\.weight)?", "magnitude"),
        (r"\.lora_down\.weight", "lora_A"),
        (r"\.lora_up\.weight", "lora_B"),
        (r"\.alpha", "alpha"),
        (r"\.base_layer\.bias", "bias"),
        (r"(?:\.modules_to_save\.[\w-]+)?\.weight", "weight"),
        (r"(?:\.modules_to_save\.[\w-]+)?\.bias", "bias"),
    )
)
ROLES = tuple(dict.fromkeys(role for _, role in _ROLES))
_MARKS = (b"lora_A", b"lora_embedding_A", b"lora_down")
_PLACES = (b"decoder", b"lm_heads", b"enc_to_dec_proj", b"transformer.layers", b"embed_tokens", b"linears.", b"emb.")

_WRAPPERS = re.compile(r"(?:(?:module|_orig_mod|lm|base_model(?:\.model)?)\.)+")
_SHORTER = (  # beginnings of a decoder by itself -> of the decoder in the whole model
    ("model.decoder.", "decoder.model.decoder."),
    ("lm_heads.", "decoder.lm_heads."),
    ("decoder.layers.", "decoder.model.decoder.layers."),
    ("decoder.embed_tokens.", "decoder.model.decoder.embed_tokens."),
    ("decoder.layer_norm", "decoder.model.decoder.layer_norm"),
)
_AUDIOCRAFT = tuple(
    (re.compile(pattern + "$"), replacement)
    for pattern, replacement in (
        (r"transformer\.layers\.(\d+)\.cross_attention\.(\w+)", r"decoder.model.decoder.layers.\1.encoder_attn.\2"),
        (r"transformer\.layers\.(\d+)\.self_attn\.(\w+)", r"decoder.model.decoder.layers.\1.self_attn.\2"),
        (r"transformer\.layers\.(\d+)\.linear([12])", r"decoder.model.decoder.layers.\1.fc\2"),
        (r"transformer\.layers\.(\d+)\.norm1", r"decoder.model.decoder.layers.\1.self_attn_layer_norm"),
        (r"transformer\.layers\.(\d+)\.norm_cross", r"decoder.model.decoder.layers.\1.encoder_attn_layer_norm"),
        (r"transformer\.layers\.(\d+)\.norm2", r"decoder.model.decoder.layers.\1.final_layer_norm"),
        (r"linears\.(\d+)", r"decoder.lm_heads.\1"),
        (r"emb\.(\d+)", r"decoder.model.decoder.embed_tokens.\1"),
        (r"out_norm", r"decoder.model.decoder.layer_norm"),
        (r"condition_provider\.conditioners\.description\.output_proj", r"enc_to_dec_proj"),
        (r"condition_provider\.conditioners\.self_wav\.output_proj", r"audio_enc_to_dec_proj"),
    )
)
# kohya writes the dots of a module's path as underscores behind one of these.
_FLAT = re.compile(r"lora_(?:unet|te\d?|lm|musicgen|transformer)_")


def mentions_adapter(contents: bytes) -> bool:
    """Whether a header or a pickle seems to name an adapter of a MusicGen."""
    return any(mark in contents for mark in _MARKS) and any(place in contents for place in _PLACES)


def is_adapter_name(name: str) -> bool:
    """Whether a tensor of this name is one that only adapters have."""
    return any(mark.decode() in name for mark in _MARKS)


def parse(name: str) -> tuple[str, str, str] | None:
    """(module under its name in transformers, what the tensor is to it, the module's path as its trainer saw it).

    None for a name that ends as no adapter's does.
    """
    for pattern, role in _ROLES:
        if found := pattern.search(name):
            path = name[: found.start()]
            path = path.removeprefix("base_model.model.")
            return _module(path), role, path
    return None


def _module(path: str) -> str:
    """A module's path -> that in transformers' whole model. One that is not known stays as it is."""
    if wrapped := _WRAPPERS.match(path):
        path = path[wrapped.end() :]
    for short, whole in _SHORTER:
        if path.startswith(short):
            return whole + path.removeprefix(short)
    for pattern, replacement in _AUDIOCRAFT:
        if pattern.fullmatch(path):
            return pattern.sub(replacement, path)
    return path


@dataclass(frozen=True)
class Place:
    """Some rows of one of the engine's weights: a tensor of transformers'."""

    part: str  # "lm" or "conditioner"
    weight: str
    first_row: int
    shape: tuple[int, ...]  # of the tensor; the engine's embeddings have a dimension more in front

    @property
    def is_embedding(self) -> bool:
        return self.weight == "embeddings"


def places(config: ModelConfig) -> dict[str, Place]:
    """transformers' name of each tensor -> its place, from the table that checkpoints are read by."""
    return _lm_places(config.lm) | {
        f"{PROJECTIONS[name.partition('.')[0]]}.{name.partition('.')[2]}": Place("conditioner", name, 0, shape)
        for name, shape in conditioner_shapes(config).items()
    }


@lru_cache(maxsize=4)
def _lm_places(config: LMConfig) -> dict[str, Place]:
    table = {}
    for name, shape in lm_shapes(config).items():
        key, layer = re.subn(r"^layers\.\d+\.", "layers.", name)
        found = LM_NAMES[key]
        theirs = [found] if isinstance(found, str) else list(found)
        if "{k}" in theirs[0]:
            theirs = [theirs[0].replace("{k}", str(k)) for k in range(config.n_codebooks)]
        n_rows = shape[0] // len(theirs)
        inner = shape[1:] if name == "embeddings" else (n_rows, *shape[1:])
        for index, other in enumerate(theirs):
            other = other.replace("{i}", name.split(".")[1]) if layer else other
            table[other] = Place("lm", name, index * n_rows, inner)
    return table


def is_flat(module: str) -> bool:
    """Whether a module is named in kohya's way."""
    return _FLAT.match(module) is not None


def unflattened(module: str, known: Mapping[str, Place]) -> str:
    """A module that kohya's way of writing has taken the dots of, as one of `known`; any other as it is."""
    if not (flat := _FLAT.match(module)):
        return module
    dotted = {name.rpartition(".")[0].replace(".", "_"): name.rpartition(".")[0] for name in known}
    plain = module[flat.end() :].replace(".", "_")
    return next((dotted[name] for name in (plain, f"decoder_{plain}") if name in dotted), module)
