"""From files to models: a checkpoint becomes a language model, a conditioner and a codec; fine-tunes are blended in."""

import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from . import accel
from .card import beat_tracker_of, faults_of, read_card, vocabulary_of, with_learned_words, with_windows
from .checkpoints import Checkpoint, Weight, adapt_text_encoder, blend, fill, open_fine_tune
from .checkpoints.weights.lazy import Check, unchecked
from .codec import Codec, fingerprint
from .conditioning import Conditioner, TextEncoder, Tokenizer, t5_encoder
from .conditioning.vocabulary import Vocabulary
from .config import PRECISIONS, ModelConfig, with_fingerprint
from .dependencies import require
from .errors import DependencyError, InputError
from .lm import LM, quantize_linears, storage_dtype
from .pipeline import LanguageModel
from .store import ModelStore, OnStep
from .store.text_encoders import fetch_text_encoder
from .store.transfer import wait_for

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """Model, conditioner, codec and configuration of one checkpoint."""

    model: LanguageModel
    conditioner: Conditioner
    codec: Codec
    config: ModelConfig


def load(
    path: Path,
    precision: str = "auto",
    device: torch.device | str = "cpu",
    text_encoder_dirs: Sequence[Path] = (),
    name: str | None = None,
    store: ModelStore | None = None,
    on_download: OnStep | None = None,
    check: Check = unchecked,
) -> Loaded:
    """Read a checkpoint into CPU memory. `device` is where it will run: it decides what precision auto means.

    store: finds the codec of a checkpoint that only names it. If it is absent, it is downloaded, provided there is an
    on_download(bytes there, bytes in all), which may raise.
    check: called many times a second; what it raises (Cancel) ends the loading, of which nothing remains.
    Raises CheckpointError for a file that is missing, damaged, unsafe, or of an unknown architecture.
    """
    begun = time.perf_counter()
    precision, device = resolve_precision(precision, device), torch.device(device)
    wait_for(_import_libraries, check)
    checkpoint = (store or ModelStore([])).open(Path(path), on_download)
    check()
    source = str(checkpoint.path)
    codec = Codec(checkpoint.config.codec)
    fill(codec, checkpoint.codec, f"{source} (codec)", check)
    card = read_card(checkpoint.path)
    config = with_windows(with_fingerprint(checkpoint.config, fingerprint(codec), name), card)
    codec.config = config.codec
    codec.eval().requires_grad_(False)
    checkpoint = replace(checkpoint, config=config)
    text_encoder = load_text_encoder(checkpoint, text_encoder_dirs, check)
    wait_for(lambda: accel.warm_up(config.lm, precision, device), check)
    model, conditioner = build(checkpoint, precision, device, text_encoder, vocabulary_of(card), check=check)
    model.faults = faults_of(card, config.lm, beat_tracker_of(checkpoint, check))
    logger.info("loaded %s in %s in %.1f s", config.name, precision, time.perf_counter() - begun)
    return Loaded(model, conditioner, codec, config)


def apply_fine_tune(
    model: LanguageModel, conditioner: Conditioner, tuned: Path, strength: float = 1.0, check: Check = unchecked
) -> tuple[LanguageModel, Conditioner]:
    """New objects whose weights are moved from the base's towards those of `tuned`, a file or folder: a whole fine-tune or an adapter.

    strength: 0 gives back the base itself, 1 the fine-tune, between and beyond (to 2; of adapters from -2) a blend. The
    base's objects are not altered; the text encoder is shared with them, unless an adapter changes it. Weights are read
    from the files again and blended before they are rounded, so any precision works, and fine-tunes can be chained (`blend`).
    A file of weights without settings is taken where every tensor fits the base. check: as for `load`.
    InputError for objects of the audiocraft engine; CheckpointError for another architecture, naming both.
    """
    if not isinstance(model, LanguageModel) or not isinstance(conditioner, Conditioner):
        raise InputError(
            "Fine-tunes can be applied to the native engine's models only. Set 'engine' to native in Load MusicGen, or "
            "leave 'weights' empty."
        )
    begun = time.perf_counter()
    checkpoint = open_fine_tune(Path(tuned), model.source)
    source = blend(model.source, checkpoint, strength)
    own = source if conditioner.source is model.source else blend(conditioner.source, checkpoint, strength)
    if strength == 0:
        return model, conditioner
    encoder = adapt_text_encoder(conditioner.text_encoder, model.source, checkpoint, strength)
    vocabulary = with_learned_words(conditioner.vocabulary, checkpoint)
    blended, conditioner = build(source, model.precision, model.loaded_for, encoder, vocabulary, own, check)
    blended.faults = model.faults
    logger.info("applied %s at %g in %.1f s", tuned, strength, time.perf_counter() - begun)
    return blended, conditioner


