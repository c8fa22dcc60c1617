"""Fine-tunes: the trainer's own file, blended into its base, which stays as it was."""

import shutil
import time
from pathlib import Path

import pytest
import torch
import yaml
from comfyui_musicgen import NODE_CLASS_MAPPINGS as NODES
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.musicgen.checkpoints import blend, open_checkpoint
from comfyui_musicgen.musicgen.config import GenerationParams
from comfyui_musicgen.musicgen.errors import CheckpointError, InputError
from comfyui_musicgen.musicgen.store import ModelStore
from comfyui_musicgen.nodes import host
from comfyui_musicgen.reference import audiocraft as reference

SMALL = {"dim": 32, "n_heads": 2, "n_layers": 2, "cardinality": 64, "n_filters": 2, "latent_dim": 16}
PARAMS = GenerationParams(duration_s=0.4, seed=3)
POINTER = "//pretrained/facebook/encodec_32khz"


def trainer_config(folder: Path):
    """The settings of a toy as the Replicate trainer has them: hydra's DictConfig, its date resolver used."""
    omegaconf = pytest.importorskip("omegaconf")
    settings = yaml.safe_load(torch.load(folder / "state_dict.bin", weights_only=True)["xp.cfg"])
    settings |= {"autocast": True, "seed": 2036, "continue_from": "//pretrained/facebook/musicgen-stereo-melody"}
    settings["compression_model_checkpoint"] = POINTER
    settings["logging"] = {"started": "${now:%Y-%m-%d}", "log_updates": 10}
    settings["optim"] = {"optimizer": "dadam", "lr": 1, "adam": {"betas": [0.9, 0.95], "eps": 1e-8}}
    settings["dora"] = {"dir": "./dora", "exclude": ["device", "wandb.*"]}
    chroma = settings["conditioners"].get("self_wav", {}).get("chroma_stem")
    if chroma:  # what the trainer's chroma2music.yaml has otherwise than Meta's
        chroma |= {"match_len_on_eval": True, "cache_path": "cache"}
        settings["attribute_dropout"] = {"args": {"active_on_eval": False}, "text": {}, "wav": {"self_wav": 0.5}}
    omegaconf.OmegaConf.register_new_resolver("now", time.strftime, use_cache=True, replace=True)  # as hydra does
    config = omegaconf.OmegaConf.create(settings)
    assert config.logging.started[:2] == "20"
    assert omegaconf.OmegaConf.get_cache(config)["now"], "a defaultdict that weights_only refuses to fill"
    return config


def trainer_file(folder: Path, path: Path) -> Path:
    """What the trainer saves of a run, made of a toy's weights. Source: its `train.py`, the last lines."""
    model = torch.load(folder / "state_dict.bin", weights_only=True)["best_state"]
    loaded = {"xp.cfg": trainer_config(folder), "model": {name: tensor.float() for name, tensor in model.items()}}
    torch.save({"xp.cfg": loaded["xp.cfg"], "model": loaded["model"]}, path)
    return path


@pytest.fixture
def models(toys, tmp_path):
    """A folder of models: a base, two fine-tunes of it, and the codec that they name."""

    def make(**options) -> Path:
        root = tmp_path / "musicgen"
        root.mkdir()
        shutil.copytree(toys(**SMALL, **options), root / "base")
        for name, seed in (("trained_model.tar", 1), ("other.bin", 2)):
            trainer_file(toys(**SMALL, **options, seed=seed), root / name)
        (root / "facebook" / "encodec_32khz").mkdir(parents=True)
        shutil.copy(root / "base" / "compression_state_dict.bin", root / "facebook" / "encodec_32khz")
        return root

    return make


def load(root: Path, name: str = "base", precision: str = "float32"):
    own = [root.parent / "encoders"]
    (own[0] / "t5-small").parent.mkdir(exist_ok=True)
    if not (own[0] / "t5-small").exists():
        shutil.copytree(root / "base" / "text_encoder", own[0] / "t5-small")
    return loading.load(ModelStore([root]).find(name), precision, "cpu", own, store=ModelStore([root]))


def codes(model, conditioner, text: str = "a drum"):
    return model.generate(conditioner.encode_text([text]), PARAMS).codes


def state(module) -> dict:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# --- the trainer's file


