"""All benchmarks but MultiBand Diffusion's in one run: decoding, prompts, first results, loading, EnCodec, precision.

    python benchmarks/everything.py [--device cpu] [--sizes small medium large] [--batches 1 4 16] [--seconds 8 30]
                                    [--steps 30] [--rounds 1] [--precisions float32 float16 int8] [--save NAME]

Runs lm.py, first.py, load.py, codec.py and precision.py one after the other on the same machine; each says in its own
text what it measures. The whole takes minutes on a GPU and many hours on two cores: name fewer sizes and batches there. What a
machine has no memory for is left out, and the tables say so. --save keeps all tables in benchmarks/results/.
"""

import argparse
import itertools
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from engines import SIZES
from harness import PRECISIONS, save

HERE = Path(__file__).resolve().parent


def parts(arguments):
    """Each benchmark and its options."""
    device, rounds = ["--device", arguments.device], ["--rounds", arguments.rounds]
    fewer = [precision for precision in arguments.precisions if precision != "float32"]
    yield "lm.py", [
        *device, *rounds, "--sizes", *arguments.sizes, "--batches", *arguments.batches, "--seconds", *arguments.seconds,
        "--steps", arguments.steps, "--precisions", *arguments.precisions,
    ]  # fmt: skip
    yield "first.py", [*device, *rounds, "--precisions", *arguments.precisions]
    yield "load.py", [*rounds, "--precisions", *arguments.precisions]
    yield "codec.py", [*device, *rounds]
    yield "codec.py", [*device, "--long"]
    if fewer:
        yield "precision.py", [*device, "--precisions", *fewer]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["small", "medium", "large"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 4, 16])
    parser.add_argument("--seconds", nargs="+", type=float, default=[8, 30], help="of music")
    parser.add_argument("--steps", type=int, default=30, help="that are measured")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=["float32", "float16", "int8"])
    parser.add_argument("--save", metavar="NAME", help="keep the tables as benchmarks/results/NAME.md")
    arguments = parser.parse_args()
    text, failed = [], []
    for file, options in parts(arguments):
        begun = time.perf_counter()
        head = f"`{' '.join(['python', f'benchmarks/{file}', *map(str, options)])}`"
        for line in itertools.chain([head, ""], output(file, options, failed), [""]):
            print(line, flush=True)
            text.append(line)
        print(f"({time.perf_counter() - begun:.0f} s)\n", file=sys.stderr)
    if arguments.save:
        save(arguments.save, text)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


def output(file, options, failed):
    """The lines that a benchmark prints, as it prints them."""
    command = [sys.executable, str(HERE / file), *map(str, options)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        yield from (line.rstrip("\n") for line in process.stdout)
    if process.returncode:
        failed.append(file)


if __name__ == "__main__":
    main()
