"""Adapters on their way from the user: the node, generate, predict, inspect, convert; in chains with whole fine-tunes."""

import json
import re
import shutil

import pytest
import torch
from comfyui_musicgen import NODE_CLASS_MAPPINGS as NODES
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.musicgen.checkpoints import blend, open_checkpoint, open_fine_tune
from comfyui_musicgen.musicgen.cli.main import main
from comfyui_musicgen.musicgen.config import GenerationParams
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.musicgen.replicate.predict import predict
from comfyui_musicgen.nodes import host
from comfyui_musicgen.tests.toy.adapters import LAYER, MODULES, SMALL, base_model, merged, pairs, peft, write_adapter
from safetensors.torch import load_file

PARAMS = GenerationParams(duration_s=0.4, seed=3)


@pytest.fixture
def root(toys, tmp_path):
    """A folder of models: a base, a whole fine-tune of it, two adapters in `loras`."""
    root = tmp_path / "models" / "musicgen"
    root.mkdir(parents=True)
    shutil.copytree(toys(**SMALL, format="huggingface"), root / "base")
    shutil.copytree(toys(**SMALL, format="huggingface", seed=1), root / "whole")
    write_adapter(root / "loras" / "style")
    write_adapter(root / "loras" / "other", pairs(rank=2, seed=5), {"use_rslora": True})
    return root


def weights(checkpoint) -> dict[str, torch.Tensor]:
    return {name: weight.read() for table in (checkpoint.lm, checkpoint.conditioner) for name, weight in table.items()}


def far(one: dict, other: dict) -> float:
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


# --- chains


def chained(root, *steps):
    """The base with (file, strength) one after the other."""
    made = open_checkpoint(root / "base")
    for name, strength in steps:
        made = blend(made, open_fine_tune(root / name, made), strength)
    return made


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_a_whole_fine_tune_after_an_adapter_keeps_the_adapter(root, strength):
    """It replaced the adapter's weights, without a word."""
    base, whole, style = (weights(chained(root, *steps)) for steps in ([], [("whole", 1.0)], [("loras/style", 0.7)]))
    both = weights(chained(root, ("loras/style", 0.7), ("whole", strength)))
    for name, before in base.items():
        expected = before + strength * (whole[name] - before) + (style[name] - before)
        assert torch.allclose(both[name], expected, atol=2e-6), name
    assert far(both, weights(chained(root, ("whole", strength), ("loras/style", 0.7)))) < 2e-6
    assert far(both, weights(chained(root, ("whole", strength)))) > 0.05, "the adapter is heard"


def test_weights_without_a_projection_do_not_apply_an_adapter_twice(root):
    from safetensors.torch import save_file

    tensors = pairs({**MODULES, "enc_to_dec_proj": (32, 512)})
    write_adapter(root / "loras" / "projection", tensors)
    state = load_file(root / "whole" / "model.safetensors")
    save_file(
        {name: tensor for name, tensor in state.items() if name.startswith("decoder.")}, root / "bare.safetensors"
    )
    once = weights(chained(root, ("loras/projection", 1.0)))["text_projection.weight"]
    for strength in (1.0, 0.5):
        both = weights(chained(root, ("loras/projection", 1.0), ("bare.safetensors", strength)))
        assert torch.equal(both["text_projection.weight"], once)


def test_adapters_are_taken_off_again_by_their_opposite(root):
    steps = [("loras/style", 0.7), ("loras/other", -1.5), ("loras/style", -0.7), ("loras/other", 1.5)]
    assert far(weights(chained(root, *steps)), weights(chained(root))) < 1e-6


def test_whole_fine_tunes_have_no_opposite(root):
    base = open_checkpoint(root / "base")
    with pytest.raises(InputError, match=r"only adapters \(LoRA\) take: .*whole is a whole fine-tune.*convert --base"):
        blend(base, open_fine_tune(root / "whole", base), -0.5)


