"""Measures of takes: each finds the fault it is for; the ranking; which takes a choice names."""

import pytest
import torch
from comfyui_musicgen.musicgen.analysis import Measures, check_choice, chosen, faults, measure, rank
from comfyui_musicgen.musicgen.audio import Audio
from comfyui_musicgen.musicgen.errors import InputError

RATE = 8000


def noise(seconds=3.0, seed=0, level=0.1):
    return level * torch.randn(int(seconds * RATE), generator=torch.Generator().manual_seed(seed))


def measured(samples, **options):
    return measure(Audio(samples[None, None], RATE), **options)


def take(**changes):
    """A take without faults, but for `changes`."""
    figures = {"level_db": -20.0, "silent_share": 0.0, "clipped_share": 0.0, "repetition": 0.3, **changes}
    return Measures(**figures)


def melody(seconds=3.0):
    """Notes of no pattern: 0.15 to 0.4 s each."""
    generator, parts = torch.Generator().manual_seed(4), []
    while sum(map(len, parts)) < seconds * RATE:
        n = int(torch.randint(int(0.15 * RATE), int(0.4 * RATE), (1,), generator=generator))
        hz = 200 * 2 ** (float(torch.randint(0, 24, (1,), generator=generator)) / 12)
        time = torch.arange(n) / RATE
        parts.append(0.3 * torch.sin(6.2832 * hz * time) * torch.exp(-6 * time))
    return torch.cat(parts)[: int(seconds * RATE)]


def test_silence_is_measured_in_time_and_as_a_whole():
    half = torch.cat([noise(1.5), torch.zeros(int(1.5 * RATE))])
    assert measured(half).silent_share == pytest.approx(0.5, abs=0.02) and not measured(half).silent
    assert "silence" in faults(measured(half))
    assert measured(torch.zeros(3 * RATE)).silent and measured(noise(level=1e-5)).silent


def test_clipping_counts_samples_at_full_scale():
    loud = measured(noise(level=0.6).clamp(-1, 1))
    assert loud.clipped_share == pytest.approx(0.096, abs=0.01) and "clipping" in faults(loud)
    assert measured(noise()).clipped_share == 0


def test_repetition_tells_a_metronome_from_music():
    tick = melody(0.25)
    assert measured(tick.repeat(12)).repetition > 0.95 and "repetition" in faults(measured(tick.repeat(12)))
    assert measured(melody()).repetition < 0.6 and "repetition" not in faults(measured(melody()))


def test_a_stuck_code_is_a_collapse():
    codes = torch.randint(0, 1000, (4, 150), generator=torch.Generator().manual_seed(1))
    stuck = codes.clone()
    stuck[0, 30:] = 7
    assert "collapse" not in faults(measured(noise(), codes=codes))
    assert measured(noise(), codes=stuck).commonest_share == pytest.approx(0.8, abs=0.01)
    assert "collapse" in faults(measured(noise(), codes=stuck))


@pytest.mark.parametrize(("heard", "is_fault"), [(92.5, False), (100.0, True), (None, True)])
def test_a_missed_tempo_is_a_fault(heard, is_fault):
    assert ("tempo" in faults(take(asked_bpm=92.0, bpm=heard))) is is_fault
    assert faults(take(bpm=heard)) == [], "nothing was asked"


def test_a_silent_take_is_never_first():
    worst = take(clipped_share=0.5, repetition=1.0, commonest_share=1.0, asked_bpm=90.0, bpm=120.0)
    silent = take(level_db=-90.0, silent_share=1.0)
    assert rank([silent, worst]) == [1, 0]
    assert rank([silent, worst], leave_out={"silence"}) == [1, 0]


def test_the_text_decides_between_takes_without_faults_and_an_odd_likelihood_is_a_fault():
    gains = [take(likelihood=-4.0 - 0.1 * i, text_gain=gain) for i, gain in enumerate((0.1, 0.5, 0.2, 0.3))]
    assert rank(gains) == [1, 3, 2, 0]
    likelihoods = [take(likelihood=value, text_gain=0.2) for value in (-1.0, -4.1, -4.0, -3.9, -4.2)]
    assert rank(likelihoods)[-1] == 0, "far likelier than the others: a held tone"
    assert rank(likelihoods, leave_out={"likelihood"})[0] == 0


@pytest.mark.parametrize(
    ("choose", "expected"),
    [("best", [2]), (" Best 3", [2, 0, 3]), ("best2", [2, 0]), ("all", [0, 1, 2, 3]), ("2", [1]), ("3,1", [2, 0]),
     ("2-4, 3", [1, 2, 3])],
)  # fmt: skip
def test_a_choice_names_takes(choose, expected):
    assert chosen(choose, [2, 0, 3, 1]) == expected


@pytest.mark.parametrize("choose", ["5", "0", "best 5", "best 0", "3-2", "", "first", "1;2", "1.5", "-1"])
def test_a_wrong_choice_says_what_can_be_written(choose):
    with pytest.raises(InputError, match="best 3, all, or take numbers"):
        chosen(choose, [2, 0, 3, 1])


def test_a_choice_is_checked_before_the_takes_are_known():
    check_choice("7, best"[:1])
    with pytest.raises(InputError, match="'choose'"):
        check_choice("the loud one")
