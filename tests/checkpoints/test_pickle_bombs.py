"""Small pickles that would eat time and memory: each ends within 20 s and 300 MB, as a CheckpointError or a value."""

import os
import pickle
import struct
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from comfyui_musicgen.musicgen.checkpoints.containers.unpickler import MAX_PICKLE_BYTES, unpickle
from comfyui_musicgen.musicgen.errors import CheckpointError

MAX_S = 20
MAX_GROWTH_BYTES = 300 * 2**20
N = 50_000  # items of the containers that are copied, and copies of each
ANY, SIZE = "ctyping\nAny\n", "ctorch\nSize\n"


def value(item: object) -> bytes:
    """The opcodes that make `item`."""
    return pickle.dumps(item, 2)[2:-1]


def copies(function: str, argument: object) -> bytes:
    """One memoized argument, from which a function makes a container again and again."""
    call = function.encode() + b"h\x00\x85R"
    return b"\x80\x02](" + value(argument) + b"q\x00" + call * N + b"e."


def list_of(n: int, item: bytes = b"K\x01") -> bytes:
    return b"](" + item * n + b"e"


def chain(function: str, n: int) -> bytes:
    """Each copy holds the one before, many times."""
    body = list_of(n) + b"q\x00"
    for level in range(1, 200):
        body += b"0](" + b"h" + bytes([level - 1]) + b"e" + b"0" + function.encode() + b"h\x00\x85Rq" + bytes([level])
    return b"\x80\x02" + body + b"."


def nested_tuples(levels: int) -> bytes:
    """A tuple of 2**levels ends, shared at each level; its hash and its text visit them all."""
    return b")q\x00" + b"".join(b"h\x00h\x00\x86q\x00" for _ in range(levels))


def as_key(key: bytes) -> bytes:
    return b"\x80\x02}" + key + b"Ns."


def big_integer(n_bytes: int) -> bytes:
    return b"\x8b" + struct.pack("<i", n_bytes) + b"\x7f" * n_bytes


def stub(state: bytes, n: int) -> bytes:
    return b"\x80\x02](" + state + b"q\x00" + b"comegaconf.base\nMetadata\n)\x81h\x00b" * n + b"e."


