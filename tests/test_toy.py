"""Toy checkpoints: real enough for audiocraft and transformers themselves to load and run them."""

import sys
import types

import pytest
import torch
from comfyui_musicgen.musicgen.checkpoints import open_checkpoint
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.tests.toy import write_toy

VARIANTS = [(False, False), (True, False), (False, True), (True, True)]
TINY = {"dim": 16, "n_heads": 2, "n_layers": 1, "cardinality": 32, "n_filters": 2, "latent_dim": 8}


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """For models this small, a second thread costs more than it gives, and far more on a busy machine."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(n_threads)


@pytest.fixture
def load_audiocraft(audiocraft, monkeypatch):
    """audiocraft's own get_pretrained, T5 taken from the toy and demucs replaced by nothing."""
    import transformers
    from audiocraft.models import MusicGen
    from audiocraft.modules import conditioners

    def load(folder):
        own = folder / "text_encoder"
        tokenizer = types.SimpleNamespace(from_pretrained=lambda name: transformers.AutoTokenizer.from_pretrained(own))
        encoder = types.SimpleNamespace(from_pretrained=lambda name: transformers.T5EncoderModel.from_pretrained(own))
        monkeypatch.setattr(conditioners, "T5Tokenizer", tokenizer)
        monkeypatch.setattr(conditioners, "T5EncoderModel", encoder)
        stems = torch.nn.Identity()
        stems.sources = ["drums", "bass", "other", "vocals"]
        pretrained = types.SimpleNamespace(get_model=lambda name: stems)
        monkeypatch.setitem(sys.modules, "demucs", types.SimpleNamespace(pretrained=pretrained))
        monkeypatch.setitem(sys.modules, "demucs.pretrained", pretrained)
        return MusicGen.get_pretrained(str(folder), "cpu")

    return load


@pytest.mark.parametrize("stereo, melody", [(False, False), (True, False), (True, True)])
def test_audiocraft_itself_loads_and_runs_a_toy(toys, load_audiocraft, stereo, melody):
    folder = toys(stereo=stereo, melody=melody)
    model = load_audiocraft(folder)
    checkpoint = open_checkpoint(folder)
    config = checkpoint.config
    assert model.sample_rate == config.codec.sample_rate_hz and model.frame_rate == config.codec.frame_rate_hz
    assert model.audio_channels == config.codec.channels and model.max_duration == config.segment_s
    assert model.lm.n_q == config.lm.n_codebooks and model.lm.card == config.lm.cardinality

    # Our table of names against the modules that audiocraft filled by its own.
    state = model.lm.state_dict()
    embeddings = torch.stack([state[f"emb.{k}.weight"] for k in range(config.lm.n_codebooks)])
    assert torch.equal(checkpoint.lm["embeddings"].read(), embeddings)
    layer, theirs = f"layers.{config.lm.n_layers - 1}", f"transformer.layers.{config.lm.n_layers - 1}"
    assert torch.equal(checkpoint.lm[f"{layer}.qkv.weight"].read(), state[f"{theirs}.self_attn.in_proj_weight"])
    if not melody:
        packed = state[f"{theirs}.cross_attention.in_proj_weight"]
        parts = [checkpoint.lm[f"{layer}.{name}.weight"].read() for name in ("cross_q", "cross_kv")]
        assert torch.equal(torch.cat(parts), packed)
    inner = getattr(model.compression_model, "model", model.compression_model)
    names = {"encoder.model.0.conv.conv": "encoder.layers.0", "decoder.model.3.convtr.convtr": "decoder.layers.3"}
    for name, ours in names.items():
        module = inner.get_submodule(name)
        weight = torch._weight_norm(module.weight_v, module.weight_g, 0)
        assert torch.equal(checkpoint.codec[f"{ours}.conv.weight"].read(), weight)

    if not melody:  # a melody needs demucs itself
        model.set_generation_params(duration=0.2, use_sampling=False)
        wav, codes = model.generate(["a toy"], return_tokens=True)
        assert wav.shape == (1, config.codec.channels, 6400) and codes.shape == (1, config.lm.n_codebooks, 10)


