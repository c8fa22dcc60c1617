"""Hostile inputs of each kind, made from a number, and what reads them."""

import base64
import contextlib
import json
import os
import random
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import transformers.models.t5.modeling_t5  # noqa: F401  time and memory of its import are not a file's

from ...musicgen.checkpoints.containers.safetensors import read_with_metadata
from ...musicgen.checkpoints.containers.unpickler import unpickle
from ...musicgen.checkpoints.formats import huggingface
from ...musicgen.checkpoints.formats.t5 import t5_config
from ...musicgen.checkpoints.settings import Settings
from ...musicgen.checkpoints.weights.expected import codec_shapes, t5_shapes
from ...musicgen.conditioning import Tokenizer
from ...musicgen.errors import CheckpointError, InputError
from .adapters import make_adapter, read_adapter
from .values import with_junk

MAX_S = 20
MAX_GROWTH_BYTES = 300 * 2**20
VOCAB_SIZE = 259
TEXTS = ("a drum", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "느린 판소리  \t ½ ﷺ", "")
CASES = Path(__file__).parent / "cases"


@dataclass(frozen=True)
class Kind:
    """One kind of input: made by `make(rng)`, read by `read`, which may raise CheckpointError and InputError."""

    make: Callable[[random.Random], bytes]
    read: Callable[[bytes], None]


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """AssertionError if the body takes more than 20 s of a core, or its memory grows by more than 300 MB where Linux tells."""
    status = Path("/proc/self/status")

    def memory(field: str) -> int:
        lines = status.read_text().splitlines()
        return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024

    before = 0
    if status.is_file():
        with contextlib.suppress(OSError):  # not permitted in every container
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
            before = memory("VmRSS")
    start = time.process_time()
    yield
    assert time.process_time() - start < MAX_S
    if before:
        assert memory("VmHWM") - before < MAX_GROWTH_BYTES


def attempt(kind: str, data: bytes) -> str:
    """ "read" or "refused". Any other exception passes, and so does the AssertionError of `bounded`."""
    with bounded():
        try:
            KINDS[kind].read(data)
        except (CheckpointError, InputError) as error:
            assert 20 < len(str(error)) < 3000
            return "refused"
    return "read"


def from_seed(kind: str, seed: int) -> bytes:
    """The input that `seed` gives, one in four damaged byte by byte as well."""
    rng = random.Random(f"{kind} {seed}")
    data = KINDS[kind].make(rng)
    if rng.random() < 0.25 and data:
        damaged = bytearray(data)
        for _ in range(rng.choice((1, 3, 20))):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        data = bytes(damaged)
    return data


def sound(name: str) -> dict:
    """A file of one of the cases, whose other parts are sound."""
    folder, _, file = name.partition("/")
    return json.loads((CASES / folder / file).read_text(encoding="utf-8"))


# --- tokenizers


