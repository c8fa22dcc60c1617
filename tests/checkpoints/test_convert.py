"""convert and inspect: any checkpoint as one safetensors file, and what a file is, in words."""

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.musicgen.checkpoints import open_checkpoint
from comfyui_musicgen.musicgen.checkpoints.containers import unpickler as unpickler_module
from comfyui_musicgen.musicgen.checkpoints.formats.converted import VERSION
from comfyui_musicgen.musicgen.checkpoints.tools.convert import convert
from comfyui_musicgen.musicgen.cli.main import main
from comfyui_musicgen.musicgen.config import GenerationParams
from comfyui_musicgen.musicgen.errors import CheckpointError, InputError
from comfyui_musicgen.musicgen.finetuning.model import build
from comfyui_musicgen.musicgen.finetuning.settings import TrainSettings
from comfyui_musicgen.musicgen.store import ModelStore
from comfyui_musicgen.musicgen.store.text_encoders import find_text_encoder
from safetensors import safe_open
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"dim": 32, "n_heads": 2, "n_layers": 2, "cardinality": 64, "n_filters": 2, "latent_dim": 16}
KINDS = [
    {},
    {"stereo": True, "melody": True},
    {"format": "huggingface"},
    {"format": "huggingface", "stereo": True, "melody": True},
]


def codes_and_sound(loaded):
    params = GenerationParams(duration_s=0.4, seed=3)
    codes = loaded.model.generate(loaded.conditioner.encode_text(["a drum, 판소리"]), params)
    return codes.codes, loaded.codec.decode(codes).samples


def converted(source: Path, target: Path, **options) -> Path:
    checkpoint = open_checkpoint(source)
    return convert(checkpoint, target, text_encoder=find_text_encoder(checkpoint, []), **options)


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_a_converted_file_is_the_same_model(toys, tmp_path, options, monkeypatch):
    source = toys(**SMALL, **options)
    expected = codes_and_sound(loading.load(source, "float32"))
    target = converted(source, tmp_path / "one.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["one.safetensors"]

    def never(*_):
        raise AssertionError("a pickle was read")

    monkeypatch.setattr(unpickler_module, "unpickle", never)
    monkeypatch.setattr("pickle.Unpickler", never)
    loaded = loading.load(target, "float32")
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(codes_and_sound(loaded), expected, strict=True))
    before, after = (
        open_checkpoint(source, "huggingface" if "format" in options else "audiocraft"),
        open_checkpoint(target),
    )
    for part in ("lm", "codec", "text", "melody", "segment_s", "extend_stride_s"):
        assert getattr(before.config, part) == getattr(after.config, part)
    assert after.config.name == "one" and after.format == "converted"


@pytest.mark.parametrize("melody", [False, True])
def test_texts_are_filled_up_where_the_file_says_so(toys, tmp_path, melody):
    """In front of a prefix model's codes stand as many rows then, whatever the text; a fine-tune of it learns from the same."""
    source = toys(**SMALL, melody=melody)
    plain = loading.load(source, "float32")
    checkpoint = open_checkpoint(source)
    config = replace(checkpoint.config, text=replace(checkpoint.config.text, n_rows=9))
    target = convert(
        replace(checkpoint, config=config), tmp_path / "one.safetensors", None, find_text_encoder(checkpoint, [])
    )
    with safe_open(target, "pt") as file:
        assert json.loads(file.metadata()["musicgen"])["version"] == 3, "older programs would play it out of time"
    loaded = loading.load(target, "float32")
    texts = ["a drum", "", "x" * 300]
    filled, bare = (each.conditioner.encode_text(texts) for each in (loaded, plain))
    trainable = build(loaded.model.source, TrainSettings(), torch.device("cpu"))
    for i, (ours, theirs) in enumerate(zip(filled.text, bare.text, strict=True)):
        n = len(theirs)
        assert len(ours) == max(9, n) and torch.equal(ours[:n], theirs) and not ours[n:].any()
        states = loaded.conditioner.text_encoder(texts[i]) if texts[i] else torch.zeros(0, config.text.dim)
        torch.testing.assert_close(trainable.text_row(states), ours, atol=1e-6, rtol=0)
    assert [len(row) for row in filled.null().text] == [len(row) for row in filled.text]
    again = converted(target, tmp_path / "two.safetensors")
    assert open_checkpoint(again).config.text == config.text
    assert all(
        torch.equal(a, b)
        for a, b in zip(codes_and_sound(loading.load(again, "float32")), codes_and_sound(loaded), strict=True)
    )


def test_it_moves_alone_and_is_found_by_name(toys, tmp_path):
    (tmp_path / "models" / "sub").mkdir(parents=True)
    converted(toys(**SMALL), tmp_path / "models" / "sub" / "one.safetensors")
    assert ModelStore([tmp_path / "models"]).list() == ["sub/one.safetensors"]
    loaded = loading.load(ModelStore([tmp_path / "models"]).find("sub/one.safetensors"))
    assert loaded.conditioner.text_encoder("a").shape[-1] == 512


