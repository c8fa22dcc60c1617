"""From a cold process to music: seconds until the first step and until a short clip is decoded, and once more when warm.

    python benchmarks/first.py [--size small] [--seconds 2] [--rounds 3] [--precisions float32 float16 int8]
                               [--device cpu] [--folder DIR]

A checkpoint of random weights with a codec of full size and a small text encoder lies on the disk, in the system's cache;
audiocraft reads its own format, transformers its own, this engine audiocraft's and its converted one. The clock runs
from the start of each process, Python and imports included; then the same process makes a clip of another text. The
median counts. Prints a table, asserts nothing.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from harness import PRECISIONS, Failed, in_turn, load_pack, machine, measured, wait
from load import SIZES, convert_file, warm

BEGUN = "BENCHMARK_BEGUN"  # when the parent started the process, by the system's clock
TEXTS = ("slow pansori, a rough deep voice over the buk drum", "a bright daegeum flute")


def write(size, folder):
    """The same weights in three files' formats."""
    load_pack()
    from pack.tests.toy import write_toy

    dim, heads, layers, filters = SIZES[size]
    shape = {"dim": dim, "n_heads": heads, "n_layers": layers, "n_filters": filters}
    write_toy(folder / "transformers", format="huggingface", **shape)
    convert_file(write_toy(folder / "original", **shape), folder / "converted.safetensors")
    print("{}")


def facade(engine, path, precision, device):
    """clip(text, seconds, on_step) by this engine, or by audiocraft behind the same facade."""
    load_pack()
    import torch
    from pack.musicgen.config import GenerationParams
    from pack.musicgen.render import RenderRequest, render

    if engine == "audiocraft":
        from pack.reference.audiocraft import load

        loaded = load(path, device)
    else:
        from pack.musicgen.loading import load

        loaded = load(path, precision, device)

    def clip(text, seconds, on_step):
        def on_progress(stage, done, total):
            if stage == "writing codes":
                on_step()

        params = GenerationParams(duration_s=seconds)
        render(loaded, RenderRequest(text), params, torch.device(device), on_progress)

    return clip


def transformers(path, device):
    """The same by Hugging Face's library."""
    import torch
    from transformers import AutoTokenizer, LogitsProcessor, MusicgenForConditionalGeneration

    dtype = torch.float16 if device == "cuda" else torch.float32
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = MusicgenForConditionalGeneration.from_pretrained(path, dtype=dtype).to(device)
    rate_hz = model.config.audio_encoder.frame_rate

    class Watch(LogitsProcessor):
        def __call__(self, ids, scores):
            self.on_step()
            return scores

    def clip(text, seconds, on_step):
        watch = Watch()
        watch.on_step = on_step
        with torch.inference_mode():
            codes = model.generate(
                **tokenizer([text], return_tensors="pt").to(device), do_sample=True, guidance_scale=3.0, top_k=250,
                max_new_tokens=int(seconds * rate_hz) + model.config.decoder.num_codebooks - 1, logits_processor=[watch],
            )  # fmt: skip
        codes.cpu()

    return clip


def worker(engine, path, precision, seconds, device):
    """Seconds from the start of the process, and of the second clip."""
    clip = transformers(path, device) if engine == "transformers" else facade(engine, path, precision, device)
    result = {}
    begun = float(os.environ[BEGUN])
    for name, text in zip(("cold", "warm"), TEXTS, strict=True):
        first = []
        clip(text, seconds, lambda first=first: None if first else first.append(time.time()))
        wait(device)
        result[f"{name}_first"], result[f"{name}_clip"] = first[0] - begun, time.time() - begun
        begun = time.time()
    print(json.dumps(result))


def measure(engine, path, precision, arguments):
    options = ["--worker", engine, "--path", path, "--precision", precision, "--seconds", arguments.seconds]
    environment = {"HF_HUB_OFFLINE": "1", BEGUN: str(time.time())}
    return measured(__file__, *options, "--device", arguments.device, environment=environment)


def report(results, arguments):
    import torch

    print(f"{arguments.size}, {arguments.seconds:g} s of music; {machine(arguments.device)}, torch {torch.__version__}; "
          f"median of {arguments.rounds} rounds")  # fmt: skip
    print("| engine | file | precision | cold: first step, s | music, s | over audiocraft | warm: first step, s | music, s "
          "| over audiocraft |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    medians = {
        contender: {key: statistics.median(run[key] for run in runs) for key in runs[0]}
        for contender, runs in results.items()
    }
    base = next(figures for (engine, *_), figures in medians.items() if engine == "audiocraft")
    for contender, figures in medians.items():
        cells = [f"{figures[f'{kind}_first']:.2f} | {figures[f'{kind}_clip']:.2f} | {base[f'{kind}_clip'] / figures[f'{kind}_clip']:.1f}"
                 for kind in ("cold", "warm")]  # fmt: skip
        print(f"| {' | '.join(contender)} | {' | '.join(cells)} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--seconds", type=float, default=2.0, help="of music")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument(
        "--precisions", nargs="+", choices=PRECISIONS, default=["float32", "float16", "int8"], help="of this engine"
    )
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--precision", default="float32", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker == "write":
        write(arguments.size, arguments.path)
        return
    if arguments.worker:
        worker(arguments.worker, arguments.path, arguments.precision, arguments.seconds, arguments.device)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        measured(__file__, "--worker", "write", "--size", arguments.size, "--path", name)
        files = {kind: Path(name) / kind for kind in ("original", "transformers")}
        files["converted"] = Path(name) / "converted.safetensors"
        reference = "float16" if arguments.device == "cuda" else "float32"
        contenders = [("audiocraft", "original", reference), ("transformers", "transformers", reference)]
        contenders += [("native", file, p) for file in ("original", "converted") for p in arguments.precisions]

        def measure_warm(contender):
            engine, file, precision = contender
            warm(files[file])
            return measure(engine, files[file], precision, arguments)

        report(in_turn(contenders, arguments.rounds, measure_warm), arguments)


if __name__ == "__main__":
    try:
        main()
    except Failed as error:
        sys.exit(str(error))
