"""python -m musicgen remix: new music under the voice of a song, on its chords and beats."""

import argparse
import sys
from pathlib import Path

from .. import audio as audio_files
from ..config import PARAMETERS, GenerationParams
from ..loading import load
from ..outputs import check_output
from ..remix import VOCALS_DB, check_model, demucs_of, remix, voice_of
from ..render import find_device
from ..store.published import DEFAULT
from .console import Progress
from .options import add_execution, add_model, add_models, model_store

# Option -> field of GenerationParams.
_PARAMETERS = {"--seed": "seed", "--top-k": "top_k", "--top-p": "top_p", "--temperature": "temperature", "--cfg": "cfg"}


def add(parser: argparse.ArgumentParser, models: Path) -> None:
    """Options of `remix`."""
    parser.set_defaults(run=run)
    add_model(parser, DEFAULT)
    add_models(parser, models)
    parser.add_argument("song", type=Path, metavar="SONG", help="sound file of 2 seconds to 20 minutes, mono or stereo")
    parser.add_argument("--prompt", default="", metavar="TEXT", help="description of the new music; the tempo is added")
    parser.add_argument("--start", type=float, default=0.0, metavar="S", help="take the song from here, in seconds")
    parser.add_argument("--end", type=float, default=-1.0, metavar="S", help="... to here; -1 = its end")
    parser.add_argument(
        "--vocals", type=Path, metavar="FILE",
        help="the song's voice, if it is at hand: at its sample rate, as long as the song; else Demucs separates it",
    )  # fmt: skip
    parser.add_argument(
        "--vocals-db",
        type=float,
        default=VOCALS_DB,
        metavar="DB",
        help="loudness of the voice against the music's (%(default)g)",
    )
    parser.add_argument("--bpm", type=float, default=0.0, metavar="N", help="expected tempo of the song (heard)")
    parser.add_argument("--meter", type=int, default=0, metavar="N", help="beats in a bar (3/4, 4/4 or 6/8, as heard)")
    parser.add_argument("--beat-model", type=Path, metavar="FILE", help="checkpoint of beat-this for the beats")
    parser.add_argument(
        "--beat-sync", type=float, metavar="S", help="seconds by which a beat of the music may be moved (half a beat)"
    )
    parser.add_argument("--triads", action="store_true", help="hear major and minor chords alone, no sevenths")
    parser.add_argument(
        "--chord-strength",
        type=float,
        default=1.0,
        metavar="X",
        help="how strongly the chords are told, 0 to 2.5 (%(default)g)",
    )
    for option, name in _PARAMETERS.items():
        entry = PARAMETERS[name]
        parser.add_argument(
            option, dest=name, type=int if entry.is_whole else float, default=entry.default,
            metavar="N" if entry.is_whole else "X", help=f"{entry.description} (%(default)s)",
        )  # fmt: skip
    add_execution(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="wav, mp3, flac or opus")
    parser.add_argument(
        "--background", type=Path, metavar="FILE", help="also save the music on the song's beats, without the voice"
    )


def run(arguments: argparse.Namespace) -> None:
    """Write the remix, and print its path; what was heard and done goes to standard error."""
    outputs = [file for file in (arguments.out, arguments.background) if file]
    for file in outputs:
        check_output(file, audio_files.FORMATS)
    params = GenerationParams(**{name: getattr(arguments, name) for name in _PARAMETERS.values()})
    device = find_device(arguments.device)
    span = (arguments.start, arguments.end)
    if arguments.vocals is not None:
        separate = voice_of(audio_files.read(arguments.vocals, *span))
    else:
        separate = demucs_of([arguments.models / "demucs"], device)
    song = audio_files.read(arguments.song, *span)
    store = model_store(arguments)
    with Progress() as on_progress:

        def downloaded(done: int, total: int) -> None:
            on_progress("downloading", done, total)

        path = store.ensure(arguments.model, downloaded)
        encoders = [arguments.models / "text_encoders"]
        loaded = load(path, arguments.precision, device, encoders, store=store, on_download=downloaded)
        check_model(loaded)
        made = remix(
            song, arguments.prompt, loaded, device=device, separate=separate, params=params,
            beat_sync_threshold=arguments.beat_sync, large_chord_voca=not arguments.triads,
            chroma_coefficient=arguments.chord_strength, vocals_db=arguments.vocals_db, bpm=arguments.bpm, meter=arguments.meter,
            beat_model=arguments.beat_model, on_progress=on_progress,
        )  # fmt: skip
    lines = [
        f"heard: {made.analysis.bpm:.1f} bpm, {made.analysis.meter_text or 'no meter'}, {made.analysis.key or 'no key'}, "
        f"{made.analysis.chord_text[:200]}",
        f"told: {made.prompt}",
        *([made.alignment.report] if made.alignment else []),
    ]
    print("\n".join(lines), file=sys.stderr)  # notices are logged as warnings
    for file, sound in zip(outputs, (made.mix, made.background_synced)):
        audio_files.write(sound, file)
        print(file)
