"""Seconds and peak memory of loading one checkpoint: audiocraft, this engine, and this engine with a converted file.

    python benchmarks/load.py [--size 2gb] [--rounds 3] [--precisions float32 bfloat16] [--folder DIR]

Random weights of the named size with a codec of full size, written into a temporary folder below DIR. Every load runs
in a process of its own, with all libraries imported beforehand and the files in the system's cache; the median counts.
Prints a table, asserts nothing.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from harness import PRECISIONS, Failed, in_turn, load_pack, machine, measured, peak_bytes

# Width, heads, layers, filters of the codec. "2gb" is half a medium model, 2.1 GB in audiocraft's float16.
SIZES = {
    "tiny": (128, 4, 4, 8),
    "small": (1024, 16, 24, 64),
    "2gb": (1536, 24, 24, 64),
    "medium": (1536, 24, 48, 64),
}


def write(size, folder):
    """A checkpoint in audiocraft's format, and the same as one converted file."""
    load_pack()
    from pack.tests.toy import write_toy

    dim, heads, layers, filters = SIZES[size]
    original = write_toy(folder / "original", dim=dim, n_heads=heads, n_layers=layers, n_filters=filters)
    convert_file(original, folder / "converted.safetensors")
    print("{}")


def convert_file(original, converted):
    """A checkpoint with its text encoder as one file of this engine's."""
    from pack.musicgen.checkpoints import open_checkpoint
    from pack.musicgen.checkpoints.tools.convert import convert
    from pack.musicgen.store.text_encoders import find_text_encoder

    checkpoint = open_checkpoint(original)
    convert(checkpoint, converted, text_encoder=find_text_encoder(checkpoint, []))


def warm(path):
    """Read every file once, so that no load waits for the disk."""
    for file in [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]:
        with open(file, "rb") as stream:
            while stream.read(2**24):
                pass


def worker(engine, path, precision):
    """Load once; print seconds, peak memory above what was there before, and the weights' bytes."""
    load_pack()
    import torch
    import transformers  # noqa: F401  imported before the clock runs
    import yaml  # noqa: F401

    if engine == "audiocraft":
        from pack.reference.audiocraft import import_audiocraft
        from pack.reference.audiocraft import load as load_reference

        import_audiocraft()
        load = load_reference
    else:
        from pack.musicgen.loading import load as load_native

        def load(path):
            return load_native(path, precision)

    from transformers import AutoTokenizer, EncodecModel, T5EncoderModel  # noqa: F401  resolved late by the library

    torch.ones(1000).half().float()
    before = reset_peak()
    start = time.perf_counter()
    loaded = load(path)
    seconds = time.perf_counter() - start
    tensors = {}
    for module in (loaded.model, loaded.conditioner, loaded.codec):
        for tensor in [*module.parameters(), *module.buffers()]:
            tensors[tensor.data_ptr()] = tensor.nbytes
    print(json.dumps({"seconds": seconds, "peak": peak_bytes() - before, "weights": sum(tensors.values())}))


def reset_peak():
    """Forget the highest use of memory so far; returns the present one."""
    Path("/proc/self/clear_refs").write_text("5")
    return peak_bytes()


def measure(engine, path, precision):
    options = ["--worker", engine, "--path", path, "--precision", precision]
    return measured(__file__, *options, environment={"HF_HUB_OFFLINE": "1"})


def report(results, size, rounds, files):
    import torch

    print(f"{size}: original {files[0] / 1e9:.2f} GB, converted {files[1] / 1e9:.2f} GB; {machine('cpu')}, "
          f"torch {torch.__version__}; median of {rounds} rounds")  # fmt: skip
    base = statistics.median(run["seconds"] for run in results["audiocraft", "original", "float32"])
    print("| engine | file | precision | seconds | times as fast | weights, MB | peak memory over weights |")
    print("|---|---|---|---|---|---|---|")
    for (engine, file, precision), runs in results.items():
        seconds = statistics.median(run["seconds"] for run in runs)
        ratio = statistics.median(run["peak"] / run["weights"] for run in runs)
        print(f"| {engine} | {file} | {precision} | {seconds:.2f} | {base / seconds:.1f} | {runs[0]['weights'] / 1e6:.0f} "
              f"| {ratio:.2f} |")  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="2gb")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--precisions", nargs="+", choices=PRECISIONS, default=["float32", "bfloat16"], help="of this engine"
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
        worker(arguments.worker, arguments.path, arguments.precision)
        return
    if not Path("/proc/self/clear_refs").exists():
        sys.exit("peak memory is read as Linux tells it")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        measured(__file__, "--worker", "write", "--size", arguments.size, "--path", name)
        files = {"original": Path(name) / "original", "converted": Path(name) / "converted.safetensors"}
        contenders = [("audiocraft", "original", "float32")]
        contenders += [("native", file, precision) for file in files for precision in arguments.precisions]

        def measure_warm(contender):
            engine, file, precision = contender
            warm(files[file])
            return measure(engine, files[file], precision)

        results = in_turn(contenders, arguments.rounds, measure_warm)
        sizes = [sum(f.stat().st_size for f in [files["original"], *files["original"].rglob("*")] if f.is_file())]
        report(results, arguments.size, arguments.rounds, [*sizes, files["converted"].stat().st_size])


if __name__ == "__main__":
    try:
        main()
    except Failed as error:
        sys.exit(str(error))
