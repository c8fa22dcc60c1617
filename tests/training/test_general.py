"""Judging a model of general music: the texts ask for what the pieces are, the measures tell what they should, the card knows its words."""

import argparse
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.musicgen.card import faults_of, vocabulary_of
from comfyui_musicgen.musicgen.checkpoints.settings import Settings
from comfyui_musicgen.musicgen.codec import Codec
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.musicgen.silence import Silence
from comfyui_musicgen.training import card as cards
from comfyui_musicgen.training import general_card
from comfyui_musicgen.training.data import words
from comfyui_musicgen.training.data.pieces import draw_label
from comfyui_musicgen.training.data.render import Synthesizer
from comfyui_musicgen.training.data.songs import song
from comfyui_musicgen.training.data.songwords import describe
from comfyui_musicgen.training.evaluate.general import asked, cli, findings, heard, judge, report
from comfyui_musicgen.training.evaluate.general.features import equalised, timbres, whole
from comfyui_musicgen.training.evaluate.listening import UNKNOWN, Critic, Voters
from comfyui_musicgen.training.evaluate.measure import Finding
from comfyui_musicgen.training.onegpu.recipe import REHEARSAL

RATE_HZ = 32_000
SOUNDFONTS = [Path("/usr/share/sounds/sf2") / name for name in ("FluidR3_GM.sf2", "TimGM6mb.sf2")]


def tone(hz, seconds, level=0.3):
    return level * torch.sin(2 * math.pi * hz * torch.arange(round(seconds * RATE_HZ)) / RATE_HZ)


@pytest.fixture(scope="module")
def synthesizer():
    soundfont = next(filter(Path.exists, SOUNDFONTS), None)
    if soundfont is None:
        pytest.skip("no General MIDI soundfont is installed (fluid-soundfont-gm)")
    try:
        return Synthesizer(soundfont, RATE_HZ)
    except OSError as error:
        pytest.skip(f"FluidSynth is not installed ({error})")


# --- what is asked for


def test_pieces_are_what_their_texts_ask_for():
    groups = [asked.instruments(2), asked.genres(2), asked.tempos(16), asked.without_drums(12), asked.with_drums(12)]
    groups += [asked.endings(12), asked.long_pieces(4)]
    for number, one in enumerate(one for group in groups for one in group):
        facts = asked.piece(one, number, 8.0).facts
        assert one.lead in (None, facts.lead), one
        assert one.genre in (None, facts.genre), one
        assert one.bpm in (None, facts.bpm), one
        assert one.drums in (None, facts.drums), one
        assert facts.alone or not one.alone, one
        assert facts.ends or not one.ends, one
        assert one.bpm is None or f"{one.bpm} bpm" in one.text


def test_words_kept_from_training_are_in_no_description_of_training():
    kept = {one.text for one in asked.instruments(4) if one.kept}
    assert "solo heavy guitar" in kept and any("jazz guitar" in text for text in kept)
    rng = np.random.default_rng(0)
    texts = " | ".join(describe(song("train", number, 10.0).facts, rng) for number in range(300)).lower()
    assert "jazz guitar" not in texts and "heavy guitar" not in texts


def test_chance_is_measured_against_something_else():
    for field, group in (("lead", asked.instruments(2)), ("genre", asked.genres(1)), ("bpm", asked.tempos(8))):
        others = asked.others(group, field)
        assert all(getattr(a, field) != getattr(b, field) for a, b in zip(group, others, strict=True))


def test_tempos_go_from_slow_to_fast_and_a_third_of_the_meaningless_texts_is_empty():
    tempos = [one.bpm for one in asked.tempos(32)]
    assert min(tempos) < 62 and max(tempos) > 165 and tempos != sorted(tempos)
    texts = asked.meaningless(30)
    assert texts.count("") == 10 and len(set(texts)) > 10


# --- what is heard without a judge


def test_octaves_are_taken_out_of_tempos_and_counted():
    assert heard.tempo_off(120.0, 120.0) == heard.Tempo(0.0, False)
    assert heard.tempo_off(60.6, 120.0) == heard.Tempo(pytest.approx(1.0), True)
    assert heard.tempo_off(160.0, 120.0).percent == pytest.approx(100 / 3)
    assert heard.tempo_off(None, 120.0).percent == float("inf")


