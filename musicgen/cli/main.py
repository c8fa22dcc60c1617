"""The command line: python -m musicgen generate | predict | convert | ... Music without a server."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from .. import audio as audio_files
from ..config import PRECISIONS, GenerationParams
from ..dependencies import require
from ..errors import InputError, MusicGenError
from ..loading import load
from ..render import Piece, find_device, make
from ..store import ModelStore
from ..store.published import SHIPPED
from . import doctor
from . import files as cli_files
from . import predict as cli_predict
from .console import Progress, check_folder
from .folders import models_dir

_DEFAULTS = GenerationParams()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit status: 0 done, 1 a reported error or a goal missed, 2 wrong usage, 130 stopped."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO if arguments.verbose else logging.WARNING, format="%(message)s")
    try:
        status = arguments.run(arguments)
    except MusicGenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; nothing was written", file=sys.stderr)
        return 130
    return status or 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m musicgen", description="Make music with MusicGen.")
    parser.add_argument("-v", "--verbose", action="store_true", help="say what is being done")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_generate(commands.add_parser("generate", help="make music from a text, or continue a clip"))
    cli_predict.add(
        commands.add_parser("predict", help="the 15 fields of the Replicate model; one audio file"), models_dir()
    )
    cli_files.add_convert(
        commands.add_parser("convert", help="make one safetensors file of a checkpoint: loads faster, holds no pickle"),
        models_dir(),
    )
    cli_files.add_inspect(commands.add_parser("inspect", help="say what a file or folder of weights is"), models_dir())
    cli_files.add_evaluate(
        commands.add_parser("evaluate", help="measure a model: codec, melody, text, continuation, collapse"),
        models_dir(),
    )
    doctor.add(
        commands.add_parser("doctor", help="what is installed here, and what stops or slows music"), models_dir()
    )
    return parser


def _add_generate(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_generate)
    parser.add_argument(
        "--model", default=SHIPPED, metavar="DIR_OR_NAME", help="checkpoint, or a name below --models (%(default)s)"
    )
    parser.add_argument("--models", type=Path, default=models_dir(), metavar="DIR", help="models folder (%(default)s)")
    parser.add_argument("--prompt", default="", metavar="TEXT", help="description of the music; empty = free")
    parser.add_argument("--negative", metavar="TEXT", help="description of what the music should not be")
    parser.add_argument("--continue", dest="clip", type=Path, metavar="FILE", help="audio to continue")
    parser.add_argument("--start", type=float, default=0.0, metavar="S", help="take the clip from here, in seconds")
    parser.add_argument("--end", type=float, default=-1.0, metavar="S", help="... to here; -1 = its end")
    parser.add_argument(
        "--duration", type=float, default=_DEFAULTS.duration_s, metavar="S",
        help="length of the whole result in seconds, the clip included (%(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=int, default=_DEFAULTS.seed, metavar="N", help="same seed, same music (%(default)s)"
    )
    parser.add_argument("--top-k", type=int, default=_DEFAULTS.top_k, metavar="N", help="0 = off (%(default)s)")
    parser.add_argument("--top-p", type=float, default=_DEFAULTS.top_p, metavar="P", help="0 = off (%(default)s)")
    parser.add_argument(
        "--temperature", type=float, default=_DEFAULTS.temperature, metavar="X", help="0 = greedy (%(default)s)"
    )
    parser.add_argument("--cfg", type=float, default=_DEFAULTS.cfg, metavar="X", help="guidance; 1 = off (%(default)s)")
    parser.add_argument(
        "--batch", type=int, default=_DEFAULTS.batch_size, metavar="N", help="takes to make (%(default)s)"
    )
    parser.add_argument(
        "--extend-stride", type=float, default=_DEFAULTS.extend_stride_s, metavar="S",
        help="hop of the windows of pieces longer than the model's, in seconds (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--precision", choices=PRECISIONS, default="auto", help="of the language model (%(default)s)")
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda, cuda:1, mps")
    parser.add_argument(
        "--normalize",
        choices=("loudness", "clip", "peak", "rms", "off"),
        default="loudness",
        help="levels (%(default)s)",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="wav, mp3, flac or opus")
    parser.add_argument("--codes", type=Path, metavar="FILE.npy", help="also save the codes [B, K, T]")


def _generate(arguments: argparse.Namespace) -> None:
    params = GenerationParams(
        duration_s=arguments.duration,
        seed=arguments.seed,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        temperature=arguments.temperature,
        cfg=arguments.cfg,
        batch_size=arguments.batch,
        extend_stride_s=arguments.extend_stride,
    )
    outputs = _outputs(arguments.out, params.batch_size)
    for file in (*outputs, *([arguments.codes] if arguments.codes else [])):
        check_folder(file)
    clip = None
    if arguments.clip is not None:
        clip = audio_files.read(arguments.clip, arguments.start, arguments.end)
    device = find_device(arguments.device)
    store = ModelStore([arguments.models / "musicgen"], allow_paths=True)
    with Progress() as on_progress:

        def downloaded(done: int, total: int) -> None:
            on_progress("downloading", done, total)

        path = store.ensure(arguments.model, downloaded)
        encoders = [arguments.models / "text_encoders"]
        loaded = load(path, arguments.precision, device, encoders, store=store, on_download=downloaded)
        piece = Piece(arguments.prompt, arguments.negative, prompt=clip)
        audio, codes = make(loaded, piece, params, device, on_progress)
    if arguments.codes:
        _save_codes(codes.codes, arguments.codes)
    if arguments.normalize != "off":
        audio = audio_files.normalize(audio, arguments.normalize)
    for row, file in enumerate(outputs):
        audio_files.write(audio_files.Audio(audio.samples[row : row + 1], audio.rate_hz), file)
        print(file)


def _outputs(out: Path, n_takes: int) -> list[Path]:
    """song.wav, or song-1.wav, song-2.wav, ... for several takes. InputError for a format that cannot be written."""
    formats = audio_files.FORMATS
    if out.suffix.lower().lstrip(".") not in formats:
        raise InputError(f"'--out {out}' must end in one of {', '.join('.' + f for f in formats)}")
    if n_takes == 1:
        return [out]
    return [out.with_name(f"{out.stem}-{take + 1}{out.suffix}") for take in range(n_takes)]


def _save_codes(codes: torch.Tensor, file: Path) -> None:
    temporary = file.with_name(f".{file.name}.part")
    try:
        with open(temporary, "wb") as stream:
            require("numpy", "--codes").save(stream, codes.numpy())
        os.replace(temporary, file)
    except OSError as error:
        raise InputError(f"the codes could not be saved as '{file}': {error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    print(file)
