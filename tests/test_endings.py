"""A text that asks for an end has it at the end of the piece: not in every window, and not in none."""

from dataclasses import replace

import pytest
import torch
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.musicgen.codes import Codes
from comfyui_musicgen.musicgen.conditioning import blend, encode_timeline
from comfyui_musicgen.musicgen.conditioning.vocabulary import Vocabulary
from comfyui_musicgen.musicgen.config import GenerationParams
from comfyui_musicgen.musicgen.faults import Asked, Faults, next_seed
from comfyui_musicgen.musicgen.guidance import asks_for_an_end
from comfyui_musicgen.musicgen.silence import Silence

SMALL = {"dim": 32, "n_heads": 2, "n_layers": 2, "cardinality": 64, "n_filters": 2, "latent_dim": 16, "segment_s": 1.0}
STRIDE_S, LONG = 0.2, GenerationParams(duration_s=2.5, seed=7)
ENDS, GOES_ON = "a drum, with an ending", "a drum"


@pytest.fixture
def loaded(toys):
    loaded = loading.load(toys(**SMALL), "float32")
    loaded.conditioner.vocabulary = Vocabulary(
        frozenset(), {}, {}, "a drum", "drums", endings=("with an ending", "outro")
    )
    return loaded


def codes(loaded, conditioning, params=LONG, **given):
    return loaded.model.generate(conditioning, params, **given).codes


def test_music_goes_on_until_the_last_window_and_ends_in_it(loaded):
    ends, goes_on = (loaded.conditioner.encode_text([text]) for text in (ENDS, GOES_ON))
    made = codes(loaded, ends)
    before = codes(loaded, goes_on, replace(LONG, duration_s=LONG.duration_s - STRIDE_S))
    n = before.shape[-1]
    assert made.shape[-1] == 125 and torch.equal(made[..., :n], before)
    loaded.conditioner.vocabulary = None
    told = codes(loaded, loaded.conditioner.encode_text([ENDS]))
    assert not torch.equal(told[..., :n], before), "the words count, where no card says what they are"


def test_a_piece_of_one_window_follows_the_text_as_it_is(loaded):
    short = replace(LONG, duration_s=1.0)
    made = codes(loaded, loaded.conditioner.encode_text([ENDS]), short)
    loaded.conditioner.vocabulary = None
    assert torch.equal(made, codes(loaded, loaded.conditioner.encode_text([ENDS]), short))


def test_each_row_of_a_batch_asks_for_itself(loaded):
    both = loaded.conditioner.encode_text([GOES_ON, ENDS])
    assert both.goes_on[0] is None and torch.equal(both.goes_on[1], both.text[0])
    assert asks_for_an_end(both, 2.5, 2) == [False, True]
    assert asks_for_an_end(loaded.conditioner.encode_text([ENDS]), 2.5, 3) == [True] * 3
    assert loaded.conditioner.encode_text([GOES_ON, GOES_ON]).goes_on == ()
    assert (
        torch.equal(codes(loaded, both)[1], codes(loaded, both.going_on(), replace(LONG, duration_s=2.5))[1]) is False
    )


def test_a_clip_that_is_continued_ends_too(loaded):
    ends = loaded.conditioner.encode_text([ENDS])
    clip = loaded.model.generate(ends, replace(LONG, duration_s=2.2))  # into the last window
    made = codes(loaded, ends, prompt=clip)
    assert made.shape[-1] == 125 and torch.equal(made[..., : clip.n_frames], clip.codes)


def test_of_a_timeline_what_is_asked_at_the_end_counts(loaded):
    last, first = (
        encode_timeline(loaded.conditioner, lines) for lines in (f"a flute | 1.0: {ENDS}", f"{ENDS} | 1.0: a flute")
    )
    assert (asks_for_an_end(last, 2.5, 1), asks_for_an_end(first, 2.5, 1)) == ([True], [False])
    assert asks_for_an_end(blend(loaded.conditioner.encode_text(["a flute"]), last, 0.5), 2.5, 1) == [True]
    plain = encode_timeline(loaded.conditioner, f"{GOES_ON} | 1.0: a flute")
    assert torch.equal(codes(loaded, first), codes(loaded, plain)), "elsewhere it is no end"


def test_a_cadence_is_asked_for_in_the_words_that_the_model_was_taught(loaded):
    timeline = encode_timeline(loaded.conditioner, "a flute", "cadence")
    (share,) = timeline.at(20.0, 20.0)
    wanted = loaded.conditioner.encode_text(["a flute, with an ending"])
    assert torch.equal(share.conditioning.text[0], wanted.text[0]) and asks_for_an_end(timeline, 20.0, 1) == [True]


RATE_HZ = 50.0


def piece(*parts: tuple[int, float]) -> Codes:
    """One row of (code, seconds)."""
    row = torch.cat([torch.full((4, round(RATE_HZ * seconds)), code) for code, seconds in parts], dim=-1)
    return Codes(row[None], RATE_HZ, "codec")


SOUND, QUIET = 9, 5
SILENCE = Silence(frozenset({QUIET}), 2, gap_s=2.5)
FAULTS = Faults((SILENCE,))
FURTHER = [next_seed(3), next_seed(next_seed(3)), next_seed(next_seed(next_seed(3)))]  # after seed 3


