"""Opening and reading checkpoints: both formats to one naming, strictly."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from comfyui_musicgen.musicgen.checkpoints import Checkpoint, fill, open_checkpoint
from comfyui_musicgen.musicgen.checkpoints.settings import Settings
from comfyui_musicgen.musicgen.checkpoints.weights.expected import codec_shapes, conditioner_shapes, lm_shapes
from comfyui_musicgen.musicgen.errors import CheckpointError
from safetensors.torch import load_file, save_file

VARIANTS = [(False, False), (True, False), (False, True), (True, True)]
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


def edit_hf(folder: Path, change) -> Path:
    """Rewrite a Hugging Face checkpoint after `change(tensors, config)`."""
    tensors, config = load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())
    change(tensors, config)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


# --- both formats


@pytest.mark.parametrize("stereo, melody", VARIANTS)
def test_both_formats_hold_the_same_model(toys, stereo, melody):
    formats = ("audiocraft", "huggingface")
    theirs = [open_checkpoint(toys(**SMALL, stereo=stereo, melody=melody, format=format)) for format in formats]
    first, second = map(values, theirs)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    for part in ("lm", "codec", "text", "melody", "segment_s", "extend_stride_s"):
        assert getattr(theirs[0].config, part) == getattr(theirs[1].config, part)
    assert [checkpoint.format for checkpoint in theirs] == ["audiocraft", "huggingface"]


@pytest.mark.parametrize("stereo, melody", VARIANTS)
@pytest.mark.parametrize("format", ["audiocraft", "huggingface"])
def test_weights_have_exactly_the_names_and_shapes_of_the_layout(toys, stereo, melody, format):
    checkpoint = open_checkpoint(toys(**SMALL, stereo=stereo, melody=melody, format=format))
    config = checkpoint.config
    for shapes, weights in (
        (lm_shapes(config.lm), checkpoint.lm),
        (conditioner_shapes(config), checkpoint.conditioner),
        (codec_shapes(config.codec), checkpoint.codec),
    ):
        assert {name: weight.shape for name, weight in weights.items()} == shapes


def test_the_layout_of_the_codec_is_that_of_transformers(toys):
    from transformers import EncodecConfig, EncodecModel

    folder = toys(**SMALL, format="huggingface")
    config = EncodecConfig(**json.loads((folder / "config.json").read_text())["audio_encoder"])
    model = EncodecModel(config)
    for module in model.modules():
        if torch.nn.utils.parametrize.is_parametrized(module, "weight"):
            torch.nn.utils.parametrize.remove_parametrizations(module, "weight")
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    ours = codec_shapes(open_checkpoint(folder).config.codec)
    assert ours.items() <= shapes.items()
    assert {name.rpartition(".")[2] for name in shapes.keys() - ours.keys()} == {"inited", "cluster_size", "embed_avg"}


@pytest.mark.parametrize("spelling", ["weight_g and weight_v", "plain"])
def test_all_spellings_of_weight_norm_give_the_same_codec(toy, spelling):
    folder = toy(format="huggingface")
    before = values(open_checkpoint(folder))

    def respell(tensors, config):
        for name in [name for name in tensors if name.endswith("original0")]:
            stem = name.removesuffix("parametrizations.weight.original0")
            gain, direction = tensors.pop(name), tensors.pop(stem + "parametrizations.weight.original1")
            if spelling == "plain":
                tensors[stem + "weight"] = torch._weight_norm(direction, gain, 0)
            else:
                tensors[stem + "weight_g"], tensors[stem + "weight_v"] = gain, direction

    after = values(open_checkpoint(edit_hf(folder, respell)))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_buffers_that_the_engine_computes_itself_are_ignored(toy):
    def add(tensors, config):
        tensors["decoder.model.decoder.embed_positions.weights"] = torch.zeros(8, 16)

    assert open_checkpoint(edit_hf(toy(format="huggingface"), add)).format == "huggingface"


def test_the_text_encoder_inside_a_hugging_face_checkpoint_fills_transformers_model(toy):
    from transformers import T5Config, T5EncoderModel

    folder = toy(format="huggingface")

    def untie(tensors, config):
        tensors["text_encoder.encoder.embed_tokens.weight"] = tensors.pop("text_encoder.shared.weight")

    for change in (None, untie):
        source = open_checkpoint(edit_hf(folder, change) if change else folder).text_encoder
        assert source.folder is None and source.tokenizer_json == (folder / "tokenizer.json").read_text()
        with torch.device("meta"):
            model = T5EncoderModel(T5Config(**source.config))
        fill(model, source.weights, "toy")
        assert model.shared.weight is model.encoder.embed_tokens.weight
        assert not any(parameter.is_meta for parameter in model.parameters())
        expected = load_file(folder / "model.safetensors")
        name = "encoder.block.0.layer.0.SelfAttention.q.weight"
        assert torch.equal(model.state_dict()[name], expected[f"text_encoder.{name}"])


def test_an_audiocraft_checkpoint_finds_its_text_encoder_beside_it(toy):
    folder = toy()
    assert open_checkpoint(folder).text_encoder.folder == folder / "text_encoder"
    shutil.rmtree(folder / "text_encoder")
    assert open_checkpoint(folder).text_encoder.folder is None


def test_shards_are_read_like_one_file(toy):
    folder = toy(format="huggingface")
    before = values(open_checkpoint(folder))
    tensors = load_file(folder / "model.safetensors")
    names = sorted(tensors)
    places = {name: f"model-{1 + (i > len(names) // 2)}.safetensors" for i, name in enumerate(names)}
    for shard in set(places.values()):
        save_file({name: tensors[name] for name in names if places[name] == shard}, folder / shard)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    after = values(open_checkpoint(folder))
    assert all(torch.equal(before[name], after[name]) for name in before)
    (folder / "model-2.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-2\.safetensors is missing"):
        open_checkpoint(folder)


def test_a_shard_may_not_lie_elsewhere(toy):
    folder = toy(format="huggingface")
    (folder / "model.safetensors").rename(folder.parent / "model.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "../model.safetensors"}}))
    with pytest.raises(CheckpointError, match="no file name beside it"):
        open_checkpoint(folder)


def test_equal_widths_need_no_text_projection(toys, tmp_path):
    options = {**SMALL, "dim": 512, "n_layers": 1, "format": "huggingface"}
    folder = Path(shutil.copytree(toys(**options), tmp_path / "toy"))
    edit_hf(folder, lambda t, c: [t.pop(f"enc_to_dec_proj.{part}") for part in ("weight", "bias")])
    projection = open_checkpoint(folder).conditioner
    assert torch.equal(projection["text_projection.weight"].read(), torch.eye(512))
    assert torch.equal(projection["text_projection.bias"].read(), torch.zeros(512))


def test_the_wrong_number_of_heads_of_early_conversions_is_put_right(toys, tmp_path, caplog):
    options = {**SMALL, "dim": 1536, "n_heads": 24, "n_layers": 1, "format": "huggingface"}
    folder = Path(shutil.copytree(toys(**options), tmp_path / "toy"))
    edit_hf(folder, lambda t, c: c["decoder"].update(num_attention_heads=16))
    assert open_checkpoint(folder).config.lm.n_heads == 24
    assert "16 heads" in caplog.text


def test_settings_that_transformers_leaves_out_have_its_defaults(toy):
    def shorten(tensors, config):
        del config["decoder"]["num_codebooks"], config["audio_encoder"]["kernel_size"]

    config = open_checkpoint(edit_hf(toy(format="huggingface"), shorten)).config
    assert config.lm.n_codebooks == 4 and config.codec.kernel_size == 7


ABSURD = {
    "bandwidths": ("audio_encoder", "target_bandwidths", [1e308]),
    "trimming": ("audio_encoder", "trim_right_ratio", 24),
    "width of the codec": ("audio_encoder", "upsampling_ratios", [2] * 64),
    "filters": ("audio_encoder", "num_filters", 10**9),
    "epsilon": ("text_encoder", "layer_norm_epsilon", 0),
    "layers of the text encoder": ("text_encoder", "num_layers", 10**9),
    "layers": ("decoder", "num_hidden_layers", 10**9),
    "a long integer": ("decoder", "hidden_size", 10**4000),
}


@pytest.mark.parametrize("kind", ABSURD)
def test_absurd_settings_are_refused_before_anything_is_built(toy, kind):
    section, key, value = ABSURD[kind]
    folder = edit_hf(toy(format="huggingface"), lambda t, c: c[section].update({key: value}))
    with pytest.raises(CheckpointError, match=rf"'{section}\.{key}'|65536 are supported"):
        open_checkpoint(folder)


@pytest.mark.parametrize("text", ["0x" + "9" * 50_000, "0" + "7" * 50_000, "0b" + "1" * 100_000, "1" + ":59" * 20_000])
def test_long_integers_in_yaml_are_refused_or_shown_shortly(text):
    with pytest.raises(CheckpointError) as error:
        Settings.from_audiocraft(f"a: {text}\n{text}: 1", "file.bin")
    assert len(str(error.value)) < 300
    with pytest.raises(CheckpointError, match=r"'a' is a number of \d+ bits"):
        Settings.from_audiocraft(f"a: {text}", "file.bin").integer("a")


def test_a_folder_with_both_formats_can_be_opened_as_either(toys, toy):
    folder = toy(format="huggingface")
    shutil.copytree(toys(**SMALL), folder, dirs_exist_ok=True)
    assert open_checkpoint(folder).format == "huggingface"
    assert open_checkpoint(folder, format="audiocraft").format == "audiocraft"


def damaged(folder: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        open_checkpoint(folder)
    return str(error.value)


def test_missing_extra_and_misshapen_tensors_of_hugging_face_are_named(toy):
    def change(tensors, config):
        for i in range(2):
            for name in "qkv":
                del tensors[f"decoder.model.decoder.layers.{i}.self_attn.{name}_proj.weight"]
        tensors["audio_encoder.surplus"] = torch.zeros(1)

    folder = edit_hf(toy(format="huggingface"), change)
    message = damaged(folder)
    assert "6 tensors missing (decoder.model.decoder.layers.0.self_attn.q_proj.weight" in message
    assert "and 2 more" in message
    edit_hf(folder, lambda t, c: c["decoder"].update(vocab_size=63))
    assert "63" in damaged(folder)


def test_a_surplus_tensor_of_the_codec_is_named(toy):
    folder = edit_hf(toy(format="huggingface"), lambda t, c: t.update({"audio_encoder.surplus": torch.zeros(1)}))
    assert "(surplus)" in damaged(folder)


@pytest.mark.parametrize("share", [0, 0.0001, 0.01, 0.5, 0.999])
def test_truncated_safetensors_are_refused(toy, share):
    folder = toy(format="huggingface")
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: int(len(data) * share)])
    assert str(folder / "model.safetensors") in damaged(folder)
