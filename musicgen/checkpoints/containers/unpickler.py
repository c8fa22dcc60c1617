"""Reads the pickles of torch files without ever running anything that they name.

`pickletools` splits the bytes into operations, and a small interpreter carries out those that tensors and plain
containers need. A name in the pickle only ever stands for an inert object of `inert`; any name that is not in
its table ends the reading. No importing, no calling, no attribute of any real class is involved.
"""

import pickletools
from collections.abc import Callable

from ...errors import CheckpointError
from .inert import ALLOWED, CONTAINERS, STORAGES, STUBS, Name, Storage, Stub, TensorRecord, check_size

MAX_PICKLE_BYTES = 64 * 2**20
MAX_OPERATIONS = 2_000_000

_MARK = object()


def unpickle(data: bytes, source: str) -> object:
    """The object in `data`, of plain containers, TensorRecord, Name and Stub; `source` names it in messages.

    CheckpointError for a name that is not needed to describe tensors and settings, for a damaged pickle, and
    for one that is too long, too deep, or unfolds to too many items.
    """
    if len(data) > MAX_PICKLE_BYTES:
        raise CheckpointError(f"{source}: {len(data)} bytes of pickle; at most {MAX_PICKLE_BYTES} are read")
    reader = _Interpreter(source)
    try:
        result = reader.run(data)
    except CheckpointError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, RecursionError) as error:
        # What malformed pickles make of `pickletools` and of the interpreter's own stack.
        raise CheckpointError(f"{source} is damaged ({type(error).__name__}). Nothing in it was run.") from error
    check_size(result, source)
    return result


