"""Files that are something else than they seem: weights of no number, archives, adapters, headers without end."""

import json
import shutil
import struct
import tarfile
import time
import zipfile
from pathlib import Path

import pytest
import torch
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.musicgen.checkpoints import open_checkpoint
from comfyui_musicgen.musicgen.checkpoints.containers.safetensors import read_safetensors
from comfyui_musicgen.musicgen.checkpoints.weights.fill import check_finite
from comfyui_musicgen.musicgen.errors import CheckpointError
from safetensors.torch import load_file, save_file

SMALL = {"dim": 16, "n_heads": 2, "n_layers": 2, "cardinality": 64, "n_filters": 2, "latent_dim": 16}


@pytest.fixture
def toy(toys, tmp_path):
    """A copy of a small toy in Hugging Face's format, to be damaged."""
    return Path(shutil.copytree(toys(**SMALL, format="huggingface"), tmp_path / "toy"))


NAMES = [
    "decoder.model.decoder.layers.1.fc1.weight",
    "decoder.model.decoder.embed_tokens.0.weight",
    "decoder.lm_heads.3.weight",
    "enc_to_dec_proj.bias",
    "text_encoder.encoder.block.0.layer.1.DenseReluDense.wo.weight",
    "audio_encoder.decoder.layers.3.conv.bias",
]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", NAMES)
def test_weights_that_are_no_numbers_are_named_when_they_are_loaded(toy, name, value):
    tensors = load_file(toy / "model.safetensors")
    tensors[name].view(-1)[-1] = value
    save_file(tensors, toy / "model.safetensors")
    part = name.removeprefix("text_encoder.").removeprefix("audio_encoder.")
    for precision in ("float32", "float16", "int8"):
        with pytest.raises(CheckpointError, match="values that are no numbers") as error:
            loading.load(toy, precision)
        assert str(toy) in str(error.value)
        assert part in str(error.value) or "embed_tokens" in str(error.value) or "lm_heads" in str(error.value)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_values_that_are_no_numbers_are_found_wherever_they_are(dtype):
    """And the largest numbers, of which a sum is infinite, are numbers."""
    limits = torch.finfo(dtype)
    weights = torch.tensor([limits.max, limits.min, limits.tiny, -limits.smallest_normal / 4, 0.0, -0.0]).to(dtype)
    weights = weights.repeat(30_000).view(3, -1)  # several blocks
    for finite in (weights, weights.T, weights[0, 0], weights[:, :0]):
        check_finite(finite, "x")
    for value in (float("nan"), float("inf"), -float("inf")):
        for place in (0, 65_535, 65_536, weights.numel() - 1):
            damaged = weights.clone()
            damaged.view(-1)[place] = value
            for tensor in (damaged, damaged.T):
                with pytest.raises(CheckpointError, match="no numbers"):
                    check_finite(tensor, "x")


def test_weights_too_large_for_a_precision_are_named_too(toy):
    tensors = load_file(toy / "model.safetensors")
    tensors["decoder.model.decoder.layers.1.fc1.weight"][0, 0] = 1e6
    save_file(tensors, toy / "model.safetensors")
    loading.load(toy, "float32")
    with pytest.raises(CheckpointError, match=r"layers\.1\.fc1\.weight' .*in float16.*choose float32"):
        loading.load(toy, "float16")


def test_a_mark_of_byte_order_in_front_of_the_settings_is_no_fault(toy):
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (toy / name).write_text("\ufeff" + (toy / name).read_text(encoding="utf-8"), encoding="utf-8")
    assert loading.load(toy, "float32").conditioner.encode_text(["a drum"]).n_rows == 1


def test_the_variant_in_half_precision_is_read(toy):
    tensors = load_file(toy / "model.safetensors")
    (toy / "model.safetensors").unlink()
    save_file({name: tensor.half() for name, tensor in tensors.items()}, toy / "model.fp16.safetensors")
    assert open_checkpoint(toy).lm["layers.1.up.weight"].dtype == torch.float16


@pytest.mark.parametrize(
    "suffix, kind", [("tar", "tar"), ("tar.gz", "gzip"), ("tar.bz2", "bzip2"), ("tar.xz", "xz"), ("zip", "zip")]
)
def test_archives_are_to_be_unpacked(toy, tmp_path, suffix, kind):
    path = tmp_path / f"model.{suffix}"
    if suffix == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.write(toy / "config.json", "model.zip/config.json")
    else:
        with tarfile.open(path, "w:" + suffix.partition(".")[2]) as archive:
            archive.add(toy / "config.json", "model/config.json")
    with pytest.raises(CheckpointError, match=rf"{kind}.*[uU]npack it and give (the|that) folder"):
        open_checkpoint(path)


def test_adapters_of_peft_are_told_from_models(tmp_path):
    save_file({"base_model.model.decoder.lora_A.weight": torch.ones(2, 2)}, tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text("{}")
    for path in (tmp_path, tmp_path / "adapter_model.safetensors"):
        with pytest.raises(CheckpointError, match=r"an adapter \(LoRA\), no whole model.*Apply MusicGen Fine-Tune"):
            open_checkpoint(path)


def many_tensors(n: int) -> bytes:
    return b"{" + b",".join(b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % i for i in range(n)) + b"}"


@pytest.mark.parametrize("n", [60_000, 250_000, 1_500_000])
def test_a_header_of_too_many_tensors_is_refused_at_once(tmp_path, n):
    text = many_tensors(n)
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text)
    start = time.monotonic()
    with pytest.raises(CheckpointError, match=r"model\.safetensors.*at most|of which at most"):
        read_safetensors(tmp_path / "model.safetensors")
    assert time.monotonic() - start < 5


def test_settings_of_any_number_of_items_are_refused(toy):
    (toy / "config.json").write_text(json.dumps({"a": [[]] * 1_100_000}))
    with pytest.raises(CheckpointError, match="holds no MusicGen checkpoint"):
        open_checkpoint(toy)
    with pytest.raises(CheckpointError, match=r"config\.json has .* items; at most"):
        open_checkpoint(toy, "huggingface")
