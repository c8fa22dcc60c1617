"""Chords in front of the codes: rows, windows, batches, and codes that are audiocraft's with the original's rows."""

import logging

import pytest
import torch
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.musicgen.audio import Audio
from comfyui_musicgen.musicgen.conditioning import Progression, blend, encode_chords, encode_timeline
from comfyui_musicgen.musicgen.conditioning.chords_reference import ReferenceProgression
from comfyui_musicgen.musicgen.conditioning.vocabulary import Vocabulary
from comfyui_musicgen.musicgen.config import GenerationParams
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.musicgen.store.published import SHIPPED

TEXT = "a haegeum over soft drums"
SMALL = {"dim": 32, "n_heads": 2, "n_layers": 2, "cardinality": 64, "n_filters": 2, "latent_dim": 16}
CHORDS = Progression.parse("C G,E:min Am7/G N", 97, "4/4")


@pytest.fixture(scope="module")
def small(toys):
    """Factory: a small toy loaded: small(chords=True)."""
    loaded = {}

    def load(**options):
        key = tuple(sorted(options.items()))
        if key not in loaded:
            loaded[key] = loading.load(toys(**SMALL, **options), "float32")
        return loaded[key]

    return load


def encoded(loaded, chords=CHORDS, strength=1.0, texts=(TEXT,)):
    return encode_chords(loaded.conditioner, loaded.conditioner.encode_text(list(texts)), chords, strength)


# Rows


@pytest.mark.parametrize("strength", [1.0, 2.5, 0.0])
def test_rows_are_projected_with_their_bias(small, strength):
    loaded = small(chords=True)
    chords = encoded(loaded, strength=strength).melody
    projection = loaded.conditioner.melody_projection
    expected = strength * chords.chroma() @ projection.weight.T + projection.bias
    torch.testing.assert_close(chords.embed(), expected, atol=1e-6, rtol=0)
    assert chords.chroma().shape == (235, 12)
    is_rest = ~chords.chroma().any(dim=1)
    assert is_rest.any() and torch.equal(
        chords.embed()[is_rest], projection.bias.expand(int(is_rest.sum()), -1)
    )  # not zero: that is what stands for no chords at all


def test_without_chords_all_rows_in_front_are_zero(small):
    """Also in the null rows of guidance, where a melody model has the chroma of silence."""
    positive = small(chords=True).conditioner.encode_text([TEXT])
    for conditioning in (positive, encoded(small(chords=True)).null()):
        prefix = conditioning.prefix(0)
        assert prefix.shape[0] == 235 + len(conditioning.text[0]) and not prefix[:235].any()
    assert encoded(small(chords=True)).prefix(0)[:235].any()


def test_a_melody_model_takes_chords_as_an_experiment(small, caplog):
    loaded = small(melody=True)
    with caplog.at_level(logging.WARNING):
        conditioning = encoded(loaded)
    assert "experiment" in caplog.text
    melody = conditioning.melody
    rests = ~melody.chroma().any(dim=1)
    assert torch.equal(melody.embed()[rests], conditioning.null_melody[rests])
    assert not torch.equal(melody.embed()[~rests], conditioning.null_melody[~rests])
    caplog.clear()
    encoded(small(chords=True))
    assert "experiment" not in caplog.text
    loaded.conditioner.vocabulary = Vocabulary(frozenset(), {}, {}, "", "", chords=True)  # as its card may say
    taught = encoded(loaded)
    assert "experiment" not in caplog.text and torch.equal(taught.melody.embed(), melody.embed())


def test_windows_see_the_chords_of_their_time(small):
    chords = encoded(small(chords=True)).melody
    whole = CHORDS.rows(0.0, 2000, 7.8125)
    assert torch.equal(chords.chroma(None), whole[:235])
    assert torch.equal(chords.chroma(36.0), whole[281:516])
    anchored = chords.chroma(36.0, (4.0, 0.0))
    assert torch.equal(anchored[:31], whole[:31]) and torch.equal(anchored[31:], whole[312:516])


def test_the_last_conditioning_in_front_counts(small):
    loaded = small(melody=True)
    tune = Audio(torch.sin(torch.arange(32000) / 30)[None, None], 32000)
    melody = loaded.conditioner.encode_melody(loaded.conditioner.encode_text([TEXT]), tune, "off")
    both = encode_chords(loaded.conditioner, melody, CHORDS)
    assert torch.equal(both.prefix(0), encoded(loaded).prefix(0))
    again = loaded.conditioner.encode_melody(both, tune, "off")
    assert torch.equal(again.prefix(0), melody.prefix(0))