class _Interpreter:
    """The pickle machine: a stack, a memo, and one method for each family of operations."""

    def __init__(self, source: str):
        self.source = source
        self.stack: list = []
        self.memo: dict[int, object] = {}

    def run(self, data: bytes) -> object:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if count >= MAX_OPERATIONS:
                raise CheckpointError(f"{self.source} holds more than {MAX_OPERATIONS} operations and is refused")
            if opcode.name == "STOP":
                return self._pop()
            if opcode.name in _LITERALS:
                self.stack.append(argument)
            elif opcode.name in _CONSTANTS:
                self.stack.append(_CONSTANTS[opcode.name]())
            elif opcode.name in _ACTIONS:
                _ACTIONS[opcode.name](self, argument)
            elif opcode.name not in _IGNORED:
                named = f" '{_brief(argument.replace(' ', '.', 1))}'" if isinstance(argument, str) else ""
                raise self._refused(f"uses the operation {opcode.name}{named}")
        raise ValueError("no end")

    def _refused(self, what: str) -> CheckpointError:
        return CheckpointError(
            f"{self.source} {what}, which no file of weights needs: it may be an attempt to run code, and is refused. "
            "Nothing in it was run. Take the file from a source that you trust, or a safetensors version of it."
        )

    def _pop(self) -> object:
        item = self.stack.pop()
        if item is _MARK:
            raise ValueError("a mark where a value is needed")
        return item

    def _pop_to_mark(self) -> list:
        start = len(self.stack)
        while self.stack[start - 1] is not _MARK:
            start -= 1
            if start == 0:
                raise IndexError("no mark")
        items = self.stack[start:]
        del self.stack[start - 1 :]
        return items

    # --- stack and memo

    def mark(self, _: object) -> None:
        self.stack.append(_MARK)

    def pop(self, _: object) -> None:
        self.stack.pop()

    def pop_mark(self, _: object) -> None:
        self._pop_to_mark()

    def dup(self, _: object) -> None:
        item = self._pop()
        self.stack += (item, item)

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]
        if self.stack[-1] is _MARK:
            raise ValueError("a mark in the memo")

    def memoize(self, _: object) -> None:
        self.put(len(self.memo))

    def get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    # --- containers

    def tuple_of(self, n_items: int) -> None:
        items = [self._pop() for _ in range(n_items)]
        self.stack.append(tuple(reversed(items)))

    def tuple_to_mark(self, _: object) -> None:
        self.stack.append(tuple(self._pop_to_mark()))

    def list_to_mark(self, _: object) -> None:
        self.stack.append(self._pop_to_mark())

    def frozenset_to_mark(self, _: object) -> None:
        self.stack.append(frozenset(map(_key, self._pop_to_mark())))

    def dict_to_mark(self, _: object) -> None:
        self.stack.append(_pairs(self._pop_to_mark()))

    def append(self, _: object) -> None:
        item = self._pop()
        self._top(list).append(item)

    def appends(self, _: object) -> None:
        items = self._pop_to_mark()
        self._top(list).extend(items)

    def add_items(self, _: object) -> None:
        items = self._pop_to_mark()
        self._top(set).update(map(_key, items))

    def set_item(self, _: object) -> None:
        value, key = self._pop(), self._pop()
        self._top(dict)[_key(key)] = value

    def set_items(self, _: object) -> None:
        items = self._pop_to_mark()
        self._top(dict).update(_pairs(items))

    def _top(self, kind: type) -> object:
        if type(self.stack[-1]) is not kind:
            raise self._refused(f"fills a {kind.__name__} that is none")
        return self.stack[-1]

    # --- names and what is made of them

    def name(self, argument: str) -> None:
        self._push_name(argument.replace(" ", ".", 1))

    def name_from_stack(self, _: object) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise TypeError("a name that is no text")
        self._push_name(f"{module}.{name}")

    def _push_name(self, name: str) -> None:
        if name.startswith("__builtin__."):  # Python 2's names, which protocol 2 still writes
            name = "builtins." + {"long": "int", "unicode": "str"}.get(name[12:], name[12:])
        if name not in ALLOWED:
            raise self._refused(f"refers to '{_brief(name)}'")
        self.stack.append(Name(name))

    def persistent(self, _: object) -> None:
        """torch's storages: ('storage', type, key, location, number of elements)."""
        identity = self._pop()
        if type(identity) is not tuple or len(identity) != 5 or identity[0] != "storage":
            raise self._refused("holds a reference that is no tensor storage")
        _, kind, key, _, n_elements = identity
        known = isinstance(kind, Name) and kind.name in STORAGES
        if not known or not isinstance(key, str) or not _count(n_elements):
            raise self._refused("holds a reference that is no tensor storage")
        self.stack.append(Storage(STORAGES[kind.name], key, n_elements))

    def reduce(self, _: object) -> None:
        arguments, function = self._pop(), self._pop()
        self.stack.append(self._make(function, arguments))

    def _make(self, function: object, arguments: object) -> object:
        """What calling the named function would give: made here, by our own code."""
        if not isinstance(function, Name) or type(arguments) is not tuple:
            raise self._refused("calls something that is no function by name")
        name = function.name
        if name == "torch._utils._rebuild_tensor_v2":
            return self._tensor(arguments)
        if name == "torch._utils._rebuild_parameter" and len(arguments) == 3 and isinstance(arguments[0], TensorRecord):
            return arguments[0]
        if name == "collections.defaultdict" and len(arguments) <= 1:
            return {}
        if name == "collections.OrderedDict" and len(arguments) <= 1:
            return _pairs([part for pair in _sequence(arguments) for part in _pair(pair)])
        if name == "torch.Size":
            return tuple(_sequence(arguments))
        if name == "torch.device" and arguments and isinstance(arguments[0], str):
            return Name(f"torch.device({arguments[0][:20]})")
        kind = CONTAINERS.get(name.removeprefix("builtins."))
        if kind in (set, frozenset):
            return kind(map(_key, _sequence(arguments)))
        if kind in (list, tuple):
            return kind(_sequence(arguments))
        if kind is dict and not arguments:
            return {}
        raise self._refused(f"calls '{_brief(name)}' in an unusual way")

    def _tensor(self, arguments: tuple) -> TensorRecord:
        if len(arguments) not in (6, 7):
            raise self._refused("describes a tensor wrongly")
        storage, offset, shape, strides = arguments[:4]
        sound = isinstance(storage, Storage) and _count(offset) and _counts(shape) and _counts(strides)
        if not sound or len(shape) != len(strides) or len(shape) > 8:
            raise self._refused("describes a tensor wrongly")
        if 0 not in shape:
            last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
            if last >= storage.n_elements:
                raise CheckpointError(f"{self.source} is damaged: a tensor {list(shape)} reaches beyond its storage")
        return TensorRecord(storage, offset, shape, strides)

    def new_object(self, _: object) -> None:
        arguments, kind = self._pop(), self._pop()
        if isinstance(kind, Name) and kind.name in STUBS and arguments == ():
            self.stack.append(Stub(kind.name))
        else:
            self.stack.append(self._make(kind, arguments))

    def build(self, _: object) -> None:
        state = self._pop()
        target = self.stack[-1]
        if isinstance(target, Stub) and type(state) is dict and all(isinstance(key, str) for key in state):
            target.state.update(state)
        elif type(target) is not dict or type(state) is not dict:  # a state dict's `_metadata` is not needed
            raise self._refused("sets the state of something that has none")


