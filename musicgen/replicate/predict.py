"""The Replicate contract: 15 fields in, one audio file out. Source: `sakemin/musicgen-pansori` (cog predictor)."""

import math
import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import torch

from .. import audio as audio_files
from ..conditioning.melody import heard_until_s
from ..config import MAX_SEED, PARAMETERS, GenerationParams, check_text
from ..errors import InputError
from ..loading import Loaded, apply_fine_tune, load
from ..multiband import Diffusion, load_diffusion
from ..outputs import check_output
from ..render import OnProgress, RenderRequest, find_device, render
from ..store import ModelStore
from ..store.published import DIFFUSION_MODEL

DEFAULT_MODEL = "facebook/musicgen-stereo-melody"


@dataclass(frozen=True)
class Field:
    """One input: its JSON type, default, limits, and what it means."""

    type: str  # string, integer, number, boolean
    default: Any
    description: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] | None = None


def _parameter(type: str, name: str, description: str) -> Any:
    """The field of a setting in GenerationParams: its default and range, in the words of the contract."""
    entry = PARAMETERS[name]
    default = int(entry.default) if type == "integer" else entry.default
    low = math.ceil(entry.low) if type == "integer" else entry.low
    return _input(type, default, description, low, entry.high)


def _input(type: str, default: Any, description: str, *limits: float, choices: tuple[str, ...] | None = None) -> Any:
    return field(default=default, metadata={"field": Field(type, default, description, *limits, choices=choices)})


@dataclass(frozen=True)
class Request:
    """The fields, checked. Every name, type and default is Replicate's."""

    prompt: str | None = _input("string", None, "A description of the music.")
    input_audio: str | None = _input(
        "string",
        None,
        "An audio file that influences the music: continued if 'continuation' is true, else its melody is followed.",
    )
    duration: int = _parameter("integer", "duration_s", "Length of the music in seconds.")
    continuation: bool = _input("boolean", False, "Continue 'input_audio'; if false, follow its melody.")
    continuation_start: int = _input("integer", 0, "Take 'input_audio' from here, in seconds.", 0, 10**6)
    continuation_end: int | None = _input(
        "integer", None, "Take 'input_audio' up to here, in seconds; -1 or none = to its end.", -1, 10**6
    )
    multi_band_diffusion: bool = _input("boolean", False, "Decode with MultiBand Diffusion instead of EnCodec.")
    normalization_strategy: str = _input(
        "string", audio_files.STRATEGIES[0], "How levels are set.", choices=audio_files.STRATEGIES
    )
    top_k: int = _parameter("integer", "top_k", "Choose among this many likeliest codes; 0 = off.")
    top_p: float = _parameter(
        "number", "top_p", "Choose among the likeliest codes of this total probability; 0 = off, top_k is used."
    )
    temperature: float = _parameter(
        "number", "temperature", "Higher is more adventurous; 0 = always the likeliest code."
    )
    classifier_free_guidance: int = _parameter("integer", "cfg", "How closely the description is followed; 1 = off.")
    output_format: str = _input("string", "wav", "Format of the audio file.", choices=("wav", "mp3"))
    seed: int = _input(
        "integer", None, "Same seed, same music; none or -1 = a random one, which is reported.", -1, MAX_SEED
    )
    replicate_weights: str | None = _input(
        "string", None, "Fine-tuned weights: a file, or an https address; blank = the default model, always."
    )

    def __post_init__(self) -> None:
        for name, kind in FIELDS.items():
            object.__setattr__(self, name, _checked(name, kind, getattr(self, name)))
        check_text("prompt", self.prompt)
        if self.input_audio is not None:
            object.__setattr__(self, "input_audio", _path_of(self.input_audio))
        if self.prompt is None and self.input_audio is None:
            raise InputError("'prompt' and 'input_audio' are both missing. Give a description, an audio file, or both.")
        if self.continuation and self.input_audio is None:
            raise InputError(
                "'continuation' is true, but there is no 'input_audio' to continue. Give a file, or set it to false."
            )
        if self.end_s >= 0 and self.end_s <= self.continuation_start:
            raise InputError(
                f"'continuation_end' of {self.end_s:g} s must be later than 'continuation_start' of "
                f"{self.continuation_start} s; -1 or none = to the end of the clip."
            )
        if self.seed is None or self.seed == -1:
            # 0 is a seed like any other. 32 bits are all that torch's CPU generator reads.
            object.__setattr__(self, "seed", secrets.randbelow(2**32))

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Request":
        """From a mapping, as a JSON body has it. InputError names a field that does not exist."""
        for name in values:
            if name not in FIELDS:
                raise InputError(f"there is no field {name!r}. The fields are {', '.join(FIELDS)}.")
        return cls(**values)

    @property
    def end_s(self) -> float:
        """Where the clip ends, in seconds; -1 = its end."""
        return -1 if self.continuation_end is None else self.continuation_end

    @property
    def params(self) -> GenerationParams:
        return GenerationParams(
            duration_s=self.duration,
            seed=self.seed,
            top_k=self.top_k,
            top_p=self.top_p,
            temperature=self.temperature,
            cfg=self.classifier_free_guidance,
        )