# --- the node


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_the_node_applies_adapters_in_any_order_and_leaves_the_base(root, monkeypatch, precision):
    monkeypatch.setattr(host, "model_dirs", lambda: [root])
    kind, loaded = NODES["MusicGenFineTune"], loading.load(root / "base", precision)
    managed = host.Managed(loaded.model, "model"), host.Managed(loaded.conditioner, "text_encoder")
    before = {name: tensor.clone() for name, tensor in loaded.model.state_dict().items()}

    def music(model, conditioner):
        return model.module.generate(conditioner.module.encode_text(["a drum"]), PARAMS).codes

    assert kind.VALIDATE_INPUTS(weights="style") is True and kind.VALIDATE_INPUTS(weights="loras/style") is True
    assert "no fine-tune 'gone'" in kind.VALIDATE_INPUTS(weights="gone")
    plain = music(*managed)
    one = kind().apply(*kind().apply(*managed, "style", 0.8), "other", -1.2)
    turned = kind().apply(*kind().apply(*managed, "loras/other", -1.2), "loras/style", 0.8)
    # Bit for bit: a sum of two is the same in both orders but for rounding, which the seed's noise is far above.
    assert torch.equal(music(*one), music(*turned)) and not torch.equal(music(*one), plain)
    assert all(torch.equal(tensor, before[name]) for name, tensor in loaded.model.state_dict().items())
    assert torch.equal(music(*managed), plain)
    undone = kind().apply(*kind().apply(*managed, "style", 0.8), "style", -0.8)
    assert torch.equal(music(*undone), plain)
    assert kind().apply(*managed, "style", 0.0) == managed


def test_a_replaced_adapter_is_applied_again(root, monkeypatch):
    monkeypatch.setattr(host, "model_dirs", lambda: [root])
    kind = NODES["MusicGenFineTune"]
    first = kind.IS_CHANGED(weights="style")
    settings = root / "loras" / "style" / "adapter_config.json"
    settings.write_text(settings.read_text().replace('"lora_alpha": 8', '"lora_alpha": 16'))
    assert isinstance(first, str) and kind.IS_CHANGED(weights="style") != first


# --- generate, predict


def test_generate_puts_any_number_of_them_on_the_model(root, tmp_path, capsys):
    common = [
        "generate",
        "--model",
        "base",
        "--models",
        str(root.parent),
        "--duration",
        "0.4",
        "--precision",
        "float32",
    ]

    def made(*options: str) -> bytes:
        out = tmp_path / "a.wav"
        assert main([*common, *options, "--out", str(out)]) == 0, capsys.readouterr().err
        return out.read_bytes()

    plain, styled = made(), made("--weights", "style:0.8")
    assert styled not in (plain, made("--weights", "style"))
    assert made("--weights", "style:0.8", "--weights", "other:-1") != styled
    assert made("--weights", "style:-0.8", "--weights", "style:0.8") == plain
    for options, words in (
        (["--weights", "style:much"], "takes a number as the strength behind the colon"),
        (["--weights", "style:"], "takes a number as the strength"),
        (["--weights", "C:\\\\style.safetensors"], "not a usable name"),
        (["--weights", "style:3"], "'strength' must be a number from -2 to 2"),
        (["--weights", "whole:-1"], "below 0, which only adapters"),
    ):
        assert main([*common, *options, "--out", str(tmp_path / "b.wav")]) == 1
        assert words in capsys.readouterr().err and not (tmp_path / "b.wav").exists()


def test_predict_takes_them_as_replicate_weights(root, tmp_path):
    fields = {"prompt": "a drum", "duration": 1, "seed": 3, "normalization_strategy": "clip"}
    common = {"model": "base", "models_dir": root.parent, "precision": "float32"}
    files = {
        name: predict(**common, **fields, replicate_weights=weights, out=tmp_path / f"{name}.wav").file.read_bytes()
        for name, weights in (("plain", None), ("style", "style"), ("whole", "whole"))
    }
    assert len(set(files.values())) == 3


