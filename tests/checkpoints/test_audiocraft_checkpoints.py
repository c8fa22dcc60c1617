"""Audiocraft's exports: the variants that are read, the options that are refused by name, and damage."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from comfyui_musicgen.musicgen.checkpoints import Checkpoint, open_checkpoint
from comfyui_musicgen.musicgen.errors import CheckpointError
from safetensors.torch import load_file, save_file

SMALL = {"dim": 16, "n_heads": 2, "n_layers": 2, "cardinality": 64, "n_filters": 2, "latent_dim": 16}


@pytest.fixture
def toy(toys, tmp_path):
    """A copy of a small toy, to be damaged: toy(format="huggingface") -> folder."""

    def copy(**options) -> Path:
        return Path(shutil.copytree(toys(**SMALL, **options), tmp_path / "toy"))

    return copy


def values(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    parts = {"lm": checkpoint.lm, "conditioner": checkpoint.conditioner, "codec": checkpoint.codec}
    return {f"{part}.{name}": weight.read() for part, table in parts.items() for name, weight in table.items()}


def edit(folder: Path, change, file: str = "state_dict.bin") -> Path:
    """Rewrite one file of an audiocraft checkpoint after `change(package, settings)`."""
    package = torch.load(folder / file, weights_only=True)
    settings = yaml.safe_load(package["xp.cfg"])
    change(package, settings)
    package["xp.cfg"] = yaml.safe_dump(settings)
    torch.save(package, folder / file)
    return folder


# --- audiocraft's variants


def test_the_oldest_exports_are_read(toy):
    def age(package, settings):
        del package["version"], package["exported"]
        settings["codebooks_pattern"]["modeling"] = None
        settings["transformer_lm"]["q_modeling"] = "delay"

    assert open_checkpoint(edit(toy(), age)).config.lm.delays == (0, 1, 2, 3)


def test_names_of_torchs_own_attention_are_accepted(toy):
    folder = toy()
    before = values(open_checkpoint(folder))

    def rename(package, settings):
        state = package["best_state"]
        package["best_state"] = {name.replace("_attn.", "_attn.mha."): tensor for name, tensor in state.items()}

    after = values(open_checkpoint(edit(folder, rename)))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_codec_is_described_by_its_own_settings(toy):
    def change(package, settings):
        settings["seanet"]["pad_mode"] = "constant"
        settings["encodec"]["causal"] = True
        settings["seanet"]["decoder"]["trim_right_ratio"] = 0.5

    codec = open_checkpoint(edit(toy(), change, "compression_state_dict.bin")).config.codec
    assert (codec.pad_mode, codec.causal, codec.trim_right_ratio) == ("constant", True, 0.5)


@pytest.mark.parametrize("segment_s, stride_s", [(30, 18), (10, 2)])
def test_windows_follow_the_segment_that_the_model_was_trained_on(toy, segment_s, stride_s):
    folder = edit(toy(), lambda p, s: s["dataset"].update(segment_duration=segment_s))
    config = open_checkpoint(folder).config
    assert (config.segment_s, config.extend_stride_s) == (segment_s, stride_s)


def test_fewer_active_codebooks_leave_the_others_of_the_codec_out(toy):
    def shrink(package, settings):
        for name in [n for n in package["best_state"] if n.startswith(("emb.2", "emb.3", "linears.2", "linears.3"))]:
            del package["best_state"][name]
        settings["compression_model_n_q"] = settings["transformer_lm"]["n_q"] = 2
        settings["codebooks_pattern"]["delay"]["delays"] = [0, 1]

    checkpoint = open_checkpoint(edit(toy(), shrink))
    assert checkpoint.config.codec.n_codebooks == 2
    assert sum(name.endswith("embed") for name in checkpoint.codec) == 2


OPTIONS = {
    "bias_attn": True,
    "bias_ff": True,
    "bias_proj": True,
    "layer_scale": 0.1,
    "qk_layer_norm": True,
    "kv_repeat": 2,
    "norm_first": False,
    "norm": "rms_norm",
    "activation": "relu",
    "positional_embedding": "rope",
    "causal": False,
    "past_context": 100,
    "some_new_option": 3,
}


@pytest.mark.parametrize("option", OPTIONS)
def test_options_of_no_published_model_are_refused_by_name(toy, option):
    folder = edit(toy(), lambda p, s: s["transformer_lm"].update({option: OPTIONS[option]}))
    with pytest.raises(CheckpointError, match=rf"state_dict\.bin: the setting 'transformer_lm\.{option}'"):
        open_checkpoint(folder)


SETTINGS = {
    "lm_model": ("lm_model", "transformer_lm_magnet"),
    "codebooks_pattern.modeling": ("codebooks_pattern", {"modeling": "parallel"}),
    "fuser.sum": ("fuser", {"sum": ["description"], "cross": [], "prepend": [], "input_interpolate": []}),
    "conditions": ("fuser", {"sum": [], "cross": [], "prepend": [], "input_interpolate": []}),
    "finetune": ("conditioners", {"description": {"model": "t5", "t5": {"name": "t5-small", "finetune": True}}}),
    "description.model": ("conditioners", {"description": {"model": "clap", "clap": {}}}),
    "t5.name": ("conditioners", {"description": {"model": "t5", "t5": {"name": "../../etc"}}}),
    "per_timestep": ("interleave_stereo_codebooks", {"use": True, "per_timestep": True}),
    "segment_duration": ("dataset", {"segment_duration": "long"}),
}


@pytest.mark.parametrize("key", SETTINGS)
def test_unsupported_settings_are_refused_by_name(toy, key):
    name, value = SETTINGS[key]
    with pytest.raises(CheckpointError, match=key.replace(".", r"\.")):
        open_checkpoint(edit(toy(), lambda p, s: s.update({name: value})))


SIZES = {"num_layers": 10**9, "dim": 10**9, "num_heads": 3, "n_q": 0, "card": "x"}


@pytest.mark.parametrize("key, value", SIZES.items(), ids=SIZES)
def test_absurd_sizes_are_refused(toy, key, value):
    with pytest.raises(CheckpointError):
        open_checkpoint(edit(toy(), lambda p, s: s["transformer_lm"].update({key: value})))


CODEC_SETTINGS = {
    "channels": ("encodec", "channels", 2),
    "renormalize": ("encodec", "renormalize", True),
    "norm": ("seanet", "norm", "none"),
    "activation": ("seanet", "activation", "ReLU"),
    "compress": ("seanet", "compress", 0),
    "ratios": ("seanet", "ratios", [8, 0]),
}


@pytest.mark.parametrize("key", CODEC_SETTINGS)
def test_unsupported_codecs_are_refused_by_name(toy, key):
    section, name, value = CODEC_SETTINGS[key]
    folder = edit(toy(), lambda p, s: s[section].update({name: value}), "compression_state_dict.bin")
    with pytest.raises(CheckpointError, match=rf"'{section}\.{key}'"):
        open_checkpoint(folder)


def test_a_codec_that_is_only_named_is_found_beside_the_checkpoint(toy, tmp_path):
    folder = toy()
    before = values(open_checkpoint(folder))
    (tmp_path / "encodec_32khz").mkdir()
    shutil.copy(folder / "compression_state_dict.bin", tmp_path / "encodec_32khz")
    torch.save({"pretrained": "facebook/encodec_32khz", "exported": True}, folder / "compression_state_dict.bin")
    after = values(open_checkpoint(folder))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_codec_that_is_only_named_may_be_transformers(toys, toy, tmp_path):
    folder, other = toy(), toys(**SMALL, format="huggingface")
    before = values(open_checkpoint(folder))
    own = folder / "facebook" / "encodec_32khz"
    own.mkdir(parents=True)
    tensors = load_file(other / "model.safetensors")
    codec = {name[14:]: tensor for name, tensor in tensors.items() if name.startswith("audio_encoder.")}
    save_file(codec, own / "model.safetensors")
    (own / "config.json").write_text(json.dumps(json.loads((other / "config.json").read_text())["audio_encoder"]))
    torch.save({"pretrained": "facebook/encodec_32khz", "exported": True}, folder / "compression_state_dict.bin")
    checkpoint = open_checkpoint(folder)
    assert checkpoint.config.codec.n_codebooks == 4
    after = values(checkpoint)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("name", ["facebook/encodec_32khz", "/etc", "../other", r"\\server\share", "a/../../b", 3])
def test_a_codec_that_is_only_named_and_absent_is_an_error(toy, name):
    folder = toy()
    torch.save({"pretrained": name, "exported": True}, folder / "compression_state_dict.bin")
    expected = "encodec_32khz', which was not found beside it" if name == "facebook/encodec_32khz" else "unusual"
    with pytest.raises(CheckpointError, match=expected):
        open_checkpoint(folder)


# --- damage: every message names the file, and the tensor where there is one


def damaged(folder: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(folder)
    return str(error.value)


def test_missing_extra_and_misshapen_tensors_of_audiocraft_are_named(toy):
    def change(package, settings):
        state = package["best_state"]
        state["surplus"] = state.pop("out_norm.bias")
        state["emb.1.weight"] = state["emb.1.weight"][:-1].clone()
        state["linears.0.weight"] = state["linears.0.weight"].long()

    message = damaged(edit(toy(), change))
    assert "state_dict.bin" in message
    assert "1 tensor missing (out_norm.bias)" in message
    assert "1 tensor not expected (surplus)" in message
    assert "emb.1.weight is [64, 16], not [65, 16]" in message
    assert "linears.0.weight holds int64" in message


@pytest.mark.parametrize("file", ["state_dict.bin", "compression_state_dict.bin"])
@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.99])
def test_truncated_torch_files_are_refused(toy, file, share):
    folder = toy()
    data = (folder / file).read_bytes()
    (folder / file).write_bytes(data[: int(len(data) * share)])
    assert str(folder / file) in damaged(folder)


def test_missing_files_are_named(toy):
    folder = toy()
    (folder / "compression_state_dict.bin").unlink()
    assert "has no compression_state_dict.bin" in damaged(folder)
    (folder / "state_dict.bin").unlink()
    assert "holds no MusicGen checkpoint" in damaged(folder)
    assert "does not exist" in damaged(folder / "nowhere")
    (folder / "file").write_text("x")
    assert "is no torch file" in damaged(folder / "file")


OTHERS = {
    "web page": (b"<!DOCTYPE html><html>" + b" " * 600, "web page"),
    "LFS pointer": (b"version https://git-lfs.github.com/spec/v1\n" + b"x" * 300, "Git LFS pointer"),
    "bare pickle": (b"\x80\x02}q\x00." + b"x" * 300, "old format"),
    "tar": (b"a" * 257 + b"ustar" + b"\x00" * 300, "tar archive"),
    "anything": (b"\x00" * 600, "no torch file"),
    "empty": (b"", "is empty"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_files_of_other_kinds_are_told_apart(toy, kind):
    folder = toy()
    (folder / "state_dict.bin").write_bytes(OTHERS[kind][0])
    assert OTHERS[kind][1] in damaged(folder)


def test_legacy_torch_files_are_refused(toy):
    folder = toy()
    torch.save({"best_state": {}}, folder / "state_dict.bin", _use_new_zipfile_serialization=False)
    assert "old format" in damaged(folder)


def test_compressed_entries_are_refused(toy):
    folder = toy()
    with zipfile.ZipFile(folder / "state_dict.bin") as source:
        entries = {info.filename: source.read(info) for info in source.infolist()}
    with zipfile.ZipFile(folder / "state_dict.bin", "w", zipfile.ZIP_DEFLATED) as target:
        for name, data in entries.items():
            target.writestr(name, data)
    assert "compressed" in damaged(folder)


def test_weights_without_settings_are_no_model(toy):
    folder = toy()
    torch.save({"model": {}, "xp.sig": "abc"}, folder / "state_dict.bin")
    assert "no model of audiocraft: it has no settings" in damaged(folder)