# Codes


def test_rows_of_a_batch_have_the_same_chords(small):
    """The original shifts the first row alone in later windows."""
    loaded = small(chords=True, segment_s=4.0)
    params = GenerationParams(duration_s=6, seed=5, extend_stride_s=2, batch_size=3)
    batch = loaded.model.generate(encoded(loaded), params).codes
    for row in range(3):
        seed = loaded.model.origins(encoded(loaded), params)[row].seed
        alone = GenerationParams(duration_s=6, seed=seed, extend_stride_s=2)
        assert torch.equal(loaded.model.generate(encoded(loaded), alone).codes[0], batch[row])


def test_chords_steer_every_window(small):
    loaded = small(chords=True, segment_s=4.0)
    params = GenerationParams(duration_s=8, seed=5, extend_stride_s=2)
    same = encoded(loaded, Progression.parse("C C C C", 120)), encoded(loaded, Progression.parse("C C C F#", 120))
    early, late = (loaded.model.generate(each, params).codes for each in same)
    # The window of the first 4 s ends before bar 4, at 6 s; that of 4 s to 8 s sees it.
    assert torch.equal(early[..., :200], late[..., :200]) and not torch.equal(early, late)


def test_chords_go_into_each_text_of_a_mixture(small):
    loaded = small(chords=True)
    timeline = encode_chords(loaded.conditioner, encode_timeline(loaded.conditioner, "a | 1: b"), CHORDS)
    mixed = blend(encoded(loaded), loaded.conditioner.encode_text(["b"]), 0.5)
    mixed = encode_chords(loaded.conditioner, mixed, CHORDS)
    for conditioning in (timeline, mixed):
        assert all(leaf.melody.progression is CHORDS for leaf in conditioning.leaves())
        assert loaded.model.generate(conditioning, GenerationParams(duration_s=0.4, seed=1)).n_frames == 20


@pytest.mark.skipif(not SHIPPED["pansori-mini"].is_file(), reason="the model that ships is not here")
def test_the_model_that_ships_writes_other_codes_with_chords():
    loaded = loading.load(SHIPPED["pansori-mini"], "float32")
    params = GenerationParams(duration_s=1, seed=3)
    plain = loaded.model.generate(loaded.conditioner.encode_text(["calm flute"]), params)
    chords = loaded.model.generate(encoded(loaded, texts=["calm flute"]), params)
    assert not torch.equal(plain.codes, chords.codes)


# Errors


def test_a_model_without_chroma_is_refused(small):
    with pytest.raises(
        InputError, match="'chords' were given, but .* has no chord or melody conditioning.*musicgen-chord"
    ):
        encoded(small())


def test_another_models_conditioning_is_refused(small):
    chords, plain = small(chords=True), small()
    with pytest.raises(InputError, match="'conditioning' was made by the conditioner of"):
        encode_chords(chords.conditioner, plain.conditioner.encode_text([TEXT]), CHORDS)
    with pytest.raises(InputError, match="native"):
        encode_chords(chords.conditioner, object(), CHORDS)


def test_a_recordings_melody_is_refused_by_a_chord_model(small):
    loaded = small(chords=True)
    tune = Audio(torch.zeros(1, 1, 100), 32000)
    with pytest.raises(InputError, match="follows chords, not melodies.*MusicGen Chords"):
        loaded.conditioner.encode_melody(loaded.conditioner.encode_text([TEXT]), tune, "off")


@pytest.mark.parametrize("strength", [-0.1, 2.6, float("nan"), "1", None, True])
def test_a_wrong_strength_is_refused(small, strength):
    with pytest.raises(InputError, match="'strength' must be a number from 0 to 2.5"):
        encoded(small(chords=True), strength=strength)


def test_chords_shorter_than_a_row_are_refused(small):
    with pytest.raises(InputError, match="bar 1 as it is played, has 32 chords"):
        encoded(small(chords=True), Progression.parse(",".join(["C"] * 32), 240))


# Codes equal audiocraft's


