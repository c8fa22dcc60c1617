"""Keys in texts: how they are written, what a model whose card has `key_s` is told of them, and when."""

import json
from dataclasses import replace

import pytest
import torch
from comfyui_musicgen import NODE_CLASS_MAPPINGS as NODES
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.musicgen.analysis.likelihood import log_likelihood
from comfyui_musicgen.musicgen.card import vocabulary_of
from comfyui_musicgen.musicgen.checkpoints.settings import Settings
from comfyui_musicgen.musicgen.conditioning import Progression, encode_chords, encode_timeline, told_lines
from comfyui_musicgen.musicgen.conditioning.key import _KOREAN, TONES, named, respelled
from comfyui_musicgen.musicgen.conditioning.timeline import tempo_remarks
from comfyui_musicgen.musicgen.config import GenerationParams
from comfyui_musicgen.nodes import host
from comfyui_musicgen.tests.nodes.test_timeline_nodes import Standing
from comfyui_musicgen.training.data.harmony import KEY_NAMES
from comfyui_musicgen.training.data.songwords import _KOREAN_TONES

KEY_S = 0.5
TEXT = "piano in Bbm"


@pytest.mark.parametrize(
    ("text", "key", "told"),
    [
        ("piano in Bbm", "B flat minor", "piano in B flat minor"),
        ("jazz in F# minor, 120 bpm", "F sharp minor", "jazz in F sharp minor, 120 bpm"),
        ("waltz in D-flat major", "C sharp major", "waltz in C sharp major"),
        ("rock, G♯ min", "A flat minor", "rock, A flat minor"),
        ("E♭ Major ballad", "E flat major", "E flat major ballad"),
        ("funk in A# dorian", "B flat dorian", "funk in B flat dorian"),
        ("pop, key of Am", "A minor", "pop, key of A minor"),
        ("Em, guitar", "E minor", "E minor, guitar"),
        ("piano in a minor", "A minor", "piano in A minor"),
        ("key of D", "D major", "key of D major"),
        ("strings in E flat, slow", "E flat major", "strings in E flat major, slow"),
        ("C major to A minor", "C major", "C major to A minor"),
        ("피아노, 다 장조", "C major", "피아노, 다장조"),
        ("피아노, 내림 라 단조로", "C sharp minor", "피아노, 올림 다단조로"),
        ("rock in A minor", "A minor", "rock in A minor"),
    ],
)
def test_a_key_is_read_however_it_is_written(text, key, told):
    found = named(text)
    assert found is not None and found.name == key
    assert " ".join(respelled(text).replace(" 로", "로").split()) == told


@pytest.mark.parametrize(
    "text",
    ["i am happy", "Am I happy", "10 cm", "in a minor key", "a major hit", "a minor third", "major tom", "Common time", "-3 dB",
     "피아노가 단조", "vitamin C", "in Berlin", "Ab bossa", "guitar", ""],
)  # fmt: skip
def test_what_only_looks_like_a_key_is_none(text):
    assert named(text) is None and respelled(text) == text


def test_tones_are_those_of_the_descriptions_that_the_model_was_taught():
    assert TONES == KEY_NAMES and _KOREAN == _KOREAN_TONES
    for tonic, tone in enumerate(TONES):
        assert named(f"{tone} major").triad == (tonic, (tonic + 4) % 12, (tonic + 7) % 12)
        assert (
            named(f"{tone} minor").triad == named(f"{tone} dorian").triad == (tonic, (tonic + 3) % 12, (tonic + 7) % 12)
        )


# --- what a model is told


@pytest.fixture(scope="module")
def toy(toys):
    return loading.load(toys(melody=True, segment_s=4.0), device="cpu", precision="float32")


def with_card(toy, key_s=KEY_S, **options):
    card = {
        "words": ["piano"],
        "synonyms": [],
        "near": [],
        "default_text": "piano",
        "plays": "piano",
        "key_s": key_s,
        **options,
    }
    toy.conditioner.vocabulary = vocabulary_of(Settings(json.loads(json.dumps(card)), "card"))
    return toy


