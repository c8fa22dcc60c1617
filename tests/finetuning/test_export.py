"""The file of a training in other hands: Apply MusicGen Fine-Tune's loader, and PEFT itself, have the trained model's logits."""

import pytest
import torch
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.musicgen.conditioning.vocabulary import Vocabulary
from comfyui_musicgen.musicgen.finetuning import export
from comfyui_musicgen.musicgen.finetuning.model import AtStrength, build
from comfyui_musicgen.musicgen.finetuning.settings import TrainSettings

NOTES = {"base": "toy", "license": "mit", "license_note": "MIT."}


def trained(source, **options):
    """A model whose adapters change something, as after a training."""
    settings = TrainSettings(rank=4, alpha=6, dropout=0.0, **options)
    model = build(source, settings, torch.device("cpu"))
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters().values():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    model.train(False)
    return model, settings


def inputs_of(config):
    generator = torch.Generator().manual_seed(3)
    codes = torch.randint(config.lm.cardinality, (1, config.lm.n_codebooks, 12), generator=generator)
    return codes, torch.randn(5, config.text.dim, generator=generator)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("options", [{}, {"stereo": True}, {"melody": True}], ids=str)
@pytest.mark.parametrize("folder", [False, True], ids=["file", "folder"])
def test_the_packs_own_loader_has_the_trained_models_logits(toys, tmp_path, options, strength, folder):
    loaded = loading.load(toys(**options), "float32")
    model, settings = trained(loaded.model.source)
    path = tmp_path / "style.safetensors"
    if folder:
        export.save_folder(model, settings, path := tmp_path / "style", NOTES)
    else:
        export.save_adapter(model, settings, path, NOTES)
    tuned, conditioner = loading.apply_fine_tune(loaded.model, loaded.conditioner, path, strength)
    codes, states = inputs_of(loaded.config)
    with torch.no_grad(), AtStrength(model, strength):
        stream = model.stream(states)
        expected = model.lm(codes, [stream])
    text = conditioner.text_projection(states)
    theirs = type(stream)(stream.prefix[:0], text) if loaded.config.lm.cross_attention else None
    if theirs is None:
        prefix = torch.cat([stream.prefix[: len(stream.prefix) - len(text)], text])
        theirs = type(stream)(prefix, text[:0])
    with torch.inference_mode():
        made = tuned.lm(codes, [theirs])
    torch.testing.assert_close(made, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("data", "unknown"),
    [
        ('{"common words": ["house", "120", "bpm,"]}', ["techno"]),
        ("[1]", ["house", "bpm", "techno"]),
        ("{", ["house", "bpm", "techno"]),
    ],
)
@pytest.mark.parametrize("whole", [False, True], ids=["LoRA", "whole weights"])
def test_words_of_the_learned_texts_are_no_longer_unknown(toys, tmp_path, data, unknown, whole):
    """The template Train a style warned of 'house', which it had just learned."""
    loaded = loading.load(toys(), "float32")
    loaded.conditioner.vocabulary = Vocabulary(frozenset({"music"}), {}, {}, "music", "music")
    model, settings = trained(loaded.model.source)
    path = tmp_path / "style.safetensors"
    if whole:
        export.save_whole(loaded.model.source, model, path, {"data": data})
    else:
        export.save_adapter(model, settings, path, {"data": data})
    _, conditioner = loading.apply_fine_tune(loaded.model, loaded.conditioner, path)
    assert conditioner.vocabulary.unknown("House music, 120 bpm, techno") == unknown
    assert loaded.conditioner.vocabulary.words == {"music"}, "the base stays as it is"


def test_whole_weights_are_a_fine_tune_of_their_base(toys, tmp_path):
    loaded = loading.load(toys(), "float32")
    settings = TrainSettings(method="whole weights")
    model = build(loaded.model.source, settings, torch.device("cpu"))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters().values():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    path = export.save_whole(loaded.model.source, model, tmp_path / "whole.safetensors", {"verdict": "Clearly heard."})
    tuned, _ = loading.apply_fine_tune(loaded.model, loaded.conditioner, path)
    codes, states = inputs_of(loaded.config)
    with torch.no_grad():
        stream = model.stream(states)
        torch.testing.assert_close(tuned.lm(codes, [stream]), model.lm(codes, [stream]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("melody", [False, True])
def test_peft_has_the_trained_models_logits(toys, tmp_path, melody):
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    folder = toys(format="huggingface", melody=melody)
    loaded = loading.load(folder, "float32")
    model, settings = trained(loaded.model.source)
    export.save_folder(model, settings, tmp_path / "style", NOTES)
    kind = (
        transformers.MusicgenMelodyForConditionalGeneration if melody else transformers.MusicgenForConditionalGeneration
    )
    theirs = (
        peft.PeftModel.from_pretrained(kind.from_pretrained(folder), str(tmp_path / "style")).merge_and_unload().eval()
    )
    codes, states = inputs_of(loaded.config)
    with torch.no_grad():
        stream = model.stream(states)
        expected = model.lm(codes, [stream])
        text = theirs.enc_to_dec_proj(states)
        torch.testing.assert_close(text, model.text_row(states), atol=1e-5, rtol=0)
        kwargs = {"encoder_hidden_states": (stream.prefix if melody else text)[None]}
        ids = codes.transpose(0, 1).reshape(-1, codes.shape[-1]) if len(codes) == 1 else None
        made = theirs.decoder(input_ids=ids, **kwargs).logits
    made = made[:, -codes.shape[-1] :].view(1, loaded.config.lm.n_codebooks, codes.shape[-1], -1)
    torch.testing.assert_close(made, expected, atol=1e-4, rtol=0)
