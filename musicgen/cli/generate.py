"""python -m musicgen generate: music from a text, after a melody, or the continuation of a clip."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch

from .. import audio as audio_files
from ..analysis.choices import WAYS
from ..analysis.fit import check_meter, fit_tempo
from ..conditioning import STEM_CHOICES, Progression
from ..conditioning.chords import BPM, METER, STRENGTH
from ..conditioning.melody import heard_until_s
from ..conditioning.timeline import CADENCE_S, timeline_lines
from ..config import PARAMETERS, GenerationParams
from ..dependencies import require
from ..errors import InputError
from ..loading import apply_fine_tune, load
from ..outputs import atomic_file, check_output
from ..render import RenderRequest, find_device, render
from ..store.published import DEFAULT
from ..units import Length, Meter, check_bpm, told
from .console import Progress
from .options import add_execution, add_model, add_models, add_weights, model_store, parse_weights
from .score import add_score, read_asked, save_midi

# Option -> field of GenerationParams; --duration besides.
_PARAMETERS = {
    "--seed": "seed",
    "--top-k": "top_k",
    "--top-p": "top_p",
    "--temperature": "temperature",
    "--cfg": "cfg",
    "--batch": "batch_size",
    "--extend-stride": "extend_stride_s",
    "--anchor": "anchor_s",
}
_ENDINGS = ("none", "fade", "cadence")
_FADE_OUT_S = 5.0


def add(parser: argparse.ArgumentParser, models: Path) -> None:
    """Options of `generate`; those of GenerationParams take default and description from it."""
    parser.set_defaults(run=run)
    add_model(parser, DEFAULT)
    add_models(parser, models)
    add_weights(parser, "put on the model")
    parser.add_argument("--prompt", default="", metavar="TEXT", help="description of the music; empty = free")
    parser.add_argument(
        "--timeline", metavar="TEXT",
        help="descriptions at their times, in place of --prompt: '0: calm flute | 0:20: drums enter @ 0.7 | -8: flute alone'",
    )  # fmt: skip
    parser.add_argument(
        "--ending", choices=_ENDINGS, default=_ENDINGS[0],
        help=f"fade: the last {_FADE_OUT_S:g} s fade out; cadence: the last {CADENCE_S:g} s of --timeline ask for an ending (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--negative", metavar="TEXT", help="description of what the music should not be")
    parser.add_argument("--continue", dest="clip", type=Path, metavar="FILE", help="audio to continue")
    parser.add_argument(
        "--melody", type=Path, metavar="FILE",
        help="audio whose tune is followed, by a melody model, or a score: .mid, .musicxml, .xml, .mxl, .abc",
    )  # fmt: skip
    add_score(parser)
    parser.add_argument(
        "--stems", choices=STEM_CHOICES, default=STEM_CHOICES[0],
        help="take drums and bass out of the melody first: with Demucs if it is installed, always, or never (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--chords", metavar="TEXT",
        help="chords that are followed, by a chord model: 'C G,G:7 A:min' (a word is a bar) or 'Am7 | F/C | G | %%'",
    )  # fmt: skip
    parser.add_argument(
        "--bpm", type=float, metavar="X",
        help=f"tempo, beats a minute: told behind the text, and that of --chords (else that of --duration, or {BPM:g})",
    )  # fmt: skip
    parser.add_argument(
        "--meter", metavar="N/M",
        help=f"beats in a bar, their unit: told behind the text, and that of --chords (else that of --duration, or {METER})",
    )  # fmt: skip
    parser.add_argument(
        "--chord-strength", type=float, default=STRENGTH, metavar="X",
        help="how strongly --chords are told, 0 to 2.5; 1 = as trained (%(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--start", type=float, default=0.0, metavar="S",
        help="take the clip from here, in seconds: that of --continue, or else of --melody",
    )  # fmt: skip
    parser.add_argument("--end", type=float, default=-1.0, metavar="S", help="... to here; -1 = its end")
    entry = PARAMETERS["duration_s"]
    parser.add_argument(
        "--duration", dest="length", default=f"{entry.default:g}", metavar="LENGTH",
        help=f"{entry.description} Or in bars: '8 bars @ 92 in 4/4', '32 beats @ 120', '1:30' (%(default)s)",
    )  # fmt: skip
    for option, name in _PARAMETERS.items():
        entry = PARAMETERS[name]
        parser.add_argument(
            option, dest=name, type=int if entry.is_whole else float, default=entry.default,
            metavar="N" if entry.is_whole else "X", help=f"{entry.description} (%(default)s)",
        )  # fmt: skip
    parser.add_argument(
        "--fit-tempo", choices=WAYS, metavar="WAY",
        help="say how the music keeps the tempo (measure), stretch it to the tempo at the same pitch (stretch), or also move its "
        "first bar to the beginning (stretch and align)",
    )  # fmt: skip
    add_execution(parser)
    parser.add_argument(
        "--normalize",
        choices=(*audio_files.STRATEGIES, "off"),
        default=audio_files.STRATEGIES[0],
        help="levels (%(default)s)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="wav, mp3, flac or opus")
    parser.add_argument("--codes", type=Path, metavar="FILE.npy", help="also save the codes [B, K, T]")


def run(arguments: argparse.Namespace) -> None:
    """Write one file a take, and print their paths."""
    length = Length.parse(arguments.length, "--duration")
    values = {name: getattr(arguments, name) for name in _PARAMETERS.values()}
    params = GenerationParams(duration_s=length.duration_s, **values)
    outputs = _outputs(arguments.out, params.batch_size)
    for file in outputs:
        check_output(file, audio_files.FORMATS)
    if arguments.codes:
        check_output(arguments.codes, ["npy"])
    if arguments.midi:
        check_output(arguments.midi, ("mid", "midi"))
    bpm, meter = _tempo(arguments, length)
    if arguments.fit_tempo is not None and bpm is None:
        raise InputError(
            "'--fit-tempo' needs the tempo that is asked for. Give '--bpm', or a length such as '8 bars @ 92'."
        )
    if arguments.fit_tempo is not None and meter is not None:
        check_meter(meter)  # before any music is made
    request, weights = _request(arguments, length, bpm, meter), parse_weights(arguments)
    device = find_device(arguments.device)
    store = model_store(arguments)
    with Progress() as on_progress:

        def downloaded(done: int, total: int) -> None:
            on_progress("downloading", done, total)

        path = store.ensure(arguments.model, downloaded)
        encoders = [arguments.models / "text_encoders"]
        tuned = [(store.ensure(name, downloaded, "weights"), strength) for name, strength in weights]
        loaded = load(path, arguments.precision, device, encoders, store=store, on_download=downloaded)
        for file, strength in tuned:
            model, conditioner = apply_fine_tune(loaded.model, loaded.conditioner, file, strength)
            loaded = replace(loaded, model=model, conditioner=conditioner)
        audio, codes = render(loaded, request, params, device, on_progress, [arguments.models / "demucs"])
    if arguments.codes:
        _save_codes(codes.codes, arguments.codes)
    for row, file in enumerate(outputs):
        take = audio_files.Audio(audio.samples[row : row + 1], audio.rate_hz)
        if arguments.fit_tempo is not None and bpm is not None:
            fit = fit_tempo(take, bpm, meter or Meter(4), arguments.fit_tempo)
            print(f"{file.name}: {fit.report}", file=sys.stderr)
            take = fit.audio
        if arguments.normalize != "off":
            take = audio_files.normalize(take, arguments.normalize)
        audio_files.write(take, file)
        print(file)
    if arguments.midi:
        save_midi(arguments.midi, request.score, audio_files.Audio(audio.samples[:1], audio.rate_hz))


def _outputs(out: Path, n_takes: int) -> list[Path]:
    """song.wav, or song-1.wav, song-2.wav, ... for several takes."""
    if n_takes == 1:
        return [out]
    return [out.with_name(f"{out.stem}-{take + 1}{out.suffix}") for take in range(n_takes)]


def _tempo(arguments: argparse.Namespace, length: Length) -> tuple[float | None, Meter | None]:
    """Tempo and meter: those of their options, else of the length; None where neither names them."""
    bpm = length.bpm if arguments.bpm is None else check_bpm(arguments.bpm)
    meter = length.meter if arguments.meter is None else Meter.parse(arguments.meter)
    return bpm, meter


def _request(arguments: argparse.Namespace, length: Length, bpm: float | None, meter: Meter | None) -> RenderRequest:
    """Texts and clips; --start and --end cut the clip that is continued, or else the melody."""
    ending = "cadence" if arguments.ending == "cadence" else "none"
    if arguments.timeline is None and ending == "cadence":
        raise InputError(
            "'--ending cadence' belongs to a '--timeline', which may be one text. Give one, or '--ending fade'."
        )
    if arguments.timeline is not None:
        if arguments.prompt:
            raise InputError("'--prompt' and '--timeline' are both given. Give one of them.")
        timeline_lines(arguments.timeline, ending)  # for its errors, before anything is loaded
    if arguments.chords is not None and arguments.melody is not None:
        raise InputError("'--chords' and '--melody' are both given. Give one of them.")
    score = read_asked(arguments, bpm)
    chords = (
        Progression.parse(arguments.chords, bpm or BPM, str(meter or METER)) if arguments.chords is not None else None
    )
    clip = melody = None
    span = (arguments.start, arguments.end)
    if arguments.clip is not None:
        clip, span = audio_files.read(arguments.clip, *span), (0.0, None)
    if arguments.melody is not None and score is None:
        melody = _read_melody(arguments.melody, *span, length.duration_s)
    return RenderRequest(
        arguments.prompt if arguments.timeline is not None else told(arguments.prompt, bpm, meter), arguments.negative, clip,
        melody, arguments.stems, timeline=arguments.timeline, ending=ending, fade_out_s=_FADE_OUT_S if arguments.ending == "fade" else 0.0, chords=chords,
        chord_strength=arguments.chord_strength, score=score,
    )  # fmt: skip


def _read_melody(file: Path, start_s: float, end_s: float | None, duration_s: float) -> audio_files.Audio:
    """The recording from `start_s` to `end_s`, as far as a piece of `duration_s` can follow it."""
    until_s = heard_until_s(start_s, end_s, duration_s)
    if until_s == end_s:
        return audio_files.read(file, start_s, end_s)
    clip = audio_files.read(file, start_s, until_s, end_may_exceed=True)
    if (
        end_s is not None and end_s >= 0 and start_s + clip.duration_s < until_s - 1
    ):  # a short one, which ends before `end_s`
        return audio_files.read(file, start_s, end_s)
    return clip


def _save_codes(codes: torch.Tensor, file: Path) -> None:
    try:
        with atomic_file(file) as stream:
            require("numpy", "--codes").save(stream, codes.numpy())
    except OSError as error:
        raise InputError(f"the codes could not be saved as '{file}': {error}") from error
    print(file)
