"""The contracts by version: `CONTRACTS`. Names, types and defaults are those of the Replicate models."""

from dataclasses import dataclass
from typing import Any

from ..conditioning.chords import STRENGTH, Progression
from ..errors import InputError
from ..units import FASTEST_BPM, SLOWEST_BPM, Meter, told
from .fields import (
    AT_MOST_S,
    DIFFUSION,
    DURATION,
    FORMAT,
    GUIDANCE,
    NORMALIZATION,
    PROMPT,
    SEED,
    TEMPERATURE,
    TOP_K,
    TOP_P,
    Clip,
    Field,
    Request,
    Role,
    declared,
)

DEFAULT_MODEL = "facebook/musicgen-stereo-melody"
FINE_TUNED = "fine-tuned"
CHORD_MODELS = ("chord", "chord-large", "stereo-chord", "stereo-chord-large")


@dataclass(frozen=True)
class PansoriRequest(Request):
    """Source: `sakemin/musicgen-pansori` (cog predictor)."""

    prompt: str | None = declared(PROMPT)
    input_audio: str | None = declared(
        Field(
            "string",
            None,
            "An audio file that influences the music: continued if 'continuation' is true, else its melody is followed.",
            is_file=True,
        )
    )
    duration: int = declared(DURATION)
    continuation: bool = declared(Field("boolean", False, "Continue 'input_audio'; if false, follow its melody."))
    continuation_start: int = declared(Field("integer", 0, "Take 'input_audio' from here, in seconds.", 0, AT_MOST_S))
    continuation_end: int | None = declared(
        Field("integer", None, "Take 'input_audio' up to here, in seconds; -1 or none = to its end.", -1, AT_MOST_S)
    )
    multi_band_diffusion: bool = declared(DIFFUSION)
    normalization_strategy: str = declared(NORMALIZATION)
    top_k: int = declared(TOP_K)
    top_p: float = declared(TOP_P)
    temperature: float = declared(TEMPERATURE)
    classifier_free_guidance: int = declared(GUIDANCE)
    output_format: str = declared(FORMAT)
    seed: int | None = declared(SEED)
    replicate_weights: str | None = declared(
        Field("string", None, "Fine-tuned weights: a file, or an https address; blank = the default model, always.")
    )

    def check(self) -> None:
        if self.prompt is None and self.input_audio is None:
            raise InputError("'prompt' and 'input_audio' are both missing. Give a description, an audio file, or both.")
        if self.continuation and self.input_audio is None:
            raise InputError(
                "'continuation' is true, but there is no 'input_audio' to continue. Give a file, or set it to false."
            )

    @property
    def model(self) -> str:
        return DEFAULT_MODEL

    @property
    def clip(self) -> Clip | None:
        bounds = ("continuation_start", "continuation_end")
        return _clip(self, "input_audio", "prompt" if self.continuation else "melody", bounds)

    @property
    def duration_s(self) -> float:
        return self.duration


