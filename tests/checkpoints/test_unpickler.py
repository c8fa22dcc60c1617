"""The restricted unpickler: it reads what torch and OmegaConf write, and nothing hostile ever runs."""

import collections
import contextlib
import pickle
import struct
import time
import typing

import numpy as np
import pytest
import torch
from comfyui_musicgen.musicgen.checkpoints.containers.inert import MAX_DEPTH, Name, Storage, TensorRecord
from comfyui_musicgen.musicgen.checkpoints.containers.torch_zip import TorchFile
from comfyui_musicgen.musicgen.checkpoints.containers.unpickler import unpickle
from comfyui_musicgen.musicgen.checkpoints.settings import Settings, plain
from comfyui_musicgen.musicgen.errors import CheckpointError


def read(data: bytes) -> object:
    return unpickle(data, "file.bin")


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


class Calls:
    """Pickles as a call of `function`."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


# --- what it reads


@pytest.mark.parametrize("protocol", range(6))
def test_plain_containers_survive_every_protocol(protocol):
    value = {
        "numbers": [0, 1, 255, 256, -1, 2**40, 2**300, 1.5, True, False, None],
        "texts": ["", "ä", "x" * 300],
        "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
        "nested": {"a": {"b": [{}]}},
    }
    assert read(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_sets_bytes_and_ordered_dicts_are_read(protocol):
    value = [{1, 2}, frozenset({3}), collections.OrderedDict(a=1, b=2), collections.OrderedDict()]
    assert read(pickle.dumps(value, protocol)) == [{1, 2}, frozenset({3}), {"a": 1, "b": 2}, {}]
    assert read(pickle.dumps(b"bytes", max(protocol, 3))) == b"bytes"


def test_defaultdict_becomes_a_plain_dict():
    value = collections.defaultdict(dict)
    value["now"] = {"%Y": 1}
    result = read(pickle.dumps(value, 2))
    assert type(result) is dict and result == {"now": {"%Y": 1}}


def test_names_stay_names():
    assert read(pickle.dumps([typing.Any, int, torch.float16], 2)) == [
        Name("typing.Any"),
        Name("builtins.int"),
        Name("torch.float16"),
    ]


def test_a_module_state_dict_with_metadata_is_read(tmp_path):
    torch.save(torch.nn.Linear(2, 3).state_dict(), tmp_path / "a.bin")
    contents = TorchFile(tmp_path / "a.bin").contents
    assert contents["weight"] == TensorRecord(Storage(torch.float32, "0", 6), 0, (3, 2), (2, 1))


def test_parameters_are_read_as_their_tensors(tmp_path):
    parameter = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
    torch.save({"p": parameter}, tmp_path / "a.bin")
    file = TorchFile(tmp_path / "a.bin")
    assert torch.equal(file.tensor(file.contents["p"], "p").read(), parameter.detach())


def test_views_and_transposes_are_read_by_their_strides(tmp_path):
    base = torch.arange(24.0).reshape(4, 6)
    views = {"rows": base[1:3], "columns": base[:, 2:4], "transposed": base.t(), "one": base[2, 3]}
    torch.save(views, tmp_path / "a.bin")
    file = TorchFile(tmp_path / "a.bin")
    for name, tensor in file.tensors(file.contents, "all").items():
        assert torch.equal(tensor.read(), views[name])


def test_omegaconf_configs_unwrap_to_plain_containers(tmp_path):
    omegaconf = pytest.importorskip("omegaconf")
    table = {"a": 1, "b": {"c": [1, "x", None, 1e-8]}, "ref": "${a}", "home": "${oc.env:HOME}", "empty": None}
    config = omegaconf.OmegaConf.create(table)
    config._metadata.resolver_cache["now"]["%Y"] = "2024"
    torch.save({"xp.cfg": config, "model": {"w": torch.ones(2)}}, tmp_path / "trained_model.tar")
    contents = TorchFile(tmp_path / "trained_model.tar").contents
    assert plain(contents["xp.cfg"], "x") == omegaconf.OmegaConf.to_container(config, resolve=False) == table
    settings = Settings.from_audiocraft(contents["xp.cfg"], "x")
    assert settings.get("ref") == 1
    assert settings.get("home", "absent") == "absent"  # nothing but other settings is ever looked up


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", ["float64", "float32", "float16", "int64", "int8", "uint16", "bool"])
def test_numpy_scalars_become_numbers(protocol, kind):
    number = np.dtype(kind).type(1)
    result = read(pickle.dumps({"loss": number}, protocol))["loss"]
    assert result == number and type(result) in (float, int, bool)


DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_storages_of_every_type_are_read(tmp_path, protocol):
    tensors = {name: torch.arange(6).reshape(2, 3).to(getattr(torch, name)) for name in DTYPES}
    torch.save(tensors, tmp_path / "a.bin", pickle_protocol=protocol)
    file = TorchFile(tmp_path / "a.bin")
    for name, weight in file.tensors(file.contents, "all").items():
        assert weight.dtype == tensors[name].dtype and torch.equal(weight.read(), tensors[name].float())


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_training_run_with_its_optimizer_is_read(tmp_path, protocol):
    model = torch.nn.Linear(2, 3)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    run = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "history": [{"train": {"loss": 0.5}}]}
    torch.save(
        {**run, "parameter": model.weight, "device": torch.device("cpu")}, tmp_path / "a.bin", pickle_protocol=protocol
    )
    contents = TorchFile(tmp_path / "a.bin").contents
    assert contents["history"] == run["history"] and contents["parameter"].shape == (3, 2)
    assert contents["optimizer"]["state"][0]["exp_avg"].shape == (3, 2)


@pytest.mark.parametrize("protocol", range(6))
def test_texts_in_tuples_are_keys(protocol):
    value = {("%Y", "x"): "2024", (): 1, 3: None, 0.5: True, b"b": 2, False: 4}
    assert read(pickle.dumps(value, protocol)) == value


# --- what it refuses


HOSTILE = {
    "GLOBAL": b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00echo\x85R.",
    "GLOBAL alone": b"\x80\x02cos\nsystem\n.",
    "STACK_GLOBAL": b"\x80\x04" + text("os") + text("system") + b"\x93" + text("echo") + b"\x85R.",
    "INST": b"(S'echo'\nios\nsystem\n.",
    "OBJ": b"(cos\nsystem\nS'echo'\no.",
    "NEWOBJ": b"\x80\x02cos\nsystem\n)\x81.",
    "NEWOBJ_EX": b"\x80\x04" + text("os") + text("system") + b"\x93)}\x92.",
    "dotted": b"\x80\x04" + text("torch") + text("serialization.os.system") + b"\x93.",
    "eval": b"c__builtin__\neval\n(S'1'\ntR.",
    "getattr": b"cbuiltins\ngetattr\n.",
    "pathlib": b"\x80\x02cpathlib\nPosixPath\n.",
    "torch.load": b"\x80\x02ctorch\nload\n.",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_names_outside_the_table_are_refused_by_name(data):
    with pytest.raises(CheckpointError, match="Nothing in it was run") as error:
        read(data)
    named = ("os.system", "builtins.eval", "builtins.getattr", "pathlib.PosixPath", "torch.load")
    assert any(name in str(error.value) for name in named)


@pytest.mark.parametrize("protocol", range(6))
def test_a_call_of_os_system_does_not_run(protocol, tmp_path):
    import os

    target = tmp_path / "was-here"
    data = pickle.dumps({"best_state": Calls(os.system, f"touch {target}")}, protocol)
    with pytest.raises(CheckpointError, match=r"'(posix|nt|os)\.system'"):
        read(data)
    assert not target.exists()


def test_a_torch_file_that_would_run_code_is_refused(tmp_path):
    target = tmp_path / "was-here"
    torch.save({"best_state": Calls(exec, f"open({str(target)!r}, 'w')")}, tmp_path / "state_dict.bin")
    with pytest.raises(CheckpointError, match=r"state_dict\.bin refers to 'builtins\.exec'"):
        TorchFile(tmp_path / "state_dict.bin")
    assert not target.exists()


STRANGE = {
    "extension 1": b"\x80\x02\x82\x01.",
    "extension 2": b"\x80\x02\x83\x01\x00.",
    "extension 4": b"\x80\x02\x84\x01\x00\x00\x00.",
    "text persistent id": b"Psome id\n.",
    "persistent id of no tuple": b"\x80\x02" + text("storage") + b"Q.",
    "persistent id of strange parts": b"\x80\x02(" + text("storage") + b"K\x01K\x02K\x03K\x04tQ.",
    "persistent id naming no storage": b"\x80\x02(" + text("storage") + b"ctyping\nAny\n" + text("0") * 2 + b"K\x04tQ.",
    "state for a name": b"ctyping\nAny\n}b.",
    "state for a list": b"]}b.",
    "__setstate__ of a stub with no table": b"\x80\x02comegaconf.base\nMetadata\n)\x81K\x01b.",
    "call of a stub": b"comegaconf.base\nMetadata\n]R.",
    "call of a text": text("os") + b")R.",
    "call of a type": b"cbuiltins\nint\n(K\x01tR.",
    "new object with arguments": b"\x80\x02ctyping\nAny\n(K\x01t\x81.",
    "item of a tuple": b"(t" + text("a") + b"K\x01s.",
    "append to a dict": b"}K\x01a.",
    "list as a key": b"}]K\x01s.",
    "deep tuple as a key": b"}" + b")" + b"\x85" * 50000 + b"K\x01s.",
    "key without a value": b"}(K\x01u.",
    "memo of nothing": b"h\x05.",
    "huge memo index": b"K\x01r\xff\xff\xff\xff0j\xfe\xff\xff\xff.",
    "empty stack": b"R.",
    "no mark": b"K\x01t.",
    "mark as a value": b"(\x85.",
    "no end": b"]",
    "nothing": b"",
    "garbage": b"\xff\xfe\xfd",
    "length beyond the end": b"X\xff\xff\xff\x7fabc.",
    "eight-byte length": b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
    "buffer out of band": b"\x80\x05\x97.",
    "bytearray": b"\x80\x05\x96\x01\x00\x00\x00\x00\x00\x00\x00a.",
    "number of many digits": b"I" + b"9" * 10000 + b"\n.",
    "tensor without a storage": b"ctorch._utils\n_rebuild_tensor_v2\n(K\x00K\x00)))NtR.",
}


@pytest.mark.parametrize("data", STRANGE.values(), ids=STRANGE)
def test_malformed_pickles_are_checkpoint_errors(data):
    with pytest.raises(CheckpointError, match=r"file\.bin"):
        read(data)


def test_nothing_random_gets_past_the_reader():
    good = pickle.dumps({"a": [1, (2, 3)], "b": collections.OrderedDict(c=1.5)}, 2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(2000):
        broken = bytearray(good)
        for place in torch.randint(len(good), (3,), generator=generator).tolist():
            broken[place] = int(torch.randint(256, (1,), generator=generator))
        with contextlib.suppress(CheckpointError):
            read(bytes(broken))


def test_a_library_out_of_memory_is_a_checkpoint_error_and_an_interruption_is_not(monkeypatch):
    def fail(error):
        def load(_):
            raise error

        monkeypatch.setattr("pickletools.genops", load)

    for error in (MemoryError(), RecursionError(), OverflowError(), struct.error()):
        fail(error)
        with pytest.raises(CheckpointError, match=rf"file\.bin is damaged \({type(error).__name__}\)"):
            read(b"N.")
    fail(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        read(b"N.")


def test_deep_nesting_is_refused():
    for shell in (b"(", b"]"):
        deep = shell * 100_000 + (b"t" if shell == b"(" else b"a") * 100_000 + b"."
        with pytest.raises(CheckpointError):
            read(deep)
    with pytest.raises(CheckpointError, match=f"more than {MAX_DEPTH} levels"):
        read(b"]" + b"\x85" * 500 + b".")


def test_a_list_that_holds_itself_is_refused():
    value: list = []
    value.append(value)
    with pytest.raises(CheckpointError, match="levels"):
        read(pickle.dumps(value, 2))


def test_billion_laughs_are_refused_quickly():
    data = b"\x80\x02](" + b"K\x01" * 10 + b"e"
    for level in range(30):
        data += b"q" + bytes([level]) + b"0](" + (b"h" + bytes([level])) * 10 + b"e"
    start = time.monotonic()
    with pytest.raises(CheckpointError, match="unfolds to more than"):
        read(data + b".")
    assert time.monotonic() - start < 5


def test_billion_laughs_in_yaml_are_refused():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    with pytest.raises(CheckpointError, match="unfolds to more than"):
        Settings.from_audiocraft("\n".join(lines), "file.bin")


def test_merge_keys_that_double_at_every_level_are_refused():
    lines = ["c0: &c0 {b: 1}"] + [f"c{i}: &c{i} {{<<: [*c{i - 1}, *c{i - 1}]}}" for i in range(1, 40)]
    with pytest.raises(CheckpointError, match=r"xp\.cfg"):
        Settings.from_audiocraft("\n".join(lines), "file.bin")


@pytest.mark.parametrize("yaml", ["[1, 2", "!!python/object/apply:os.system ['echo']", "just text", "[" * 5000])
def test_unusable_yaml_is_a_checkpoint_error(yaml):
    with pytest.raises(CheckpointError, match=r"xp\.cfg"):
        Settings.from_audiocraft(yaml, "file.bin")


def test_names_from_a_hostile_file_are_shown_harmlessly():
    with pytest.raises(CheckpointError) as error:
        read(b"\x80\x04" + text("evil\x1b[2J\n" + "x" * 5000) + text("é") + b"\x93.")
    assert "\x1b" not in str(error.value) and len(str(error.value)) < 1000