# --- inspect


def test_inspect_says_what_an_adapter_is_and_for_which_base(root, toys, capsys):
    shutil.copytree(toys(**SMALL, melody=True), root / "melody")
    assert main(["inspect", "style", "--models", str(root.parent)]) == 0
    said = re.sub(r" +", " ", capsys.readouterr().out)
    for words in (
        "what an adapter (LoRA)", "for It was made for a model of width 32, 1 layers, 3 codebooks", "fits base, melody, whole",
        "changes 4 matrices by a low rank", "rank 4, changes times 2 at strength 1", "float32",
    ):  # fmt: skip
        assert words in said, said
    write_adapter(
        root / "loras" / "wide",
        pairs({f"{LAYER}encoder_attn.q_proj": (1024, 1024), "decoder.model.decoder.layers.23.fc1": (4096, 1024)}),
    )
    assert main(["inspect", "wide", "--models", str(root.parent)]) == 0
    said = capsys.readouterr().out
    assert "facebook/musicgen-small" in said and "no model that is on this machine" in said
    data = (root / "loras" / "style" / "adapter_model.safetensors").read_bytes()
    (root / "loras" / "style" / "adapter_model.safetensors").write_bytes(data[:-4] + b"\xff\xff\xff\x7f")
    assert main(["inspect", "style", "--models", str(root.parent)]) == 1
    assert "values that are no numbers" in capsys.readouterr().err


# --- convert


def test_convert_merges_adapters_into_their_base(root, tmp_path, capsys):
    steps = [("style", 0.5), ("whole", 0.25), ("other", -1.0)]
    options = [part for name, strength in steps for part in ("--weights", f"{name}:{strength}")]
    target = tmp_path / "merged.safetensors"
    assert main(["convert", "base", str(target), "--models", str(root.parent), *options]) == 0
    expected = chained(root, ("loras/style", 0.5), ("whole", 0.25), ("loras/other", -1.0))
    read = open_checkpoint(target)
    assert far(weights(read), weights(expected)) == 0
    assert read.codec.keys() == expected.codec.keys() and read.text_encoder.weights
    one = loading.load(target, "float32")
    assert one.model.generate(one.conditioner.encode_text(["a drum"]), PARAMS).codes.shape[-1] == 20
    assert capsys.readouterr().out.strip() == str(target)


def test_an_adapter_of_the_text_encoder_is_merged_into_it(root, tmp_path, capsys):
    name = "text_encoder.encoder.block.0.layer.0.SelfAttention.q"
    tensors = pairs({**MODULES, name: (64, 512)})
    write_adapter(root / "loras" / "text", tensors)
    common = ["convert", "base", "--models", str(root.parent), "--weights", "text:0.5"]
    assert main([*common, str(tmp_path / "a.safetensors"), "--no-text-encoder"]) == 1
    assert "changes the text encoder too" in capsys.readouterr().err
    assert main([*common, str(tmp_path / "a.safetensors")]) == 0
    product = tensors[f"base_model.model.{name}.lora_B.weight"] @ tensors[f"base_model.model.{name}.lora_A.weight"]
    before = load_file(root / "base" / "model.safetensors")[f"{name}.weight"]
    after = load_file(tmp_path / "a.safetensors")[f"{name}.weight"]
    assert torch.allclose(after, before + product, atol=1e-6)  # alpha / r is 2, at half the strength


def losses(said: str) -> list[float]:
    return [float(number) for number in re.findall(r"([\d.e+-]+) %", said)]