@pytest.mark.parametrize("bpm", [97.0, 143.0])
def test_the_tempo_of_clicks_is_found_to_half_a_percent(bpm):
    clicks = torch.zeros(8 * RATE_HZ)
    for beat in range(int(8 * bpm / 60)):
        at = round(beat * 60 / bpm * RATE_HZ)
        clicks[at : at + 400] += (
            0.5 * torch.randn(400, generator=torch.Generator().manual_seed(beat))[: len(clicks) - at]
        )
    assert heard.tempo_off(heard.tempo_bpm(clicks, RATE_HZ), bpm).percent < 0.5
    assert heard.tempo_bpm(torch.zeros(2 * RATE_HZ), RATE_HZ) is None


def test_parts_of_a_piece_are_held_against_its_first():
    c, g, f_sharp = (np.roll([5.0, 0, 2, 0, 3, 1, 0, 4, 0, 1, 0, 1], by) for by in (0, 7, 6))
    piece = [(120.0, c), (119.0, c), (60.0, g), (133.0, c), (None, c)]
    assert findings.kept([piece], [piece]) == (0.5, 0.75, 0.25)
    assert findings.kept([[(97.0, f_sharp)]], [piece]) == (0.0, 0.0, 0.0)


def test_what_ends_while_it_sounds_is_cut():
    steady = tone(330, 3.0)
    decaying = steady * torch.linspace(0, 1, len(steady)).mul(-7).exp()
    assert heard.is_cut(steady, RATE_HZ) and not heard.is_cut(decaying, RATE_HZ)
    stopped = steady.clone()
    stopped[2 * RATE_HZ :] = 0
    assert heard.is_cut(stopped, RATE_HZ), "silent from one moment to the next"
    faded = stopped.clone()
    faded[: 2 * RATE_HZ] *= torch.linspace(0, 1, 2 * RATE_HZ).mul(-7).exp()
    assert not heard.is_cut(faded, RATE_HZ)


def test_a_jump_at_an_edge_is_a_click():
    quiet = tone(330, 1.0) * torch.hann_window(RATE_HZ)
    assert not heard.clicks_at_its_edges(quiet, RATE_HZ)
    for edge in (slice(0, 32), slice(-32, None)):
        jump = quiet.clone()
        jump[edge] = 0.2
        assert heard.clicks_at_its_edges(jump, RATE_HZ)


def test_silence_is_told_from_soft_music():
    assert heard.is_silent(torch.zeros(1000)) and heard.is_silent(tone(440, 1.0, 0.003))
    assert not heard.is_silent(tone(440, 1.0, 0.02))


