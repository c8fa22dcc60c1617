"""Opens damaged checkpoints, one after the other, in a process of limited memory, and says what came of each.

    python corrupt.py PACK FOLDER FORMAT=N ...

FOLDER has a sound checkpoint of each format. Prints a line of JSON a format, made by a process of its own: a list of
[kind, outcome, seconds], and how much the memory grew; or how the process ended. An outcome is "error", "loaded", or
what should never be.
"""

import io
import json
import os
import random
import resource
import signal
import struct
import sys
import time
import types
import zipfile
from pathlib import Path

import torch
import transformers.models.encodec.modeling_encodec  # forbidden to run while a file is opened
import transformers.models.t5.modeling_t5  # noqa: F401
import yaml
from hostile import HEADERS, endless_pickles, hostile_texts, running_pickles
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors

ROOT, FOLDER = Path(sys.argv[1]), Path(sys.argv[2])
SPARE_BYTES = 512 * 2**20
LIMIT_S = 10
CANARY = FOLDER / "canary"

torch.set_num_threads(1)
pack = types.ModuleType("pack")
pack.__path__ = [str(ROOT)]
sys.modules["pack"] = pack
from pack.musicgen.checkpoints import open_checkpoint  # noqa: E402
from pack.musicgen.errors import CheckpointError  # noqa: E402

RUNNING, HOSTILE_TEXTS = running_pickles(CANARY), hostile_texts(CANARY)
HOSTILE = [*RUNNING, *endless_pickles()]

CHECKPOINTS = {
    "audiocraft": ("audiocraft", ["state_dict.bin", "compression_state_dict.bin"]),
    "huggingface": ("huggingface", ["model.safetensors", "config.json"]),
    "sharded": (
        "sharded",
        ["model-1.safetensors", "model-2.safetensors", "model.safetensors.index.json", "config.json"],
    ),
    "trainer": ("trained_model.tar", [""]),
    "converted": ("one.safetensors", [""]),
}

VALUES = [
    None,
    -1,
    0,
    3,
    2**31,
    2**70,
    1e308,
    float("nan"),
    True,
    "x",
    "${a}",
    "",
    [],
    [1],
    {},
    {"a": {}},
    "a" * 9999,
    0.5,
]


# --- how files are damaged: (rng, data) -> data


def flip(rng: random.Random, data: bytes) -> bytes:
    damaged = bytearray(data)
    zone = rng.choice([len(data), min(len(data), 4096)])
    for _ in range(rng.choice([1, 1, 1, 3, 20])):
        place = rng.randrange(zone) if rng.random() < 0.7 else len(data) - 1 - rng.randrange(zone)
        damaged[place] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def smear(rng: random.Random, data: bytes) -> bytes:
    start = rng.randrange(len(data))
    n = rng.choice([1, 8, 64, 4096])
    junk = rng.randbytes(n) if rng.random() < 0.5 else bytes(n)
    return data[:start] + junk + data[start + n :]


def shift(rng: random.Random, data: bytes) -> bytes:
    start = rng.randrange(len(data))
    return (
        data[:start]
        + (rng.randbytes(rng.randint(1, 9)) if rng.random() < 0.5 else b"")
        + data[start + rng.randint(0, 9) :]
    )


def truncate(rng: random.Random, data: bytes) -> bytes:
    return data[
        : rng.choice([0, 1, 8, rng.randrange(len(data)), len(data) - 1 - rng.randrange(min(len(data) - 1, 50))])
    ]


def repacked(data: bytes, change) -> bytes:
    """A zip file written anew after change(entries)."""
    with zipfile.ZipFile(io.BytesIO(data)) as source:
        entries = {info.filename: source.read(info) for info in source.infolist()}
    result, kind = io.BytesIO(), change(entries) or zipfile.ZIP_STORED
    with zipfile.ZipFile(result, "w", kind) as target:
        for name, content in entries.items():
            target.writestr(name, content)
    return result.getvalue()


def poison(rng: random.Random, data: bytes) -> bytes:
    payload = rng.choice(HOSTILE)
    if rng.random() < 0.15:
        return payload

    def change(entries):
        name = next(name for name in entries if name.endswith("data.pkl"))
        where = rng.random()
        if where < 0.6:
            entries[name] = payload
        elif where < 0.8:  # in front of what is sound, and thrown away again
            entries[name] = rng.choice(RUNNING)[:-1] + b"0" + entries[name].replace(b"\x80\x02", b"", 1)
        else:
            table = torch.load(io.BytesIO(data), weights_only=False)
            table["xp.cfg"] = rng.choice(HOSTILE_TEXTS)
            buffer = io.BytesIO()
            torch.save(table, buffer)
            with zipfile.ZipFile(buffer) as source:
                entries[name] = source.read(next(n for n in source.namelist() if n.endswith("data.pkl")))

    return repacked(data, change)