def test_a_lora_of_a_fine_tune_is_the_nearest_of_its_rank(root, tmp_path, capsys):
    """Random models differ in every direction: the error is what the singular values beyond the rank leave."""
    base, whole = weights(open_checkpoint(root / "base")), weights(open_checkpoint(root / "whole"))
    common = ["convert", "whole", "--base", "base", "--models", str(root.parent)]
    said = {}
    for rank in (1, 8, 64):
        target = root / "loras" / f"rank{rank}.safetensors"
        assert main([*common, str(target), "--rank", str(rank)]) == 0
        said[rank] = losses(capsys.readouterr().err)
        made = weights(chained(root, (f"loras/rank{rank}.safetensors", 1.0)))
        name = "layers.1.up.weight"
        singular = torch.linalg.svdvals(whole[name] - base[name])
        left = (made[name] - whole[name]).norm()
        assert left == pytest.approx(singular[rank:].norm().item(), rel=1e-4, abs=1e-4)
        for exact in ("norm.weight", "layers.0.norm_ffn.bias", "text_projection.bias"):
            assert torch.allclose(made[exact], whole[exact], atol=1e-6)
    assert said[1][1] > said[8][1] > said[64][1] and said[64][1] < 1e-3, "norm lost, in percent"
    assert far(weights(chained(root, ("loras/rank64.safetensors", 1.0))), whole) < 1e-5
    assert main([*common, str(root / "loras" / "rank8.safetensors")]) == 1
    assert "exists already" in capsys.readouterr().err
    assert main(["inspect", "rank8.safetensors", "--models", str(root.parent)]) == 0
    assert "fits            base, whole" in capsys.readouterr().out


def test_the_difference_of_a_merged_adapter_is_the_adapter(root, tmp_path, capsys):
    target = root / "merged.safetensors"
    assert main(["convert", "base", str(target), "--models", str(root.parent), "--weights", "style"]) == 0
    assert (
        main(
            [
                "convert",
                str(target),
                str(root / "loras" / "again"),
                "--base",
                "base",
                "--models",
                str(root.parent),
                "--rank",
                "4",
            ]
        )
        == 0
    )
    captured = capsys.readouterr()
    assert "rank 4, 4 matrices" in captured.err and losses(captured.err)[1] < 0.01
    assert far(weights(chained(root, ("loras/again", 1.0))), weights(chained(root, ("loras/style", 1.0)))) < 1e-5
    settings = json.loads((root / "loras" / "again" / "adapter_config.json").read_text())
    assert settings["target_modules"] == sorted(MODULES) and settings["base_model_name_or_path"] == "base"
    assert main(["convert", "base", str(root / "loras" / "none"), "--base", "base", "--models", str(root.parent)]) == 1
    assert "very matrices" in capsys.readouterr().err and not (root / "loras" / "none").exists()


def test_peft_reads_an_extracted_folder(root, capsys):
    peft()
    assert (
        main(
            [
                "convert",
                "whole",
                str(root / "loras" / "made"),
                "--base",
                "base",
                "--models",
                str(root.parent),
                "--rank",
                "64",
            ]
        )
        == 0
    )
    model, whole = base_model(root / "base"), base_model(root / "whole").state_dict()
    state = merged(peft().PeftModel.from_pretrained(model, root / "loras" / "made"))
    for name, tensor in whole.items():
        if not name.startswith(("text_encoder.", "audio_encoder.")):
            assert torch.allclose(state[name], tensor, atol=1e-5), name


@pytest.mark.parametrize(
    "options, words",
    [
        (["--rank", "4"], "'--rank' belongs to a LoRA"),
        (["--base", "base", "--rank", "0"], "'rank' must be a whole number from 1"),
        (["--base", "base", "--precision", "float16"], "'--base' makes a LoRA of SRC alone"),
    ],
)
def test_options_of_convert_that_do_not_go_together(root, tmp_path, capsys, options, words):
    assert main(["convert", "whole", str(tmp_path / "a.safetensors"), "--models", str(root.parent), *options]) == 1
    assert words in capsys.readouterr().err and not (tmp_path / "a.safetensors").exists()