@pytest.fixture(scope="module")
def engines(audiocraft, toys):
    """Factory: a chord toy, and audiocraft's melody model with the same weights, whose chroma the test gives.

    The original's model is audiocraft's but for its conditioner: W x + b where there are chords, zeros where there are none.
    """
    from comfyui_musicgen.reference import audiocraft as reference

    loaded = {}

    def load(stereo, progression):
        if stereo not in loaded:
            theirs = reference.load(toys(melody=True, stereo=stereo)).model._musicgen
            loaded[stereo] = loading.load(toys(chords=True, stereo=stereo), "float32"), theirs
        ours, theirs = loaded[stereo]
        conditioner = theirs.lm.condition_provider.conditioners["self_wav"]

        def forward(condition):
            """What is played at a sample is its own number: the first one of a window says where the window begins."""
            table = torch.zeros(len(condition.length), 235, 12)
            valid = (condition.length > 1).float()[:, None, None]
            for row, samples in enumerate(condition.wav):
                if valid[row]:
                    table[row] = progression.rows(float(samples[0, 0]) / 32000, 235, 7.8125)
            rows = conditioner.output_proj(table) * valid
            return rows, torch.ones_like(rows[..., 0])

        conditioner.forward = forward
        return ours, theirs

    return load


def both(engines, stereo, progression, params, prompt=None):
    loaded, theirs = engines(stereo, progression)
    positive = encoded(loaded, progression)
    ours = loaded.model.generate(positive, params, prompt)
    theirs.set_generation_params(
        duration=params.duration_s, top_k=params.top_k, cfg_coef=params.cfg, extend_stride=params.extend_stride_s
    )
    clock = torch.arange(100 * 32000).float().expand(2 if stereo else 1, -1)
    attributes, _ = theirs._prepare_tokens_and_attributes([TEXT], None, [clock])
    torch.manual_seed(params.seed)
    expected = theirs._generate_tokens(attributes, None if prompt is None else prompt.codes)
    return ours.codes, expected


@pytest.mark.parametrize("stereo", [False, True], ids=["mono", "stereo"])
def test_codes_equal_audiocrafts_with_the_same_rows(request, engines, stereo):
    """500 frames, guidance on; 150 of stereo unless --slow."""
    n_frames = 500 if not stereo or request.config.getoption("--slow") else 150
    ours, expected = both(engines, stereo, CHORDS, GenerationParams(duration_s=n_frames / 50, seed=21))
    assert ours.shape[-1] == n_frames and torch.equal(ours, expected)
    assert len(ours.unique()) > 100


def test_codes_of_a_continuation_equal_audiocrafts(engines):
    loaded, _ = engines(False, CHORDS)
    prompt = loaded.codec.encode(Audio(torch.randn(1, 1, 64000, generator=torch.Generator().manual_seed(1)) / 9, 32000))
    ours, expected = both(engines, False, CHORDS, GenerationParams(duration_s=4, seed=2), prompt)
    assert torch.equal(ours, expected)


@torch.inference_mode()
@pytest.mark.parametrize("has_chords", [True, False], ids=["chords", "no chords"])
def test_logits_equal_audiocrafts_with_the_same_rows(engines, has_chords):
    ours, theirs = engines(False, CHORDS)
    codes = torch.randint(0, 2049, (1, 4, 60), generator=torch.Generator().manual_seed(0))
    clock = torch.arange(32000).float()[None]
    attributes, _ = theirs._prepare_tokens_and_attributes([TEXT], None, [clock] if has_chords else None)
    provider = theirs.lm.condition_provider
    expected = theirs.lm(codes, [], provider(provider.tokenize(attributes)))
    conditioning = encoded(ours) if has_chords else ours.conditioner.encode_text([TEXT])
    logits = ours.model.lm(codes, ours.model.streams(conditioning, 1))
    torch.testing.assert_close(logits, expected, atol=2e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "progression", [CHORDS, ReferenceProgression("C G,E:min A:min N", 97, 4)], ids=["ours", "the original's windows"]
)
@pytest.mark.parametrize("stereo", [False, True], ids=["mono", "stereo"])
def test_codes_of_a_long_piece_equal_audiocrafts(engines, stereo, progression):
    params = GenerationParams(duration_s=45, seed=4, extend_stride_s=18)
    ours, expected = both(engines, stereo, progression, params)
    assert ours.shape[-1] == 2250 and torch.equal(ours, expected)