@pytest.mark.parametrize("options", KINDS[:1] + KINDS[2:3], ids=str)
def test_other_libraries_read_it(toys, tmp_path, options):
    source = toys(**SMALL, **options)
    target = converted(source, tmp_path / "one.safetensors")
    tensors, checkpoint = load_file(target), open_checkpoint(source)
    assert torch.equal(tensors["lm.layers.1.qkv.weight"].float(), checkpoint.lm["layers.1.qkv.weight"].read())
    with safe_open(target, "pt") as file:
        assert json.loads(file.metadata()["musicgen"])["lm"]["n_layers"] == 2
    save_file(tensors, tmp_path / "again.safetensors", {"musicgen": file_metadata(target)["musicgen"]})
    again = open_checkpoint(tmp_path / "again.safetensors")
    assert torch.equal(again.lm["heads.weight"].read(), checkpoint.lm["heads.weight"].read())


def file_metadata(path: Path) -> dict:
    with safe_open(path, "pt") as file:
        return file.metadata()


@pytest.mark.parametrize("precision", [None, "float32", "bfloat16", "float16"])
def test_precision_is_that_of_the_matrices_and_nothing_else(toys, tmp_path, precision):
    source = open_checkpoint(toys(**SMALL, format="huggingface"))  # stored in float32
    target = convert(source, tmp_path / "one.safetensors", precision)
    checkpoint = open_checkpoint(target)
    dtype = getattr(torch, precision or "float32")
    for name, weight in checkpoint.lm.items():
        matrix = len(weight.shape) == 2
        assert weight.dtype == (dtype if matrix else torch.float32), name
        assert torch.equal(weight.read(), source.lm[name].read(dtype if matrix else torch.float32).float()), name
    assert all(
        weight.dtype == torch.float32 for weight in (*checkpoint.conditioner.values(), *checkpoint.codec.values())
    )


def test_without_precision_every_tensor_stays_as_it_is_stored(toys, tmp_path):
    checkpoint = open_checkpoint(converted(toys(**SMALL), tmp_path / "one.safetensors"))
    assert {weight.dtype for weight in checkpoint.lm.values()} == {torch.float16}  # audiocraft's export
    assert {weight.dtype for weight in checkpoint.codec.values()} == {torch.float32}


def test_a_text_encoder_is_found_by_name_or_left_out(toys, tmp_path):
    folder = Path(shutil.copytree(toys(**SMALL), tmp_path / "toy"))
    encoders = tmp_path / "encoders"
    encoders.mkdir()
    (folder / "text_encoder").rename(encoders / "t5-small")
    checkpoint = open_checkpoint(folder)
    assert find_text_encoder(checkpoint, []) is None
    source = find_text_encoder(checkpoint, [encoders])
    target = convert(checkpoint, tmp_path / "one.safetensors", text_encoder=source)
    small = convert(checkpoint, tmp_path / "small.safetensors")
    assert target.stat().st_size - small.stat().st_size > 4 * 259 * 512
    assert not open_checkpoint(small).text_encoder.config
    assert loading.load(small, text_encoder_dirs=[encoders]).conditioner.text_encoder("a").shape[-1] == 512
    with pytest.raises(CheckpointError, match="512"):
        wide = open_checkpoint(toys(**SMALL, text="t5-base"))
        shutil.copytree(encoders / "t5-small", encoders / "t5-base")
        object.__setattr__(wide, "text_encoder", type(wide.text_encoder)())
        find_text_encoder(wide, [encoders])


def test_the_tokenizer_in_the_file_is_the_original(toys, tmp_path):
    texts = ["", " ", "a", "ä", "판소리", "x" * 300]
    original = loading.load(toys(**SMALL)).conditioner.text_encoder.tokenizer
    loaded = loading.load(converted(toys(**SMALL), tmp_path / "one.safetensors")).conditioner.text_encoder.tokenizer
    assert [loaded.ids(text) for text in texts] == [original.ids(text) for text in texts]


# --- nothing half-written


def test_a_full_disk_leaves_nothing(toys, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="needs .* GB, but only"):
        converted(toys(**SMALL), tmp_path / "one.safetensors")
    monkeypatch.undo()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(InputError, match="needs .* GB, but only 0.00 GB are free"):
        converted(toys(**SMALL), tmp_path / "one.safetensors")
    assert not list(tmp_path.iterdir())


def test_cancel_leaves_nothing(toys, tmp_path):
    def stop(done, total):
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        converted(toys(**SMALL), tmp_path / "one.safetensors", on_step=stop)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["one.bin", "no/folder/one.safetensors", "there.safetensors"])
def test_unusable_targets_are_refused_before_any_work(toys, tmp_path, name):
    (tmp_path / "there.safetensors").write_text("precious")
    with pytest.raises(InputError, match=re.escape(name.partition("/")[0])):
        converted(toys(**SMALL), tmp_path / name)
    assert (tmp_path / "there.safetensors").read_text() == "precious"


def test_progress_counts_bytes(toys, tmp_path):
    steps = []
    target = converted(toys(**SMALL), tmp_path / "one.safetensors", on_step=lambda *step: steps.append(step))
    assert steps == sorted(steps) and steps[-1] == (target.stat().st_size,) * 2


