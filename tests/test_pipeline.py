"""The facade: both formats agree, with each other and with transformers; text, negatives, batches; clear refusals."""

import pytest
import torch
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.musicgen.audio import Audio
from comfyui_musicgen.musicgen.codes import Codes
from comfyui_musicgen.musicgen.config import GenerationParams
from comfyui_musicgen.musicgen.errors import InputError

TEXT = "a gayageum melody"
SHORT = GenerationParams(duration_s=1, seed=3)


@pytest.fixture(scope="session")
def load(toys):
    loaded = {}

    def factory(precision="float32", **options):
        key = (precision, tuple(sorted(options.items())))
        if key not in loaded:
            loaded[key] = loading.load(toys(**options), precision)
        return loaded[key]

    return factory


def make(loaded, texts=(TEXT,), params=SHORT, **options):
    return loaded.model.generate(loaded.conditioner.encode_text(list(texts)), params, **options)


@pytest.mark.parametrize("options", [{}, {"stereo": True}, {"melody": True}, {"stereo": True, "melody": True}], ids=str)
def test_both_formats_hold_the_same_model(load, options):
    ours, theirs = load(**options), load(format="huggingface", **options)
    assert ours.config.codec == theirs.config.codec and ours.config.lm == theirs.config.lm
    codes = make(ours)
    assert torch.equal(codes.codes, make(theirs).codes)
    assert torch.equal(ours.codec.decode(codes).samples, theirs.codec.decode(codes).samples)


@torch.inference_mode()
@pytest.mark.parametrize("stereo", [False, True])
def test_logits_equal_transformers_own_forward(load, toys, stereo):
    transformers = pytest.importorskip("transformers")
    folder = toys(format="huggingface", stereo=stereo)
    theirs = transformers.MusicgenForConditionalGeneration.from_pretrained(folder).float().eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    loaded = load(format="huggingface", stereo=stereo)
    config = loaded.config.lm
    codes = torch.randint(0, 2049, (1, config.n_codebooks, 40), generator=torch.Generator().manual_seed(1))
    tokens = tokenizer([TEXT], return_tensors="pt")
    expected = theirs(
        input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, decoder_input_ids=codes.view(-1, 40)
    ).logits.view(1, config.n_codebooks, 40, -1)
    streams = loaded.model._streams(loaded.conditioner.encode_text([TEXT]), None)
    torch.testing.assert_close(loaded.model.lm(codes, streams), expected, atol=1e-4, rtol=0)


def test_same_seed_same_codes_other_seed_others(load):
    loaded = load()
    assert torch.equal(make(loaded).codes, make(loaded).codes)
    assert not torch.equal(make(loaded).codes, make(loaded, params=GenerationParams(duration_s=1, seed=4)).codes)


def test_a_row_of_a_batch_equals_the_row_alone(load):
    for loaded in (load(), load(melody=True)):
        alone = make(loaded, params=GenerationParams(duration_s=1, seed=3))
        batch = make(loaded, params=GenerationParams(duration_s=1, seed=3, batch_size=4))
        assert torch.equal(batch.codes[:1], alone.codes)
        texts = [TEXT, "a much longer text, of many more words than the other one has", ""]
        mixed = make(loaded, texts)
        assert torch.equal(mixed.codes[:1], alone.codes)
        assert (
            torch.equal(mixed.codes[1:2], make(loaded, [texts[1], texts[0]], SHORT).codes[:1]) is False
        )  # other noise


def test_text_matters_and_so_does_its_absence(load):
    for loaded in (load(), load(melody=True)):
        results = [make(loaded, [text]).codes for text in (TEXT, "another", "", " ")]
        assert len({tuple(r.flatten().tolist()) for r in results}) == 4
        assert torch.equal(make(loaded, [None]).codes, results[2])


def test_negative_takes_the_place_of_the_null_rows(load):
    for loaded in (load(), load(melody=True)):
        plain = make(loaded).codes
        encode = loaded.conditioner.encode_text
        assert torch.equal(make(loaded, negative=encode([""])).codes, plain) or loaded.config.melody
        assert not torch.equal(make(loaded, negative=encode(["noise"])).codes, plain)
        unguided = make(loaded, params=GenerationParams(duration_s=1, seed=3, cfg=1)).codes
        assert torch.equal(make(loaded, negative=encode([TEXT])).codes, unguided)


def test_a_long_piece_is_made_in_windows_and_reported_once(load):
    seen = []
    codes = make(
        load(segment_s=3.0),
        params=GenerationParams(duration_s=3.1, extend_stride_s=2),
        on_step=lambda *step: seen.append(step),
    )
    assert codes.n_frames == 155
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert {total for _, total in seen} == {155} and seen[-1] == (155, 155)