def _pairs(items: list) -> dict:
    if len(items) % 2:
        raise ValueError("a key without a value")
    return {_key(key): value for key, value in zip(items[::2], items[1::2], strict=True)}


def _key(key: object) -> object:
    """A key that is cheap to hash, which deeply nested tuples are not."""
    plain = (str, int, float, bool, bytes, type(None), Name)
    parts = key if type(key) is tuple and len(key) <= 32 else (key,)
    if not all(isinstance(part, plain) for part in parts):
        raise TypeError("an unusual key")
    return key


def _sequence(arguments: tuple) -> list | tuple:
    """The items of a container that is made from one list."""
    items = arguments[0] if arguments else ()
    if len(arguments) > 1 or type(items) not in (list, tuple):
        raise TypeError("no list of items")
    return items


def _pair(item: object) -> list | tuple:
    if type(item) not in (list, tuple) or len(item) != 2:
        raise TypeError("no pair")
    return item


def _count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**48


def _counts(value: object) -> bool:
    return type(value) is tuple and all(map(_count, value))


def _brief(name: str) -> str:
    """A name from a hostile file, fit to be shown."""
    return ascii(name[:100])[1:-1]


_IGNORED = {"PROTO", "FRAME"}

_LITERALS = {
    *("INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}

_CONSTANTS: dict[str, Callable[[], object]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}

_ACTIONS: dict[str, Callable[[_Interpreter, object], None]] = {
    "MARK": _Interpreter.mark,
    "POP": _Interpreter.pop,
    "POP_MARK": _Interpreter.pop_mark,
    "DUP": _Interpreter.dup,
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), _Interpreter.put),
    "MEMOIZE": _Interpreter.memoize,
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), _Interpreter.get),
    "TUPLE": _Interpreter.tuple_to_mark,
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "LIST": _Interpreter.list_to_mark,
    "FROZENSET": _Interpreter.frozenset_to_mark,
    "DICT": _Interpreter.dict_to_mark,
    "APPEND": _Interpreter.append,
    "APPENDS": _Interpreter.appends,
    "ADDITEMS": _Interpreter.add_items,
    "SETITEM": _Interpreter.set_item,
    "SETITEMS": _Interpreter.set_items,
    "GLOBAL": _Interpreter.name,
    "STACK_GLOBAL": _Interpreter.name_from_stack,
    "BINPERSID": _Interpreter.persistent,
    "REDUCE": _Interpreter.reduce,
    "NEWOBJ": _Interpreter.new_object,
    "BUILD": _Interpreter.build,
}
