"""A pretended CUDA device: real numbers on the CPU, whose tensors say that they are on `cuda`. Not a test.

Inside `pretended_cuda()` tensors may be made on, and moved to, the device "cuda". Each operator checks that its tensors
are on one device, as a GPU does, and computes on the CPU. A forgotten `.to(device)` fails here, and so does, while
`Watch.forbidding` says so, whatever makes a program wait for a GPU: reading a number, a shape that depends on
values, a copy from the GPU, a blocking copy to it. What it cannot show: rounding, races, and the limits of CUDA graphs.
"""

import contextlib
import types
from collections.abc import Iterator
from typing import Literal
from unittest import mock

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

CUDA = torch.device("cuda", 0)
_WAITS = (
    "_local_scalar_dense", "equal", "is_nonzero", "masked_select", "nonzero", "repeat_interleave", "_unique2",
)  # fmt: skip
_CROSSES = ("_to_copy", "copy_", "_pin_memory", "is_pinned")
# Decompositions of these ask CUDA's libraries; they are computed whole.
_WHOLE = (torch.nn.functional.scaled_dot_product_attention, torch._VF.lstm)


class WaitError(AssertionError):
    """The program would wait for the GPU where it must not."""


class OnCuda(Tensor):
    """A tensor of the pretended device; `cpu_values` holds its numbers."""

    cpu_values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> "OnCuda":
        # The meta device underneath: a real guard for a CUDA device would ask the driver.
        with torch.inference_mode(False):  # a view of a parameter could not be an inference tensor of another class
            tensor = Tensor._make_wrapper_subclass(
                cls, values.shape, strides=values.stride(), dtype=values.dtype, device="meta", requires_grad=False
            )
        tensor.cpu_values = values
        return tensor

    device = property(lambda self: CUDA)
    is_cuda = property(lambda self: True)
    is_meta = property(lambda self: False)

    def __repr__(self, **_: object) -> str:
        return f"OnCuda({self.cpu_values!r})"

    def data_ptr(self) -> int:
        return self.cpu_values.data_ptr()

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func == Tensor.data.__get__:  # else it would lose this class
            return args[0].detach()
        if func not in _WHOLE:
            with torch._C.DisableTorchFunctionSubclass():  # by itself it would cast results to a class without values
                return func(*args, **(kwargs or {}))
        _check_one_device(func, args, kwargs)
        with torch._C.DisableTorchFunctionSubclass():
            return _wrap(func(*tree_map(_unwrap, args), **tree_map(_unwrap, kwargs or {})))

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {}, None)


def _unwrap(value: object) -> object:
    if isinstance(value, torch.device):
        return torch.device("cpu")
    return value.cpu_values if isinstance(value, OnCuda) else value


def _wrap(value: object) -> object:
    return tree_map(lambda each: OnCuda(each) if type(each) in (Tensor, torch.nn.Parameter) else each, value)


def _check_one_device(func: object, args: object, kwargs: object) -> bool:
    """Whether the operator runs on the pretended device. AssertionError for tensors of both, numbers apart."""
    tensors = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, Tensor)]
    on_cuda = [isinstance(each, OnCuda) for each in tensors]
    strays = [each for each in tensors if not isinstance(each, OnCuda) and each.ndim]
    assert not any(on_cuda) or not strays, f"{func}: a tensor {list(strays[0].shape)} is on the CPU, others on cuda"
    return any(on_cuda)


def _run(func, args: tuple, kwargs: dict, watch: "Watch | None") -> object:
    name = func.overloadpacket.__name__
    devices = [each for each in tree_flatten((args, kwargs))[0] if isinstance(each, torch.device)]
    to_cuda, to_cpu = (any(device.type == kind for device in devices) for kind in ("cuda", "cpu"))
    if name in _CROSSES:
        on_cuda = any(isinstance(each, OnCuda) for each in tree_flatten((args, kwargs))[0])
    else:
        on_cuda = _check_one_device(func, args, kwargs)
    if watch is not None:
        watch.check(name, args, kwargs, on_cuda=on_cuda, to_cuda=to_cuda, to_cpu=to_cpu)
    if kwargs.get("pin_memory"):
        kwargs["pin_memory"] = False
    if name in ("_pin_memory", "is_pinned"):
        return args[0] if name == "_pin_memory" else False
    if name == "_to_copy" and on_cuda and to_cuda and kwargs.get("dtype") in (None, args[0].dtype):
        return args[0]  # it is there
    result = func(*tree_map(_unwrap, args), **tree_map(_unwrap, kwargs))
    if func._schema.is_mutable and isinstance(args[0], Tensor) and func._schema.returns:
        return args[0] if isinstance(result, Tensor) else _wrap(result) if on_cuda else result
    return _wrap(result) if to_cuda or (on_cuda and not to_cpu) else result


class _NewTensors(TorchFunctionMode):
    """`torch.tensor(numbers, device="cuda")`, which asks the driver before any operator runs."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is not torch.tensor or torch.device(kwargs.get("device") or "cpu").type != "cuda":
            return func(*args, **kwargs)
        return func(*args, **{**kwargs, "device": "cpu"}).to(CUDA)


class Watch(TorchDispatchMode):
    """Sees every operator. `forbids` says what an operator must not do now; the program sets it with `forbidding`."""

    def __init__(self) -> None:
        super().__init__()
        self.forbids: Literal["nothing", "waiting", "crossing"] = "nothing"
        self.n_operators = {"nothing": 0, "waiting": 0, "crossing": 0}

    @contextlib.contextmanager
    def forbidding(self, what: Literal["waiting", "crossing"]) -> Iterator[None]:
        """waiting: for the GPU. crossing: that too, and copies to it, which a CUDA graph would not repeat."""
        self.forbids, before = what, self.forbids
        try:
            yield
        finally:
            self.forbids = before

    def check(self, name: str, args: tuple, kwargs: dict, *, on_cuda: bool, to_cuda: bool, to_cpu: bool) -> None:
        self.n_operators[self.forbids] += 1
        if self.forbids == "nothing":
            return
        masks = name in ("index", "index_put_") and any(
            each.dtype is torch.bool for each in args[1] if each is not None
        )
        if on_cuda and (name in _WAITS or masks):
            raise WaitError(f"{name} reads values of the GPU")
        source_on_cuda, target_on_cuda = on_cuda, to_cuda or (on_cuda and not to_cpu)
        if name == "copy_":
            source_on_cuda, target_on_cuda = (isinstance(args[number], OnCuda) for number in (1, 0))
        elif name != "_to_copy":
            return
        if source_on_cuda and not target_on_cuda:
            raise WaitError(f"{name} copies a tensor from the GPU")
        if target_on_cuda and not source_on_cuda:
            if self.forbids == "crossing":
                raise WaitError(f"{name} copies a tensor to the GPU, which a captured step would not repeat")
            if not (kwargs.get("non_blocking") or (len(args) > 2 and args[2])):
                raise WaitError(f"{name} copies a tensor to the GPU and waits for it")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _run(func, args, kwargs or {}, self)


@contextlib.contextmanager
def pretended_cuda() -> Iterator[Watch]:
    """The device "cuda" as described above, for the length of a with block."""
    event = types.SimpleNamespace(record=lambda: None, synchronize=lambda: None)
    with (
        mock.patch.object(torch.cuda, "_lazy_init", lambda: None),
        mock.patch.object(torch.cuda, "Event", lambda **_: event),
        torch.backends.cudnn.flags(enabled=False),
        _NewTensors(),
        Watch() as watch,
    ):
        yield watch
