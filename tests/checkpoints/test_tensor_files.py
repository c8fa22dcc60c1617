"""Files of tensors: read strictly, copied from the mapped file, never held twice in memory."""

import json
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from comfyui_musicgen.musicgen.checkpoints import fill
from comfyui_musicgen.musicgen.checkpoints.containers.safetensors import read_safetensors
from comfyui_musicgen.musicgen.checkpoints.containers.torch_zip import TorchFile
from comfyui_musicgen.musicgen.errors import CheckpointError
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parents[2]


def test_a_storage_of_another_size_is_refused(tmp_path):
    torch.save({"w": torch.ones(64)}, tmp_path / "a.bin")
    with zipfile.ZipFile(tmp_path / "a.bin") as source:
        entries = {info.filename: source.read(info) for info in source.infolist()}
    with zipfile.ZipFile(tmp_path / "a.bin", "w") as target:
        for name, data in entries.items():
            target.writestr(name, data[:8] if "/data/" in name else data)
    file = TorchFile(tmp_path / "a.bin")
    with pytest.raises(CheckpointError, match="tensor 'w' should have 64 numbers"):
        file.tensors(file.contents, "all")


def test_a_tensor_that_repeats_itself_endlessly_is_refused(tmp_path):
    torch.save({"w": torch.ones(1).expand(2**30)}, tmp_path / "a.bin")
    file = TorchFile(tmp_path / "a.bin")
    with pytest.raises(CheckpointError, match="far more than the file holds"):
        file.tensors(file.contents, "all")


def header(table: object, n_data: int = 0, n_header: int | None = None) -> bytes:
    text = table if isinstance(table, bytes) else json.dumps(table).encode()
    return struct.pack("<Q", len(text) if n_header is None else n_header) + text + bytes(n_data)


def entry(start: int, stop: int, shape: list, dtype: object = "F32") -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


BROKEN = {
    "no header": b"abc",
    "gigantic header": header(b"{}", n_header=2**63),
    "header beyond the end": header(b"{}", n_header=1000),
    "no JSON": header(b"{nonsense"),
    "no table": header([1]),
    "no UTF-8": header(b"\xff\xff"),
    "deep JSON": header(b"[" * 100_000),
    "entry of no table": header({"a": 3}),
    "unknown type": header({"a": entry(0, 4, [1], "F128")}, 4),
    "type of no text": header({"a": entry(0, 4, [1], [])}, 4),
    "negative shape": header({"a": entry(0, 4, [-1])}, 4),
    "gigantic shape": header({"a": entry(0, 4, [2**60, 2**60])}, 4),
    "shape of booleans": header({"a": entry(0, 4, [True])}, 4),
    "size that does not fit": header({"a": entry(0, 8, [1])}, 8),
    "offsets the wrong way": header({"a": entry(8, 4, [1])}, 8),
    "data beyond the end": header({"a": entry(0, 8, [2])}, 4),
    "overlap": header({"a": entry(0, 8, [2]), "b": entry(4, 12, [2])}, 12),
    "gap": header({"a": entry(0, 4, [1]), "b": entry(8, 12, [1])}, 12),
    "data behind the last": header({"a": entry(0, 4, [1])}, 8),
    "twice the same": header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{}}', 4),
    "surplus field": header({"a": {**entry(0, 4, [1]), "x": 1}}, 4),
}


@pytest.mark.parametrize("data", BROKEN.values(), ids=BROKEN)
def test_broken_safetensors_are_refused(tmp_path, data):
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        read_safetensors(tmp_path / "model.safetensors")


def test_every_floating_type_is_read_even_unaligned(tmp_path):
    kinds = {"d": torch.float64, "f": torch.float32, "h": torch.float16, "b": torch.bfloat16}
    tensors = {name: torch.arange(6).reshape(2, 3).to(dtype) for name, dtype in kinds.items()}
    save_file(tensors, tmp_path / "a.safetensors")
    data = (tmp_path / "a.safetensors").read_bytes()
    n_header = struct.unpack("<Q", data[:8])[0]
    shifted = struct.pack("<Q", n_header + 1) + data[8 : 8 + n_header] + b" " + data[8 + n_header :]
    (tmp_path / "b.safetensors").write_bytes(shifted)
    for file in ("a.safetensors", "b.safetensors"):
        for name, weight in read_safetensors(tmp_path / file).items():
            assert torch.equal(weight.read(), tensors[name].float())


# --- fill


def test_fill_is_strict_and_reads_nothing_before_it_is_sure(tmp_path):
    save_file({"weight": torch.ones(2, 2), "surplus": torch.ones(1)}, tmp_path / "a.safetensors")
    module = torch.nn.Linear(2, 3).requires_grad_(False)
    before = module.weight.clone()
    with pytest.raises(CheckpointError) as error:
        fill(module, read_safetensors(tmp_path / "a.safetensors"), "the file")
    for part in ("the file", "'bias' is missing", "'surplus' is not expected", "'weight' is [2, 2], not [3, 2]"):
        assert part in str(error.value)
    assert torch.equal(module.weight, before)


def test_fill_casts_and_gives_memory_to_meta_tensors(tmp_path):
    weight = torch.randn(3, 2)
    save_file({"weight": weight, "bias": torch.zeros(3)}, tmp_path / "a.safetensors")
    with torch.device("meta"):
        module = torch.nn.Linear(2, 3, dtype=torch.bfloat16)
    fill(module, read_safetensors(tmp_path / "a.safetensors"), "the file")
    assert torch.equal(module.weight, weight.bfloat16())


_MEASURE = """
import importlib.util, sys, types
from pathlib import Path
import torch
root, path = Path(sys.argv[1]), Path(sys.argv[2])
pack = types.ModuleType("pack"); pack.__path__ = [str(root)]; sys.modules["pack"] = pack
from pack.musicgen.checkpoints import fill
from pack.musicgen.checkpoints.containers.safetensors import read_safetensors
from pack.musicgen.checkpoints.containers.torch_zip import TorchFile
def peak():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) * 1024
torch.set_num_threads(1)
if path.suffix == ".safetensors":
    weights = read_safetensors(path)
else:
    file = TorchFile(path)
    weights = file.tensors(file.contents, "all")
torch.ones(1000).half().float().sum().isfinite()
weights["w0"].read()
with torch.device("meta"):
    module = torch.nn.ParameterDict({n: torch.nn.Parameter(torch.empty(w.shape)) for n, w in weights.items()})
before = peak()
fill(module, weights, "file")
print((peak() - before) / sum(p.nbytes for p in module.values()))
assert all(float(p.detach().flatten()[-1]) == float(n[1:]) for n, p in module.items())
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the peak is read from Linux's /proc")
@pytest.mark.parametrize("name", ["a.safetensors", "a.bin"])
def test_weights_are_never_held_twice(tmp_path, name):
    tensors = {f"w{i}": torch.full((1024, 2048), float(i)) for i in range(20)}
    tensors["w20"] = torch.full((16384, 2048), 20.0)  # one as large as all others together
    if name == "a.bin":
        torch.save(tensors, tmp_path / name)
    else:
        save_file(tensors, tmp_path / name)
    del tensors
    command = [sys.executable, "-c", _MEASURE, str(ROOT), str(tmp_path / name)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < 1.1
