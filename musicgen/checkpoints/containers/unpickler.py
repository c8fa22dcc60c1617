"""Restricted unpickler: reads the pickles of torch files and runs nothing that they name.

A scan of the opcodes bounds their number and their arguments before anything is built, and admits only those that
tensors and plain containers need. A name becomes an inert `Name` if the table has it, and ends the reading otherwise.
Calls are carried out by methods of this file, which spend a budget before they copy.
"""

import io
import pickle
import pickletools
import struct
from collections.abc import Callable
from typing import Any

import torch

from ...errors import CheckpointError
from ...foreign import guarded
from .inert import MAX_ITEMS, Name, Storage, Stub, TensorRecord, check_size

MAX_PICKLE_BYTES = 16 * 2**20  # a large model's has some hundred thousand
_MAX_INTEGER_BITS = 2048
_MAX_DIMENSIONS = 8
_TUPLE_KEY_COST = 1000  # hashes of tuples can be made to collide: n of them then take n**2 comparisons


def unpickle(data: bytes, source: str) -> object:
    """Pickle -> plain containers, TensorRecord, Name and Stub; `source` names the file in messages.

    CheckpointError for a name that tensors and settings do not need, for a damaged pickle, and for one that is too
    long, too deep, or unfolds to too many items.
    """
    if len(data) > MAX_PICKLE_BYTES:
        raise CheckpointError(f"{source}: {len(data)} bytes of pickle; at most {MAX_PICKLE_BYTES} are read")
    with guarded(source, "is damaged"):
        n_operations = _scan(data, source)
        value = _Reader(data, source, MAX_ITEMS - n_operations).load()
        check_size(value, source)
        return value


def _scan(data: bytes, source: str) -> int:
    """Number of operations. CheckpointError for too many, for one that is not admitted, and for huge integers."""
    count = 0
    for opcode, argument, _ in pickletools.genops(data):
        count += 1
        if count > MAX_ITEMS:
            raise CheckpointError(f"{source} holds more than {MAX_ITEMS} operations and is refused")
        if opcode.name not in _OPCODES:
            named = f" '{_printable(argument.replace(' ', '.', 1))}'" if isinstance(argument, str) else ""
            raise _refused(source, f"uses the operation {opcode.name}{named}")
        if type(argument) is int and argument.bit_length() > _MAX_INTEGER_BITS:
            raise CheckpointError(f"{source} holds an integer of {argument.bit_length()} bits and is refused")
    return count


