"""The fields of a Replicate model against a running ComfyUI: the graph they mean, queued, and its audio files.

python -m clients.predict --prompt "slow pansori, rough voice" --duration 10 --out results
python -m clients.predict --version chord --prompt "warm piano" --text-chords "C G A:min F" --bpm 92
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from .comfyui import DEFAULT_SERVER, ClientError, OnEvent, ProgressLine, run
from .graphs import graph, output_of

if __package__ == "clients":  # started from the pack's own folder
    from musicgen.cli.console import print_everywhere
    from musicgen.cli.predict import MODEL_HELP, add_fields, parse_fields
    from musicgen.errors import MusicGenError
    from musicgen.replicate.contracts import contract
    from musicgen.replicate.fields import Request
    from musicgen.replicate.predict import Prediction
    from musicgen.store.published import DIFFUSION_MODEL
else:
    from ..musicgen.cli.console import print_everywhere
    from ..musicgen.cli.predict import MODEL_HELP, add_fields, parse_fields
    from ..musicgen.errors import MusicGenError
    from ..musicgen.replicate.contracts import contract
    from ..musicgen.replicate.fields import Request
    from ..musicgen.replicate.predict import Prediction
    from ..musicgen.store.published import DIFFUSION_MODEL


async def predict(
    request: Request,
    server: str = DEFAULT_SERVER,
    model: str | None = None,
    diffusion: str = DIFFUSION_MODEL,
    out: Path = Path(),
    on_event: OnEvent | None = None,
) -> Prediction:
    """Queue a request on a running ComfyUI and download its files into the folder `out`. ClientError if it fails."""
    uploads = [("clip.audio", request.file)] if request.file is not None else []
    _, files = await run(graph(request, model, diffusion), server, out, uploads, on_event=on_event)
    found = {output_of(file): file for file in files if file.suffix == f".{request.output_format}"}
    return Prediction(tuple(found[name] for name in request.outputs), request.seed or 0)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0 done, 1 bad input, else that of clients.comfyui."""
    parser = argparse.ArgumentParser(prog="python -m clients.predict", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--server", default=DEFAULT_SERVER, metavar="HOST:PORT", help="the running ComfyUI (%(default)s)"
    )
    parser.add_argument("--model", metavar="NAME", help=f"in its models/musicgen: {MODEL_HELP}")
    parser.add_argument(
        "--diffusion",
        default=DIFFUSION_MODEL,
        metavar="NAME",
        help="what --multi-band-diffusion decodes with (%(default)s)",
    )
    parser.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="folder for the file (this one)")
    add_fields(parser)
    print_everywhere()
    arguments = parser.parse_args(argv)
    try:
        request = contract(arguments.version).request.of(parse_fields(arguments))
        line = ProgressLine(graph(request, arguments.model, arguments.diffusion), sys.stderr)
        prediction = asyncio.run(
            predict(request, arguments.server, arguments.model, arguments.diffusion, arguments.out, line)
        )
    except MusicGenError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except ClientError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    print(f"seed: {prediction.seed}", file=sys.stderr)
    for file in prediction.files:
        print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
