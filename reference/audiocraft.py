"""Meta's audiocraft 1.3.0 behind the facade of musicgen.pipeline: the reference, and an engine to choose.

It is never installed for the user: its own pins would replace the torch that ComfyUI runs on.
"""

import contextlib
import importlib
import importlib.machinery
import logging
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from ..musicgen.audio import Audio, convert
from ..musicgen.checkpoints import open_checkpoint
from ..musicgen.checkpoints.formats.audiocraft import CODEC_FILE, LM_FILE
from ..musicgen.codec import fingerprint_of, stereo
from ..musicgen.codes import Codes
from ..musicgen.conditioning import TextEncoder
from ..musicgen.conditioning.stems import melodic_part
from ..musicgen.config import GenerationParams, ModelConfig, with_fingerprint
from ..musicgen.dependencies import require
from ..musicgen.errors import CheckpointError, DependencyError, InputError
from ..musicgen.loading import load_text_encoder
from ..musicgen.seeds import row_seed
from ..musicgen.windows import plan_windows

logger = logging.getLogger(__name__)

OnStep = Callable[[int, int], None]

INSTALL = (
    "python -m pip install --no-deps audiocraft==1.3.0 && "
    "python -m pip install av einops flashy omegaconf hydra-core julius num2words librosa torchmetrics transformers"
)


def import_audiocraft() -> types.ModuleType:
    """The library, with inert stand-ins for xformers and spacy where those are missing.

    DependencyError says how to install it without touching torch.
    """
    with _stand_ins():
        try:
            return importlib.import_module("audiocraft.models").musicgen and sys.modules["audiocraft"]
        except Exception as error:  # a broken library raises anything from OSError to RuntimeError
            raise DependencyError(
                f"The engine 'audiocraft' needs Meta's library, which cannot be imported ({type(error).__name__}: {error}). "
                f"Install it without its pins, which would replace your torch: {INSTALL} - or set 'engine' to native."
            ) from error


def load(
    path: Path,
    device: torch.device | str = "cpu",
    text_encoder_dirs: Sequence[Path] = (),
    name: str | None = None,
) -> "Loaded":
    """An audiocraft export folder -> the three objects of the facade. Computes as audiocraft does on `device`."""
    if not (Path(path) / LM_FILE).is_file():
        raise CheckpointError(
            f"The engine 'audiocraft' reads audiocraft's own exports only ({LM_FILE} and {CODEC_FILE}), which {path} is "
            "not. Set 'engine' to native, or choose another model."
        )
    # Refuses unsafe pickles, which audiocraft on an old torch would run.
    checkpoint = open_checkpoint(Path(path), format="audiocraft")
    config = checkpoint.config
    if config.melody and config.melody.chords:
        raise CheckpointError(f"{path} is a chord model, which Meta's library does not know. Set 'engine' to native.")
    library = import_audiocraft()
    encoder = load_text_encoder(checkpoint, text_encoder_dirs)
    with _patched_loading(library, encoder):
        # MusicGen's class insists on windows longer than 18 s; AudioGen's are of 10 s.
        kind = library.models.AudioGen if config.segment_s <= 18 else library.models.MusicGen
        musicgen = kind.get_pretrained(str(path), device="cpu")
    conditioners = musicgen.lm.condition_provider.conditioners
    if "self_wav" in conditioners:  # melodies arrive without drums and bass already
        conditioners["self_wav"]._get_stemmed_wav = lambda wav, rate_hz: wav.mean(dim=1, keepdim=True)
    if torch.device(device).type != "cpu":
        musicgen.lm.transformer.half()  # what audiocraft builds off the CPU
    inner = getattr(musicgen.compression_model, "model", musicgen.compression_model)
    embeddings = [layer._codebook.embed for layer in inner.quantizer.vq.layers]
    config = with_fingerprint(config, fingerprint_of(embeddings), name)
    model = LanguageModel(config, musicgen)
    return Loaded(model, Conditioner(config), Codec(config, musicgen.compression_model), config)


@dataclass(frozen=True)
class TextConditioning:
    """Conditioning of the audiocraft engine: plain texts, which its language model encodes."""

    texts: tuple[str | None, ...]
    melody: Tensor | None = None  # [L] mono at the model's rate, drums and bass already taken away where asked

    @property
    def n_rows(self) -> int:
        return len(self.texts)


class Conditioner(nn.Module):
    """Conditioner that passes texts on unchanged."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config

    def encode_text(self, texts: Sequence[str | None]) -> TextConditioning:
        """One row a text; None and "" are no text."""
        return TextConditioning(tuple(texts))

    def warning(self, text: str) -> None:
        """No sentence on unknown words: cards are the native engine's."""

    def encode_melody(
        self,
        conditioning: "TextConditioning",
        audio: Audio,
        stems: str = "auto",
        stem_dirs: Sequence[Path] = (),
        on_step: Callable[[], None] | None = None,
    ) -> "TextConditioning":
        """As musicgen.conditioning.Conditioner.encode_melody; the stems are separated once, by this pack."""
        if self.config.melody is None:
            raise InputError(
                f"'audio' was given as a melody, but {self.config.name} has no melody conditioning. Load a melody checkpoint."
            )
        rate_hz = self.config.codec.sample_rate_hz
        return replace(
            conditioning, melody=melodic_part(audio, stems, rate_hz, stem_dirs, torch.device("cpu"), on_step)
        )


