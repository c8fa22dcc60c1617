"""A text that asks for an end has it at the end of the piece: not in every window, and not in none."""

from dataclasses import replace

import pytest
import torch
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.musicgen.conditioning import blend, encode_timeline
from comfyui_musicgen.musicgen.conditioning.vocabulary import Vocabulary
from comfyui_musicgen.musicgen.config import GenerationParams
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


def test_what_sounds_to_the_last_is_drawn_again_where_it_was_asked_to_end(caplog):
    silence, drawn = Silence(frozenset({5}), 2), []
    sounding, ended = torch.full((1, 4, 50), 9), torch.full((1, 4, 50), 9)
    ended[:, 0, -5:] = 5

    def draw_row(row: int, seed: int) -> torch.Tensor:
        drawn.append((row, seed))
        return sounding if len(drawn) == 1 else ended

    both = torch.cat([sounding, sounding])
    again, seeds = silence.redrawn(both, 3, draw_row, "mini", ends=[True, False])
    assert drawn == [(0, 4), (0, 5)] and seeds == {0: 5} and torch.equal(again, torch.cat([ended, sounding]))
    assert "mini: clip 1 did not come to its end and was drawn again, with seed 5." in caplog.text
    silence.redrawn(sounding, 3, lambda row, seed: sounding, "mini", ends=[True])
    assert "clip 1 does not come to its end with the next 2 seeds too. Take a longer duration" in caplog.text
    assert silence.faults(ended, [True]) == silence.faults(sounding, [False]) == {}


def test_the_model_says_which_rows_were_asked_to_end(loaded):
    class Told(Silence):
        def redrawn(self, codes, seed, draw_row, model, on_redraw=None, ends=()):
            told.append(list(ends))
            return codes, {}

    told: list[list[bool]] = []
    loaded.model.silence = Told(frozenset(), 1)
    codes(loaded, loaded.conditioner.encode_text([ENDS]), replace(LONG, duration_s=0.4, batch_size=2))
    codes(loaded, loaded.conditioner.encode_text([GOES_ON, ENDS]), replace(LONG, duration_s=0.4))
    assert told == [[True, True], [False, True]]
