"""Golden outputs: codes, logits, audio and files of small configurations, by the code of a checkout.

    python tests/golden/make.py --out FILE            compute and store, as 0.11.0.npz was
    python tests/golden/make.py --against CHECKOUT    compute by this checkout and by another, report differences

Bit equality needs one machine: sums in floating point depend on the processor's instructions. `--against` compares
whole outputs; the stored file holds excerpts, and SHA-256 digests of the whole.
"""

import argparse
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

if __package__:
    from .configurations import PACK, ROOT, WITHOUT_NUMBA, Bench, configurations
else:  # as a script, for whichever checkout
    from configurations import PACK, ROOT, WITHOUT_NUMBA, Bench, configurations

STORED = Path(__file__).with_name("0.11.0.npz")
PLATFORM = "platform"  # entry of the stored file that says where it was made


def register(checkout: Path) -> None:
    """Import the pack of a checkout under the name PACK, as tests/conftest.py does."""
    spec = importlib.util.spec_from_file_location(
        PACK, checkout / "__init__.py", submodule_search_locations=[str(checkout)]
    )
    sys.modules[PACK] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[PACK])


def compute(names: Iterable[str], bench: Bench) -> dict[str, np.ndarray]:
    """Whole outputs of configurations, "configuration/output" -> array, in this process."""
    return {f"{name}/{output}": array for name in names for output, array in configurations()[name](bench).items()}


def compute_apart(options: Iterable[object], checkout: Path, out: Path, **environment: str) -> dict[str, np.ndarray]:
    """Whole outputs of a checkout's configurations, by this file in a process of its own."""
    command = [sys.executable, __file__, "--checkout", checkout, "--whole", "--out", out, *options]
    done = subprocess.run(
        [str(part) for part in command], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))} failed:\n{done.stderr[-3000:]}")
    with np.load(out) as file:
        return {key: file[key] for key in file.files if key != PLATFORM}


def compute_without_numba(checkout: Path, folder: Path, n_threads: int = 1) -> dict[str, np.ndarray]:
    """Whole outputs of the configurations that Numba's kernels have no part in."""
    options = ("--only", WITHOUT_NUMBA, "--folder", folder, "--threads", n_threads)
    return compute_apart(options, checkout, folder / "without-numba.npz", NUMBA_DISABLE_JIT="1")


# --- what is stored


def excerpt(key: str, array: np.ndarray) -> np.ndarray:
    """The part of an output that is stored beside its digest."""
    output = key.rpartition("/")[2]
    if output == "logits":  # three steps, and every 32nd code
        return array[[0, 1, -1], ..., ::32]
    if output in ("audio", "samples"):
        return array[..., array.shape[-1] // 2 :][..., :128]
    return array[:0] if output == "file" else array


def digest(array: np.ndarray) -> np.ndarray:
    """SHA-256 of an array and its shape, as 32 bytes."""
    whole = hashlib.sha256(f"{array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    return np.frombuffer(whole.digest(), np.uint8)


def platform() -> dict[str, str | None]:
    """Everything that bit equality depends on besides the pack: versions, and a digest of torch's arithmetic here."""
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(2, 1024, generator=generator), torch.randn(1024, 1024, generator=generator)
    results = [F.linear(x[:n], weight) for n in (1, 2)] + [weight @ x.t(), weight @ weight]
    results += [F.gelu(x), x.softmax(-1), F.layer_norm(x, (1024,)), F.elu(x).exp(), x.sin()]
    results += [F.conv1d(weight[None, :64], weight[:64, :448].reshape(64, 64, 7)), torch.fft.rfft(x).abs()]
    results += [F.scaled_dot_product_attention(*[weight.view(1, 16, 64, 1024)[..., :64]] * 3)]
    arithmetic = hashlib.sha256(b"".join(result.contiguous().numpy().tobytes() for result in results)).hexdigest()
    versions = {name: _version(name) for name in ("torch", "transformers", "numba", "julius", "av")}
    capability = torch.backends.cpu.get_cpu_capability()
    return {
        **versions,
        "capability": capability,
        "quantized": torch.backends.quantized.engine,
        "arithmetic": arithmetic,
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def stored(outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Whole outputs -> excerpts and digests."""
    return {key: excerpt(key, array) for key, array in outputs.items()} | {
        f"{key}.sha256": digest(array) for key, array in outputs.items()
    }


# --- command


def difference(found: np.ndarray, expected: np.ndarray) -> str:
    """How two arrays differ, in words; "" for the same bits."""
    if found.shape != expected.shape:
        return f"shape {list(found.shape)} instead of {list(expected.shape)}"
    if found.tobytes() == expected.tobytes():
        return ""
    one, other = found.astype(np.float64), expected.astype(np.float64)
    equal, largest = (one == other).mean(), np.abs(one - other).max()
    return f"{equal:.2%} equal, largest difference {largest:.3g} beside a largest value of {np.abs(other).max():.3g}"


def report(here: Mapping[str, np.ndarray], there: Mapping[str, np.ndarray]) -> int:
    """Print how each output differs; how many do."""
    n_different = 0
    for key in dict.fromkeys([*here, *there]):
        if key in here and key in there:
            finding = difference(here[key], there[key])
        else:
            finding = f"only in the {'first' if key in here else 'second'} checkout"
        print(f"{key}: {'DIFFERENT, ' + finding if finding else 'bit-equal'}")
        n_different += bool(finding)
    print(f"{n_different} of {len(here.keys() | there.keys())} outputs differ")
    return n_different


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=STORED, help="file to write; default: the stored one")
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="compare with this checkout; write nothing")
    parser.add_argument("--checkout", type=Path, default=ROOT, help="checkout whose code computes; default: this one")
    parser.add_argument("--only", default="", metavar="PREFIX", help="only configurations whose name starts so")
    parser.add_argument("--threads", type=int, default=1, help="torch's threads")
    parser.add_argument("--whole", action="store_true", help="write whole outputs")
    parser.add_argument("--folder", type=Path, help="folder for toy checkpoints; default: a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if options.against:
            given = ("--only", options.only, "--threads", options.threads)
            both = (options.checkout, options.against)
            made = [compute_apart(given, root.resolve(), folder / f"{i}.npz") for i, root in enumerate(both)]
            return 1 if report(*made) else 0
        torch.set_num_threads(options.threads)
        register(options.checkout.resolve())
        names = [name for name in configurations() if name.startswith(options.only)]
        apart = [name for name in names if name.startswith(WITHOUT_NUMBA)]
        if os.environ.get("NUMBA_DISABLE_JIT") == "1":  # this process is the one apart
            apart = []
        outputs = compute([name for name in names if name not in apart], Bench(folder))
        if apart:
            outputs |= compute_without_numba(options.checkout.resolve(), folder, options.threads)
        arrays = outputs if options.whole else stored(outputs)
        np.savez_compressed(options.out, **arrays, **{PLATFORM: np.array(json.dumps(platform()))})
    return 0


if __name__ == "__main__":
    sys.exit(main())