_MEASURE = """
import importlib.util, resource, sys, types
from pathlib import Path
import torch
root, source, target = map(Path, sys.argv[1:4])
pack = types.ModuleType("pack"); pack.__path__ = [str(root)]; sys.modules["pack"] = pack
from pack.musicgen.checkpoints import open_checkpoint
from pack.musicgen.checkpoints.tools.convert import convert
def peak():
    return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) * 1024
checkpoint = open_checkpoint(source)
torch.ones(1000).half().float()
before = peak()
convert(checkpoint, target)
print((peak() - before) / target.stat().st_size)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="the peak is read from Linux's /proc")
def test_a_large_file_is_never_held_in_memory(toys, tmp_path):
    source = toys(dim=1536, n_heads=24, n_layers=5, cardinality=256, n_filters=2, latent_dim=16)
    command = [sys.executable, "-c", _MEASURE, str(ROOT), str(source), str(tmp_path / "one.safetensors")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "one.safetensors").stat().st_size > 250e6
    assert float(done.stdout) < 0.33


# --- what is wrong with a file


def rewrite(path: Path, change) -> Path:
    """Change the configuration in a converted file's header, whose length stays."""
    data = path.read_bytes()
    n_header = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + n_header])
    config = json.loads(header["__metadata__"]["musicgen"])
    change(config, header)
    if "musicgen" in header["__metadata__"]:
        header["__metadata__"]["musicgen"] = json.dumps(config)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + n_header :])
    return path


CHANGES = {
    "newer": (lambda c, h: c.update(version=VERSION + 1), "newer version"),
    "layers": (lambda c, h: c["lm"].update(n_layers=3), r"lm\.layers\.2"),
    "width": (lambda c, h: c["lm"].update(dim=64), "not .*64"),
    "gigantic": (lambda c, h: c["lm"].update(dim=2**40), "'lm.dim'"),
    "codec": (lambda c, h: c["codec"].update(n_filters=4), r"codec\."),
    "no config": (lambda c, h: h["__metadata__"].pop("musicgen"), "no whole model"),
    "T5": (lambda c, h: c["text_encoder"].update(num_layers=2), "text_encoder"),
    "tracker's kind": (lambda c, h: c.update(beat_tracker="yes"), "'beat_tracker'"),
    "no tracker": (lambda c, h: c.update(beat_tracker=True), r"beat_tracker\.embeddings"),
    "no number": (lambda c, h: c.update(segment_s="long"), "'segment_s'"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_settings_that_do_not_fit_are_named(toys, tmp_path, kind):
    change, words = CHANGES[kind]
    path = rewrite(converted(toys(**SMALL), tmp_path / "one.safetensors"), change)
    with pytest.raises(CheckpointError, match=words):
        open_checkpoint(path)


def test_inspect_and_convert_from_the_command_line(toys, tmp_path, capsys):
    target = tmp_path / "one.safetensors"
    assert main(["convert", str(toys(**SMALL, stereo=True, melody=True)), str(target), "--precision", "bfloat16"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == str(target)
    assert main(["inspect", str(target)]) == 0
    out = capsys.readouterr().out
    for words in (
        "MusicGen stereo melody",
        "no pickle",
        "checked (SHA-256)",
        "2 layers, width 32, 2 heads, 8 codebooks of 64, delays 0, 0, 1, 1, 2, 2, 3, 3",
        "bfloat16",
        "melody and text, in front",
        "window          30 s",
        "EnCodec 32 kHz stereo, 8 codebooks of 64; in the same file",
        "t5-small, 512 wide",
    ):
        assert words in out, words
    assert main(["inspect", str(toys(**SMALL))]) == 0
    assert "audiocraft" in (out := capsys.readouterr().out) and "checked (CRC-32)" in out
    assert main(["convert", str(toys(**SMALL)), str(tmp_path / "b.safetensors"), "--no-text-encoder"]) == 0
    assert "without the text encoder t5-small, as asked" in capsys.readouterr().out


def test_inspect_finds_a_single_wrong_bit_wherever_there_is_a_checksum(toys, tmp_path, capsys):
    for source, name in ((toys(**SMALL), "state_dict.bin"), (converted(toys(**SMALL), tmp_path / "a.safetensors"), "")):
        copy = tmp_path / "copy"
        shutil.copytree(source, copy) if source.is_dir() else shutil.copy(source, copy)
        file = copy / name if name else copy
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
        assert main(["inspect", str(copy)]) == 1
        assert "damaged" in capsys.readouterr().err
        shutil.rmtree(copy) if copy.is_dir() else copy.unlink()


def test_inspect_names_weights_that_are_no_numbers(toys, tmp_path, capsys):
    folder = Path(shutil.copytree(toys(**SMALL, format="huggingface"), tmp_path / "toy"))
    tensors = load_file(folder / "model.safetensors")
    tensors["decoder.model.decoder.layer_norm.bias"][3] = float("nan")
    save_file(tensors, folder / "model.safetensors")
    assert main(["inspect", str(folder)]) == 1
    assert (
        "decoder.model.decoder.layer_norm.bias (lm.norm.bias) holds values that are no numbers"
        in capsys.readouterr().err
    )