def test_hums_and_whistles_have_the_pitches_of_their_line():
    line = [(0.0, 0.9, 67), (1.0, 1.9, 72), (2.0, 2.9, 64)]
    for sing, octaves in ((heard.hummed, -1), (heard.whistled, 1)):
        wave = sing(line, 3.0, RATE_HZ, np.random.default_rng(0))
        assert len(wave) == 3 * RATE_HZ and torch.isfinite(wave).all()
        for start, _, pitch in line:
            part = wave[round((start + 0.2) * RATE_HZ) :][: RATE_HZ // 2]
            peak = torch.fft.rfft(part * torch.hann_window(len(part))).abs().argmax() * 2.0
            assert float(peak) == pytest.approx(440 * 2 ** ((pitch - 69) / 12 + octaves), rel=0.02)


# --- the judge


def test_voters_learn_what_has_an_answer_and_leave_out_what_has_none():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(240, 6, generator=generator)
    first, second = (inputs[:, 0] > 0).long(), (inputs[:, 1] > 0).long()
    second[: len(second) // 2] = UNKNOWN
    torch.manual_seed(0)
    voters = Voters(6, (2, 2, 3), 2, 16)
    voters.teach(inputs, torch.stack([first, second, torch.full_like(first, UNKNOWN)], dim=1), 25)
    tried = torch.randn(200, 6, generator=generator)
    scores = voters(tried)
    for i in range(2):
        assert (scores[i].argmax(1) == (tried[:, i] > 0).long()).float().mean() > 0.85
    assert torch.isfinite(scores[2]).all()


def test_features_are_of_the_sound_and_not_of_its_level(synthesizer):
    samples = torch.from_numpy(next(iter(judge.rendered(synthesizer, [judge.lesson(0, judge.Lessons())], 3.0, 1))))
    rows = timbres(samples, RATE_HZ)
    assert torch.isfinite(rows).all() and rows.shape[0] >= 1
    assert torch.allclose(rows, timbres(0.25 * samples, RATE_HZ), atol=0.05)
    other = timbres(equalised(samples, torch.Generator().manual_seed(1), 12.0), RATE_HZ)
    assert (other - rows).abs().mean() > 0.05
    assert torch.isfinite(whole(samples, RATE_HZ, rows)).all()


def test_processes_render_what_one_does(synthesizer):
    songs = [judge.lesson(number, judge.Lessons()) for number in (0, 40, 80)]
    one, two = (list(judge.rendered(synthesizer, songs, 1.0, n)) for n in (1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True)) and np.abs(one[0]).max() > 0.01


def test_lessons_have_an_answer_to_every_question_and_none_is_of_the_training_split():
    lessons = judge.Lessons(2, 3)
    songs = [judge.lesson(number, lessons) for number in range(lessons.n)]
    n_solos = 2 * len(judge.NAMES)
    rows = np.array([judge.answers(one, number >= n_solos) for number, one in enumerate(songs)])
    assert set(rows[:n_solos, 0]) == set(range(len(judge.NAMES))) and set(rows[:n_solos, 1]) == {UNKNOWN}
    assert set(rows[n_solos:, 1]) == set(range(len(asked.STYLES))) and set(rows[:, 2]) == {0, 1}
    assert rows[:n_solos, 3].all() and not rows[n_solos:, 3].any()
    assert songs[0] == judge.lesson(0, lessons) != song("train", 0, 6.0)


def test_a_judge_and_a_critic_are_kept_with_how_they_were_taught(tmp_path, synthesizer):
    samples = torch.from_numpy(synthesizer.play(song("held-out", 0, 6.0).parts, 0.0, 6.0))
    crops = timbres(samples, RATE_HZ)
    taught = judge.untaught(crops.shape[1], len(whole(samples, RATE_HZ, crops)))
    path, notes = tmp_path / "judge.safetensors", {"codec": "a"}
    taught.save(path, notes)
    opened = judge.Judge.opened(path, notes)
    assert opened and opened.hear(samples, RATE_HZ) == taught.hear(samples, RATE_HZ)
    assert judge.Judge.opened(path, {"codec": "b"}) is None and judge.Judge.opened(tmp_path / "none", notes) is None
    critic = Critic(8)
    critic.save(path, notes)
    assert Critic.opened(path, notes) and Critic.opened(path, {}) is None


@pytest.mark.slow
def test_a_little_teaching_tells_players_drums_and_soloists(synthesizer):
    lessons = judge.Lessons(8, 12)
    taught = judge.taught([synthesizer], lessons, lambda clips: [0.5 * clip for clip in clips])
    later = judge.Lessons(2, 2, seed=1)
    songs = [judge.lesson(number, later) for number in range(later.n)]
    right = []
    for number, samples in enumerate(judge.rendered(synthesizer, songs, 6.0, 1)):
        ear = taught.hear(torch.from_numpy(samples), RATE_HZ)
        wanted = judge.answers(songs[number], number >= 2 * len(judge.NAMES))
        answers = (judge.NAMES.index(ear.instrument), asked.STYLES.index(ear.style), int(ear.drums), int(ear.alone))
        right.append(
            [answer == want if want != UNKNOWN else np.nan for answer, want in zip(answers, wanted, strict=True)]
        )
    instrument, style, drums, alone = np.nanmean(np.array(right, float), axis=0)
    assert instrument > 0.6 and style > 0.5 and drums > 0.85 and alone > 0.85


# --- findings and reports


def test_goals_may_be_bounds_from_above():
    assert Finding("x", 2.9, at_most=3.0).good and not Finding("x", 3.1, at_most=3.0).good
    assert Finding("x", 2.9).good is None and Finding("x", 0.9, 0.8).good
    assert "goal at most 3: missed" in str(Finding("x", 4.0, at_most=3.0))


def test_figures_of_another_model_become_goals():
    found = [Finding("a", 0.7, 0.9), Finding("b", 0.1, 0.2)]
    a, b = report.against(found, {"a": 0.8}, 0.5)
    assert a.at_least == 0.4 and a.good and b.good is None


def test_the_figures_of_pansori_mini_are_on_its_card():
    figures = report.figures_of(report.SHIPPED["pansori-mini"])
    assert figures == {name: value for name, value, *_ in cards.FIGURES}
    page = report.SHIPPED["pansori-mini"].with_name("README.md").read_text("utf-8")
    assert all(f"{value:.2f}" in page for value in figures.values())


def test_a_model_of_general_music_is_known_by_its_name_its_card_or_the_flag(tmp_path):
    for name, asked_for, expected in (("general-mini", False, True), ("mine", False, False), ("mine", True, True)):
        assert cli.is_general(tmp_path / f"{name}.safetensors", asked_for) == expected
    (tmp_path / "mine.card.json").write_text(json.dumps({"kind": "general"}), "utf-8")
    assert cli.is_general(tmp_path / "mine.safetensors", False)
    (tmp_path / "mine.card.json").write_text("[", "utf-8")
    with pytest.raises(InputError, match="python -m training card"):
        cli.is_general(tmp_path / "mine.safetensors", False)


def test_requests_that_make_no_sense_are_refused(tmp_path):
    with pytest.raises(InputError, match="--n must be at least 1, got 0"):
        report.Request(tmp_path, tmp_path, 0)
    with pytest.raises(InputError, match="singing is none of speed"):
        report.Request(tmp_path, tmp_path, parts=("singing",))


def test_the_options_say_how_the_evaluation_is_chosen():
    parser = argparse.ArgumentParser()
    cli.add(parser)
    text = " ".join(parser.format_help().split())
    assert "its name begins with 'general', or its card says so" in text
    assert tuple(parser.parse_args([]).parts.split(",")) == cli.PARTS


@pytest.mark.slow
def test_a_report_of_every_part_of_general_music_is_written(toys, tmp_path, synthesizer, monkeypatch, capsys):
    for name, seconds in (
        ("DURATION_S", 1.0),
        ("TEMPO_S", 1.0),
        ("SILENCE_S", 0.3),
        ("MELODY_S", 1.0),
        ("LONG_S", 20.0),
    ):
        monkeypatch.setattr(findings, name, seconds)
    soundfont = next(filter(Path.exists, SOUNDFONTS))
    parts = [part for part in cli.PARTS if part != "pansori"]
    request = report.Request(
        toys(segment_s=1.0, melody=True), tmp_path, 1, parts=parts, soundfont=soundfont, held_out_soundfonts=(soundfont,),
        n_processes=1, lessons=judge.Lessons(1, 1),
    )  # fmt: skip
    found = report.report(request)
    table = json.loads((tmp_path / "evaluation.json").read_text("utf-8"))
    assert [row["name"] for row in table["findings"]] == [one.name for one in found]
    assert set(table["tables"]["instrument"]) == set(asked.NAMES) and set(table["tables"]["genre"]) == set(asked.STYLES)
    page = (tmp_path / "evaluation.md").read_text("utf-8")
    assert "| instrument named is heard |" in page and "| music box |" in page
    assert judge.Judge.opened(tmp_path / "judge.safetensors", {}) is None
    told = capsys.readouterr().out
    assert "teaching the judge" in told and "has no card" in told
    report.report(report.Request(**{**vars(request), "parts": ("speed",)}))
    assert "teaching the judge" not in capsys.readouterr().out, "it is taught once"


def test_a_codec_gives_clips_back_in_their_order(toys):
    model = loading.load(toys(segment_s=1.0), "float32")
    clips = [tone(hz, 0.5) for hz in (200, 300, 400)]
    coded = findings.through_codec(model)
    together, alone = coded(clips), [coded([clip])[0] for clip in clips]
    assert len(together) == 3 and all(torch.allclose(a, b, atol=1e-4) for a, b in zip(together, alone, strict=True))


# --- the card


@pytest.fixture(scope="module")
def codec():
    codec = Codec(REHEARSAL.codec).eval()
    generator = torch.Generator().manual_seed(0)
    for tensor in codec.state_dict().values():
        tensor.normal_(0, 0.1, generator=generator)
    return codec


@pytest.fixture(scope="module")
def card(codec):
    return json.loads(general_card.card(codec))


@pytest.fixture(scope="module")
def vocabulary(card):
    return vocabulary_of(Settings(card, "card"))


def test_all_that_the_model_was_taught_is_known_and_stays_as_it_is(vocabulary):
    rng = np.random.default_rng(1)
    pieces = [song("train", number, 10.0).facts for number in range(400)]
    kept = [describe(facts, rng, held_out=True) for facts in pieces[:200]]
    kept += [one.text for one in [*asked.instruments(4), *asked.genres(4), *asked.tempos(16), *asked.endings(8)]]
    translated = [vocabulary.translate(text) for text in kept]
    assert [text for text in translated if vocabulary.unknown(text)] == [] and translated != kept
    texts = [describe(facts, rng, held_out=False) for facts in pieces[200:]]
    texts += [words.describe(draw_label(rng), rng) for _ in range(100)]
    for text in texts:
        assert vocabulary.unknown(text) == [], text
        once = re.sub(r"\b(\w+)( \1\b)+", r"\1", text)  # "synth lead lead" says it once
        assert vocabulary.translate(text).split() == once.split(), text


def test_no_synonym_in_hangul_is_a_part_of_a_word_that_was_taught(vocabulary):
    hangul = [phrase for phrase in vocabulary.synonyms if "가" <= phrase[0] <= "힣"]
    assert len(hangul) >= 8
    assert [(phrase, word) for phrase in hangul for word in vocabulary.words if phrase in word] == []


def test_synonyms_and_what_comes_nearest_are_words_of_the_model(vocabulary):
    for words_ in (*vocabulary.synonyms.values(), *vocabulary.near.values()):
        assert vocabulary.unknown(words_) == [], words_
    assert not set(vocabulary.near) & vocabulary.words


def test_users_are_told_what_is_unknown_what_comes_nearest_and_what_it_plays(vocabulary):
    warning = vocabulary.warning("solo ukulele, trance", "general-mini")
    for part in ("not taught 'ukulele', 'trance'", "'acoustic guitar' for 'ukulele'", "'house' for 'trance'", "bossa nova", "50 to 190 bpm"):  # fmt: skip
        assert part in warning
    assert vocabulary.warning(vocabulary.translate("판소리, melancholy pianos"), "general-mini") is None
    assert vocabulary.unknown(vocabulary.default_text) == []


def test_the_card_lists_instruments_genres_and_moods_in_both_languages(card):
    assert card["instruments"]["violin"] == {"en": ["violin", "fiddle"], "ko": ["바이올린"]}
    assert (
        card["genres"]["jazz"]["ko"] == ["재즈", "스윙"]
        and "sad" in card["moods"]["en"]
        and "슬픈" in card["moods"]["ko"]
    )
    assert card["tempo_bpm"] == [50, 190] and card["kind"] == "general"


def test_a_codec_without_a_silent_code_has_a_card_that_the_engine_reads(codec, card, monkeypatch):
    assert faults_of(Settings(card, "card"), REHEARSAL.model.lm, None) is None and "silence" not in card
    monkeypatch.setattr(cards, "silent_codes", lambda codec: [3, 5])
    found = faults_of(Settings(json.loads(general_card.card(codec)), "card"), REHEARSAL.model.lm, None)
    assert found and found.checks == (Silence(frozenset({3, 5}), general_card.TRIES, general_card.GAP_S),)


def test_figures_come_from_an_evaluation(codec, tmp_path):
    path = tmp_path / "evaluation.json"
    row = {"name": "x", "value": 0.9, "goal": "0.85", "chance": 0.1, "ceiling": None, "good": True}
    path.write_text(json.dumps({"findings": [row]}), "utf-8")
    figures = json.loads(general_card.card(codec, path))["figures"]
    assert figures == [{"name": "x", "value": 0.9, "goal": "0.85", "chance": 0.1}]
    path.write_text("{}", "utf-8")
    with pytest.raises(InputError, match="is no evaluation"):
        general_card.card(codec, path)
