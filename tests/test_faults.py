"""What was just written is looked through: what has a fault is drawn again, and no fault is mended at the price of a graver one."""

from dataclasses import dataclass, field

import pytest
import torch
from comfyui_musicgen.musicgen import loading
from comfyui_musicgen.musicgen.audio import Audio
from comfyui_musicgen.musicgen.beats import N_PHASES, BeatTracker, Tempo
from comfyui_musicgen.musicgen.codes import Codes
from comfyui_musicgen.musicgen.conditioning import blend, encode_timeline
from comfyui_musicgen.musicgen.config import CodecConfig
from comfyui_musicgen.musicgen.faults import Asked, Fault, Faults, next_seed
from comfyui_musicgen.musicgen.guidance import asked_for
from comfyui_musicgen.musicgen.seeds import row_seed

RATE_HZ = 50.0


@dataclass(frozen=True)
class Contains:
    """Finds its code, which stands for a fault from there on."""

    code: int
    tries: int = 3

    def fault(self, codes: torch.Tensor, rate_hz: float, asked: Asked) -> Fault | None:
        found = (codes[0, 0] == self.code).nonzero().flatten()
        return Fault(int(found[0]), f"has {self.code}", f"had {self.code}", "Give up.") if len(found) else None


@dataclass
class Drawn:
    """Gives the rows that it holds one after another, and keeps what it was asked."""

    rows: list[list[int]]
    asked: list[tuple[int, int, int]] = field(default_factory=list)

    def __call__(self, row: int, seed: int, kept: Codes | None) -> torch.Tensor:
        n_kept = 0 if kept is None else kept.n_frames
        self.asked.append((row, seed, n_kept))
        drawn = torch.tensor(self.rows.pop(0))[None, None].repeat(1, 4, 1)
        return drawn if kept is None else torch.cat([kept.codes, drawn[..., n_kept:]], dim=-1)


def mended(rows: list[list[int]], draws: list[list[int]], *checks: Contains) -> tuple[list, dict, list, Drawn]:
    codes = Codes(torch.tensor(rows)[:, None].repeat(1, 4, 1), RATE_HZ, "codec")
    draw, told = Drawn(draws), []
    result, seeds = Faults(checks).redrawn(codes, 7, draw, "mini", told.append)
    return result[:, 0].tolist(), seeds, told, draw


def test_a_fault_is_drawn_again_whole_or_from_where_it_is():
    rows, seeds, told, draw = mended([[9, 1, 1], [1, 1, 9], [1, 1, 1]], [[1, 1, 2], [3, 3, 3]], Contains(9))
    assert rows == [[1, 1, 2], [1, 1, 3], [1, 1, 1]]
    assert draw.asked == [(0, next_seed(7), 0), (1, next_seed(row_seed(7, 1)), 2)]
    assert seeds == {0: next_seed(7)}, "what was drawn again in part has two seeds: none gives it"
    assert told[-1] == (
        f"mini: clip 1 had 9 and was drawn again, with seed {next_seed(7)}.\n"
        f"mini: clip 2 had 9 and was drawn again from 0.0 s on, with seed {next_seed(row_seed(7, 1))}."
    )


def test_a_later_fault_is_progress_and_is_mended_from_there():
    rows, _, told, draw = mended([[9, 1, 1]], [[9, 2, 2], [4, 4, 9], [5, 5, 5]], Contains(9))
    assert rows == [[4, 4, 5]]
    assert [kept for _, _, kept in draw.asked] == [0, 0, 2] and len(told[-1].splitlines()) == 2


def test_what_no_seed_mends_stays_and_is_said():
    rows, seeds, told, draw = mended([[9, 1, 1]], [[9, 2, 2]] * 3, Contains(9))
    assert (rows, seeds, len(draw.asked)) == ([[9, 1, 1]], {}, 3)
    assert told == ["mini: clip 1 has 9 with 3 other seeds too. Give up."]


def test_a_fault_is_not_mended_at_the_price_of_a_graver_one():
    rows, _, _, draw = mended([[8, 1, 1]], [[9, 1, 1], [1, 1, 8], [1, 1, 9], [2, 2, 2]], Contains(9), Contains(8))
    assert rows == [[1, 1, 2]] and len(draw.asked) == 4, "later codes 8 are progress, 9 is none"
    rows, _, told, _ = mended([[9, 8, 1]], [[9, 1, 1]] * 3, Contains(9), Contains(8))
    assert rows == [[9, 8, 1]] and "has 8" not in told[-1], "where the graver one stays, the other is not looked for"


def test_many_faults_of_a_long_piece_cost_no_more_than_the_tries_of_the_whole():
    """Each fault that was mended renewed the tries, and drew the rest of the piece: minutes for a long one."""
    n, draws = 40, [[1] * i + [9] * (40 - i) for i in range(1, 41)]
    rows, _, told, draw = mended([[9] * n], draws, Contains(9, tries=3))
    drawn = sum(n - kept for _, _, kept in draw.asked)
    assert 3 * n <= drawn < 4 * n and len(draw.asked) == 4
    assert rows == [[1] * 4 + [9] * (n - 4)], "what was mended stays"
    assert told[-1].endswith("has 9 with 3 other seeds too. Give up.")


