"""Configurations whose outputs are golden: toy checkpoints, requests, and what is kept of a run."""

import functools
import hashlib
import importlib
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

PACK = "comfyui_musicgen"  # name that the pack is registered under
ROOT = Path(__file__).resolve().parents[2]
WITHOUT_NUMBA = "operators-"  # prefix of configurations for a process where Numba compiles nothing
Outputs = dict[str, np.ndarray]

# Modules that a name was or is in, the newest first.
_PLACES = {
    "load": ("musicgen.loading", "musicgen.pipeline"),
    "load_diffusion": ("musicgen.multiband", "musicgen.loading", "musicgen.pipeline"),
    "apply_fine_tune": ("musicgen.loading", "musicgen.pipeline"),
    "predict": ("musicgen.replicate.predict", "musicgen.predict"),
    "GenerationParams": ("musicgen.config",),
    "Codes": ("musicgen.codes",),
    "Audio": ("musicgen.audio",),
    "read": ("musicgen.audio",),
    "write": ("musicgen.audio",),
    "write_toy": ("tests.toy", "musicgen.toy"),
    "SOUND": ("tests.toy", "musicgen.toy"),
    "write_toy_diffusion": ("tests.toy.diffusion", "musicgen.toy.diffusion"),
    "TOY_UNET": ("tests.toy.diffusion", "musicgen.toy.diffusion"),
}


@functools.cache
def pack() -> SimpleNamespace:
    """The names of `_PLACES`, from the pack that is registered as PACK."""
    return SimpleNamespace(**{name: _imported(name, places) for name, places in _PLACES.items()})


def _imported(name: str, places: Iterable[str]) -> Any:
    for place in places:
        try:
            module = importlib.import_module(f"{PACK}.{place}")
        except ModuleNotFoundError as error:
            if not (error.name or "").startswith(PACK):
                raise
            continue
        if hasattr(module, name):
            return getattr(module, name)
    raise ImportError(f"{name} is in none of {', '.join(places)}. Add its new place to _PLACES in {__file__}.")


# --- what configurations are made from

_SHORT, _LONG = "a drum", "slow pansori, a rough deep voice over the buk drum"  # 7 and 51 tokens of the toy's tokenizer
_DEFAULT: Mapping[str, Any] = {}  # mono, 64 wide
_MELODY = {"melody": True, "segment_s": 2.0}  # few columns in front of the codes
_SMALL = {"dim": 32, "n_heads": 2, "n_layers": 2, "cardinality": 64, "n_filters": 2, "latent_dim": 16}
# Wide enough for CPU kernels and caches of 16 and 8 bits, with heads of 64, as published models have.
_WIDE = {"dim": 1024, "n_heads": 16, "n_layers": 2, "cardinality": 512, "n_filters": 2, "latent_dim": 16}
_N_PROMPT, _N_FORCED = 6, 8  # frames known before a run that measures logits, and after it


class Bench:
    """Checkpoints and models, each made once, in a folder of their own."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._loaded: dict[str, Any] = {}

    def toy(self, **options: Any) -> Path:
        name = hashlib.sha256(repr(sorted(options.items())).encode()).hexdigest()[:12]
        path = self.folder / "toys" / name
        return path if path.exists() else pack().write_toy(path, **options)

    def model(self, options: Mapping[str, Any] | Path, precision: str = "float32") -> Any:
        """A toy, or a checkpoint's file, loaded."""
        key = f"{options} {precision}"
        if key not in self._loaded:
            path = options if isinstance(options, Path) else self.toy(**options)
            self._loaded[key] = pack().load(path, precision, "cpu")
        return self._loaded[key]

    def clip(self, seconds: float = 1.0, channels: int = 2) -> Any:
        """A rising tone at 44.1 kHz, with noise that differs between channels."""
        t = torch.arange(int(seconds * 44100)) / 44100
        noise = torch.randn(channels, len(t), generator=torch.Generator().manual_seed(1))
        return pack().Audio((0.3 * torch.sin(2 * torch.pi * (220 + 60 * t) * t) + 0.02 * noise)[None], 44100)


class _Forced(TorchFunctionMode):
    """Keeps the logits that greedy choices are made from, and answers with codes drawn beforehand.

    So every step sees the same codes, whatever an earlier step's logits were.
    """

    def __init__(self, n_codebooks: int, cardinality: int):
        super().__init__()
        self.logits: list[torch.Tensor] = []
        self._shape = (n_codebooks, cardinality)
        self._generator = torch.Generator().manual_seed(2)

    def __torch_function__(self, func, types, args=(), kwargs=None):
        chosen = func(*args, **(kwargs or {}))
        if func in (torch.Tensor.argmax, torch.argmax) and args[0].shape[-2:] == self._shape:
            self.logits.append(args[0].clone())
            return torch.randint(self._shape[1], chosen.shape, generator=self._generator)
        return chosen


