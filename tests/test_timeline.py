"""Texts at their times, blends and anchored windows through the facade."""

from dataclasses import replace

import pytest
import torch
from comfyui_musicgen.musicgen import guidance, loading, pipeline
from comfyui_musicgen.musicgen.audio import Audio, fade_out
from comfyui_musicgen.musicgen.conditioning import Mixture, Timeline, blend, encode_timeline
from comfyui_musicgen.musicgen.config import GenerationParams
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.musicgen.guidance import Mix, cut_windows
from comfyui_musicgen.musicgen.windows import Window, plan_windows
from comfyui_musicgen.tests.test_windows import config

ONE, OTHER = "a gayageum melody", "a much longer text about the loud drums of a band"
SHORT = GenerationParams(duration_s=0.4, seed=3)
LONG = GenerationParams(duration_s=1.2, seed=3, extend_stride_s=0.3)  # four windows of 0.5 s
kinds = pytest.mark.parametrize("melody", [False, True], ids=["attended to", "in front"])


@pytest.fixture(scope="module")
def load(toys):
    """A model with windows of 0.5 s, with cross-attention or with melody and text in front."""
    loaded = {}

    def factory(melody=False):
        if melody not in loaded:
            loaded[melody] = loading.load(toys(melody=melody, segment_s=0.5), "float32")
        return loaded[melody]

    return factory


def text(loaded, *texts):
    return loaded.conditioner.encode_text(list(texts))


def codes(loaded, conditioning, params=LONG, **options):
    if isinstance(conditioning, str):
        conditioning = encode_timeline(loaded.conditioner, conditioning)
    return loaded.model.generate(conditioning, params, **options).codes


@pytest.fixture
def runs(monkeypatch):
    """(streams of the texts, null streams, frames known) of each window that is generated."""
    seen, original = [], pipeline.generate_codes

    def spy(lm, conditional, null, n_frames, sampling, noise, cfg, prompt, *others):
        seen.append((conditional, null, prompt, n_frames))
        return original(lm, conditional, null, n_frames, sampling, noise, cfg, prompt, *others)

    monkeypatch.setattr(pipeline, "generate_codes", spy)
    return seen


@kinds
def test_a_timeline_of_one_text_is_that_text_bit_for_bit(load, melody):
    loaded = load(melody)
    plain = codes(loaded, text(loaded, ONE))
    assert torch.equal(codes(loaded, ONE), plain)
    again = encode_timeline(loaded.conditioner, f"{ONE} | 0.3: {ONE} | 0.9: {ONE} @ 1")
    assert isinstance(again, Timeline) and torch.equal(codes(loaded, again), plain)


@kinds
def test_a_new_text_begins_at_its_time(load, melody):
    """Codes before it are those of the first text alone, but for the last columns, which a window ends without its delayed codes."""
    loaded = load(melody)
    plain, changed = codes(loaded, ONE), codes(loaded, f"0: {ONE} | 0.62: {OTHER}")
    assert torch.equal(changed[..., :28], plain[..., :28]) and torch.equal(changed[:, 0, :31], plain[:, 0, :31])
    assert not torch.equal(changed[..., 31:40], plain[..., 31:40])


def test_each_window_follows_the_text_of_its_new_music(load, runs):
    loaded = load()
    codes(loaded, f"{ONE} | 0.62: {OTHER}")
    first, second = text(loaded, ONE).text[0], text(loaded, OTHER).text[0]
    expected = [first, first, second, second, second]  # to 0.5 s, 0.62 s, 0.8 s, 1.1 s, 1.2 s
    assert [len(prompt[0, 0]) if prompt is not None else 0 for _, _, prompt, _ in runs] == [0, 10, 16, 10, 10]
    for (conditional, _, _, _), row in zip(runs, expected, strict=True):
        assert torch.equal(conditional[0].cross, row)


def test_times_before_the_end_and_before_the_first_entry(load):
    loaded = load()
    timeline = encode_timeline(loaded.conditioner, f"5: {ONE} | -2: {OTHER}")
    first, last = timeline.leaves()
    assert timeline.at(0.0, 20.0)[0].conditioning is first and timeline.changes(20.0) == (18.0,)
    assert timeline.at(17.99, 20.0)[0].conditioning is first and timeline.at(18.0, 20.0)[0].conditioning is last
    assert timeline.changes(1.0) == (), "a piece shorter than that is the ending alone"
    assert timeline.at(0.0, 1.0)[0].conditioning is last


