"""Sections: what a window sees of the music before its text, for models whose card says so."""

from dataclasses import replace

import torch
from comfyui_musicgen.musicgen.conditioning import Timeline, blend, encode_timeline
from comfyui_musicgen.musicgen.conditioning.timeline import Entry
from comfyui_musicgen.musicgen.config import GenerationParams
from comfyui_musicgen.musicgen.guidance import other_texts, sectioned
from comfyui_musicgen.musicgen.windows import Window, plan_windows
from comfyui_musicgen.tests import test_timeline
from comfyui_musicgen.tests.test_timeline import ONE, OTHER, codes, text
from comfyui_musicgen.tests.test_windows import config

load, runs = test_timeline.load, test_timeline.runs  # fixtures


def test_a_section_sees_little_of_what_was_before_it():
    shorter = replace(config(), change_s=1.0)
    params = GenerationParams(duration_s=60)
    assert sectioned(shorter, params, 0, []) == plan_windows(shorter, params, 0), "no text changes"
    assert sectioned(shorter, params, 0, [1000, 2100]) == [
        Window(0, 0, 1000), Window(950, 50, 1150), Window(2050, 50, 950),
    ]  # fmt: skip
    assert sectioned(shorter, params, 0, [20]) == [
        Window(0, 0, 20), Window(0, 20, 1500), Window(900, 600, 1500), Window(1800, 600, 1200),
    ]  # fmt: skip
    assert sectioned(shorter, params, 400, [300, 1000]) == [
        Window(250, 150, 750), Window(950, 50, 1500), Window(1850, 600, 1150),
    ], "a change within the prompt, too"  # fmt: skip
    last = sectioned(shorter, params, 0, [1000], ends=True)[-1]
    assert (last.start + last.n_frames, last.n_frames) == (3000, 1500), "a whole window for the end"


def test_a_model_s_own_section_is_taken_where_a_text_changes(load, runs, monkeypatch):
    loaded = load()
    monkeypatch.setattr(loaded.model, "config", replace(loaded.model.config, change_s=0.1))
    result = codes(loaded, f"{ONE} | 0.62: {OTHER}")
    assert result.shape[-1] == 60
    second = text(loaded, OTHER).text[0]
    changed = next(i for i, (texts, *_) in enumerate(runs) if torch.equal(texts[0].cross, second))
    assert [known.shape[-1] for _, _, known, _ in runs[changed:]] == [5, 10]
    assert torch.equal(runs[changed][2], result[..., 26:31])
    runs.clear()
    codes(loaded, ONE)
    assert [known is None or known.shape[-1] for _, _, known, _ in runs] == [True, 10, 10, 10], "no text changes"


def test_a_section_that_sees_nothing_begins_as_a_piece_does(load, runs, monkeypatch):
    loaded = load()
    monkeypatch.setattr(loaded.model, "config", replace(loaded.model.config, change_s=0.0))
    heard = []
    result = codes(
        loaded, f"{ONE} | 0.62: {OTHER}", on_frames=lambda n, read: heard.append((n, read(max(0, n - 20), n)))
    )
    assert result.shape[-1] == 60 and [known is None for _, _, known, _ in runs] == [True, False, True, False]
    assert [n_frames for *_, n_frames in runs][2:] == [25, 14]
    first = text(loaded, ONE).text[0]
    assert [torch.equal(texts[0].cross, first) for texts, *_ in runs] == [True, True, False, False]
    assert heard[-1][0] == 60
    for n, frames in heard:
        assert torch.equal(frames, result[..., max(0, n - 20) : n]), "across the join, too"


def test_a_section_s_own_anchor_is_its_beginning(load, runs, monkeypatch):
    shorter = replace(config(), change_s=1.0, anchor_s=6.0)
    params = GenerationParams(duration_s=80)
    windows = sectioned(shorter, params, 0, [1500])
    assert [(w.start, w.n_known, w.n_anchor, w.anchor) for w in windows] == [
        (0, 0, 0, 0), (1450, 50, 0, 0), (2050, 900, 300, 1500), (2650, 900, 300, 1500),
    ]  # fmt: skip
    asked = sectioned(shorter, replace(params, anchor_s=3.0), 0, [1500])
    assert [(w.n_anchor, w.anchor) for w in asked][2:] == [(150, 0), (150, 0)], "the piece's beginning, as asked for"
    loaded = load(melody=True)
    own = replace(loaded.model.config, change_s=0.1, anchor_s=0.1)
    monkeypatch.setattr(loaded.model, "config", own)
    result = codes(loaded, f"{ONE} | 0.42: {OTHER}")
    assert result.shape[-1] == 60
    windows = [(0, 0, 0), (16, 0, 0), (26, 5, 21), (36, 5, 21)]  # start, anchor's frames, where they begin
    assert len(runs) == len(windows)
    for (start, n, first), (_, _, known, _) in list(zip(windows, runs, strict=True))[1:]:
        assert torch.equal(known[..., :n], result[..., first : first + n]), start
        assert torch.equal(known[..., n:], result[..., start + n :][..., : known.shape[-1] - n]), start


def test_a_weight_or_an_ending_begins_no_section(load, runs, monkeypatch):
    loaded = load()
    line = f"{ONE} | 0.3: {ONE} @ 0.5 | 0.7: {OTHER}"
    assert other_texts(encode_timeline(loaded.conditioner, line), [15, 35], 1.2, 50.0) == [35]
    plain = text(loaded, ONE)
    ending = replace(text(loaded, OTHER), goes_on=(plain.text[0],))
    two = Timeline((Entry(plain, 0.0), Entry(ending, 0.7)))
    assert other_texts(two, [35], 1.2, 50.0) == []
    before = codes(loaded, two)
    monkeypatch.setattr(loaded.model, "config", replace(loaded.model.config, change_s=0.1))
    assert torch.equal(codes(loaded, two), before)
    blended = blend(two, text(loaded, OTHER), 0.5)
    assert other_texts(blended, [35], 1.2, 50.0) == []