@pytest.mark.parametrize("stereo, melody", VARIANTS)
def test_transformers_itself_loads_a_toy_without_a_key_left(toys, stereo, melody):
    import transformers

    folder = toys(stereo=stereo, melody=melody, format="huggingface")
    kind = "MusicgenMelodyForConditionalGeneration" if melody else "MusicgenForConditionalGeneration"
    model, info = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.config.audio_encoder.num_quantizers == 4
    checkpoint = open_checkpoint(folder)
    query = model.decoder.model.decoder.layers[-1].self_attn.q_proj.weight
    ours = checkpoint.lm[f"layers.{checkpoint.config.lm.n_layers - 1}.qkv.weight"].read()
    assert torch.equal(ours[: len(query)], query)
    convolution = model.audio_encoder.decoder.layers[3].conv.weight
    assert torch.equal(checkpoint.codec["decoder.layers.3.conv.weight"].read(), convolution)


@pytest.mark.parametrize("seed", range(2))
def test_codes_decode_to_audible_sound_of_a_sane_level(tmp_path, seed):
    import transformers

    folder = write_toy(tmp_path / "toy", format="huggingface", seed=seed)
    codec = transformers.MusicgenForConditionalGeneration.from_pretrained(folder).audio_encoder
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        codes = torch.randint(2048, (1, 1, 4, 50), generator=generator)
        audio = codec.decode(codes, [None]).audio_values
        assert 0.02 < audio.std() < 0.4 and audio.abs().max() < 2
        again = codec.encode(audio).audio_codes
    assert again.unique().numel() > 50  # the encoder tells sounds apart


def test_the_tokenizer_gives_different_texts_different_tokens(toys):
    from transformers import AutoTokenizer

    texts = ["", " ", "a", "A", "ab", "ä", "판소리", "</s>?", "a  b", "a b", "x" * 500]
    for folder in (toys() / "text_encoder", toys(format="huggingface")):
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        ids = [tuple(tokenizer(text)["input_ids"]) for text in texts]
        assert len(set(ids)) == len(texts)
        assert all(row[-1] == 1 and 2 not in row for row in ids) and ids[0] == (1,)
        padded = tokenizer(["a", "abc"], padding=True)
        assert padded["input_ids"][0][2:] == [0, 0] and padded["attention_mask"][0] == [1, 1, 0, 0]


def test_the_seed_decides_the_weights_and_nothing_global_is_touched(tmp_path):
    torch.manual_seed(1)
    state = torch.get_rng_state()
    folders = [write_toy(tmp_path / str(i), seed=seed, **TINY) for i, seed in enumerate((5, 5, 6))]
    assert torch.equal(torch.get_rng_state(), state)
    first, same, other = [open_checkpoint(folder).lm["heads.weight"].read() for folder in folders]
    assert torch.equal(first, same) and not torch.equal(first, other)


def test_a_toy_replaces_a_toy_and_nothing_else(tmp_path):
    folder = write_toy(tmp_path / "new" / "toy", **TINY)
    write_toy(folder, format="huggingface", **TINY)
    assert open_checkpoint(folder).format == "huggingface" and not (folder / "state_dict.bin").exists()
    (tmp_path / "mine").mkdir()
    write_toy(tmp_path / "mine", **TINY)  # empty folders are fine
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("x")
    for path in (tmp_path / "other", tmp_path / "other" / "thesis.txt"):
        with pytest.raises(InputError, match="Give the name of a new folder"):
            write_toy(path, **TINY)
    assert [entry.name for entry in (tmp_path / "other").iterdir()] == ["thesis.txt"]
    with pytest.raises(InputError, match="'format' must be one of"):
        write_toy(tmp_path / "x", format="onnx")


def test_nothing_half_written_is_left_behind(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    folder = write_toy(tmp_path / "toy", **TINY)
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        write_toy(folder, **TINY)
    assert [entry.name for entry in tmp_path.iterdir()] == ["toy"]
    assert open_checkpoint(folder).format == "audiocraft"
