"""Fields of the Replicate contracts as data, and requests that are checked against them."""

import math
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

from .. import audio as audio_files
from ..conditioning.chords import STRENGTH, Progression
from ..config import MAX_SEED, PARAMETERS, GenerationParams, check_text
from ..errors import InputError

Requested = TypeVar("Requested", bound="Request")


@dataclass(frozen=True)
class Field:
    """One input: its JSON type, default, limits, and what it means."""

    type: str  # string, integer, number, boolean
    default: Any
    description: str
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str, ...] | None = None
    is_file: bool = False


def declared(kind: Field) -> Any:
    """`kind` as a field of a request's dataclass."""
    return field(default=kind.default, metadata={"field": kind})


def _parameter(type: str, name: str, description: str) -> Field:
    """The field of a setting in GenerationParams: its default and range, in the words of the contract."""
    entry = PARAMETERS[name]
    default = int(entry.default) if type == "integer" else entry.default
    low = math.ceil(entry.low) if type == "integer" else entry.low
    return Field(type, default, description, low, entry.high)


# Fields that several contracts have.
PROMPT = Field("string", None, "A description of the music.")
DURATION = _parameter("integer", "duration_s", "Length of the music in seconds.")
DIFFUSION = Field("boolean", False, "Decode with MultiBand Diffusion instead of EnCodec.")
NORMALIZATION = Field("string", audio_files.STRATEGIES[0], "How levels are set.", choices=audio_files.STRATEGIES)
TOP_K = _parameter("integer", "top_k", "Choose among this many likeliest codes; 0 = off.")
TOP_P = _parameter(
    "number", "top_p", "Choose among the likeliest codes of this total probability; 0 = off, top_k is used."
)
TEMPERATURE = _parameter("number", "temperature", "Higher is more adventurous; 0 = always the likeliest code.")
GUIDANCE = _parameter("integer", "cfg", "How closely the description is followed; 1 = off.")
FORMAT = Field("string", "wav", "Format of the audio file.", choices=("wav", "mp3"))
SEED = Field("integer", None, "Same seed, same music; none or -1 = a random one, which is reported.", -1, MAX_SEED)
AT_MOST_S = 10**6  # of a time in a clip


Role = Literal["prompt", "melody", "chords"]


@dataclass(frozen=True)
class Clip:
    """The part of a file that a request uses, and what for."""

    file: str
    start_s: float
    end_s: float  # -1 = its end
    role: Role
    field: str  # its name
    bounds: tuple[str, str]  # names of the fields of its start and end


class Request:
    """Values of the fields of a contract, checked. A contract is a frozen dataclass below it, a `declared` field each."""

    prompt: str | None
    multi_band_diffusion: bool
    normalization_strategy: str
    top_k: int
    top_p: float
    temperature: float
    classifier_free_guidance: int
    output_format: str
    seed: int | None
    replicate_weights: str | None = None

    def __post_init__(self) -> None:
        for name, kind in self.fields().items():
            value = _checked(name, kind, getattr(self, name))
            object.__setattr__(self, name, _path_of(name, value) if kind.is_file and value is not None else value)
        check_text("prompt", self.prompt)
        self.check()
        if self.clip is not None and 0 <= self.clip.end_s <= self.clip.start_s:
            start, end = self.clip.bounds
            raise InputError(
                f"'{end}' of {self.clip.end_s:g} s must be later than '{start}' of {self.clip.start_s:g} s; -1 or none = to the "
                "end of the clip."
            )
        if self.seed is None or self.seed == -1:
            # 0 is a seed like any other. 32 bits are all that torch's CPU generator reads.
            object.__setattr__(self, "seed", secrets.randbelow(2**32))

    @classmethod
    def fields(cls) -> dict[str, Field]:
        """The contract, in its order."""
        return {each.name: each.metadata["field"] for each in fields(cls)}  # type: ignore[arg-type]

    @classmethod
    def of(cls: type[Requested], values: Mapping[str, Any]) -> Requested:
        """From a mapping, as a JSON body has it. InputError names a field that does not exist."""
        for name in values:
            if name not in cls.fields():
                raise InputError(f"there is no field {name!r}. The fields are {', '.join(cls.fields())}.")
        return cls(**values)

    def check(self) -> None:
        """InputError for fields that contradict one another."""

    @property
    def model(self) -> str | None:
        """Name of the model that the fields ask for; None: a model of the user's own."""
        raise NotImplementedError

    @property
    def text(self) -> str | None:
        """What the model is told."""
        return self.prompt

    @property
    def clip(self) -> Clip | None:
        """The recording that is used."""
        return None

    @property
    def file(self) -> str | None:
        """The recording's file."""
        return self.clip and self.clip.file

    @property
    def progression(self) -> Progression | None:
        """Chords that are written in the fields."""
        return None

    @property
    def chord_text(self) -> str:
        """The text of `progression`."""
        return ""

    @property
    def strength(self) -> float:
        """Of the chords."""
        return STRENGTH

    @property
    def duration_s(self) -> float | None:
        """Of the music; None: as long as a recording that is given."""
        return None

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the files that come back, the first one first."""
        return ("out",)

    @property
    def params(self) -> GenerationParams:
        """Of the sampler; its length is left at the default where `duration_s` is None."""
        params = GenerationParams(
            seed=self.seed or 0,
            top_k=self.top_k,
            top_p=self.top_p,
            temperature=self.temperature,
            cfg=self.classifier_free_guidance,
        )
        return params if self.duration_s is None else replace(params, duration_s=self.duration_s)


def parse_field(kind: Field, name: str, text: str) -> object:
    """A field's value from text, in its own type. InputError for a text that is none."""
    if kind.type == "string":
        return text
    text = text.strip()
    if kind.type == "boolean":
        if text.lower() not in ("true", "false"):
            raise InputError(f"'{name}' must be true or false, got {text!r}")
        return text.lower() == "true"
    try:
        return float(text) if kind.type == "number" or not re.fullmatch(r"[+-]?\d+", text) else int(text)
    except ValueError:
        raise InputError(f"'{name}' must be {_allowed(kind)}, got {text!r}") from None


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


def _path_of(name: str, text: str) -> str:
    """The path of a file on this machine, which the schema's uri may be too: file:///home/me/clip.wav."""
    if "://" not in text:
        return text
    try:
        parts = urlsplit(text)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        raise InputError(f"'{name}' must be a file on this machine, as a path or as file:///..., got {text[:200]!r}")
    return url2pathname(parts.path)


def _allowed(kind: Field) -> str:
    if kind.choices:
        return f"one of {', '.join(kind.choices)}"
    noun = {"string": "a text", "integer": "a whole number", "number": "a number", "boolean": "true or false"}[
        kind.type
    ]
    limits = "" if kind.minimum is None else f" from {kind.minimum:g} to {kind.maximum:g}"
    return f"{noun}{limits}{', or none' if kind.default is None else ''}"