def test_a_prompt_is_continued(load):
    loaded = load(stereo=True)
    clip = Audio(0.1 * torch.randn(1, 1, 44100), 44100)
    prompt = loaded.codec.encode(clip)
    codes = make(loaded, prompt=prompt, params=GenerationParams(duration_s=2, batch_size=2))
    assert codes.codes.shape == (2, 8, 100)
    assert torch.equal(codes.codes[..., : prompt.n_frames], prompt.codes.expand(2, -1, -1))


def test_a_prompt_longer_than_the_window_is_kept_and_its_last_part_continued(load):
    loaded, seen = load(segment_s=0.5), []
    long = make(loaded, params=GenerationParams(duration_s=0.9, seed=3))
    params = GenerationParams(duration_s=1.3, extend_stride_s=0.3)
    result = make(loaded, params=params, prompt=long, on_step=lambda *step: seen.append(step))
    assert result.n_frames == 65 and torch.equal(result.codes[..., :45], long.codes)
    assert seen[-1] == (20, 20) and [done for done, _ in seen] == sorted(done for done, _ in seen)
    last = long.trim(0.7)  # what a window of 25 frames holds besides 15 new ones
    alone = make(loaded, params=GenerationParams(duration_s=0.5, extend_stride_s=0.3), prompt=last)
    assert torch.equal(result.codes[..., 35:60], alone.codes)


def test_several_clips_to_continue_are_counted(load):
    loaded = load()
    three = Codes(torch.zeros(3, 4, 5, dtype=torch.long), 50.0, loaded.codec.config.identity)
    with pytest.raises(InputError, match="Give one clip, or set 'batch_size' to 3"):
        make(loaded, prompt=three)
    with pytest.raises(InputError, match="Give one clip, or 2, or set"):
        make(loaded, prompt=three, params=GenerationParams(duration_s=1, batch_size=2))


def test_codes_are_cut_by_time():
    codes = Codes(torch.arange(400).reshape(1, 4, 100), 50.0, "x")
    part = codes.trim(0.5, 1.0)
    assert torch.equal(part.codes, codes.codes[..., 25:50]) and (part.frame_rate_hz, part.codec) == (50.0, "x")
    assert torch.equal(codes.trim(1.5).codes, codes.codes[..., 75:])
    assert part.codes.untyped_storage().nbytes() == part.codes.numel() * 8, "the rest is not held"
    with pytest.raises(InputError, match=r"the codes from 3 s.*2.000 s long"):
        codes.trim(3.0, 4.0)


def test_impossible_prompts_name_both_sides(load):
    mono, stereo = load(), load(stereo=True)
    with pytest.raises(InputError, match="mono.*stereo|stereo.*mono"):
        make(stereo, prompt=make(mono))
    with pytest.raises(InputError, match="mono.*stereo|stereo.*mono"):
        stereo.codec.decode(make(mono))
    with pytest.raises(InputError, match="1 s long.*0.5 s"):
        make(mono, prompt=make(mono), params=GenerationParams(duration_s=0.5))
    with pytest.raises(InputError, match="2 clips"):
        two = make(mono, params=GenerationParams(duration_s=0.2, batch_size=2))
        make(mono, prompt=two)
    with pytest.raises(InputError, match="shape"):
        Codes(torch.zeros(4, 5, dtype=torch.long), 50, "x")


def test_conditioning_of_another_model_names_both(load, toys, tmp_path):
    with pytest.raises(InputError, match="melody"):
        load().model.generate(load(melody=True).conditioner.encode_text([TEXT]), SHORT)
    loaded = load()
    with pytest.raises(InputError, match="3 rows"):
        make(loaded, negative=loaded.conditioner.encode_text(["a", "b", "c"]))
    with pytest.raises(InputError, match="at most 2048"):
        loaded.conditioner.encode_text(["word " * 5000])


@pytest.mark.parametrize("precision", ["bfloat16", "float16", "int8"])
def test_other_precisions_make_music_too(load, precision):
    loaded = load(precision)
    assert loaded.model.precision == precision
    codes = make(loaded)
    assert codes.n_frames == 50 and len(codes.codes.unique()) > 50


def test_memory_estimate_covers_the_caches(load):
    loaded = load()
    conditioning = loaded.conditioner.encode_text([TEXT])
    small, large = (
        loaded.model.memory_bytes(GenerationParams(duration_s=d, batch_size=b), conditioning)
        for d, b in ((5, 1), (30, 4))
    )
    assert small > loaded.model.lm.cache_bytes(2, 250, 8) and large > 10 * small
    assert loaded.model.memory_bytes(GenerationParams(duration_s=300, batch_size=4), conditioning) == large