def test_a_cadence_is_the_last_text_and_asks_for_an_ending(load):
    loaded = load()
    timeline = encode_timeline(loaded.conditioner, f"0: {ONE} | 10: {OTHER} @ 0.5", "cadence")
    assert timeline.changes(30.0) == (10.0, 22.0)
    (share,) = timeline.at(25.0, 30.0)
    wanted = f"{OTHER}, slow final ending, last cadence, fading to silence"
    assert torch.equal(share.conditioning.text[0], text(loaded, wanted).text[0]) and share.strength == 0.5
    assert timeline.changes(12.0) == (10.0,), "never before the last text"
    assert torch.equal(timeline.at(11.0, 12.0)[0].conditioning.text[0], text(loaded, wanted).text[0])
    with pytest.raises(InputError, match="'ending' must be one of none, cadence, got 'fade'"):
        encode_timeline(loaded.conditioner, ONE, "fade")


@kinds
def test_a_blend_at_0_and_1_is_the_single_text_bit_for_bit(load, melody):
    loaded = load(melody)
    one, other = text(loaded, ONE), text(loaded, OTHER)
    assert torch.equal(codes(loaded, blend(one, other, 0), SHORT), codes(loaded, one, SHORT))
    assert torch.equal(codes(loaded, blend(one, other, 1.0), SHORT), codes(loaded, other, SHORT))
    half = codes(loaded, blend(one, other, 0.5), SHORT)
    assert not torch.equal(half, codes(loaded, one, SHORT)) and not torch.equal(half, codes(loaded, other, SHORT))
    for ratio in (0.3, 0.1):
        assert torch.equal(codes(loaded, blend(one, one, ratio), SHORT), codes(loaded, one, SHORT))


@kinds
def test_a_blend_is_the_mean_of_the_models_answers(load, melody, monkeypatch):
    """The logits that are drawn from are those of the two texts and of the null row, each of a run of its own."""
    loaded, params = load(melody), GenerationParams(duration_s=0.02, cfg=3)
    one, other = text(loaded, ONE), text(loaded, OTHER)
    seen = []
    monkeypatch.setattr(generate_module(), "draw", lambda logits, *_: seen.append(logits) or logits.argmax(-1))
    for each in (one, other, blend(one, other, 0.25)):
        codes(loaded, each, replace(params, cfg=1))
    width = len(seen) // 3
    a, b, mixed = seen[0], seen[width], seen[2 * width]
    torch.testing.assert_close(mixed, 0.75 * a + 0.25 * b, atol=1e-4, rtol=0)
    seen.clear()
    codes(loaded, one.null(), replace(params, cfg=1))
    codes(loaded, blend(one, other, 0.25), params)
    null, guided = seen[0], seen[width]
    torch.testing.assert_close(guided, null + (0.75 * a + 0.25 * b - null) * 3, atol=1e-3, rtol=0)


def generate_module():
    import sys

    return sys.modules[pipeline.generate_codes.__module__]


@kinds
def test_a_weight_is_a_blend_with_no_text(load, melody, runs):
    loaded = load(melody)
    empty = text(loaded, ONE).without_text()
    weighted = codes(loaded, f"{ONE} @ 0.7", SHORT)
    assert len(runs[-1][0]) == len(runs[-1][1]) == 1, "guidance's null row serves"
    assert torch.equal(weighted, codes(loaded, blend(empty, text(loaded, ONE), 0.7), SHORT))
    assert not torch.equal(weighted, codes(loaded, ONE, SHORT))
    assert torch.equal(codes(loaded, f"{ONE} @ 0", SHORT), codes(loaded, empty, SHORT))
    unguided = replace(SHORT, cfg=1.0)
    assert not torch.equal(codes(loaded, f"{ONE} @ 0.7", unguided), codes(loaded, ONE, unguided))
    assert len(runs[-2][0]) == 2 and runs[-2][1] is None, "without guidance it is a row"


@kinds
def test_takes_of_a_blend_hold_the_take_of_one(load, melody):
    loaded = load(melody)
    mixture = blend(encode_timeline(loaded.conditioner, f"{ONE} | 0.2: {OTHER} @ 1.5"), text(loaded, "x"), 0.4)
    three = codes(loaded, mixture, replace(SHORT, batch_size=3))
    assert torch.equal(three[:1], codes(loaded, mixture, SHORT)) and not torch.equal(three[0], three[1])