BOMBS: dict[str, Callable[[], bytes]] = {
    "copies of a list": lambda: copies("cbuiltins\nlist\n", list(range(N))),
    "copies of a list as tuples": lambda: copies("cbuiltins\ntuple\n", list(range(N))),
    "copies of a list as sets": lambda: copies("cbuiltins\nset\n", list(range(N))),
    "copies of a list as frozensets": lambda: copies("cbuiltins\nfrozenset\n", list(range(N))),
    "copies of a list as sizes": lambda: copies(SIZE, list(range(N))),
    "copies of pairs as OrderedDict": lambda: copies("ccollections\nOrderedDict\n", [(i, i) for i in range(N)]),
    "copies of a text as bytes": lambda: b"\x80\x02](" + value("x" * 10**6) + b"q\x00" + value("latin1") + b"q\x01"
    + b"c_codecs\nencode\nh\x00h\x01\x86R" * N + b"e.",
    "chain of lists": lambda: chain("cbuiltins\nlist\n", 10**5),
    "chain of sets": lambda: chain("cbuiltins\nset\n", 10**5),
    "states of stubs": lambda: stub(value({str(i): i for i in range(N)}), N),
    "states that are no texts": lambda: stub(value(dict.fromkeys(range(N))), N),
    "sets that are empty": lambda: b"\x80\x04](" + b"\x8f" * 10**6 + b"e.",
    "sets, and one operation too many": lambda: b"\x80\x04](" + b"\x8f" * 490_000 + b"e.",
    "dicts that are empty": lambda: b"\x80\x02](" + b"}" * 490_000 + b"e.",
    "stubs": lambda: b"\x80\x02](comegaconf.base\nMetadata\nq\x00" + b"h\x00)\x81" * 160_000 + b"e.",
    "lists on the stack": lambda: b"\x80\x02" + b"]" * 490_000 + b".",
    "operations without end": lambda: b"N0" * (MAX_PICKLE_BYTES // 2 - 1) + b".",
    "too many bytes": lambda: bytes(MAX_PICKLE_BYTES + 1),
    "a text of wide characters": lambda: b"\x80\x04X" + struct.pack("<I", 15 * 2**20 + 4) + b"x" * 15 * 2**20
    + "\U0001f941".encode() + b".",
    "an integer of 8 MB": lambda: b"\x80\x02" + big_integer(2**23) + b".",
    "integers of 8 MB as keys": lambda: b"\x80\x02}" + big_integer(2**23) + b"q\x00Ns" + b"h\x00Ns" * N + b".",
    "an integer in text": lambda: b"L" + b"9" * 2**22 + b"L\n.",
    "an integer in hexadecimal": lambda: b"L0x" + b"9" * 2**22 + b"L\n.",
    "integers of one hash": lambda: b"\x80\x02}(" + b"".join(value(i * (2**61 - 1)) + b"N" for i in range(N)) + b"u.",
    "pairs of integers of one hash": lambda: b"\x80\x02ccollections\nOrderedDict\n]("
    + b"".join(value(i * (2**61 - 1)) + b"N\x86" for i in range(N)) + b"e\x85R.",
    "many tuples as keys": lambda: b"\x80\x02}(" + b"".join(value((i, i)) + b"N" for i in range(N)) + b"u.",
    "shared tuples as a key": lambda: as_key(nested_tuples(60)),
    "shared tuples in a set": lambda: b"\x80\x04\x8f(" + nested_tuples(60) + b"\x90.",
    "shared tuples in a frozenset": lambda: b"\x80\x04(" + nested_tuples(60) + b"\x91.",
    "shared tuples in a dict of protocol 0": lambda: b"(" + nested_tuples(60) + b"Nd.",
    "shared tuples as a device": lambda: b"\x80\x02ctorch\ndevice\n" + nested_tuples(60) + b"\x85R.",
    "shared tuples as a type of numpy": lambda: b"\x80\x02cnumpy\ndtype\n" + nested_tuples(60) + b"\x85R.",
    "shared tuples as an encoding": lambda: b"\x80\x02c_codecs\nencode\n" + value("x") + nested_tuples(60) + b"\x86R.",
    "shared tuples as a code": lambda: b"\x80\x02cnumpy.core.multiarray\nscalar\ncomegaconf.base\nMetadata\n)\x81}"
    + value("code") + nested_tuples(60) + b"sb" + b"C\x08" + b"x" * 8 + b"\x86R.",
    "shared tuples as a shape": lambda: b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(NK\x00" + nested_tuples(60)
    + b"h\x00NNtR.",
    "shared tuples as the value": lambda: b"\x80\x02" + nested_tuples(60) + b".",
    "a deep tuple as a key": lambda: as_key(b")" + b"\x85" * 450_000),
    "a deep tuple": lambda: b")" + b"\x85" * 450_000 + b".",
    "arguments without end": lambda: b"\x80\x02](ctorch\ndevice\nq\x00" + b"(" + value("cpu") + b"N" * N + b"tq\x01"
    + b"h\x00h\x01R" * N + b"e.",
    "long shapes": lambda: b"\x80\x02](ctorch._utils\n_rebuild_tensor_v2\nq\x00(NK\x00(" + b"K\x01" * N + b"tq\x02h\x02tq\x01"
    + b"h\x00h\x01R" * N + b"e.",
    "a memo of four billion": lambda: b"\x80\x02Nr\xff\xff\xff\xff.",
}  # fmt: skip


def status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024


def attempt(data: bytes) -> tuple[str, float, int]:
    """(outcome, seconds of a core, bytes that memory grew by at most) of reading `data`, in a process of its own."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        before, start = status("VmRSS"), time.process_time()
        try:
            unpickle(data, "file.bin")
            outcome = "read"
        except CheckpointError:
            outcome = "refused"
        except BaseException as error:
            outcome = type(error).__name__
        os.write(writing, f"{outcome} {time.process_time() - start} {status('VmHWM') - before}".encode())
        os._exit(0)
    os.close(writing)
    with open(reading, encoding="utf-8") as stream:
        report = stream.read()
    os.waitpid(child, 0)
    outcome, seconds, growth = report.split() or ("ended by the system", 0, 0)
    return outcome, float(seconds), int(growth)


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="memory is measured as Linux does")
@pytest.mark.parametrize("kind", BOMBS)
def test_a_bomb_costs_little_time_and_memory(kind):
    outcome, seconds, growth = attempt(BOMBS[kind]())
    assert outcome in ("read", "refused")
    assert seconds < MAX_S and growth < MAX_GROWTH_BYTES