FIELDS: dict[str, Field] = {f.name: f.metadata["field"] for f in fields(Request)}


def _checked(name: str, kind: Field, value: Any) -> Any:
    """`value` if the field takes it (whole floats count as integers); else InputError with what it takes."""
    if value is None and kind.default is None:
        return None
    types = {"string": str, "integer": int, "number": (int, float), "boolean": bool}
    if kind.type == "integer" and isinstance(value, float) and value.is_integer():
        value = int(value)
    valid = isinstance(value, types[kind.type]) and (kind.type == "boolean" or not isinstance(value, bool))
    if valid and kind.type == "number" and isinstance(value, (int, float)):
        valid = math.isfinite(value)
    if valid and kind.choices:
        valid = value in kind.choices
    if valid and isinstance(value, (int, float)) and kind.minimum is not None and kind.maximum is not None:
        valid = kind.minimum <= value <= kind.maximum
    if not valid:
        raise InputError(f"'{name}' must be {_allowed(kind)}, got {value!r}")
    return None if value == "" and kind.default is None and name != "prompt" else value


def parse_field(name: str, text: str) -> object:
    """A field's value from text, in its own type. InputError for a text that is none."""
    kind = FIELDS[name].type
    if kind == "string":
        return text
    text = text.strip()
    if kind == "boolean":
        if text.lower() not in ("true", "false"):
            raise InputError(f"'{name}' must be true or false, got {text!r}")
        return text.lower() == "true"
    try:
        return float(text) if kind == "number" or not re.fullmatch(r"[+-]?\d+", text) else int(text)
    except ValueError:
        raise InputError(f"'{name}' must be {_allowed(FIELDS[name])}, got {text!r}") from None


def _path_of(text: str) -> str:
    """The path of a file on this machine, which the schema's uri may be too: file:///home/me/clip.wav."""
    if "://" not in text:
        return text
    try:
        parts = urlsplit(text)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        raise InputError(
            f"'input_audio' must be a file on this machine, as a path or as file:///..., got {text[:200]!r}"
        )
    return url2pathname(parts.path)


def _allowed(kind: Field) -> str:
    if kind.choices:
        return f"one of {', '.join(kind.choices)}"
    noun = {"string": "a text", "integer": "a whole number", "number": "a number", "boolean": "true or false"}[
        kind.type
    ]
    limits = "" if kind.minimum is None else f" from {kind.minimum:g} to {kind.maximum:g}"
    return f"{noun}{limits}{', or none' if kind.default is None else ''}"


def schema() -> dict[str, Any]:
    """JSON schema (draft 2020-12) of the input and the output."""
    properties = {}
    for order, (name, kind) in enumerate(FIELDS.items()):
        entry: dict[str, Any] = {"type": kind.type if kind.default is not None else [kind.type, "null"]}
        entry |= {"description": kind.description, "default": kind.default, "x-order": order}
        if kind.choices:
            entry["enum"] = list(kind.choices)
        if kind.minimum is not None:
            entry |= {"minimum": kind.minimum, "maximum": kind.maximum}
        if name == "input_audio":
            entry["format"] = "uri"
        properties[name] = entry
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "MusicGen Pansori",
        "type": "object",
        "properties": {
            "input": {"type": "object", "properties": properties, "additionalProperties": False},
            "output": {"type": "string", "format": "uri", "description": "The audio file."},
        },
    }