def rows(toy, notes):
    chroma = torch.zeros(12)
    chroma[list(notes)] = 1
    return torch.nn.functional.linear(
        chroma, toy.conditioner.melody_projection.weight, toy.conditioner.melody_projection.bias
    )


def codes(toy, conditioning, seed=1, **given):
    options = {name: given.pop(name) for name in ("duration_s", "cfg", "temperature") if name in given}
    params = GenerationParams(**{"duration_s": 1.0, "seed": seed, **options})
    return toy.model.generate(conditioning, params, **given).codes


@pytest.mark.parametrize("alone", [True, False], ids=["alone", "several"])
def test_windows_have_the_triad_and_nothing_by_turns_and_one_alone_its_tones_one_after_another(toy, alone):
    toy = with_card(toy)
    own = toy.conditioner.vocabulary
    toy.conditioner.vocabulary = replace(own, alone=("piano",) if alone else ("solo",))
    conditioning = toy.conditioner.encode_text(["piano", TEXT])
    null = conditioning.null_melody
    n, tones, step_s = len(null), [rows(toy, (tone,)) for tone in (10, 1, 5)], KEY_S / 3
    plain, keyed = (conditioning.prefix(row)[:n] for row in (0, 1))
    assert torch.equal(plain, null)
    times_s = (torch.arange(n) + 0.5) * toy.model.config.segment_s / n
    for row, time_s in zip(keyed, times_s.tolist(), strict=True):
        if min(time_s % step_s, step_s - time_s % step_s) > toy.model.config.segment_s / n:  # not at a change
            turn = int(time_s // step_s) % 6
            told = tones[turn % 3] if alone else rows(toy, (10, 1, 5))
            torch.testing.assert_close(row, told if turn < 3 else null[0])
    assert torch.equal(conditioning.null().prefix(1)[:n], null), "what guidance leads away from has no key"


def test_rows_of_a_batch_have_each_their_own_key(toy):
    toy = with_card(toy)
    both = codes(toy, toy.conditioner.encode_text(["piano in C major", "piano in F# major"]), duration_s=1.5)
    alone = codes(toy, toy.conditioner.encode_text(["piano in C major"]), duration_s=1.5)
    assert torch.equal(both[:1], alone)
    other = codes(toy, toy.conditioner.encode_text(["piano in F# major"]), duration_s=1.5)
    assert not torch.equal(other, alone)


def test_without_the_card_a_key_is_words_alone(toy):
    keyed = codes(with_card(toy), toy.conditioner.encode_text(["piano in A minor"]))
    words = codes(with_card(toy, 0.0), toy.conditioner.encode_text(["piano in A minor"]))
    toy.conditioner.vocabulary = None
    unread = toy.conditioner.encode_text(["piano in A minor"])
    assert torch.equal(codes(toy, unread), words) and not torch.equal(keyed, words)
    assert unread.keys == () == with_card(toy).conditioner.encode_text(["piano"]).keys


def test_told_chords_and_melodies_take_its_place(toy):
    toy = with_card(toy)
    chords = Progression.parse("F | G", 120.0)
    keyed, plain = (
        encode_chords(toy.conditioner, replace(toy.conditioner.encode_text(["piano in A minor"]), **change), chords)
        for change in ({}, {"keys": ()})
    )
    assert keyed.keys and torch.equal(keyed.prefix(0), plain.prefix(0))


def test_a_clip_that_is_continued_has_its_own_key(toy):
    toy = with_card(toy)
    keyed = toy.conditioner.encode_text(["piano in A minor"])
    plain = replace(keyed, keys=())
    clip = toy.model.generate(plain, GenerationParams(duration_s=0.5, seed=3))
    assert torch.equal(codes(toy, keyed, prompt=clip), codes(toy, plain, prompt=clip))
    assert not torch.equal(codes(toy, keyed), codes(toy, plain))


def test_every_window_of_a_long_piece_is_told(toy):
    toy = with_card(toy)
    keyed = toy.conditioner.encode_text(["piano in A minor"])
    asked = []
    prefix = type(keyed).prefix

    def watched(self, *arguments):
        asked.extend(self.keys)
        return prefix(self, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(keyed), "prefix", watched)
        codes(toy, keyed, duration_s=9.0, cfg=1.0)
    assert len(asked) > 2 and all(torch.equal(each, asked[0]) for each in asked)


def test_a_negative_text_leads_away_from_no_key(toy):
    toy = with_card(toy)
    positive, negative = (toy.conditioner.encode_text([text]) for text in ("piano", "piano in A minor"))
    assert torch.equal(
        codes(toy, positive, negative=negative), codes(toy, positive, negative=replace(negative, keys=()))
    )


def test_a_take_s_likelihood_is_that_with_the_key(toy):
    toy = with_card(toy)
    keyed = toy.conditioner.encode_text(["piano in A minor"])
    take = toy.model.generate(keyed, GenerationParams(duration_s=1.0, seed=3))
    assert not torch.equal(*(log_likelihood(toy.model, take, each) for each in (keyed, replace(keyed, keys=()))))


# --- texts that change


def told(lines, **options):
    from types import SimpleNamespace

    card = {
        "words": [],
        "synonyms": [],
        "near": [],
        "default_text": "p",
        "plays": "p",
        "key_s": KEY_S,
        "change_s": 0.0,
        **options,
    }
    conditioner = SimpleNamespace(vocabulary=vocabulary_of(Settings(card, "card")))
    lines = told_lines(conditioner, lines)
    return [line.text for line in lines], tempo_remarks(conditioner, lines)


def test_a_key_is_kept_until_another_is_named():
    texts, remarks = told("piano in Am, 100 bpm | 9: rock | 18: jazz in C | 27: waltz, 90 bpm")
    assert texts == [
        "piano in Am, 100 bpm",
        "rock, in A minor, 100 bpm",
        "jazz in C, 100 bpm",
        "waltz, 90 bpm, in C major",
    ]
    assert remarks == [
        "Kept from the text before: rock, in A minor, 100 bpm; jazz in C, 100 bpm; waltz, 90 bpm, in C major."
    ]
    assert told("piano in Am, 100 bpm | 9: rock", key_s=0.0)[0][1] == "rock, 100 bpm"
    assert told("piano | 9: rock in C, 100 bpm | 18: jazz")[0] == [
        "piano",
        "rock in C, 100 bpm",
        "jazz, in C major, 100 bpm",
    ]


def test_each_section_is_told_its_own_key(toy):
    toy = with_card(toy, change_s=0.0)
    toy.model.config = replace(toy.model.config, change_s=0.0)
    try:
        timeline = encode_timeline(toy.conditioner, "piano in C major | 1: piano in A minor")
        plain = timeline.mapped(lambda leaf: replace(leaf, keys=()))
        keyed, unkeyed = (codes(toy, each, duration_s=2.0) for each in (timeline, plain))
        second = replace(
            timeline,
            entries=(replace(timeline.entries[0], conditioning=plain.entries[0].conditioning), timeline.entries[1]),
        )
        mixed = codes(toy, second, duration_s=2.0)
    finally:
        toy.model.config = replace(toy.model.config, change_s=None)
    half = keyed.shape[-1] // 2
    assert torch.equal(mixed[..., :half], unkeyed[..., :half]) and not torch.equal(
        mixed[..., half:], unkeyed[..., half:]
    )


def test_the_node_says_which_key_it_tells(toy, monkeypatch):
    shown = []
    monkeypatch.setattr(host, "show_text", shown.append)
    node, conditioner = NODES["MusicGenText"](), Standing(with_card(toy).conditioner)
    node.encode(conditioner, "piano")
    (conditioning,) = node.encode(conditioner, "piano, Bbm")
    assert conditioning.keys and shown == [
        "melody=True-segment_s=4.0 was not taught 'b', 'flat', 'minor': expect something else. It plays piano.\nKey: B flat minor."
    ]