def test_a_batch_of_texts_is_blended_row_by_row(load):
    loaded = load()
    rows = blend(text(loaded, ONE, OTHER), text(loaded, "x"), 0.5)
    result = codes(loaded, rows, SHORT)
    assert rows.n_rows == 2 and len(result) == 2
    torch.testing.assert_close(result[:1], codes(loaded, blend(text(loaded, ONE), text(loaded, "x"), 0.5), SHORT))
    with pytest.raises(InputError, match="of 2 and of 3 rows"):
        blend(text(loaded, "a", "b"), text(loaded, "a", "b", "c"), 0.5)
    with pytest.raises(InputError, match="2 rows.*batch of 3"):
        codes(loaded, rows, replace(SHORT, batch_size=3))


def test_a_negative_may_change_and_be_blended_too(load, runs):
    loaded = load()
    negative = encode_timeline(loaded.conditioner, "0: noise | 0.2: hiss")
    plain = codes(loaded, ONE, SHORT)
    assert not torch.equal(codes(loaded, ONE, SHORT, negative=negative), plain)
    assert [n for *_, n in runs[-2:]] == [10, 20]
    mixed = codes(loaded, ONE, SHORT, negative=blend(text(loaded, "noise"), text(loaded, "hiss"), 0.5))
    assert len(runs[-1][1]) == 2 and not torch.equal(mixed, plain)


def test_a_melody_goes_to_all_of_a_mixture(load):
    loaded = load(melody=True)
    tune = Audio(torch.sin(torch.arange(8000) / 10)[None, None], 16000)
    both = blend(encode_timeline(loaded.conditioner, f"{ONE} | 0.2: {OTHER}"), text(loaded, "x"), 0.5)
    followed = loaded.conditioner.encode_melody(both, tune, "off")
    assert isinstance(followed, Mixture) and all(leaf.melody is not None for leaf in followed.leaves())
    assert followed.leaves()[0].melody is followed.leaves()[2].melody
    assert not torch.equal(codes(loaded, followed, SHORT), codes(loaded, both, SHORT))


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan"), True, "0.5", None])
def test_ratios_out_of_range_are_refused(load, ratio):
    one = text(load(), ONE)
    with pytest.raises(InputError, match="'ratio' must be a number from 0"):
        blend(one, one, ratio)


def test_conditionings_of_two_models_or_engines_are_refused(load):
    one = text(load(), ONE)
    with pytest.raises(InputError, match="cannot be mixed"):
        blend(one, text(load(melody=True), ONE), 0.5)
    with pytest.raises(InputError, match="'second' comes from another engine"):
        blend(one, object(), 0.5)
    with pytest.raises(InputError, match="'positive' was made by"):
        codes(load(), blend(text(load(melody=True), ONE), text(load(melody=True), OTHER), 0.5), SHORT)


def test_memory_covers_the_rows_of_a_blend(load):
    model, one, other = load().model, text(load(), ONE), text(load(), OTHER)
    single, double = (model.memory_bytes(SHORT, each) for each in (other, blend(one, other, 0.5)))
    assert double == pytest.approx(1.5 * single, rel=0.01)


def test_progress_over_cut_windows_ends_at_the_end(load):
    seen = []
    codes(load(), f"{ONE} | 0.62: {OTHER}", on_step=lambda *step: seen.append(step))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen) and seen[-1] == (60, 60)


def test_windows_are_cut_where_they_write_only():
    windows = [Window(0, 0, 25), Window(15, 10, 25), Window(30, 10, 20)]
    assert cut_windows(windows, []) == windows
    parts = cut_windows(windows, [10, 25, 31, 50])
    assert parts == [
        Window(0, 0, 10), Window(0, 10, 25), Window(15, 10, 16), Window(15, 16, 25), Window(30, 10, 20),
    ]  # fmt: skip


# Anchors


def plan(duration_s, anchor_s, n_prompt=0):
    windows = plan_windows(config(), GenerationParams(duration_s=duration_s, anchor_s=anchor_s), n_prompt)
    return [(w.start, w.n_known, w.n_frames, w.n_anchor) for w in windows]


def test_anchored_windows_keep_their_size_and_what_they_see_of_the_latest_music():
    assert plan(60, 0) == [(0, 0, 1500, 0), (900, 600, 1500, 0), (1800, 600, 1200, 0)]
    assert plan(60, 6) == [
        (0, 0, 1500, 0), (600, 900, 1500, 300), (1200, 900, 1500, 300), (1800, 900, 1200, 300),
    ]  # fmt: skip
    assert plan(30, 6) == [(0, 0, 1500, 0)]
    assert plan(60, 6, 1600)[0] == (700, 900, 1500, 300), "the beginning of a long prompt is an anchor too"
    with pytest.raises(InputError, match="'anchor_s' of 18 s.*less than 18 s"):
        plan(60, 18)