_OPCODES = {
    *("PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP"),
    *("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET"),
    *("NONE", "NEWTRUE", "NEWFALSE", "INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "LIST", "APPEND", "APPENDS"),
    *("EMPTY_DICT", "DICT", "SETITEM", "SETITEMS", "EMPTY_SET", "ADDITEMS", "FROZENSET"),
    *("GLOBAL", "STACK_GLOBAL", "BINPERSID", "REDUCE", "NEWOBJ", "BUILD"),
    *("OBJ", "NEWOBJ_EX"),  # never carried out; admitted so that a name in front of them is what the message tells
}  # fmt: skip
# Opcodes that hash keys, and where the keys lie among the items of the stack.
_KEYS = {
    "SETITEM": slice(-2, -1),
    **dict.fromkeys(("SETITEMS", "DICT"), slice(None, None, 2)),
    **dict.fromkeys(("ADDITEMS", "FROZENSET"), slice(None)),
}


class _Reader(pickle._Unpickler):
    """The library's unpickler in Python: the one in C hashes a key before its size can be looked at.

    `budget` is the number of items that calls may copy.
    """

    stack: list  # the library's

    def __init__(self, data: bytes, source: str, budget: int):
        super().__init__(io.BytesIO(data), encoding="latin-1")
        self.source = source
        self.budget = budget

    def spend(self, n_items: int) -> None:
        self.budget -= n_items
        if self.budget < 0:
            raise CheckpointError(f"{self.source} unfolds to more than {MAX_ITEMS} items and is refused")

    # --- the library's hooks

    def find_class(self, module: str, name: str) -> Name:
        full = f"{module}.{name}"
        if module == "__builtin__":  # Python 2's names, which protocol 2 still writes
            full = "builtins." + {"long": "int", "unicode": "str"}.get(name, name)
        if full not in _NAMES:
            raise _refused(self.source, f"refers to '{_printable(full)}'")
        return Name(full)

    def persistent_load(self, identity: object) -> Storage:
        """One of torch's storages: ("storage", type, key, location, number of elements)."""
        if type(identity) is tuple and len(identity) == 5 and identity[0] == "storage":
            _, kind, key, _, n_elements = identity
            known = isinstance(kind, Name) and kind.name in _STORAGES
            if known and isinstance(key, str) and _is_count(n_elements):
                return Storage(_STORAGES[kind.name], key, n_elements)
        raise _refused(self.source, "holds a reference that is no tensor storage")

    # --- opcodes that the library must not carry out by itself

    def load_call(self) -> None:
        """REDUCE and NEWOBJ."""
        arguments, function = self.stack.pop(), self.stack[-1]
        if not isinstance(function, Name) or type(arguments) is not tuple:
            raise _refused(self.source, "calls something that is no function by name")
        if function.name in _STUBS and not arguments:
            self.stack[-1] = Stub(function.name)
        elif function.name in _CALLS:
            self.spend(len(arguments))
            self.stack[-1] = _CALLS[function.name](self, *arguments)
        else:
            raise _refused(self.source, f"calls '{_printable(function.name)}'")

    def load_state(self) -> None:
        """BUILD."""
        state, target = self.stack.pop(), self.stack[-1]
        kind = target.name if isinstance(target, Stub) else type(target)
        if kind in _STUBS and type(state) is dict:
            self.spend(len(state))
            target.state.update(state)
        elif kind == "numpy.dtype" and type(state) is tuple and len(state) > 1 and state[1] in ("<", "|"):
            pass  # the byte order, and fields that scalars leave empty
        elif kind is not dict or type(state) is not dict:  # the `_metadata` of a state dict is not needed
            raise _refused(self.source, "sets the state of something that has none")

    def check_key(self, key: object) -> object:
        """`key` if it is cheap to hash. TypeError otherwise."""
        parts = (key,)
        if type(key) is tuple:
            parts = key
            self.spend(_TUPLE_KEY_COST + len(key))
        for part in parts:
            # Integers with one remainder modulo 2**61 - 1 have one hash.
            if not isinstance(part, _KEY_TYPES) or (isinstance(part, int) and abs(part) >= 2**60):
                raise TypeError("a key that is no text or number of usual size")
        return key

    # --- functions that a pickle may call: what they give, made of plain values

    def tensor(self, storage: Storage, offset: int, shape: tuple, strides: tuple, *_: object) -> TensorRecord:
        sound = isinstance(storage, Storage) and _is_count(offset) and _are_counts(shape) and _are_counts(strides)
        if not sound or len(shape) != len(strides):
            raise _refused(self.source, "describes a tensor wrongly")
        last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
        if 0 not in shape and last >= storage.n_elements:
            raise CheckpointError(f"{self.source} is damaged: a tensor {list(shape)} reaches beyond its storage")
        return TensorRecord(storage, offset, shape, strides)

    def items(self, items: list | tuple = ()) -> list | tuple:
        if type(items) not in (list, tuple):
            raise TypeError("no list of items")
        self.spend(len(items))
        return items

    def pairs(self, pairs: list | tuple = ()) -> dict:
        return {self.check_key(key): value for key, value in map(self.items, self.items(pairs))}

    def keys(self, items: list | tuple = ()) -> list:
        return [self.check_key(item) for item in self.items(items)]

    def encoded(self, text: str, encoding: str) -> bytes:
        """Bytes, which protocol 2 writes as a text in Latin-1."""
        if not isinstance(text, str) or encoding != "latin1":
            raise TypeError("no bytes in Latin-1")
        self.spend(len(text))
        return text.encode(encoding)

    def scalar(self, dtype: Stub, data: bytes) -> int | float | bool:
        code = dtype.state["code"]
        if not isinstance(code, str):  # the hash of anything else may take for ever
            raise TypeError("no type of a scalar")
        return struct.unpack("<" + _SCALARS[code], data)[0]


def _loaders() -> dict[int, Callable[[Any], None]]:
    """The library's table of opcodes, only of those that are admitted, with keys looked at before they are hashed."""

    def checked(load: Callable[[Any], None], keys: slice) -> Callable[[Any], None]:
        def load_checked(reader: _Reader) -> None:
            for key in reader.stack[keys]:
                reader.check_key(key)
            load(reader)

        return load_checked

    codes = {op.name: ord(op.code) for op in pickletools.opcodes if op.name in _OPCODES}
    loaders: dict[int, Callable[[Any], None]] = {
        code: pickle._Unpickler.dispatch[code] for name, code in codes.items() if name not in ("OBJ", "NEWOBJ_EX")
    }
    loaders |= {codes[name]: checked(loaders[codes[name]], keys) for name, keys in _KEYS.items()}
    own = {"REDUCE": _Reader.load_call, "NEWOBJ": _Reader.load_call, "BUILD": _Reader.load_state}
    return loaders | {codes[name]: load for name, load in own.items()}


_Reader.dispatch = _loaders()


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**48


def _are_counts(value: object) -> bool:
    return type(value) is tuple and len(value) <= _MAX_DIMENSIONS and all(map(_is_count, value))


def _printable(name: str) -> str:
    """A name from a hostile file, fit to be shown."""
    return ascii(name[:100])[1:-1]


def _refused(source: str, what: str) -> CheckpointError:
    return CheckpointError(
        f"{source} {what}, which no file of weights needs: it may be an attempt to run code, and is refused. "
        "Nothing in it was run. Take the file from a source that you trust, or a safetensors version of it."
    )


_KEY_TYPES = (str, int, float, bool, bytes, type(None), Name)

_KINDS = ("Double", "Float", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
_DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
_STORAGES = {f"torch.{kind}Storage": getattr(torch, dtype) for kind, dtype in zip(_KINDS, _DTYPES)}
_STORAGES["torch.storage.UntypedStorage"] = torch.uint8

_STUBS = {
    *("omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig"),
    *("omegaconf.base.ContainerMetadata", "omegaconf.base.Metadata"),
    *(f"omegaconf.nodes.{kind}Node" for kind in ("Any", "String", "Integer", "Float", "Boolean", "Bytes")),
    "omegaconf.nodes.InterpolationResultNode",
}

# What numpy calls its scalar types, and what `struct` does.
_SCALARS = {"f8": "d", "f4": "f", "f2": "e", "b1": "?", "i8": "q", "i4": "i", "i2": "h", "i1": "b"}
_SCALARS |= {"u8": "Q", "u4": "I", "u2": "H", "u1": "B"}

_CALLS: dict[str, Callable] = {
    "torch._utils._rebuild_tensor": _Reader.tensor,
    "torch._utils._rebuild_tensor_v2": _Reader.tensor,
    "torch._utils._rebuild_parameter": lambda reader, tensor, *_: tensor,
    "torch._utils._rebuild_parameter_with_state": lambda reader, tensor, *_: tensor,
    "torch.Size": lambda reader, *items: tuple(reader.items(*items)),
    "torch.device": lambda reader, *_: Name("torch.device"),
    "collections.OrderedDict": _Reader.pairs,
    "collections.defaultdict": lambda reader, factory=None: {},
    "builtins.dict": lambda reader: {},
    "builtins.list": lambda reader, *items: list(reader.items(*items)),
    "builtins.tuple": lambda reader, *items: tuple(reader.items(*items)),
    "builtins.set": lambda reader, *items: set(reader.keys(*items)),
    "builtins.frozenset": lambda reader, *items: frozenset(reader.keys(*items)),
    "numpy.dtype": lambda reader, code, *_: Stub("numpy.dtype", {"code": code}),
    "numpy.core.multiarray.scalar": _Reader.scalar,
    "numpy._core.multiarray.scalar": _Reader.scalar,
    "_codecs.encode": _Reader.encoded,
}

# Names that stand only as values, for instance as the declared type of a setting.
_VALUES = {
    "typing.Any",
    *(f"builtins.{name}" for name in ("int", "str", "float", "bool", "bytes", "object")),
    *(f"torch.{name}" for name in _DTYPES),
}

_NAMES = _STORAGES.keys() | _STUBS | _CALLS.keys() | _VALUES
