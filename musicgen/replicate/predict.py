"""Requests of the Replicate contracts become audio files. The contracts: `contracts`."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from .. import audio as audio_files
from ..audio import Audio
from ..conditioning.chord_times import TimedChords
from ..conditioning.chords import Progression
from ..conditioning.melody import heard_until_s
from ..errors import InputError
from ..loading import Loaded, apply_fine_tune, load
from ..multiband import Diffusion, load_diffusion
from ..outputs import check_output
from ..render import OnProgress, RenderRequest, find_device, render
from ..store import ModelStore
from ..store.published import DIFFUSION_MODEL
from .contracts import FINE_TUNED, PANSORI, RemixRequest, contract
from .fields import Request


def _silently(stage: str, done: int, total: int) -> None:
    """No progress is shown."""


@dataclass
class Predictor:
    """Requests become audio. The models of a request stay loaded until one comes that needs others.

    models_dir: its `musicgen` holds the models. precision: of the language model. diffusion: the file that
    `multi_band_diffusion` decodes with, or its name below models_dir/musicgen. fade_ms: length of the fades at both ends of
    the music; 0 = none, as in the originals. What on_progress(stage, done, total) raises ends the work.
    """

    models_dir: Path = Path("models")
    precision: str = "auto"
    device: str = "auto"
    diffusion: str | Path = DIFFUSION_MODEL
    fade_ms: float = audio_files.FADE_MS
    on_progress: OnProgress = _silently
    _names: tuple[str, str | None] | None = field(default=None, init=False, repr=False)
    _loaded: Loaded | None = field(default=None, init=False, repr=False)
    _decoder: Diffusion | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self._store = ModelStore([self.models_dir / "musicgen"], allow_paths=True)

    def audio(self, request: Request, model: str | Path | None = None) -> Audio:
        """The first of `outputs`."""
        return self.outputs(request, model)[0]

    def outputs(self, request: Request, model: str | Path | None = None) -> list[Audio]:
        """The music of a request, its levels set, a sound for each of `request.outputs`.

        model: used in place of the one that the fields ask for: a name below models_dir/musicgen, a folder or a file.
        Raises InputError, CheckpointError or DependencyError.
        """
        model = chosen_model(request, model)
        if isinstance(request, RemixRequest):
            return self._remix(request, model)
        clip, device = _clip_of(request), find_device(self.device)
        chords: Progression | TimedChords | None = request.progression
        role = None if request.clip is None else request.clip.role
        if request.clip is not None and role == "chords" and clip is not None:
            chords, clip = self._hear(clip, request.clip.field), None
        loaded, decoder = self._load(model, request.replicate_weights, request.multi_band_diffusion, device)
        sources = RenderRequest(
            request.text, fade_ms=self.fade_ms, chords=chords, chord_strength=request.strength,
            prompt=clip if role == "prompt" else None, melody=clip if role == "melody" else None,
        )  # fmt: skip
        stem_dirs = [self.models_dir / "demucs"]
        audio, _ = render(loaded, sources, request.params, device, self.on_progress, stem_dirs, decoder)
        return [audio_files.normalize(audio, request.normalization_strategy)]

    def _remix(self, request: RemixRequest, model: str | Path) -> list[Audio]:
        """The pipeline of `musicgen.remix`. The song is read, and found to be one, before a model is loaded."""
        from ..analysis.hearing import check_hearing
        from ..remix import check_model, remix

        song, device = audio_files.read(Path(request.music_input or "")), find_device(self.device)
        try:
            check_hearing(song)
        except InputError as error:
            raise InputError(f"'music_input' cannot be heard: {error}") from error
        loaded, decoder = self._load(model, None, request.multi_band_diffusion, device)
        check_model(loaded)
        made = remix(
            song, request.prompt or "", loaded, device=device, stem_dirs=[self.models_dir / "demucs"], params=request.params,
            beat_sync_threshold=request.beat_sync_threshold, large_chord_voca=request.large_chord_voca,
            chroma_coefficient=request.chroma_coefficient, diffusion=decoder, on_progress=self.on_progress,
        )  # fmt: skip
        sounds = {"out": made.mix, "background_synced": made.background_synced}
        strategy = request.normalization_strategy
        return [audio_files.normalize(sounds[name], strategy, compressor=True) for name in request.outputs]

    def _hear(self, clip: Audio, name: str) -> TimedChords:
        """The chords of a clip. InputError, with the field's name, where nothing can be heard."""
        from ..analysis.progression import hear_progression

        try:
            return hear_progression(clip, on_step=lambda *step: self.on_progress("hearing the chords", *step))
        except InputError as error:
            raise InputError(f"'{name}' cannot be heard: {error}") from error

    def _load(
        self, model: str | Path, weights: str | None, with_diffusion: bool, device: torch.device
    ) -> tuple[Loaded, Diffusion | None]:
        """The model and what decodes in place of its codec. What is checked, and downloaded, comes before what is large."""

        def downloaded(done: int, total: int) -> None:
            self.on_progress("downloading", done, total)

        is_new = self._loaded is None or self._names != (str(model), weights)
        if is_new:  # given back before the next one is read
            self._names, self._loaded = None, None
        tuned = self._store.ensure(weights, downloaded, "weights") if weights and is_new else None
        if with_diffusion and self._decoder is None:
            file = self._store.ensure(self.diffusion, downloaded, "diffusion")
            self._decoder = load_diffusion(file, device=device)
        if self._loaded is None:
            path, encoders = self._store.ensure(model, downloaded), [self.models_dir / "text_encoders"]
            loaded = load(path, self.precision, device, encoders, store=self._store, on_download=downloaded)
            if tuned is not None:
                tuned_model, conditioner = apply_fine_tune(loaded.model, loaded.conditioner, tuned, 1.0)
                loaded = replace(loaded, model=tuned_model, conditioner=conditioner)
            self._names, self._loaded = (str(model), weights), loaded
        return self._loaded, self._decoder if with_diffusion else None