def make_tokenizer(rng: random.Random) -> bytes:
    table = sound("tokenizer-regex_catastrophic_hf/tokenizer.json")
    table["pre_tokenizer"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    rng.choice(_TOKENIZER_CHANGES)(rng, table)
    return json.dumps(table).encode()


def _precompiled(rng: random.Random, table: dict) -> None:
    n = rng.choice((0, 1, 4, 16, 256))
    trie = rng.randbytes(4 * n)
    size = rng.choice((len(trie), len(trie), len(trie) + 4, 2**32 - 1, 0))
    texts = b"\0".join(rng.choice((b"", b"a", b"a" * 60, b"a" * 10**5, b"\xff\xfe")) for _ in range(rng.randrange(5)))
    data = struct.pack("<I", size) + trie + texts
    text = base64.b64encode(data).decode() if rng.random() < 0.9 else "!" * 9
    step = {"type": "Precompiled", "precompiled_charsmap": text}
    table["normalizer"] = rng.choice((step, {"type": "Sequence", "normalizers": [step] * rng.choice((1, 3))}))


_PATTERNS = (".", "", "(a*)*b", "((a|a)*)*(b|$)c", "(?=a)*", "a{0,99999}", "(", " {2,}", "(.+)+\\1$", "\\p{L}+")


def _replace(rng: random.Random, table: dict) -> None:
    steps = [
        {
            "type": "Replace",
            "pattern": {rng.choice(("Regex", "String")): rng.choice(_PATTERNS)},
            "content": rng.choice("ab") * rng.choice((0, 1, 2, 700, 10**5)),
        }
        for _ in range(rng.choice((1, 2, 9, 30)))
    ]
    steps += [{"type": "Prepend", "prepend": "a" * rng.choice((0, 1, 300))}] * rng.randrange(3)
    table["normalizer"] = {"type": "Sequence", "normalizers": steps}


def _split(rng: random.Random, table: dict) -> None:
    step = {"type": "Split", "pattern": {"Regex": rng.choice(_PATTERNS)}, "behavior": "Isolated", "invert": False}
    step = rng.choice(
        (step, {"type": "CharDelimiterSplit", "delimiter": "a"}, {"type": "Metaspace", "replacement": "aa"})
    )
    for _ in range(rng.choice((0, 1, 60, 150))):
        step = {"type": "Sequence", "pretokenizers": [step]}
    table["pre_tokenizer"] = step


def _vocabulary(rng: random.Random, table: dict) -> None:
    offset = rng.choice((1, 259, 10**6, 2**32 - 300, -5))
    table["model"]["vocab"] = {token: id + offset for token, id in table["model"]["vocab"].items()}
    table["model"]["merges"] = rng.choice(([], ["a b"], [["a"]], [["a", "b", "c"]], "ab", [[1, 2]]))


def _unigram(rng: random.Random, table: dict) -> None:
    pieces = [[f"{i}", rng.choice((0.0, -1.0, float("nan"), 1e308))] for i in range(rng.choice((0, 1, 300)))]
    pieces += [["a" * n, -1.0] for n in range(1, rng.choice((1, 30, 200)))]
    table["model"] = {"type": "Unigram", "unk_id": rng.choice((None, 0, -1, 10**9)), "vocab": pieces}


def _added(rng: random.Random, table: dict) -> None:
    token = {**table["added_tokens"][0], "normalized": rng.random() < 0.5}
    table["added_tokens"] = [
        {**token, "id": rng.choice((i, -1, 2**32)), "content": rng.choice(("a", "", "x" * 10**5, f"t{i}"))}
        for i in range(rng.choice((1, 200)))
    ]


def _template(rng: random.Random, table: dict) -> None:
    processor = table["post_processor"]
    processor["single"] = [*processor["single"][:1] * rng.choice((0, 2, 10**4)), *processor["single"][1:]]
    processor["special_tokens"]["</s>"]["ids"] = [rng.choice((1, 258, 259, -1))] * rng.choice((1, 2, 10**4))


_TOKENIZER_CHANGES = (
    _precompiled, _precompiled, _replace, _split, _vocabulary, _unigram, _added, _template, with_junk, with_junk,
)  # fmt: skip


def read_tokenizer(data: bytes) -> None:
    tokenizer = Tokenizer(data.decode("utf-8", "replace"), "tokenizer.json", VOCAB_SIZE)
    for text in TEXTS:
        assert all(0 <= id < VOCAB_SIZE for id in tokenizer.ids(text))


# --- pickles


def make_pickle(rng: random.Random) -> bytes:
    """A program that builds containers of one another, copies them, and takes them as keys."""
    makers = (b"cbuiltins\nlist\n", b"cbuiltins\ntuple\n", b"cbuiltins\nset\n", b"cbuiltins\nfrozenset\n",
              b"ccollections\nOrderedDict\n", b"ctorch\nSize\n", b"comegaconf.base\nMetadata\n", b"ctyping\nAny\n")  # fmt: skip
    program = b"\x80\x04](" + b"K\x01" * rng.choice((1, 1000, 50_000)) + b"eq\x00"
    for level in range(rng.choice((1, 10, 200))):
        memo = b"h" + bytes([level])
        step = rng.randrange(8)
        if step == 0:
            program += b"](" + memo * rng.choice((2, 10, 1000)) + b"e"
        elif step == 1:
            program += rng.choice(makers) + memo + b"\x85R"
        elif step == 2:
            program += b"}" + memo + b"Ns"
        elif step == 3:
            program += memo * 2 + b"\x86"
        elif step == 4:
            n = rng.choice((8, 300, 10**6))
            program += b"}\x8b" + struct.pack("<i", n) + b"\x7f" * n + b"Ns"
        elif step == 5:
            program += b"\x8f(" + memo + b"K\x05" + b"\x90"
        elif step == 6:
            program += b"comegaconf.base\nMetadata\n)\x81" + memo + b"b"
        else:
            program += b"(" + memo * rng.choice((1, 100)) + b"t" + rng.choice(makers) + memo + b"R"
        program += b"q" + bytes([level + 1])
    return program + b"."


def read_pickle(data: bytes) -> None:
    unpickle(data, "state_dict.bin")


# --- xp.cfg


def make_yaml(rng: random.Random) -> bytes:
    n = rng.choice((10, 4400, 20_000))
    number = rng.choice(("9" * n, "0x" + "f" * n, "0" + "7" * n, "0b" + "1" * n, "1" + ":59" * (n // 3), "." + "9" * n,
                         "1e" + "9" * n, "-" + "9" * n, "1" + "_0" * n, "2001-01-01t" + "1" * n))  # fmt: skip
    lines = [f"a: {number}", f"? {number}\n: 1", f"transformer_lm: {{dim: {number}}}"]
    lines += [f"a{i}: &a{i} [" + ", ".join([f"*a{i - 1}" if i else "x"] * rng.choice((2, 10))) + "]" for i in range(9)]
    lines += [
        "b: " + rng.choice("[{") * rng.choice((1, 50, 5000)),
        "c: {<<: [{a: 1}, {b: 2}]}",
        "d: !!python/name:os.system x",
    ]
    lines += [
        "e: !!binary " + "A" * n,
        "f: !!set {a, b}",
        "g: !!omap [a: 1]",
        "? [a, b]\n: 1",
        "h: \x00",
        "*x : 1",
        "--- 1",
    ]
    return "\n".join(rng.sample(lines, rng.randint(1, len(lines)))).encode()


def read_xp_cfg(data: bytes) -> None:
    settings = Settings.from_audiocraft(data.decode("utf-8", "replace"), "state_dict.bin")
    for key in settings.table:
        for read in (settings.integer, settings.number, settings.text, settings.integers, settings.names):
            with contextlib.suppress(CheckpointError):
                read(key)


# --- safetensors


def make_safetensors(rng: random.Random) -> bytes:
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    n = rng.choice((1, 1, 3, 60_000))
    table: object = {f"t{i}": {**entry, "data_offsets": [4 * i, 4 * i + 4]} for i in range(n if n < 9 else 3)}
    shape = rng.randrange(7)
    if shape == 0:
        text = b"{" + b",".join(b'"%d":{}' % i for i in range(n)) + b"}"
    elif shape == 1:
        text = b'{"a":' * n + b"1" + b"}" * n
    elif shape == 2:
        text = b"[" + b"[],[[]]," * n * 10 + b"1]"
    elif shape == 3:
        text = json.dumps({**table, "__metadata__": {"a": "\U0001f941" * n}}, ensure_ascii=False).encode()
    elif shape == 4:
        text = json.dumps({**table, "a": {**entry, "shape": [int("9" * 4000)]}}).encode()
    else:
        text = json.dumps(with_junk(rng, table)).encode("utf-8", "replace")
    size = rng.choice((len(text),) * 6 + (0, len(text) + 1, 2**63, 10**8))
    return struct.pack("<Q", size) + text + bytes(rng.choice((0, 4, 12)))


def read_safetensors(data: bytes) -> None:
    handle, name = tempfile.mkstemp(suffix=".safetensors")
    path = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        tensors, _ = read_with_metadata(path)
        for tensor in tensors.values():
            tensor.read()
    finally:
        path.unlink()


# --- config.json


def make_config(rng: random.Random) -> bytes:
    table = sound("config_audio_encoder.trim_right_ratio_24/config.json")
    table["audio_encoder"]["trim_right_ratio"] = 1.0
    section = rng.choice(("text_encoder", "audio_encoder", "decoder"))
    with_junk(rng, table[section])
    text = json.dumps(table)
    return (rng.choice(("", "", "\ufeff", "[" * 3000)) + text).encode("utf-8", "replace")


def read_config(data: bytes) -> None:
    settings = Settings.from_text(data.decode("utf-8-sig", "replace"), "config.json")
    t5_shapes(t5_config(settings.section("text_encoder")))
    codec_shapes(huggingface.codec_config(settings.section("audio_encoder"), 1, 4))
    huggingface.lm_config(settings, cross_attention=True)


KINDS = {
    "tokenizer": Kind(make_tokenizer, read_tokenizer),
    "pickle": Kind(make_pickle, read_pickle),
    "yaml": Kind(make_yaml, read_xp_cfg),
    "safetensors": Kind(make_safetensors, read_safetensors),
    "config": Kind(make_config, read_config),
    "adapter": Kind(make_adapter, read_adapter),
}