@pytest.mark.parametrize(
    ("parts", "ends", "expected"),
    [
        ([(SOUND, 8)], False, None),
        ([(SOUND, 8)], True, ("does not come to its end", 0)),
        ([(SOUND, 30)], True, ("does not come to its end", 24)),
        ([(SOUND, 4), (QUIET, 4)], True, None),
        ([(SOUND, 4), (QUIET, 4)], False, ("falls silent", 0)),
        ([(SOUND, 4), (QUIET, 2.4), (SOUND, 1.6)], False, None),
        ([(SOUND, 10), (QUIET, 3), (SOUND, 17), (QUIET, 2)], True, ("falls silent", 6)),
        ([(SOUND, 10), (QUIET, 20)], True, ("falls silent", 6)),
        ([(QUIET, 8)], True, ("is practically silent", 0)),
    ],
)
def test_what_is_wrong_with_a_piece(parts, ends, expected):
    fault = SILENCE.fault(piece(*parts).codes, RATE_HZ, Asked(ends))
    assert (fault and (fault.is_so, fault.at / RATE_HZ)) == expected


def test_a_clip_that_is_continued_may_be_silent_and_is_never_drawn_again():
    codes = piece((QUIET, 5), (SOUND, 2), (QUIET, 3)).codes
    given = Asked(n_given=250)
    assert SILENCE.fault(codes, RATE_HZ, given) == SILENCE.fault(codes, RATE_HZ, Asked())._replace(at=250)
    assert SILENCE.fault(codes[..., :350], RATE_HZ, given) is None
    assert Silence(frozenset({QUIET}), 2).fault(codes, RATE_HZ, Asked()) is None, (
        "a model whose card says nothing of gaps"
    )


def test_what_sounds_to_the_last_is_drawn_again_where_it_was_asked_to_end(caplog):
    sounding, ended, drawn = piece((SOUND, 1)), piece((SOUND, 0.9), (QUIET, 0.1)).codes, []

    def draw_row(row: int, seed: int, kept: Codes | None) -> torch.Tensor:
        drawn.append((row, seed, kept))
        return sounding.codes if len(drawn) == 1 else ended

    both = replace(sounding, codes=sounding.codes.repeat(2, 1, 1))
    again, seeds = FAULTS.redrawn(both, 3, draw_row, "mini", asked=[Asked(True), Asked()])
    assert drawn == [(0, FURTHER[0], None), (0, FURTHER[1], None)] and seeds == {0: FURTHER[1]}
    assert torch.equal(again, torch.cat([ended, sounding.codes]))
    assert f"mini: clip 1 did not come to its end and was drawn again, with seed {FURTHER[1]}." in caplog.text
    FAULTS.redrawn(sounding, 3, lambda row, seed, kept: sounding.codes, "mini", asked=[Asked(True)])
    assert "clip 1 does not come to its end with 2 other seeds too. Take a longer duration" in caplog.text


def test_music_without_its_end_is_better_than_silence():
    drawn = iter([piece((QUIET, 4)).codes, piece((SOUND, 4)).codes, *[piece((SOUND, 4)).codes] * 2])
    asked = [Asked(True)]
    again, seeds = FAULTS.redrawn(piece((QUIET, 4)), 3, lambda row, seed, kept: next(drawn), "mini", asked=asked)
    assert torch.equal(again, piece((SOUND, 4)).codes) and seeds == {0: FURTHER[1]}


def test_a_piece_that_falls_silent_is_drawn_again_from_there_on(caplog):
    """Each gap of a long piece has its own tries, and what was good before it stays."""
    first = piece((SOUND, 10), (QUIET, 20))
    later = [piece((SOUND, 10), (QUIET, 20)), piece((SOUND, 20), (QUIET, 10)), piece((8, 30))]
    drawn, told = [], []

    def draw_row(row: int, seed: int, kept: Codes | None) -> torch.Tensor:
        drawn.append((seed, kept and kept.duration_s))
        return later[len(drawn) - 1].codes

    again, seeds = FAULTS.redrawn(first, 3, draw_row, "mini", told.append)
    assert drawn == [(FURTHER[0], 6.0), (FURTHER[1], 6.0), (FURTHER[2], 16.0)] and torch.equal(again, later[2].codes)
    assert seeds == {}, "its own seed gives it, gaps and all"
    assert told == [
        f"mini: clip 1 fell silent and was drawn again from 6.0 s on, with seed {FURTHER[1]}.\n"
        f"mini: clip 1 fell silent and was drawn again from 16.0 s on, with seed {FURTHER[2]}."
    ]
    assert "from 6.0 s on" in caplog.text and "from 16.0 s on" in caplog.text


def test_the_model_says_which_rows_were_asked_to_end(loaded):
    class Told(Faults):
        def redrawn(self, codes, seed, draw_row, model, on_redraw=None, asked=()):
            told.append([one.ends for one in asked])
            return codes.codes, {}

    told: list[list[bool]] = []
    loaded.model.faults = Told(())
    codes(loaded, loaded.conditioner.encode_text([ENDS]), replace(LONG, duration_s=0.4, batch_size=2))
    codes(loaded, loaded.conditioner.encode_text([GOES_ON, ENDS]), replace(LONG, duration_s=0.4))
    assert told == [[True, True], [False, True]]