def build(
    source: Checkpoint,
    precision: str,
    device: torch.device,
    text_encoder: TextEncoder,
    vocabulary: Vocabulary | None,
    conditioning: Checkpoint | None = None,
    check: Check = unchecked,
) -> tuple[LanguageModel, Conditioner]:
    """Language model and conditioner; the latter's projections from `conditioning`, by itself from the same source."""
    model = LanguageModel(source, _build_lm(source, precision, device, check), precision, device)
    source = conditioning or source
    with torch.device("meta"):
        conditioner = Conditioner(source.config, text_encoder, vocabulary)
    _materialise(conditioner, torch.float32)
    _fill_without(conditioner, "text_encoder", source.conditioner, f"{source.path} (conditioning)", check)
    conditioner.source = source
    for module in (model, conditioner):
        module.eval().requires_grad_(False)
    return model, conditioner


def _build_lm(checkpoint: Checkpoint, precision: str, device: torch.device, check: Check) -> LM:
    """Build on the meta device, then allocate and fill one layer at a time."""
    with torch.device("meta"):
        lm = LM(checkpoint.config.lm)
    dtype = storage_dtype(precision)
    layers: list[dict[str, Weight]] = [{} for _ in lm.layers]
    rest: dict[str, Weight] = {}
    for name, weight in checkpoint.lm.items():
        part, _, inner = name.removeprefix("layers.").partition(".")
        inside = name.startswith("layers.") and part.isdigit() and int(part) < len(layers)
        (layers[int(part)] if inside else rest)[inner if inside else name] = weight
    source = f"{checkpoint.path} (language model)"
    for index, (block, weights) in enumerate(zip(lm.layers, layers, strict=True)):
        _materialise(block, dtype)
        fill(block, weights, f"{source}, layer {index}", check)
        if precision == "int8":
            quantize_linears(block, torch.float16 if device.type == "cuda" else torch.float32, check)
        accel.prepare(block, lm.config, device, check)
    # The heads decide the code: at 2 % of the weights, they are worth more precision where products are coarse.
    _materialise(lm, torch.float32 if precision == "float32" else torch.float16)
    _fill_without(lm, "layers", rest, source, check)
    accel.prepare(lm, lm.config, device, check)
    return lm


def resolve_precision(precision: str, device: torch.device | str) -> str:
    """The precision itself, or what `auto` stands for on the device. InputError for one that does not exist."""
    if precision not in PRECISIONS:
        raise InputError(f"'precision' must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    return accel.default_precision(device) if precision == "auto" else precision


def _materialise(module: nn.Module, dtype: torch.dtype) -> None:
    """Give memory to parameters still on the meta device: matrices in `dtype`, norms and embeddings in float32."""
    for child in module.modules():
        for name, parameter in child.named_parameters(recurse=False):
            if parameter.is_meta:
                wide = parameter.ndim != 2
                memory = torch.empty(parameter.shape, dtype=torch.float32 if wide else dtype)
                setattr(child, name, nn.Parameter(memory, requires_grad=False))


def _fill_without(module: nn.Module, child: str, weights: Mapping[str, Weight], source: str, check: Check) -> None:
    """Fill a module except for one child, which is filled already."""
    filled = getattr(module, child)
    setattr(module, child, nn.Module())
    try:
        fill(module, weights, source, check)
    finally:
        setattr(module, child, filled)


def _import_libraries() -> None:
    """Import what builds codec and text encoder: seconds, which no Cancel interrupts. Errors are left to the builders."""
    for name in ("encodec", "t5"):
        with contextlib.suppress(DependencyError):
            require(f"transformers.models.{name}.modeling_{name}", "Loading a model", "transformers")


def load_text_encoder(checkpoint: Checkpoint, dirs: Sequence[Path], check: Check = unchecked) -> TextEncoder:
    """The checkpoint's own text encoder, else the one of its name from `dirs`, the Hugging Face cache or its hub."""
    source = fetch_text_encoder(checkpoint, dirs)
    check()
    tokenizer = Tokenizer(source.tokenizer_json, f"{source.origin} (tokenizer.json)", source.config["vocab_size"])
    check()
    with torch.device("meta"):
        encoder = t5_encoder(source.config)
    fill(encoder, source.weights, f"{source.origin} (text encoder)", check)
    return TextEncoder(encoder, tokenizer)