def forced_logits(loaded: Any, conditioning: Any, n_rows: int, **params: Any) -> torch.Tensor:
    """Guided logits [steps, B, K, cardinality] of the columns after a random prompt."""
    config = loaded.config
    prompt = torch.randint(
        config.lm.cardinality, (1, config.lm.n_codebooks, _N_PROMPT), generator=torch.Generator().manual_seed(3)
    )
    codec = config.codec
    request = pack().GenerationParams(
        duration_s=_N_FORCED / codec.frame_rate_hz, **{**params, "temperature": 0.0, "batch_size": n_rows}
    )
    with _Forced(config.lm.n_codebooks, config.lm.cardinality) as forced:
        loaded.model.generate(conditioning, request, pack().Codes(prompt, codec.frame_rate_hz, codec.identity))
    assert forced.logits, "greedy choices are no longer made by argmax over the last axis: _Forced must learn how"
    return torch.stack(forced.logits)


# --- kinds of configurations: each -> its outputs by name


def generated(
    bench: Bench, *, toy: Mapping[str, Any] | Path = _DEFAULT, precision: str = "float32", texts: tuple[str | None, ...] = (_SHORT,),
    negative: str | None = None, melody: bool = False, prompt_s: float = 0.0, tune: tuple[tuple[int, float], ...] = (),
    audio: bool = False, logits: bool = True, duration_s: float = 0.5, **params: Any,
) -> Outputs:  # fmt: skip
    """Codes of one request, logits of a few steps that see given codes, and the likeliest codes there.

    tune: fine-tunes one after the other, (seed of a toy, strength) each.
    """
    loaded = bench.model(toy, precision)
    for seed, strength in tune:
        model, conditioner = pack().apply_fine_tune(
            loaded.model, loaded.conditioner, bench.toy(**toy, seed=seed), strength
        )
        loaded = replace(loaded, model=model, conditioner=conditioner)
    conditioning = loaded.conditioner.encode_text(list(texts))
    if melody:
        conditioning = loaded.conditioner.encode_melody(conditioning, bench.clip(), "off")
    other = loaded.conditioner.encode_text([negative]) if negative else None
    prompt = loaded.codec.encode(bench.clip(prompt_s)) if prompt_s else None
    request = pack().GenerationParams(duration_s=duration_s, **params)
    codes = loaded.model.generate(conditioning, request, prompt, other)
    outputs = {"codes": codes.codes.short()}
    if logits:
        n_rows = max(request.batch_size, len(texts))
        guided = forced_logits(loaded, conditioning, n_rows, cfg=request.cfg)
        outputs |= {"logits": guided, "likeliest": guided.argmax(dim=-1).short()}
    if audio:
        outputs["audio"] = loaded.codec.decode(codes).samples
    return {name: tensor.numpy() for name, tensor in outputs.items()}


def _random_codes(loaded: Any, n_clips: int, n_frames: int) -> Any:
    codec = loaded.config.codec
    size = (n_clips, codec.n_codebooks, n_frames)
    codes = torch.randint(codec.codebook_size, size, generator=torch.Generator().manual_seed(4))
    return pack().Codes(codes, codec.frame_rate_hz, codec.identity)


def encoded(bench: Bench, *, toy: Mapping[str, Any] = _DEFAULT) -> Outputs:
    """Codes that the codec gives a clip of another rate."""
    return {"codes": bench.model(toy).codec.encode(bench.clip(1.3)).codes.short().numpy()}


def decoded(bench: Bench, *, toy: Mapping[str, Any] = _DEFAULT, n_clips: int = 1, n_frames: int = 60) -> Outputs:
    """Audio of random codes."""
    loaded = bench.model(toy)
    return {"audio": loaded.codec.decode(_random_codes(loaded, n_clips, n_frames)).samples.numpy()}


def diffused(bench: Bench) -> Outputs:
    """Audio of random codes by three bands of MultiBand Diffusion, one of them with a processor."""
    unet = replace(pack().TOY_UNET, depth=3)
    diffusion = pack().load_diffusion(pack().write_toy_diffusion(bench.folder / "bands.th", unet, n_bands=3))
    loaded = bench.model(_DEFAULT)
    return {"audio": diffusion.decode(loaded.codec, _random_codes(loaded, 1, 8), 5).samples.numpy()}


def predicted(bench: Bench, *, toy: Mapping[str, Any], **values: Any) -> Outputs:
    """The WAV file of a Replicate request with a clip, and its samples."""
    clip = pack().write(bench.clip(0.3), bench.folder / "clip.wav")
    file = bench.folder / "predicted.wav"
    pack().predict(
        model=bench.toy(**toy), models_dir=bench.folder / "models", out=file, precision="float32", device="cpu",
        duration=1, seed=6, input_audio=str(clip), **_as_in_0_11(), **values,
    )  # fmt: skip
    return _file_outputs(file)


def _as_in_0_11() -> dict[str, Any]:
    """Options that switch off what later versions do to the ends of the music."""
    parameters = inspect.signature(pack().predict).parameters
    takes_options = "version" in parameters  # among the others, since 0.15
    return {"fade_ms": 0.0} if "fade_ms" in parameters or takes_options else {}