@dataclass(frozen=True)
class ChordRequest(Request):
    """Source: `sakemin/cog-musicgen-chord` (commit b78b81d), which musicgen-chord and musicgen-stereo-chord are run by."""

    model_version: str = declared(
        Field(
            "string",
            "stereo-chord-large",
            f"Weights: sakemin/musicgen-<model_version>; {FINE_TUNED} = your own, named by the option --model.",
            choices=(*CHORD_MODELS, FINE_TUNED),
        )
    )
    prompt: str | None = declared(PROMPT)
    text_chords: str | None = declared(
        Field(
            "string",
            None,
            "Chords that are followed: a bar a word, chords of a bar by comma, as in C,C:7 G A:min. Need 'bpm'.",
        )
    )
    bpm: float | None = declared(
        Field(
            "number", None, "Tempo of the chords in beats a minute; told behind the prompt.", SLOWEST_BPM, FASTEST_BPM
        )
    )
    time_sig: str = declared(
        Field("string", "4/4", "Meter of the chords; told behind the prompt. Blank = none is told.")
    )
    audio_chords: str | None = declared(Field(
        "string", None, "An audio file whose chords are followed, or which is continued if 'continuation' is true.",
        is_file=True))  # fmt: skip
    audio_start: int = declared(Field("integer", 0, "Take 'audio_chords' from here, in seconds.", 0, AT_MOST_S))
    audio_end: int | None = declared(
        Field("integer", None, "Take 'audio_chords' up to here, in seconds; -1 or none = to its end.", -1, AT_MOST_S)
    )
    duration: int = declared(DURATION)
    continuation: bool = declared(Field("boolean", False, "Continue 'audio_chords'; if false, follow its chords."))
    multi_band_diffusion: bool = declared(DIFFUSION)
    normalization_strategy: str = declared(NORMALIZATION)
    chroma_coefficient: float = declared(Field("number", STRENGTH, "How strongly the chords are told.", 0.5, 2.5))
    top_k: int = declared(TOP_K)
    top_p: float = declared(TOP_P)
    temperature: float = declared(TEMPERATURE)
    classifier_free_guidance: int = declared(GUIDANCE)
    output_format: str = declared(FORMAT)
    seed: int | None = declared(SEED)

    def check(self) -> None:
        if self.time_sig.strip():
            Meter.parse(self.time_sig, "time_sig")
        if self.text_chords is not None:
            if self.audio_chords is not None and not self.continuation:
                raise InputError(
                    "'text_chords' and 'audio_chords' both give chords. Leave one of them out, or set 'continuation' to true: then "
                    "'audio_chords' is continued on the chords of 'text_chords'."
                )
            for name in ("bpm", "time_sig"):
                if not getattr(self, name):
                    raise InputError(
                        f"'text_chords' need '{name}', which places the bars, and it is missing. Give one."
                    )
            Progression.parse(self.text_chords, self.bpm or 0.0, self.time_sig, ("text_chords", "time_sig"))
        if self.continuation and self.audio_chords is None:
            raise InputError(
                "'continuation' is true, but there is no 'audio_chords' to continue. Give a file, or set it to false."
            )

    @property
    def model(self) -> str | None:
        return _chord_model(self.model_version)

    @property
    def text(self) -> str:
        return told(self.prompt or "", self.bpm, Meter.parse(self.time_sig) if self.time_sig.strip() else None)

    @property
    def clip(self) -> Clip | None:
        return _clip(self, "audio_chords", "prompt" if self.continuation else "chords", ("audio_start", "audio_end"))

    @property
    def progression(self) -> Progression | None:
        if self.text_chords is None or self.bpm is None:
            return None
        return Progression.parse(self.text_chords, self.bpm, self.time_sig)

    @property
    def chord_text(self) -> str:
        return self.text_chords or ""

    @property
    def strength(self) -> float:
        return self.chroma_coefficient

    @property
    def duration_s(self) -> float:
        return self.duration