OPTIONS = tuple(each.name for each in dataclasses.fields(Predictor) if each.init)


@dataclass(frozen=True)
class Prediction:
    """The audio files of a request, and the seed that reproduces them."""

    files: tuple[Path, ...]  # in the order of `Request.outputs`
    seed: int  # a random one where none was given

    @property
    def file(self) -> Path:
        return self.files[0]


def predict(
    *, version: str = PANSORI, model: str | Path | None = None, out: Path | None = None, **values: Any
) -> Prediction:
    """Make the audio files of one request, from the fields of a contract and the options of `Predictor`, all by name.

    version: of `CONTRACTS`. model: as for `Predictor.outputs`. out: the file; None = musicgen-1.wav, musicgen-2.wav, ...
    whichever is free in this folder. Further files stand beside it: song-background_synced.wav beside song.wav.
    Each call loads the weights it needs: nothing of an earlier call is kept.
    Raises InputError, CheckpointError or DependencyError; no file is left behind then.
    """
    options = {name: values.pop(name) for name in OPTIONS if name in values}
    request = contract(version).request.of(values)
    check_out(out, request)
    sounds = Predictor(**options).outputs(request, model)
    return Prediction(_write(sounds, request, out), request.seed or 0)


def check_out(out: Path | None, request: Request) -> None:
    """InputError, before anything is loaded, for a file that cannot be written or whose name is of another format."""
    format = request.output_format
    if out and out.suffix.lower() != f".{format}":
        others = " or ".join(request.fields()["output_format"].choices or ())
        raise InputError(
            f"'{out}' does not end in .{format}, but 'output_format' is {format}. Give a name that does, or another "
            f"'output_format' ({others})."
        )
    free = (file for file in _numbered("musicgen-", format) if not file.exists())
    check_output(out or next(free, Path(f"musicgen.{format}")))


def _write(sounds: Sequence[Audio], request: Request, out: Path | None) -> tuple[Path, ...]:
    """All files, or none."""
    format, files = request.output_format, []
    try:
        for name, audio in zip(request.outputs, sounds, strict=True):
            if files:
                beside = files[0].with_name(f"{files[0].stem}-{name}.{format}")
                files.append(audio_files.write(audio, beside, format))
            elif out:
                files.append(audio_files.write(audio, out, format))
            else:
                files.append(audio_files.write_new(audio, _numbered("musicgen-", format), format))
    except BaseException:
        for file in files:
            file.unlink(missing_ok=True)
        raise
    return tuple(files)


def _numbered(prefix: str, format: str) -> Iterator[Path]:
    return (Path(f"{prefix}{number}.{format}") for number in range(1, 10**6))


def chosen_model(request: Request, model: str | Path | None) -> str | Path:
    """`model`, or the one that the fields ask for. InputError where there is none."""
    chosen = model or request.model
    if chosen is None:
        raise InputError(
            f"'model_version' is {FINE_TUNED}, which is a model of your own, and none is named. Name its file or folder by "
            "'model' (--model), or choose another 'model_version'."
        )
    return chosen


def _clip_of(request: Request) -> Audio | None:
    """The part of the recording that is used. InputError where a continuation would add nothing to it."""
    used, duration_s = request.clip, request.duration_s
    if used is None or duration_s is None:
        return None
    is_prompt = used.role == "prompt"
    end_s = used.end_s if is_prompt else heard_until_s(used.start_s, used.end_s, duration_s)
    clip = audio_files.read(Path(used.file), used.start_s, end_s, end_may_exceed=True)
    if is_prompt and clip.duration_s >= duration_s:
        raise InputError(
            f"'{used.field}' is {clip.duration_s:g} s long, but 'duration', which includes it, is {duration_s:g} s: "
            f"nothing is left to generate. Raise 'duration', or trim the clip by '{used.bounds[0]}' and '{used.bounds[1]}'."
        )
    return clip