def bomb(rng: random.Random, data: bytes) -> bytes:
    kind = rng.randrange(7)

    def change(entries):
        name = next(name for name in entries if name.endswith("data.pkl"))
        root = name.removesuffix("data.pkl")
        if kind == 0:
            entries[name] = bytes(8 * 2**20)
            return zipfile.ZIP_DEFLATED
        if kind == 1:
            entries[f"{root}data/0"] = bytes(2 * 2**20)
            return rng.choice([zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
        if kind == 2:
            entries.update(
                {f"{root}data/x{i}": b"" for i in range(101_000)} if rng.random() < 0.05 else {"other/data.pkl": b""}
            )
        if kind == 3:
            entries["../../evil/data.pkl"] = entries.pop(name)
        if kind == 4:
            entries.update({key: value[:8] for key, value in entries.items() if "/data/" in key})
        if kind == 5:
            entries[root + "byteorder"] = b"big"
        if kind == 6:
            del entries[name]
        return None

    return repacked(data, change)


def lie(rng: random.Random, data: bytes) -> bytes:
    return rng.choice(HEADERS)


def edit_tensors(rng: random.Random, tensors: dict) -> None:
    """Rename, reshape, remove, retype or add some."""
    ignored = ("cluster_size", "embed_avg", "inited", "spec.window")  # which no engine needs
    name = rng.choice([name for name in tensors if not name.endswith(ignored)])
    tensor = tensors[name]
    kind = rng.randrange(6)
    if kind == 0:
        tensors[name + rng.choice(["x", ".weight", "é\n"])] = tensors.pop(name)
    elif kind == 1:
        del tensors[name]
    elif kind == 2:
        tensors[name] = torch.zeros([size + 1 for size in tensor.shape] or [2])
    elif kind == 3:
        tensors[name] = tensor.reshape(-1)[None, None, None].clone()
    elif kind == 4:
        tensors[name] = torch.zeros(tensor.shape, dtype=rng.choice([torch.int64, torch.int8, torch.bool]))
    else:
        tensors[rng.choice(["surplus", "emb.9.weight", "lm.x", "decoder.lm_heads.77.weight"])] = torch.zeros(2)


def retensor(rng: random.Random, data: bytes) -> bytes:
    if data.startswith(b"PK"):
        table = torch.load(io.BytesIO(data), weights_only=False)
        edit_tensors(rng, table["best_state"] if "best_state" in table else table["model"])
        buffer = io.BytesIO()
        torch.save(table, buffer)
        return buffer.getvalue()
    tensors = load_safetensors(data)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    edit_tensors(rng, tensors)
    return save_safetensors({name: tensor.contiguous() for name, tensor in tensors.items()}, header.get("__metadata__"))


def edit_settings(rng: random.Random, table: object) -> None:
    """Another value somewhere."""
    while True:
        key = rng.choice(list(table))
        if isinstance(table[key], dict) and table[key] and rng.random() < 0.8:
            table = table[key]
            continue
        if rng.random() < 0.2:
            del table[key]
        else:
            table[key] = rng.choice(VALUES)
        return


def resettle(rng: random.Random, data: bytes) -> bytes:
    if data.startswith(b"PK"):
        table = torch.load(io.BytesIO(data), weights_only=False)
        settings = table["xp.cfg"]
        if not isinstance(settings, str):
            settings = yaml.safe_dump(sys.modules["omegaconf"].OmegaConf.to_container(settings, resolve=False))
        settings = yaml.safe_load(settings)
        edit_settings(rng, settings)
        table["xp.cfg"] = yaml.safe_dump(settings)
        buffer = io.BytesIO()
        torch.save(table, buffer)
        return buffer.getvalue()
    if data.startswith(b"{"):
        settings = json.loads(data)
        edit_settings(rng, settings)
        return json.dumps(settings).encode()
    n_header = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + n_header])
    metadata = header.get("__metadata__", {})
    if "musicgen" not in metadata:
        return flip(rng, data)
    settings = json.loads(metadata["musicgen"])
    edit_settings(rng, settings)
    metadata["musicgen"] = json.dumps(settings)
    raw = json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data[8 + n_header :]


