"""general-mini, the model that comes first: small, quick to reach, audible; `evaluate` measures whether it obeys."""

import json
import re
from functools import partial

import pytest
import torch
from comfyui_musicgen import NODE_CLASS_MAPPINGS as NODES
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.musicgen.card import read_card, vocabulary_of
from comfyui_musicgen.musicgen.config import GenerationParams
from comfyui_musicgen.musicgen.faults import Asked
from comfyui_musicgen.musicgen.store.published import DEFAULT, SHIPPED
from comfyui_musicgen.musicgen.tempo import pulse_of
from comfyui_musicgen.templates.notes import MODELS
from comfyui_musicgen.training import general_card
from comfyui_musicgen.training.data import songwords
from comfyui_musicgen.training.data.instruments import INSTRUMENTS
from comfyui_musicgen.training.evaluate.general.report import figures_of

MODEL = SHIPPED["general-mini"]
PAGE = MODEL.with_suffix(".md")


@pytest.fixture(scope="module")
def mini():
    return loading.load(MODEL, name="general-mini")


def rms(samples):
    return float(samples.pow(2).mean().sqrt())


def test_it_is_the_first_and_says_what_it_is():
    assert DEFAULT == "general-mini" == next(iter(SHIPPED))
    page = PAGE.read_text(encoding="utf-8")
    for part in (
        "license: mit",
        "## Data",
        "## Training",
        "## Measured",
        "## Limits",
        f"{len(INSTRUMENTS)} instruments",
    ):
        assert part in page
    assert f"{len(songwords.GENRE_WORDS)} genres" in page
    low, high = general_card.TEMPO_BPM
    for told in (page, MODELS["general-mini"]):
        assert f"{len(INSTRUMENTS)} " in told and f"{len(songwords.GENRE_WORDS)} genres" in told
        assert f"{low} to {high} bpm" in told


def test_its_sizes_are_those_of_its_page(mini):
    page, config = PAGE.read_text(encoding="utf-8"), mini.model.config
    size = MODEL.stat().st_size
    assert size <= 40_000_000 and f"{size / 1e6:.1f} MB" in page
    assert f"{config.lm.n_layers} layers, {config.lm.dim} wide, {config.lm.n_heads} heads" in page
    assert f"{config.codec.n_filters} filters" in page
    assert config.melody is not None and not config.melody.chords, "templates give it melodies"
    assert (config.segment_s, config.extend_stride_s) == (10.0, 6.0)


def test_its_card_is_that_of_the_words_it_was_taught():
    table = json.loads(MODEL.with_suffix(".card.json").read_text(encoding="utf-8"))
    assert table["kind"] == "general" and table["words"] == sorted(general_card.vocabulary())
    assert table["default_text"] == general_card.DEFAULT_TEXT and table["plays"] == general_card.plays()
    vocabulary = vocabulary_of(read_card(MODEL))
    assert vocabulary.warning(vocabulary.translate(general_card.DEFAULT_TEXT), "general-mini") is None
    assert vocabulary.begins_anew and list(vocabulary.paces) == general_card.paces()


def test_the_figures_of_its_card_are_on_its_page():
    figures, page = figures_of(MODEL), PAGE.read_text(encoding="utf-8")
    assert figures, (
        "python -m training card pretrained/general-mini.safetensors --evaluation EVALUATION/evaluation.json"
    )
    rows = {name: rf"^\| {re.escape(name)} \| (\*\*)?{value:.3g}(\*\*)? \|" for name, value in figures.items()}
    absent = [name for name, row in rows.items() if not re.search(row, page, re.MULTILINE)]
    assert not absent, "the table of EVALUATION/evaluation.md goes below 'Measured'"


@pytest.mark.slow
def test_its_card_tells_what_its_codec_makes_of_silence(mini):
    stored = json.loads(MODEL.with_suffix(".card.json").read_text(encoding="utf-8"))
    written = json.loads(general_card.card(mini.codec))
    assert {**written, "figures": stored["figures"]} == stored


def test_it_brings_a_beat_tracker_and_its_card_asks_for_the_tempo(mini):
    tempo = mini.model.faults.checks[1]
    assert (tempo.off, tempo.tries) == (general_card.TEMPO_OFF, general_card.TEMPO_TRIES)
    text = mini.conditioner.encode_text(["rock with drums, 120 bpm"])
    codes = mini.model.generate(text, GenerationParams(duration_s=8.0, seed=0, batch_size=4))
    for row, clip in enumerate(codes.codes):
        heard = pulse_of(tempo.tracker.activation(clip), 1 / codes.frame_rate_hz)
        assert heard and any(abs(heard[0] / bpm - 1) < 0.03 for bpm in (60, 120, 240)), f"row {row}: {heard}"


def test_it_is_one_press_in_the_nodes():
    loader = NODES["MusicGenLoader"]
    assert loader.VALIDATE_INPUTS(model="general-mini") is True
    model, conditioner, codec = loader().load("general-mini", "auto")
    conditioning = NODES["MusicGenText"]().encode(conditioner, "happy pop song, piano with drums, 110 bpm")[0]
    codes = model.module.generate(conditioning, GenerationParams(duration_s=1.0))
    samples = codec.module.decode(codes).samples
    assert samples.shape == (1, 1, 32000) and rms(samples) > 0.01


def test_the_text_decides_what_is_written(mini):
    codes = partial(mini.model.generate, params=GenerationParams(duration_s=2.0))
    piano, drums, again = (
        codes(mini.conditioner.encode_text([text])).codes for text in ("solo piano, slow", "drum beat, 140 bpm", "solo piano, slow")
    )  # fmt: skip
    assert torch.equal(piano, again)
    assert (piano == drums).float().mean() < 0.2


def test_a_piece_of_several_windows_sounds_until_its_last_one_and_ends_in_it(mini):
    """It ended in each window: 7 s of music, then silence for as long as it was meant to be."""
    texts = ["pop song, piano with drums, 110 bpm, with an ending", "rock, with an ending", "rock with drums, 130 bpm"]
    codes = mini.model.generate(mini.conditioner.encode_text(texts), GenerationParams(duration_s=16.0, seed=3))
    silence, n_last = mini.model.faults.checks[0], round(6 * codes.frame_rate_hz)
    for row, ends in enumerate((True, True, False)):
        one = codes.codes[row : row + 1]
        assert silence.fault(one, codes.frame_rate_hz, Asked(ends)) is None
        assert silence.fault(one[..., :-n_last], codes.frame_rate_hz, Asked()) is None, "music until the last window"
    assert mini.config.anchor_s == general_card.ANCHOR_S, "what keeps it together"


@pytest.mark.slow
def test_longer_pieces_take_windows_of_its_own_length(mini):
    conditioning = mini.conditioner.encode_text(["happy pop song, piano with drums, 110 bpm"])
    codes = mini.model.generate(conditioning, GenerationParams(duration_s=12.0, seed=1))
    assert codes.n_frames == 600
    levels = mini.codec.decode(codes).samples[0, 0].unfold(0, 16000, 16000).pow(2).mean(1).sqrt()
    assert torch.isfinite(levels).all() and bool((levels > 0.005).all()), "it goes on in the second window"
