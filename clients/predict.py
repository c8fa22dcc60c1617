"""The 15 fields of the Replicate model against a running ComfyUI: the graph they mean, queued, and its one audio file.

python -m clients.predict --prompt "slow pansori, rough voice" --duration 10 --out results
"""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

from .comfyui import DEFAULT_SERVER, ClientError, OnEvent, ProgressLine, Prompt, run

if __package__ == "clients":  # started from the pack's own folder
    from musicgen.cli.console import print_everywhere
    from musicgen.cli.predict import add_fields, parse_fields
    from musicgen.errors import MusicGenError
    from musicgen.replicate.predict import DEFAULT_MODEL, Prediction, Request
    from musicgen.store.published import DIFFUSION_MODEL
else:
    from ..musicgen.cli.console import print_everywhere
    from ..musicgen.cli.predict import add_fields, parse_fields
    from ..musicgen.errors import MusicGenError
    from ..musicgen.replicate.predict import DEFAULT_MODEL, Prediction, Request
    from ..musicgen.store.published import DIFFUSION_MODEL


def graph(request: Request, model: str = DEFAULT_MODEL, diffusion: str = DIFFUSION_MODEL) -> Prompt:
    """The workflow in API format that a request means. `LoadAudio.audio` is to be the uploaded file's name."""
    nodes: Prompt = {}

    def add(name: str, class_type: str, **inputs: object) -> str:
        nodes[name] = {"class_type": class_type, "inputs": inputs, "_meta": {"title": name}}
        return name

    loader = add("loader", "MusicGenLoader", model=model, precision="auto", engine="native")
    model_link, conditioner, codec = ([loader, index] for index in range(3))
    if request.replicate_weights:
        tuned = add(
            "fine-tune", "MusicGenFineTune", model=model_link, conditioner=conditioner,
            weights=request.replicate_weights, strength=1.0,
        )  # fmt: skip
        model_link, conditioner = [tuned, 0], [tuned, 1]
    positive = [add("text", "MusicGenText", conditioner=conditioner, text=request.prompt or ""), 0]
    sampler = {}
    if request.input_audio is not None:
        clip = add("clip", "LoadAudio", audio=request.input_audio)
        part = add(
            "part", "MusicGenTrimAudio", audio=[clip, 0],
            start_s=float(request.continuation_start), end_s=float(request.end_s),
        )  # fmt: skip
        if request.continuation:
            sampler["prompt"] = [add("codes", "MusicGenEncode", codec=codec, audio=[part, 0]), 0]
        else:
            positive = [
                add("melody", "MusicGenMelody", conditioner=conditioner, conditioning=positive, audio=[part, 0], stems="auto"), 0
            ]  # fmt: skip
    params = request.params
    add(
        "sampler", "MusicGenSampler", model=model_link, positive=positive, duration_s=float(params.duration_s),
        seed=params.seed, top_k=params.top_k, top_p=params.top_p, temperature=params.temperature, cfg=float(params.cfg),
        batch_size=1, **sampler,
    )  # fmt: skip
    if request.multi_band_diffusion:
        loaded = [add("diffusion", "MusicGenDiffusionLoader", diffusion=diffusion), 0]
        add(
            "decode", "MusicGenDecodeDiffusion", codec=codec, diffusion=loaded, codes=["sampler", 0], seed=params.seed
        )  # fmt: skip
    else:
        add("decode", "MusicGenDecode", codec=codec, codes=["sampler", 0])
    add("level", "MusicGenNormalize", audio=["decode", 0], strategy=request.normalization_strategy)
    add("save", "MusicGenSaveAudio", audio=["level", 0], filename_prefix="audio/musicgen", format=request.output_format)
    return nodes


async def predict(
    request: Request,
    server: str = DEFAULT_SERVER,
    model: str = DEFAULT_MODEL,
    diffusion: str = DIFFUSION_MODEL,
    out: Path = Path(),
    on_event: OnEvent | None = None,
) -> Prediction:
    """Queue a request on a running ComfyUI and download its file into the folder `out`. ClientError if it fails."""
    uploads = [("clip.audio", request.input_audio)] if request.input_audio is not None else []
    _, files = await run(graph(request, model, diffusion), server, out, uploads, on_event=on_event)
    return Prediction(next(file for file in files if file.suffix == f".{request.output_format}"), request.seed)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0 done, 1 bad input, else that of clients.comfyui."""
    parser = argparse.ArgumentParser(prog="python -m clients.predict", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--server", default=DEFAULT_SERVER, metavar="HOST:PORT", help="the running ComfyUI (%(default)s)"
    )
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, metavar="NAME", help="a name in its models/musicgen (%(default)s)"
    )
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
        request = Request.of(parse_fields(arguments))
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
    print(prediction.file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
