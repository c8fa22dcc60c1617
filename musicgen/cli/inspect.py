"""python -m musicgen inspect: what a file or folder of weights is."""

import argparse
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from ..checkpoints.checkpoint import TextEncoderSource
from ..checkpoints.containers.torch_zip import TorchFile
from ..checkpoints.formats.codecs import MissingCodecError
from ..checkpoints.formats.huggingface import is_encodec, open_encodec
from ..checkpoints.formats.peft import IsAdapterError
from ..checkpoints.open import open_checkpoint
from ..checkpoints.tools.verify import check_digest, files_of, verify, verify_weights
from ..checkpoints.weights.lazy import Weight
from ..config import ModelConfig
from ..diffusion.checkpoint import open_diffusion
from ..store import ModelStore
from ..store.sniff import kind_of
from .inspect_adapter import describe_adapter
from .options import add_models, model_store

_FORMATS = {
    "audiocraft": "audiocraft",
    "huggingface": "Hugging Face",
    "converted": "converted (one safetensors file, no pickle)",
}
_SIZES = {(1024, 24): "small", (1536, 48): "medium", (2048, 48): "large"}


def add(parser: argparse.ArgumentParser, models: Path) -> None:
    """Options of `inspect`."""
    parser.set_defaults(run=run)
    parser.add_argument("path", metavar="FILE_OR_FOLDER", help="of a checkpoint, or a name below --models")
    add_models(parser, models)


def run(arguments: argparse.Namespace) -> None:
    """Print one line a fact."""
    store = model_store(arguments)
    path = store.find(arguments.path, "weights")
    print(path)
    for label, value in _describe(path, store.dirs):
        print(f"  {label:<15} {value}")


def _describe(path: Path, dirs: Sequence[Path] = ()) -> list[tuple[str, str]]:
    """(what, value) rows about the checkpoint at `path`. Everything in it is read and checked.

    `dirs`: folders of models, for a codec that it only names. CheckpointError for anything that is not a sound
    checkpoint: damaged, unsafe, of another kind.
    """
    if path.is_file() and kind_of(path) == "diffusion":
        return _describe_diffusion(path)
    if path.is_dir() and is_encodec(path):
        config, weights = open_encodec(path, 1, None)
        verify_weights(weights.items())
        return [("what", f"EnCodec by itself: {config.identity}"), ("parameters", _millions(weights.values()))]
    codec = ""
    try:
        checkpoint = ModelStore(dirs).open(path)
    except IsAdapterError:
        return describe_adapter(path, ModelStore(dirs))
    except MissingCodecError as error:
        checkpoint, codec = open_checkpoint(path, codec_required=False), f"{error.name}, which is not on this machine"
    verified = verify(checkpoint)
    config = checkpoint.config
    rows = [
        ("what", _kind(config)),
        (
            "format",
            _FORMATS[checkpoint.format] + (", one file" if path.is_file() and path.suffix != ".safetensors" else ""),
        ),
        ("size", f"{sum(len(file) for file in files_of(checkpoint.weights())) / 1e9:.3f} GB, {verified}"),
        ("language model", _architecture(config)),
        ("parameters", _millions([*checkpoint.lm.values(), *checkpoint.conditioner.values()])),
        ("stored as", _precisions(checkpoint.lm.values())),
        ("conditioning", _conditioning(config)),
        ("window", f"{config.segment_s:g} s"),
        ("codec", codec or f"{config.codec.identity.partition(' [')[0]}; {checkpoint.codec_origin}"),
        ("text encoder", _text_encoder(config, checkpoint.text_encoder)),
    ]
    return rows


def _describe_diffusion(path: Path) -> list[tuple[str, str]]:
    checkpoint = open_diffusion(path)
    if checkpoint.format == "converted":
        check_digest(next(checkpoint.files()))
    else:
        TorchFile(path).verify()
    verify_weights(checkpoint.weights.items())
    config, unet = checkpoint.config, checkpoint.config.bands[0].unet
    parts = [name for name in ("bilstm", "transformer", "cross_attention") if getattr(unet, name)]
    rows = [
        ("what", f"MultiBand Diffusion, {len(config.bands)} bands"),
        ("format", _FORMATS[checkpoint.format]),
        ("size", f"{path.stat().st_size / 1e9:.3f} GB, checked"),
        ("U-Net", f"widths {', '.join(map(str, unet.widths))}; bottleneck: {', '.join(parts) or 'condition only'}"),
        ("parameters", _millions(checkpoint.weights.values())),
        ("stored as", _precisions(checkpoint.weights.values())),
        ("codec", f"{config.sample_rate_hz} Hz, latents of width {config.latent_dim}"),
    ]
    return rows


def _kind(config: ModelConfig) -> str:
    model = "AudioGen" if config.codec.sample_rate_hz == 16000 else "MusicGen"
    size = _SIZES.get((config.lm.dim, config.lm.n_layers), f"of {config.lm.n_layers} layers")
    words = [model, "stereo" if config.codec.channels == 2 else "mono", _front(config), size]
    return " ".join(word for word in words if word)


def _architecture(config: ModelConfig) -> str:
    lm = config.lm
    return (
        f"{lm.n_layers} layers, width {lm.dim}, {lm.n_heads} heads, {lm.n_codebooks} codebooks of {lm.cardinality}, "
        f"delays {', '.join(map(str, lm.delays))}"
    )


def _conditioning(config: ModelConfig) -> str:
    if config.lm.cross_attention:
        return "text, by cross-attention"
    return f"{_front(config)} and text, in front of the codes" if config.melody else "text, in front of the codes"


def _front(config: ModelConfig) -> str:
    """What stands in front of the codes besides the text."""
    return "" if config.melody is None else "chords" if config.melody.chords else "melody"


def _millions(weights: Iterable[Weight]) -> str:
    return f"{sum(torch.Size(weight.shape).numel() for weight in weights) / 1e6:,.3f} million"


def _precisions(weights: Iterable[Weight]) -> str:
    counts: Counter[str] = Counter()
    for weight in weights:
        counts[str(weight.dtype).removeprefix("torch.")] += torch.Size(weight.shape).numel()
    total = sum(counts.values())
    return ", ".join(f"{name} ({100 * count / total:.0f} %)" for name, count in counts.most_common())


def _text_encoder(config: ModelConfig, source: TextEncoderSource) -> str:
    name = f"{config.text.name}, {config.text.dim} wide"
    if source.weights:
        return f"{name}; {_millions(source.weights.values())} parameters in the same file"
    return f"{name}; {source.folder or 'looked for by this name when the model is loaded'}"