class LanguageModel(nn.Module):
    """audiocraft's MusicGen. Each row of a batch is a run of its own, from its own seed."""

    precision = "audiocraft's own"

    def __init__(self, config: ModelConfig, musicgen: Any):
        super().__init__()
        self.config = config
        self.lm = musicgen.lm
        self.text_encoder = musicgen.lm.condition_provider.conditioners["description"].t5
        self._musicgen = musicgen

    def generate(
        self,
        conditioning: TextConditioning,
        params: GenerationParams,
        prompt: Codes | None = None,
        negative: object | None = None,
        on_step: OnStep | None = None,
        on_redraw: object | None = None,
        on_frames: object | None = None,
    ) -> Codes:
        """As musicgen.pipeline.LanguageModel.generate, but for `negative`, which audiocraft does not have.

        Nothing is drawn again, and nothing handed over before the end: `on_redraw` and `on_frames` are never called.
        """
        if negative is not None:
            raise InputError(
                "'negative' cannot be used with the audiocraft engine. Unplug it, or set 'engine' to native."
            )
        if params.anchor_s:
            raise InputError("'anchor_s' is the native engine's. Set it to 0, or set 'engine' to native.")
        if not isinstance(conditioning, TextConditioning):
            raise InputError(
                "'positive' comes from the native engine. Connect the conditioner of the same Load MusicGen node."
            )
        if prompt is not None:
            prompt.check_codec(self.config.codec.identity)
        plan_windows(self.config, params, 0 if prompt is None else prompt.n_frames)  # for its errors
        texts = conditioning.texts * params.batch_size if conditioning.n_rows == 1 else conditioning.texts
        rows = []
        for row, text in enumerate(texts):
            codes = None
            if prompt is not None:
                codes = prompt.codes[row if len(prompt.codes) > 1 else 0][None]
            rows.append(
                self._one(
                    text,
                    conditioning.melody,
                    params,
                    row_seed(params.seed, row),
                    codes,
                    _share(on_step, row, len(texts)),
                )
            )
        return Codes(torch.cat(rows).cpu(), self.config.codec.frame_rate_hz, self.config.codec.identity)

    def origins(self, conditioning: TextConditioning, params: GenerationParams) -> None:
        """None: a seed of this engine does not write a row of a batch alone."""

    def memory_bytes(self, params: GenerationParams, conditioning: TextConditioning) -> int:
        """A rough measure of what audiocraft's growing caches take."""
        lm = self.config.lm
        n_columns = int(min(params.duration_s, self.config.segment_s) * self.config.codec.frame_rate_hz) + 300
        return 4 * lm.n_layers * lm.dim * n_columns * 4

    @torch.inference_mode()
    def _one(
        self,
        text: str | None,
        melody: Tensor | None,
        params: GenerationParams,
        seed: int,
        prompt: Tensor | None,
        on_step: OnStep | None,
    ) -> Tensor:
        musicgen = self._musicgen
        musicgen.set_generation_params(
            use_sampling=params.temperature > 0,
            top_k=params.top_k,
            top_p=params.top_p,
            temperature=params.temperature,
            duration=params.duration_s,
            cfg_coef=params.cfg,
            extend_stride=params.extend_stride_s,
        )
        musicgen.set_custom_progress_callback(on_step)
        melodies = [] if melody is None else [[melody[None]]]
        attributes, _ = musicgen._prepare_tokens_and_attributes([text or None], None, *melodies)
        device = next(self.lm.parameters()).device
        devices = [device] if device.type == "cuda" else []
        try:
            with self._placed(device), torch.random.fork_rng(devices):
                torch.manual_seed(seed)
                prompt = prompt if prompt is None else prompt.to(device)
                return musicgen._generate_tokens(attributes, prompt, progress=on_step is not None)
        finally:
            # audiocraft leaves its caches behind when a callback raises.
            self.lm._set_streaming(False)
            self.lm.reset_streaming()
            musicgen.set_custom_progress_callback(None)

    @contextlib.contextmanager
    def _placed(self, device: torch.device) -> Iterator[None]:
        """audiocraft notes devices when it is built; ComfyUI moves models later."""
        provider = self.lm.condition_provider
        autocast = importlib.import_module("audiocraft.utils.autocast").TorchAutocast
        self._musicgen.device = device
        cuda = device.type == "cuda"
        self._musicgen.autocast = (
            autocast(enabled=True, device_type="cuda", dtype=torch.float16) if cuda else autocast(enabled=False)
        )
        provider.device = device
        for conditioner in provider.conditioners.values():
            conditioner.device = device
        yield