@pytest.mark.parametrize("options", [{}, {"stereo": True, "melody": True}], ids=["small", "stereo-melody"])
def test_the_trainer_s_file_is_a_model_of_its_own(models, toys, options):
    root = models(**options)
    assert ModelStore([root]).list() == ["base", "other.bin", "trained_model.tar"]
    checkpoint = open_checkpoint(root / "trained_model.tar")
    original = open_checkpoint(toys(**SMALL, **options, seed=1))
    for part in ("lm", "text", "melody", "segment_s", "codec"):
        assert getattr(checkpoint.config, part) == getattr(original.config, part)
    for ours, theirs in ((checkpoint.lm, original.lm), (checkpoint.conditioner, original.conditioner)):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name].read(), theirs[name].read()) for name in ours)
    assert checkpoint.lm["layers.0.qkv.weight"].dtype == torch.float32
    assert load(root, "trained_model.tar").config.lm == original.config.lm


def test_audiocraft_s_own_model_and_settings_are_read(audiocraft, toys, tmp_path):
    """The weights are those of a module that audiocraft built from the very settings that are saved beside them."""
    from audiocraft.models import builders

    folder = toys(**SMALL)
    config = trainer_config(folder)
    config.device = "cpu"
    encoder = loading.load_text_encoder(open_checkpoint(folder), [])
    with reference._patched_loading(audiocraft, encoder):
        lm = builders.get_lm_model(config)
    torch.save({"xp.cfg": config, "model": lm.state_dict()}, tmp_path / "trained_model.tar")
    checkpoint = open_checkpoint(tmp_path / "trained_model.tar", codec_required=False)
    assert torch.equal(checkpoint.lm["layers.1.up.weight"].read(), lm.transformer.layers[1].linear1.weight)
    assert torch.equal(checkpoint.lm["embeddings"].read(), torch.stack([emb.weight for emb in lm.emb]))


def test_a_training_checkpoint_is_read_too(toys, tmp_path):
    folder = toys(**SMALL)
    package = torch.load(folder / "state_dict.bin", weights_only=True)
    flat = {name: tensor.float() for name, tensor in package["best_state"].items()}
    provider = {name[19:]: flat[name] for name in flat if name.startswith("condition_provider.")}
    rest = {name: tensor for name, tensor in flat.items() if not name.startswith("condition_provider.")}
    common = {"xp.cfg": trainer_config(folder), "xp.sig": "abc", "history": [{"train": {"ce": 1.5}}]}
    worse = {name: tensor * 0 for name, tensor in flat.items()}
    variants = {
        "best": {**common, "model": worse, "best_state": {"model": flat}, "fsdp_best_state": {}, "ema": None},
        "sharded": {**common, "model": worse, "best_state": {"model": worse}, "fsdp_best_state": {"model": flat}},
        "oldest": {"xp.cfg": package["xp.cfg"], "best_state": rest, "condition_provider": provider},
    }
    expected = open_checkpoint(folder)
    for name, table in variants.items():
        torch.save(table, tmp_path / f"{name}.th")
        checkpoint = open_checkpoint(tmp_path / f"{name}.th", codec_required=False)
        assert torch.equal(checkpoint.lm["heads.weight"].read(), expected.lm["heads.weight"].read()), name
        text = "text_projection.weight"
        assert torch.equal(checkpoint.conditioner[text].read(), expected.conditioner[text].read()), name


def test_a_codec_of_the_trainer_s_own_is_explained(toys, tmp_path):
    config = trainer_config(toys(**SMALL))
    config.compression_model_checkpoint = "//reference/bd44a852/checkpoint.th"
    model = torch.load(toys(**SMALL) / "state_dict.bin", weights_only=True)["best_state"]
    torch.save({"xp.cfg": config, "model": model}, tmp_path / "a.th")
    assert ModelStore([tmp_path]).list() == [] and ModelStore([tmp_path]).list("weights") == ["a.th"]
    with pytest.raises(CheckpointError, match="bd44a852.*only its trainer has"):
        open_checkpoint(tmp_path / "a.th")


def test_a_named_codec_comes_out_of_a_published_model(models, toys):
    root = models()
    shutil.rmtree(root / "facebook" / "encodec_32khz")
    with pytest.raises(CheckpointError, match=r"no codec, only the name.*config\.json.*facebook/encodec_32khz into"):
        ModelStore([root]).open(root / "trained_model.tar")
    shutil.copytree(toys(**SMALL, format="huggingface"), root / "musicgen-small")
    checkpoint = ModelStore([root]).open(root / "trained_model.tar")
    assert checkpoint.codec_origin == str(root / "musicgen-small")
    assert checkpoint.config.codec == open_checkpoint(root / "base").config.codec