def test_counting_seeds_up_meets_no_piece_twice():
    """The next seed of a fault was the user's next one once: two presses in a row gave the same piece."""
    seeds = [next_seed(seed) for seed in (*range(1000), 2**32, 2**64 - 1)]
    assert len(set(seeds)) == len(seeds) and not set(seeds) & set(range(1000))
    assert all(0 <= seed < 2**32 for seed in seeds), "the part of a seed that generators read"


CODEC = CodecConfig(
    sample_rate_hz=32000, channels=1, n_codebooks=2, codebook_size=8, latent_dim=4, n_filters=2, ratios=(8, 5, 4, 4)
)  # fmt: skip


class Counts(BeatTracker):
    """Hears a beat where the first codebook has its code 1."""

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        scores = torch.zeros(len(codes), N_PHASES, codes.shape[-1])
        scores[:, 0] = 20.0 * (codes[:, 0] == 1)
        return scores


def beats(*parts: tuple[float, float]) -> torch.Tensor:
    """Codes [1, K, T] of (beats a minute, seconds); 0 beats: none."""
    rows = []
    for bpm, seconds in parts:
        at = torch.arange(round(seconds * RATE_HZ))
        period = 60 * RATE_HZ / bpm if bpm else 1e9
        rows.append(((at + 1) % period < 1).long())
    return torch.cat(rows)[None, None].repeat(1, 2, 1)


@pytest.mark.parametrize(
    ("parts", "asked", "at_s"),
    [
        ([(120, 8)], [(0, 8, 120)], None),
        ([(120, 8)], [(0, 8, 118)], None),  # no whole frames are nearer
        ([(107.1, 8)], [(0, 8, 120)], 0),
        ([(75, 8)], [(0, 8, 69)], 0),
        ([(120, 30)], [(0, 30, 120)], None),
        ([(120, 16), (107.1, 14)], [(0, 30, 120)], 15),
        ([(120, 15), (107.1, 15)], [(0, 15, 120), (15, 30, 107)], None),
        ([(120, 15), (120, 15)], [(0, 15, 120), (15, 30, 107)], 15),
        ([(120, 8)], [], None),
        ([(120, 3)], [(0, 3, 107)], None),  # too short to tell
        ([(0, 8)], [(0, 8, 107)], None),  # no pulse
    ],
)
def test_the_first_stretch_of_another_tempo_is_found(parts, asked, at_s):
    tempo = Tempo(Counts(CODEC), 0.01, 4)
    fault = tempo.fault(beats(*parts), RATE_HZ, Asked(tempos=tuple(asked)))
    assert (fault and fault.at / RATE_HZ) == at_s
    if fault:
        assert (
            fault.is_so.startswith("plays about ")
            and f"where {asked[-1][2] if at_s and len(asked) > 1 else asked[0][2]} " in fault.is_so
        )


SMALL = {"dim": 32, "n_heads": 2, "n_layers": 2, "cardinality": 64, "n_filters": 2, "latent_dim": 16, "melody": True}


@pytest.fixture(scope="module")
def conditioner(toys):
    return loading.load(toys(**SMALL), "float32").conditioner


def test_each_row_is_asked_for_the_tempo_of_its_text(conditioner):
    texts = conditioner.encode_text(["a drum, 92 bpm", "a drum", "tempo: 120, a flute", "a drum at 500 bpm"])
    tempos = [asked.tempos for asked in asked_for(texts, 8.0, 4, 0)]
    assert tempos == [((0.0, 8.0, 92.0),), (), ((0.0, 8.0, 120.0),), ()]
    one = conditioner.encode_text(["a drum, 92 bpm"])
    assert [asked.tempos for asked in asked_for(one, 8.0, 2, 0)] == [((0.0, 8.0, 92.0),)] * 2, "takes of one text"


def test_what_has_a_tempo_of_its_own_is_not_asked_for_another(conditioner):
    text = conditioner.encode_text(["a drum, 92 bpm"])
    (continued,) = asked_for(text, 8.0, 1, 100)
    assert continued == Asked(n_given=100)
    melody = Audio(torch.randn(1, 1, 32000, generator=torch.Generator().manual_seed(0)), 32000)
    (followed,) = asked_for(conditioner.encode_melody(text, melody, "off"), 8.0, 1, 0)
    assert followed == Asked()


def test_a_timeline_is_asked_for_each_tempo_at_its_time(conditioner):
    lines = "a drum, 92 bpm | 10: a flute, 92 bpm | 20: a voice, 120 bpm | 30: a bell"
    (asked,) = asked_for(encode_timeline(conditioner, lines), 40.0, 1, 0)
    assert asked.tempos == ((0.0, 20.0, 92.0), (20.0, 30.0, 120.0))
    alike, other = (blend(*(conditioner.encode_text([text]) for text in pair), 0.5)
                    for pair in (("a drum, 92 bpm", "a flute, 92 bpm"), ("a drum, 92 bpm", "a flute, 93 bpm")))  # fmt: skip
    assert asked_for(alike, 8.0, 1, 0)[0].tempos == ((0.0, 8.0, 92.0),)
    assert asked_for(other, 8.0, 1, 0)[0].tempos == (), "two tempos at once are none"