class Codec(nn.Module):
    """audiocraft's compression model, mono or interleaved stereo."""

    def __init__(self, config: ModelConfig, compression_model: nn.Module):
        super().__init__()
        self.config = config.codec
        self.compression_model: Any = compression_model

    @property
    def _device(self) -> torch.device:
        return next(self.parameters()).device

    @torch.inference_mode()
    def encode(self, audio: Audio, on_step: OnStep | None = None) -> Codes:
        """Audio of any rate and channels -> codes [B, K, T]."""
        audio = convert(audio, self.config.sample_rate_hz, self.config.channels)
        codes, _ = self.compression_model.encode(audio.samples.to(self._device))
        if on_step is not None:
            on_step(1, 1)
        return Codes(codes.cpu(), self.config.frame_rate_hz, self.config.identity)

    @torch.inference_mode()
    def decode(self, codes: Codes, on_step: OnStep | None = None) -> Audio:
        """Codes [B, K, T] -> Audio [B, C, L]."""
        codes.check_codec(self.config.identity)
        samples = self.compression_model.decode(codes.codes.to(self._device), None)
        if on_step is not None:
            on_step(1, 1)
        return Audio(samples.float().cpu(), self.config.sample_rate_hz)

    @torch.inference_mode()
    def decode_latent(self, codes: Codes) -> Tensor:
        """Codes [B, K, T] -> sums of codebook vectors [B * C, D, T], for MultiBand Diffusion."""
        codes.check_codec(self.config.identity)
        rows = stereo.separate(codes.codes, self.config.channels)
        inner = self.compression_model.model if self.config.channels > 1 else self.compression_model
        return inner.decode_latent(rows.to(self._device)).cpu()


@dataclass(frozen=True)
class Loaded:
    """Model, conditioner, codec and configuration of one checkpoint."""

    model: LanguageModel
    conditioner: Conditioner
    codec: Codec
    config: ModelConfig


def _share(on_step: OnStep | None, row: int, n_rows: int) -> OnStep | None:
    """Progress of one row -> progress over all rows."""
    if on_step is None:
        return None
    return lambda done, total: on_step(row * total + min(done, total), n_rows * total)


@contextlib.contextmanager
def _stand_ins() -> Iterator[None]:
    """Modules that audiocraft imports but, with its torch attention backend and no text cleaning, never uses."""
    for name in ("xformers", "spacy"):
        try:
            importlib.import_module(f"{name}.ops" if name == "xformers" else name)
        except Exception:  # absent, or built for another torch
            _stand_in(name)
    yield


def _stand_in(name: str) -> None:
    module: Any = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    sys.modules[name] = module
    if name == "xformers":
        ops: Any = types.ModuleType("xformers.ops")
        ops.unbind = torch.unbind
        ops.LowerTriangularMask = type("LowerTriangularMask", (), {})
        ops.memory_efficient_attention = _never_called
        module.ops = sys.modules["xformers.ops"] = ops


def _never_called(*_: object, **__: object) -> None:
    raise DependencyError("this needs xformers, which is not installed")


@contextlib.contextmanager
def _patched_loading(library: types.ModuleType, encoder: TextEncoder) -> Iterator[None]:
    """Give audiocraft the text encoder that we found, and no stem separator, instead of downloads."""
    conditioners = importlib.import_module("audiocraft.modules.conditioners")
    transformers = require("transformers", "The engine 'audiocraft'")
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=encoder.tokenizer.library, pad_token="<pad>")
    tokenizer = mock.Mock(from_pretrained=lambda name, tokenizer=tokenizer: tokenizer)
    t5 = mock.Mock(from_pretrained=lambda name: encoder.encoder)
    demucs: Any = types.ModuleType("demucs")
    demucs.pretrained = types.SimpleNamespace(get_model=lambda name: _NoSeparator())
    with (
        mock.patch.object(conditioners, "T5Tokenizer", tokenizer),
        mock.patch.object(conditioners, "T5EncoderModel", t5),
        _instead({"demucs": demucs, "demucs.pretrained": demucs.pretrained}),
    ):
        yield


@contextlib.contextmanager
def _instead(modules: dict[str, Any]) -> Iterator[None]:
    """These modules for a while. What is imported meanwhile stays: Numba, say, cannot be imported twice."""
    before = {name: sys.modules[name] for name in modules if name in sys.modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            sys.modules.pop(name, None)
        sys.modules.update(before)


class _NoSeparator:
    """Stands for Demucs where no melody is given."""

    sources = ("drums", "bass", "other", "vocals")
    samplerate = 44100

    def to(self, device: object) -> "_NoSeparator":
        return self