@kinds
def test_the_first_window_is_unchanged_and_later_ones_see_the_beginning(load, melody, runs):
    loaded = load(melody)
    plain = codes(loaded, ONE)
    runs.clear()
    anchored = codes(loaded, ONE, replace(LONG, anchor_s=0.1))
    assert torch.equal(anchored[..., :25], plain[..., :25]) and not torch.equal(anchored, plain)
    assert anchored.shape == plain.shape
    starts = [0, 10, 20, 30, 40]
    assert len(runs) == len(starts)
    for start, (_, _, known, n_frames) in list(zip(starts, runs, strict=True))[1:]:
        assert n_frames <= 25
        assert torch.equal(known[..., :5], anchored[..., :5])
        assert torch.equal(known[..., 5:], anchored[..., start + 5 : start + 15])


def test_a_model_s_own_anchor_is_taken_where_none_is_asked_for_and_no_text_changes(load, monkeypatch):
    loaded = load()
    plain, asked = codes(loaded, ONE, LONG), codes(loaded, ONE, replace(LONG, anchor_s=0.1))
    two = encode_timeline(loaded.conditioner, f"0: {ONE} | 0.7: {OTHER}")
    changing = codes(loaded, two, LONG)
    monkeypatch.setattr(loaded.model, "config", replace(loaded.model.config, anchor_s=0.1))
    assert torch.equal(codes(loaded, ONE, LONG), asked) and not torch.equal(asked, plain)
    assert torch.equal(codes(loaded, ONE, replace(LONG, anchor_s=0.01)), plain), "off"
    assert torch.equal(codes(loaded, two, LONG), changing), "an anchor would hold it to what was"
    assert codes(loaded, ONE, replace(LONG, extend_stride_s=0.12)).shape == plain.shape, "a stride that leaves no room"


def test_columns_of_the_melody_follow_the_anchor(load):
    loaded = load(melody=True)
    rate_hz = loaded.config.codec.sample_rate_hz
    tune = Audio(torch.randn(1, 1, 3 * rate_hz, generator=torch.Generator().manual_seed(0)), rate_hz)
    melody = loaded.conditioner.encode_melody(text(loaded, ONE), tune, "off").leaves()[0].melody
    melody = replace(melody, segment_s=2.0)
    heard = []

    def chroma(samples, *_):
        heard.append(samples)
        return torch.zeros(1, 12)

    module = __import__("sys").modules[type(melody).__module__]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "chroma", chroma)
        melody.chroma(0.5, (0.25, 0.0))
        melody.chroma(0.5)
    anchored, plain = heard
    at = rate_hz // 4
    assert torch.equal(anchored[:at], melody.samples[:at]) and torch.equal(anchored[at:], plain[at:])
    assert len(anchored) == len(plain) == 2 * rate_hz


def test_an_anchor_goes_with_a_timeline(load, runs):
    loaded = load()
    result = codes(loaded, f"{ONE} | 0.62: {OTHER}", replace(LONG, anchor_s=0.1))
    assert result.shape[-1] == 60
    second = text(loaded, OTHER).text[0]
    new = [known.shape[-1] if known is not None else 0 for _, _, known, _ in runs]
    assert new == [0, 15, 21, 15, 15, 15] and torch.equal(runs[2][0][0].cross, second)


def test_a_mix_of_one_text_is_that_text():
    logits = torch.randn(2, 4, 8)
    assert torch.equal(Mix((1.0,), (1.0,))(logits), logits) and torch.equal(Mix((1.0,))(logits), logits)
    expected = torch.cat([0.7 * logits[:1] + 0.3 * logits[1:], logits[1:]])
    torch.testing.assert_close(Mix((0.7,), (1.0,))(logits), expected)
    assert guidance.Guided([], None).n_texts == 1


def test_a_fade_out_falls_to_silence_at_the_end_only():
    sound = Audio(torch.ones(1, 2, 10_000), 1000)
    faded = fade_out(sound, 4).samples
    assert torch.equal(faded[..., :6000], sound.samples[..., :6000])
    assert (faded[0, 0, 6000:].diff() < 0).all() and faded[..., -1].max() < 1e-4
    assert fade_out(sound, 0) is sound and fade_out(sound, 60).samples[0, 0, 5000] == pytest.approx(0.5, abs=0.01)
    with pytest.raises(InputError, match="'fade_out_s' must be from 0"):
        fade_out(sound, -1)