def saved(bench: Bench, *, sample_format: str) -> Outputs:
    """A FLAC file of decoded codes, and its samples."""
    loaded = bench.model({"stereo": True})
    sound = loaded.codec.decode(_random_codes(loaded, 1, 20))
    return _file_outputs(pack().write(sound, bench.folder / "saved.flac", sample_format=sample_format))


def _file_outputs(file: Path) -> Outputs:
    return {"file": np.fromfile(file, np.uint8), "samples": pack().read(file).samples.numpy()}


# --- the configurations

Configuration = Callable[[Bench], Outputs]


def _configurations() -> dict[str, Configuration]:
    made: dict[str, Configuration] = {
        "text": partial(generated, audio=True),
        "text-3": partial(generated, batch_size=3, seed=7),
        "long-text": partial(generated, texts=(_LONG,), batch_size=2),
        "two-texts": partial(generated, texts=(_LONG, _SHORT), seed=1),
        "no-text": partial(generated, texts=(None,)),
        "greedy": partial(generated, temperature=0.0, logits=False),
        "top-k": partial(generated, top_k=20, temperature=1.7, seed=2, logits=False),
        "top-k-off": partial(generated, top_k=0, temperature=0.8, seed=2, logits=False),
        "top-p": partial(generated, top_p=0.8, seed=3, logits=False),
        "cfg-1": partial(generated, cfg=1.0, batch_size=2),
        "negative": partial(generated, negative="noise", seed=4, logits=False),
        "prompt": partial(generated, prompt_s=0.3, batch_size=2, duration_s=0.8, logits=False),
        "windows": partial(generated, toy={"segment_s": 0.5}, duration_s=1.1, batch_size=2, logits=False),
        "huggingface": partial(generated, toy={"format": "huggingface"}),
        "stereo": partial(generated, toy={"stereo": True}, batch_size=2, audio=True),
        "melody": partial(generated, toy=_MELODY, melody=True, batch_size=2),
        "melody-no-text": partial(generated, toy=_MELODY, melody=True, texts=(None,)),
        "melody-unused": partial(generated, toy=_MELODY, texts=(_LONG, _SHORT), logits=False),
        "stereo-melody-windows": partial(
            generated, toy={"stereo": True, "melody": True, "segment_s": 0.5}, melody=True, duration_s=0.9, logits=False
        ),
        "sound": partial(generated, toy={"codec": pack().SOUND}, audio=True),
        "encode": encoded,
        "encode-stereo": partial(encoded, toy={"stereo": True}),
        "decode": partial(decoded, n_clips=3),
        "decode-stereo": partial(decoded, toy={"stereo": True}),
        "diffusion": diffused,
        "wav-melody": partial(predicted, toy={**_MELODY, "stereo": True}, prompt=_SHORT),
        "wav-continuation": partial(
            predicted, toy={"stereo": True}, prompt=_SHORT, continuation=True, normalization_strategy="peak"
        ),
        "flac-16": partial(saved, sample_format="s16"),
        "flac-24": partial(saved, sample_format="s24"),
    }
    tunes = {"0.5": ((1, 0.5),), "1": ((1, 1.0),), "2": ((1, 2.0),), "chained": ((1, 0.5), (2, 2.0), (1, 1.0))}
    for name, tune in tunes.items():
        made[f"tuned-{name}"] = partial(generated, toy=_SMALL, tune=tune)
    made["tuned-int8"] = partial(generated, toy=_SMALL, precision="int8", tune=tunes["0.5"])
    for precision in ("float16", "bfloat16", "int8"):
        made[f"narrow-{precision}-1"] = partial(generated, precision=precision)
        made[f"narrow-{precision}-3"] = partial(generated, toy=_MELODY, precision=precision, batch_size=3)
    wide = partial(generated, toy=_WIDE, duration_s=0.06)
    for n in (1, 2):
        made[f"wide-float32-{n}"] = partial(wide, precision="float32", batch_size=n)
    for precision in ("float16", "bfloat16", "int8"):
        for n in (1, 2, 4):  # of 2, 4 and 8 rows
            made[f"wide-{precision}-{n}"] = partial(wide, precision=precision, batch_size=n)
        made[f"wide-{precision}-long"] = partial(wide, precision=precision, texts=(_LONG,))
        for name in ("1", "4", "long"):
            made[f"{WITHOUT_NUMBA}{precision}-{name}"] = made[f"wide-{precision}-{name}"]
    made["wide-int8-texts"] = partial(wide, precision="int8", texts=(_LONG, _SHORT))
    made["wide-int8-3"] = partial(wide, precision="int8", batch_size=3)
    made["wide-float16-8"] = partial(wide, precision="float16", batch_size=8)
    mini = partial(generated, toy=ROOT / "pretrained" / "pansori-mini.safetensors", logits=False, duration_s=2.0)
    made["mini"] = partial(mini, texts=(_LONG,), audio=True)
    made["mini-melody"] = partial(mini, melody=True, seed=1)
    return made


@functools.cache
def configurations() -> Mapping[str, Configuration]:
    """By name."""
    return _configurations()
