"""What files from strangers try: pickles that run, texts that unfold, headers that lie."""

import json
import os
import pickle
import struct
from pathlib import Path


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def running_pickles(canary: Path) -> list[bytes]:
    """Pickles that would run something: most would make the file `canary`."""
    touch, python = f"touch {canary}", f"open({str(canary)!r}, 'w').close()"
    payloads = []
    for protocol in range(6):
        for function, argument in ((os.system, touch), (exec, python), (eval, python)):
            payloads.append(pickle.dumps({"best_state": {}, "xp.cfg": Call(function, argument)}, protocol))
    names = [
        *("os.system", "posix.system", "nt.system", "subprocess.Popen", "subprocess.call", "runpy._run_code"),
        *("builtins.exec", "builtins.eval", "builtins.__import__", "builtins.getattr", "builtins.open", "pty.spawn"),
        *("importlib.import_module", "torch.load", "torch.hub.load", "torch._C._jit_set_nvfuser", "numpy.load"),
        *("operator.attrgetter", "functools.partial", "types.CodeType", "types.FunctionType", "marshal.loads"),
        *("copyreg._reconstructor", "pickle.loads", "_pickle.loads", "codecs.decode", "webbrowser.open", "ctypes.CDLL"),
        *("shutil.rmtree", "socket.socket", "urllib.request.urlopen", "timeit.timeit", "cProfile.run", "asyncio.run"),
        *("torch.storage._load_from_bytes", "torch.jit.load", "torch._dynamo.config", "omegaconf.OmegaConf.create"),
        *(
            "omegaconf.resolvers.oc.env",
            "transformers.pipeline",
            "yaml.unsafe_load",
            "site.execsitecustomize",
            "pip.main",
        ),
    ]
    for name in names:
        module, _, last = name.rpartition(".")
        payloads += [
            f"\x80\x02c{module}\n{last}\n".encode("latin-1") + text(touch) + b"\x85R.",
            b"\x80\x04" + text(module) + text(last) + b"\x93" + text(touch) + b"\x85R.",
            f"(S'{touch}'\ni{module}\n{last}\n.".encode(),
            f"(c{module}\n{last}\nS'{touch}'\no.".encode(),
            f"\x80\x02c{module}\n{last}\n)\x81}}b.".encode("latin-1"),
            b"\x80\x04" + text(module) + text(last) + b"\x93)}\x92.",
            b"\x80\x02}" + text("best_state") + f"c{module}\n{last}\ns.".encode(),
        ]
    return payloads


def endless_pickles() -> list[bytes]:
    """Pickles that would eat time and memory."""
    laughs = b"\x80\x02](" + b"K\x01" * 10 + b"e"
    for level in range(30):
        laughs += b"q" + bytes([level]) + b"0](" + (b"h" + bytes([level])) * 10 + b"e"
    payloads = [
        laughs + b".",
        b"]" * 100_000 + b"a" * 99_999 + b".",
        b"(" * 100_000 + b"t" * 100_000 + b".",
        b"]\x94h\x00a.",
        b"\x80\x02\x82\x01.",
        b"\x80\x05\x97.",
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
        b"I" + b"9" * 10**5 + b"\n.",
        b"\x80\x02" + text("x" * 10**6) * 3 + b".",
        b"}" + b")" + b"\x85" * 50_000 + b"K\x01s.",
        b"K\x01r\xff\xff\xff\xff0j\xfe\xff\xff\xff.",
    ]
    tensor = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
    for n, shape in ((2**40, 2**40), (1, 2**60), (2**63, 1)):
        payloads.append(
            tensor + pickle.dumps(n, 2)[2:-1] + b"tQK\x00(" + pickle.dumps(shape, 2)[2:-1] + b"t(K\x00t\x89NtR."
        )
    return payloads


def hostile_texts(canary: Path) -> list[str]:
    """YAML of the same kind."""
    return [
        f"!!python/object/apply:os.system ['touch {canary}']",
        f"!!python/object/new:subprocess.Popen [['touch', '{canary}']]",
        "x: !!python/name:os.system",
        "b0: &b0 [x, x]\n" + "".join(f"b{i}: &b{i} [{', '.join([f'*b{i - 1}'] * 9)}]\n" for i in range(1, 12)),
        "a: &c0 {b: 1}\n" + "".join(f"c: &c{i} {{<<: [*c{i - 1}, *c{i - 1}]}}\n" for i in range(1, 40)),
        "[" * 20_000,
        "{a: " * 20_000,
        "&a [*a]",
        "? " * 5000,
        "x" * 200_000,
        "\x00\x01",
        "lm_model: transformer_lm\ntransformer_lm: {dim: 1e400, n_q: .inf}",
    ]


def headers() -> list[bytes]:
    """Safetensors files with headers that lie."""

    def file(table: object, n_data: int = 0, n_header: int | None = None) -> bytes:
        raw = table if isinstance(table, bytes) else json.dumps(table).encode()
        return struct.pack("<Q", len(raw) if n_header is None else n_header) + raw + bytes(n_data)

    def entry(start, stop, shape, dtype="F32", **more):
        return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop], **more}

    metadata = {"__metadata__": {"musicgen": '{"version": 1}', "format": "pt"}}
    return [
        file(b"{}", n_header=2**63), file(b"{}", n_header=2**64 - 1), file(b"{}", n_header=10**9), file(b"{}", n_header=99),
        file(b"{nonsense"), file(b"[" * 10**5), file(b'{"a":' * 10**5), file(b"\xff\xfe"), file([1]), file({"a": 3}), file({}),
        file({"a": entry(0, 4, [1], "F128")}, 4), file({"a": entry(0, 4, [-1])}, 4), file({"a": entry(0, 4, [2**62, 4])}, 4),
        file({"a": entry(0, 2**60, [2**58])}, 4), file({"a": entry(8, 4, [1])}, 8), file({"a": entry(0, 8, [2])}, 4),
        file({"a": entry(0, 8, [2]), "b": entry(4, 12, [2])}, 12), file({"a": entry(0, 4, [1]), "b": entry(8, 12, [1])}, 12),
        file({"a": entry(0, 4, [1])}, 8), file({"a": entry(0, 4, [1] * 1000)}, 4), file({"a": entry(0, 4, [1], x=1)}, 4),
        file(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{}}', 4), file({"a": entry(0, 0, [0, 2**40])}),
        file({f"t{i}": entry(0, 0, [0]) for i in range(20_000)}), file({"__metadata__": {"musicgen": {"a": 1}}}),
        file({"__metadata__": []}), file(metadata), file({**metadata, "a": entry(0, 4, [1])}, 4), b"", b"\x00" * 7, b"{}",
    ]  # fmt: skip


HEADERS = headers()