# --- blending


@pytest.mark.parametrize("options", [{}, {"stereo": True, "melody": True}], ids=["small", "stereo-melody"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "int8"])
def test_strength_1_is_the_fine_tune_and_0_the_base(models, options, precision):
    root = models(**options)
    base, alone = load(root, precision=precision), load(root, "trained_model.tar", precision)
    before, music = state(base.model), codes(base.model, base.conditioner)
    model, conditioner = loading.apply_fine_tune(base.model, base.conditioner, root / "trained_model.tar", 1.0)
    assert same(state(model), state(alone.model)) and same(state(conditioner), state(alone.conditioner))
    assert torch.equal(codes(model, conditioner), codes(alone.model, alone.conditioner))
    assert not torch.equal(codes(model, conditioner), music)
    unchanged = loading.apply_fine_tune(base.model, base.conditioner, root / "trained_model.tar", 0)
    assert unchanged == (base.model, base.conditioner)
    assert same(state(base.model), before) and torch.equal(codes(base.model, base.conditioner), music)
    assert conditioner.text_encoder is base.conditioner.text_encoder


@pytest.mark.parametrize("strength", [0.25, 1.5, 2.0])
def test_weights_between_and_beyond_lie_on_the_line(models, strength):
    root = models()
    base, tuned = (open_checkpoint(root / name, codec_required=False) for name in ("base", "trained_model.tar"))
    blended = blend(base, tuned, strength)
    for ours, theirs, mixed in (
        (base.lm, tuned.lm, blended.lm),
        (base.conditioner, tuned.conditioner, blended.conditioner),
    ):
        for name, weight in mixed.items():
            b, t = ours[name].read(), theirs[name].read()
            assert torch.equal(weight.read(), (t - b) * strength + b)
    assert blended.codec is base.codec and blended.config.codec == base.config.codec


def test_large_tensors_are_blended_in_slabs(toys, monkeypatch):
    from comfyui_musicgen.musicgen.checkpoints.weights import lazy as weights

    base, tuned = (open_checkpoint(toys(**SMALL, seed=seed)) for seed in (0, 1))
    whole = {name: weight.read() for name, weight in blend(base, tuned, 0.5).lm.items()}
    monkeypatch.setattr(weights, "SLAB_BYTES", 512)
    assert all(torch.equal(weight.read(), whole[name]) for name, weight in blend(base, tuned, 0.5).lm.items())


def test_fine_tunes_are_chained(models):
    root = models()
    base = load(root)
    first = loading.apply_fine_tune(base.model, base.conditioner, root / "trained_model.tar", 0.5)
    both = loading.apply_fine_tune(*first, root / "other.bin", 0.5)
    b, t, o = (open_checkpoint(root / n, codec_required=False) for n in ("base", "trained_model.tar", "other.bin"))
    name = "layers.1.up.weight"
    middle = (t.lm[name].read() - b.lm[name].read()) * 0.5 + b.lm[name].read()
    assert torch.equal(both[0].lm.state_dict()[name], (o.lm[name].read() - middle) * 0.5 + middle)
    assert both[0].config.name == "base + trained_model x 0.5 + other x 0.5"
    assert torch.equal(first[0].lm.state_dict()[name], middle)


def test_whole_models_and_other_formats_blend_as_well(models, toys):
    root = models()
    base = load(root)
    model, _ = loading.apply_fine_tune(base.model, base.conditioner, toys(**SMALL, seed=1, format="huggingface"))
    alone = load(root, "trained_model.tar")
    assert same(state(model.lm), state(alone.model.lm))


OTHER = {
    "width": ({"dim": 16}, ["width 16, not 32"]),
    "layers": ({"n_layers": 3}, ["layers 3, not 2"]),
    "heads": ({"n_heads": 4}, ["heads 4, not 2"]),
    "stereo": ({"stereo": True}, ["codebooks 8, not 4", "delays"]),
    "melody": ({"melody": True}, ["melody conditioning of 12 chroma bins", "not none", "text in front of the codes"]),
    "codes": ({"cardinality": 32}, ["codes a codebook 32, not 64"]),
}


@pytest.mark.parametrize("kind", OTHER)
def test_another_architecture_is_an_error_that_names_both(models, toys, kind):
    options, words = OTHER[kind]
    root = models()
    other = trainer_file(toys(**{**SMALL, **options}), root / "other.tar")
    base = load(root)
    for strength in (0, 1.0):
        with pytest.raises(CheckpointError) as error:
            loading.apply_fine_tune(base.model, base.conditioner, other, strength)
        for word in [str(other), str(root / "base"), *words]:
            assert word in str(error.value)