@dataclass(frozen=True)
class RemixRequest(Request):
    """Source: `sakemin/cog-musicgen-remixer` (commit 1b01a1b). The music is as long as `music_input`."""

    model_version: str = declared(
        Field(
            "string",
            "stereo-chord",
            "Weights: sakemin/musicgen-<model_version>.",
            choices=("stereo-chord", "stereo-chord-large", "chord", "chord-large"),
        )
    )
    prompt: str | None = declared(PROMPT)
    music_input: str | None = declared(
        Field("string", None, "An audio file: its voice, over new music on its chords and beats.", is_file=True)
    )
    multi_band_diffusion: bool = declared(DIFFUSION)
    normalization_strategy: str = declared(NORMALIZATION)
    beat_sync_threshold: float | None = declared(
        Field(
            "number",
            None,
            "How far a beat may be moved to one of 'music_input', in seconds; none, 0 or -1 = half a beat.",
            -1,
            10,
        )
    )
    large_chord_voca: bool = declared(Field("boolean", True, "Hear sevenths as well as major and minor chords."))
    chroma_coefficient: float = declared(Field("number", STRENGTH, "How strongly the chords are told.", 0.5, 2.0))
    top_k: int = declared(TOP_K)
    top_p: float = declared(TOP_P)
    temperature: float = declared(TEMPERATURE)
    classifier_free_guidance: int = declared(GUIDANCE)
    output_format: str = declared(FORMAT)
    seed: int | None = declared(SEED)
    return_instrumental: bool = declared(
        Field("boolean", False, "Give the new music on the beats of 'music_input' as a second file, without the voice.")
    )

    def check(self) -> None:
        for name, what in (("prompt", "a description, which may be blank"), ("music_input", "an audio file")):
            if getattr(self, name) is None:
                raise InputError(f"'{name}' is missing. Give {what}.")
        if self.beat_sync_threshold is not None and -1 < self.beat_sync_threshold < 0:
            raise InputError(
                f"'beat_sync_threshold' must be a number of seconds, or 0 or -1 for half a beat, got {self.beat_sync_threshold:g}"
            )

    @property
    def model(self) -> str | None:
        return _chord_model(self.model_version)

    @property
    def file(self) -> str | None:
        return self.music_input

    @property
    def strength(self) -> float:
        return self.chroma_coefficient

    @property
    def outputs(self) -> tuple[str, ...]:
        return ("out", "background_synced") if self.return_instrumental else ("out",)


@dataclass(frozen=True)
class Contract:
    """One Replicate model."""

    title: str
    request: type[Request]
    gives_files: bool = False  # a list of files, instead of one

    def schema(self) -> dict[str, Any]:
        """JSON schema (draft 2020-12) of the input and the output."""
        properties = {}
        for order, (name, kind) in enumerate(self.request.fields().items()):
            entry: dict[str, Any] = {"type": kind.type if kind.default is not None else [kind.type, "null"]}
            entry |= {"description": kind.description, "default": kind.default, "x-order": order}
            if kind.choices:
                entry["enum"] = list(kind.choices)
            if kind.minimum is not None:
                entry |= {"minimum": kind.minimum, "maximum": kind.maximum}
            if kind.is_file:
                entry["format"] = "uri"
            properties[name] = entry
        output: dict[str, Any] = {"type": "string", "format": "uri", "description": "The audio file."}
        if self.gives_files:
            output = {"type": "array", "items": output, "description": "The remix, and what else was asked for."}
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": self.title,
            "type": "object",
            "properties": {
                "input": {"type": "object", "properties": properties, "additionalProperties": False},
                "output": output,
            },
        }


PANSORI = "pansori"
CONTRACTS = {
    PANSORI: Contract("MusicGen Pansori", PansoriRequest),
    # One predictor serves both, and has the default of the stereo weights.
    "chord": Contract("MusicGen Chord", ChordRequest),
    "stereo-chord": Contract("MusicGen Stereo Chord", ChordRequest),
    "remixer": Contract("MusicGen Remixer", RemixRequest, gives_files=True),
}


def contract(version: str) -> Contract:
    """The contract of a version. InputError for any other name."""
    if version not in CONTRACTS:
        raise InputError(f"'version' must be one of {', '.join(CONTRACTS)}, got {version!r}")
    return CONTRACTS[version]


def _chord_model(model_version: str) -> str | None:
    return None if model_version == FINE_TUNED else f"sakemin/musicgen-{model_version}"


def _clip(request: Request, name: str, role: Role, bounds: tuple[str, str]) -> Clip | None:
    """The part of the file of field `name` between its bounds, of which the end may be none or -1."""
    file, start_s, end_s = (getattr(request, each) for each in (name, *bounds))
    return None if file is None else Clip(file, start_s, -1 if end_s is None else end_s, role, name, bounds)