def bomb_text(rng: random.Random, data: bytes) -> bytes:
    bombs = [
        b"[" * 10**6,
        b'{"a":' * 10**5,
        b"\xff" * 99,
        b"[1, 2]",
        b"null",
        b"9" * 10**5,
        b"{}",
        b'{"model_type": "musicgen"}',
    ]
    return rng.choice(bombs)


# kind -> (damage, whether a checkpoint may survive it: a wrong weight, a setting of no effect, padding, another model)
ANY = {"flip": (flip, True), "smear": (smear, True), "shift": (shift, True), "truncate": (truncate, False)}
TORCH = {
    **ANY,
    "tensors": (retensor, False),
    "settings": (resettle, True),
    "hostile": (poison, False),
    "bomb": (bomb, False),
}
SAFETENSORS = {**ANY, "tensors": (retensor, False), "settings": (resettle, True), "header": (lie, False)}
JSON = {**ANY, "settings": (resettle, True), "text": (bomb_text, False)}


def kinds_for(data: bytes) -> dict:
    return TORCH if data.startswith(b"PK") else JSON if data.startswith(b"{") else SAFETENSORS


# --- one case after the other


class Hang(BaseException):
    """A file took too long."""


class Executed(BaseException):
    """Something was run that only a file can have asked for."""


FORBIDDEN = {
    *("os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "pickle.find_class"),
    *("socket.connect", "socket.getaddrinfo", "urllib.Request", "webbrowser.open", "ctypes.dlopen", "shutil.rmtree"),
}
watching = False


def watch(event: str, _: tuple) -> None:
    if watching and event in FORBIDDEN:
        raise Executed(event)


def attempt(path: Path) -> str:
    global watching
    watching = True
    signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
    try:
        checkpoint = open_checkpoint(path)
        for weight in checkpoint.weights():
            weight.read()
        return "loaded"
    except CheckpointError as error:
        return "error" if 20 < len(str(error)) < 3000 else f"unclear: {str(error)[:200]}"
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:300]}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        watching = False


def alarm(*_: object) -> None:
    raise Hang


def memory(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024


def main(format: str, n_files: int) -> None:
    rng = random.Random(f"{format} 1")
    name, files = CHECKPOINTS[format]
    path = FOLDER / name
    sound = {file: (path / file).read_bytes() for file in files}
    others = [
        p.read_bytes() for p in sorted(FOLDER.rglob("*")) if p.suffix in (".bin", ".tar", ".safetensors", ".json")
    ]
    assert attempt(path) == "loaded"
    if format == "trainer":
        import omegaconf  # noqa: F401  the damage, not the reading, needs it
    for damage in (retensor, resettle):
        damage(rng, sound[files[0]])
    sys.addaudithook(watch)
    signal.signal(signal.SIGALRM, alarm)
    resource.setrlimit(resource.RLIMIT_AS, (memory("VmSize") + SPARE_BYTES,) * 2)
    before, results = memory("VmRSS"), []
    for _ in range(n_files):
        file = rng.choice(files)
        kinds = {**kinds_for(sound[file]), "swapped": (lambda rng, data: rng.choice(others), True)}
        kind = rng.choice(list(kinds))
        damage, may_survive = kinds[kind]
        damaged = damage(rng, sound[file])
        (path / file).write_bytes(damaged)
        start = time.monotonic()
        outcome = attempt(path)
        taken_s = time.monotonic() - start
        if outcome == "loaded" and not may_survive:
            outcome = f"loaded in spite of the damage to {file or name}"
        results.append([kind, outcome, round(taken_s, 3)])
        (path / file).write_bytes(sound[file])
    grown = memory("VmHWM") - before
    print(json.dumps({"format": format, "results": results, "grown": grown, "ran": CANARY.exists()}), flush=True)


if __name__ == "__main__":
    for argument in sys.argv[3:]:
        name, _, n_files = argument.partition("=")
        process = os.fork()  # of a process with one thread, which has the libraries already
        if not process:
            main(name, int(n_files))
            os._exit(0)
        _, status = os.waitpid(process, 0)
        if status:
            print(json.dumps({"format": name, "ended": os.waitstatus_to_exitcode(status)}), flush=True)