@pytest.mark.parametrize("strength", [-0.1, 2.5, float("nan"), True, "1"])
def test_strengths_outside_the_range_are_refused(models, strength):
    root = models()
    base = load(root)
    with pytest.raises(InputError, match="'strength'"):
        loading.apply_fine_tune(base.model, base.conditioner, root / "other.bin", strength)


def test_a_base_whose_file_was_replaced_is_not_mixed_up(models):
    root = models()
    base = load(root)
    (root / "base" / "state_dict.bin").write_bytes((root / "other.bin").read_bytes())
    with pytest.raises(CheckpointError, match="changed after the model was loaded"):
        loading.apply_fine_tune(base.model, base.conditioner, root / "trained_model.tar", 0.5)


def test_models_of_the_audiocraft_engine_are_refused_in_clear_words(models):
    root = models()
    with pytest.raises(InputError, match="'engine' to native"):
        loading.apply_fine_tune(torch.nn.Identity(), torch.nn.Identity(), root / "other.bin")


# --- the node


@pytest.fixture
def node(models, monkeypatch):
    root = models()
    monkeypatch.setattr(host, "model_dirs", lambda: [root])
    base = load(root)
    managed = host.Managed(base.model, "model"), host.Managed(base.conditioner, "text_encoder")
    return NODES["MusicGenFineTune"], *managed, root


def test_empty_weights_are_the_model_as_it_came_in(node):
    kind, model, conditioner, _ = node
    for weights in ("", "  "):
        assert kind.VALIDATE_INPUTS(weights=weights) is True
        assert kind().apply(model, conditioner, weights, 1.0) == (model, conditioner)
    assert kind().apply(model, conditioner, "other.bin", 0.0) == (model, conditioner)


def test_the_node_gives_new_models_and_leaves_the_old(node):
    kind, model, conditioner, _ = node
    music = codes(model.module, conditioner.module)
    tuned = kind().apply(model, conditioner, " trained_model.tar ", 0.7)
    assert tuned[0] is not model and tuned[1] is not conditioner
    assert not torch.equal(codes(tuned[0].module, tuned[1].module), music)
    assert torch.equal(codes(model.module, conditioner.module), music)


def test_the_name_that_a_training_was_given_is_enough(node):
    """Train Fine-Tune's "house music" is the file "loras/house music.safetensors"; without its suffix there was no such thing."""
    kind, _, _, root = node
    (root / "loras").mkdir()
    (root / "loras" / "house music.safetensors").write_bytes((root / "other.bin").read_bytes())
    for name in ("house music", "loras/house music", "house music.safetensors"):
        assert kind.VALIDATE_INPUTS(weights=name) is True, name


def test_the_node_says_beforehand_what_cannot_work(node):
    kind, _, _, _ = node
    assert kind.VALIDATE_INPUTS(weights=None) is True, "wired from another node"
    assert kind.VALIDATE_INPUTS(weights="trained_model.tar") is True
    missing = kind.VALIDATE_INPUTS(weights="gone.tar")
    assert "Found there: base, other.bin, trained_model.tar" in missing
    assert "no fine-tune 'gone.tar'" in missing and "Put a LoRA into" in missing and "state_dict.bin" not in missing
    assert "not a usable name" in kind.VALIDATE_INPUTS(weights="../secret.tar")
    assert "only https://" in kind.VALIDATE_INPUTS(weights="http://huggingface.co/a.tar")
    assert "not on the list" in kind.VALIDATE_INPUTS(weights="https://example.com/a.tar")
    assert kind.VALIDATE_INPUTS(weights="https://replicate.delivery/pbxt/a/trained_model.tar") is True


def test_a_replaced_fine_tune_is_applied_again(node):
    kind, _, _, root = node
    first = kind.IS_CHANGED(weights="trained_model.tar", strength=1.0)
    assert first == kind.IS_CHANGED(weights="trained_model.tar", strength=0.5) != kind.IS_CHANGED(weights="other.bin")
    shutil.copy(root / "other.bin", root / "trained_model.tar")
    assert kind.IS_CHANGED(weights="trained_model.tar") != first
    assert kind.IS_CHANGED(weights="gone") != kind.IS_CHANGED(weights="gone"), "never taken from the cache"
    assert kind.IS_CHANGED(weights="") == kind.IS_CHANGED(weights=None) == ""