class Predictor:
    """Requests become audio. The models of a request stay loaded until one comes that needs others."""

    def __init__(
        self,
        models_dir: Path = Path("models"),
        precision: str = "auto",
        device: str = "auto",
        diffusion: str | Path = DIFFUSION_MODEL,
        fade_ms: float = audio_files.FADE_MS,
        on_progress: OnProgress = lambda stage, done, total: None,
    ) -> None:
        """The options of `predict`."""
        self._models_dir, self._precision, self._device, self._diffusion = models_dir, precision, device, diffusion
        self._fade_ms, self._on_progress = fade_ms, on_progress
        self._store = ModelStore([models_dir / "musicgen"], allow_paths=True)
        self._names: tuple[str | Path, str | None] | None = None
        self._loaded: Loaded | None = None
        self._decoder: Diffusion | None = None

    def audio(self, request: Request, model: str | Path) -> audio_files.Audio:
        """The music of a request, its levels set. Raises as `predict` does."""
        clip = _clip_of(request)
        device = find_device(self._device)
        loaded, decoder = self._load(model, request.replicate_weights, request.multi_band_diffusion, device)
        prompt, melody = (clip, None) if request.continuation else (None, clip)
        sources = RenderRequest(request.prompt, prompt=prompt, melody=melody, fade_ms=self._fade_ms)
        stem_dirs = [self._models_dir / "demucs"]
        audio, _ = render(loaded, sources, request.params, device, self._on_progress, stem_dirs, decoder)
        return audio_files.normalize(audio, request.normalization_strategy)

    def _load(
        self, model: str | Path, weights: str | None, with_diffusion: bool, device: torch.device
    ) -> tuple[Loaded, Diffusion | None]:
        """The model and what decodes in place of its codec. What is checked, and downloaded, comes before what is large."""

        def downloaded(done: int, total: int) -> None:
            self._on_progress("downloading", done, total)

        is_new = self._names != (model, weights)
        if is_new:  # given back before the next one is read
            self._names, self._loaded = None, None
        tuned = self._store.ensure(weights, downloaded, "weights") if weights and is_new else None
        if with_diffusion and self._decoder is None:
            file = self._store.ensure(self._diffusion, downloaded, "diffusion")
            self._decoder = load_diffusion(file, device=device)
        if is_new:
            path, encoders = self._store.ensure(model, downloaded), [self._models_dir / "text_encoders"]
            loaded = load(path, self._precision, device, encoders, store=self._store, on_download=downloaded)
            if tuned is not None:
                tuned_model, conditioner = apply_fine_tune(loaded.model, loaded.conditioner, tuned, 1.0)
                loaded = replace(loaded, model=tuned_model, conditioner=conditioner)
            self._names, self._loaded = (model, weights), loaded
        assert self._loaded is not None
        return self._loaded, self._decoder if with_diffusion else None


def _clip_of(request: Request) -> audio_files.Audio | None:
    """The part of `input_audio` that is used. InputError where a continuation would add nothing to it."""
    if request.input_audio is None:
        return None
    clip = audio_files.read(
        Path(request.input_audio), request.continuation_start, _read_end_s(request), end_may_exceed=True
    )
    if request.continuation and clip.duration_s >= request.duration:
        raise InputError(
            f"'input_audio' is {clip.duration_s:g} s long, but 'duration', which includes it, is {request.duration} s: "
            "nothing is left to generate. Raise 'duration', or trim the clip by 'continuation_start' and 'continuation_end'."
        )
    return clip


@dataclass(frozen=True)
class Prediction:
    """The audio file of a request, and the seed that reproduces it."""

    file: Path
    seed: int  # a random one where none was given


def predict(
    *,
    model: str | Path = DEFAULT_MODEL,
    models_dir: Path = Path("models"),
    out: Path | None = None,
    precision: str = "auto",
    device: str = "auto",
    diffusion: str | Path = DIFFUSION_MODEL,
    fade_ms: float = audio_files.FADE_MS,
    on_progress: OnProgress = lambda stage, done, total: None,
    **values: Any,
) -> Prediction:
    """Make one audio file from the 15 fields of `Request`, given by name.

    model: the model that is used, and that `replicate_weights` fine-tune: a name below models_dir/musicgen, or a
    folder. diffusion: the file that `multi_band_diffusion` decodes with, likewise.
    out: the file; None = musicgen-1.wav, musicgen-2.wav, ... whichever is free in this folder.
    fade_ms: length of the fades at both ends of the music; 0 = none, as in the original.
    Each call loads the weights it needs: nothing of an earlier call is kept.
    Raises InputError, CheckpointError or DependencyError; no file is left behind then.
    """
    request = Request.of(values)
    _check_out(out, request.output_format)
    predictor = Predictor(models_dir, precision, device, diffusion, fade_ms, on_progress)
    audio = predictor.audio(request, model)
    format = request.output_format
    file = audio_files.write(audio, out, format) if out else audio_files.write_new(audio, _numbered(format), format)
    return Prediction(file, request.seed)


def _check_out(out: Path | None, format: str) -> None:
    """InputError, before anything is loaded, for a file that cannot be written or whose name is of another format."""
    if out and out.suffix.lower() != f".{format}":
        others = " or ".join(FIELDS["output_format"].choices or ())
        raise InputError(
            f"'{out}' does not end in .{format}, but 'output_format' is {format}. Give a name that does, or another "
            f"'output_format' ({others})."
        )
    free = (file for file in _numbered(format) if not file.exists())
    check_output(out or next(free, Path(f"musicgen.{format}")))


def _numbered(format: str) -> Iterator[Path]:
    return (Path(f"musicgen-{number}.{format}") for number in range(1, 10**6))


def _read_end_s(request: Request) -> float:
    """Where reading of the clip ends."""
    if request.continuation:
        return request.end_s
    return heard_until_s(request.continuation_start, request.end_s, request.duration)
