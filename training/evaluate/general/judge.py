"""Judges general music: which instrument plays alone, which groove, with drums or without, one player or several.

Taught with other soundfonts than the model: plain, worn, and behind the model's codec, so that it listens for the instrument
and not for one soundfont, nor for how clean a clip is. By one soundfont alone it heard no piano and no music box of another.
"""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from ...data.grooves import GROOVES
from ...data.instruments import INSTRUMENTS
from ...data.render import Synthesizer, levelled
from ...data.songs import Song, compose
from ..listening import UNKNOWN, Voters, saved_with, worn
from .asked import STYLES
from .features import CLIP_S, equalised, timbres, whole

NAMES = tuple(INSTRUMENTS)
Coded = Callable[[Sequence[Tensor]], list[Tensor]]
_STREAM, _PLAYED, _ENSEMBLES = 29, {"ensemble": 0.68, "no drums": 0.17, "duo": 0.15}, 6
_WORN = 0.35  # of the clips are worn; each has a copy behind the codec besides
_FAINT = 1e-3
_EPOCHS, _MEMBERS, _WIDTH = 30, 4, 256


@dataclass(frozen=True)
class Lessons:
    """How much the judge is taught by each soundfont."""

    solos: int = 16  # of each instrument
    pieces: int = 20  # of each of STYLES
    seed: int = 0

    @property
    def n(self) -> int:
        return self.solos * len(NAMES) + self.pieces * len(STYLES)


@dataclass(frozen=True)
class Heard:
    """What a clip sounds like."""

    instrument: str  # of NAMES: the one that it would be if one plays alone
    style: str  # of STYLES: the one whose groove comes nearest
    drums: bool
    alone: bool


class Judge:
    """Two groups of classifiers: of crops, which instrument; of clips, which groove, drums, and whether one plays alone."""

    def __init__(self, players: Voters, pieces: Voters) -> None:
        self.players, self.pieces = players.eval(), pieces.eval()

    @torch.no_grad()
    def hear(self, samples: Tensor, rate_hz: int) -> Heard:
        """One clip [L], of which it hears the first CLIP_S."""
        samples = samples[: round(CLIP_S * rate_hz)]
        crops = timbres(samples, rate_hz)
        player = self.players(crops)[0].mean(dim=0)
        style, drums, alone = (scores[0] for scores in self.pieces(whole(samples, rate_hz, crops)[None]))
        return Heard(
            NAMES[int(player.argmax())], STYLES[int(style.argmax())], bool(drums.argmax()), bool(alone.argmax())
        )

    def save(self, path: Path, notes: dict[str, str]) -> None:
        tensors = {f"players.{name}": tensor for name, tensor in self.players.state_dict().items()}
        tensors |= {f"pieces.{name}": tensor for name, tensor in self.pieces.state_dict().items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        safetensors.torch.save_file(tensors, path, notes)

    @classmethod
    def opened(cls, path: Path, notes: dict[str, str]) -> "Judge | None":
        """The judge that was saved with the same notes; None if there is none."""
        if (tensors := saved_with(path, notes)) is None:
            return None
        judge = untaught(len(tensors["players.mean"]), len(tensors["pieces.mean"]))
        for part, voters in (("players", judge.players), ("pieces", judge.pieces)):
            voters.load_state_dict(
                {k.removeprefix(f"{part}."): v for k, v in tensors.items() if k.startswith(f"{part}.")}
            )
        return judge


def lesson(number: int, lessons: Lessons) -> Song:
    """Piece `number` of the lessons: an instrument alone, or one of STYLES."""
    rng = np.random.default_rng([_STREAM, lessons.seed, number])
    if number < lessons.solos * len(NAMES):
        lead = NAMES[number % len(NAMES)]
        fitting = [name for name, groove in GROOVES.items() if lead in (*groove.leads, *groove.comping, *groove.basses)]
        name = str(rng.choice(fitting if fitting and rng.random() < 0.5 else list(GROOVES)))
        return compose(name, GROOVES[name], "solo", CLIP_S, rng, lead=lead)
    style = STYLES[number % len(STYLES)]
    name = str(rng.choice([name for name, groove in GROOVES.items() if groove.genre == style]))
    arrangement = str(rng.choice(list(_PLAYED), p=list(_PLAYED.values())))
    window = "middle" if rng.random() < 0.4 else "beginning"
    return compose(name, GROOVES[name], arrangement, CLIP_S, rng, window=window)


def answers(song: Song, lessons_of_style: bool) -> list[int]:
    """(instrument, style, drums, alone) of a lesson; UNKNOWN where it is none of those asked for."""
    facts = song.facts
    instrument = NAMES.index(facts.lead) if facts.alone and facts.lead else UNKNOWN
    style = STYLES.index(facts.genre) if lessons_of_style else UNKNOWN
    return [instrument, style, int(facts.drums), int(facts.alone)]


def taught(synthesizers: Sequence[Synthesizer], lessons: Lessons, coded: Coded, n_processes: int = 2) -> Judge:
    """A judge taught by synthesizers of one rate, each with lessons of its own. coded: clips -> what the codec behind which it will listen makes of them."""
    crops, targets, wholes, wanted = [], [], [], []
    with torch.no_grad():
        for number, synthesizer in enumerate(synthesizers):
            own = replace(lessons, seed=lessons.seed + number)
            for rows, overall, answer in _features(synthesizer, own, coded, n_processes):
                wholes.append(overall)
                wanted.append(answer[1:])
                if answer[0] != UNKNOWN:
                    crops.append(rows)
                    targets += [answer[:1]] * len(rows)
    rows, inputs = torch.cat(crops), torch.stack(wholes)
    torch.manual_seed(lessons.seed)
    judge = untaught(rows.shape[1], inputs.shape[1])
    judge.players.teach(rows, torch.tensor(targets), _EPOCHS)
    judge.pieces.teach(inputs, torch.tensor(wanted), 2 * _EPOCHS)
    return judge


def rendered(
    synthesizer: Synthesizer, songs: Iterator[Song] | Sequence[Song], duration_s: float, n_processes: int = 2
) -> Iterator[np.ndarray]:
    """Samples [L] of pieces, in their order, by processes that share the soundfont."""
    one = partial(_rendered, synthesizer, duration_s=duration_s)
    yield from map(one, songs) if n_processes == 1 else _forked(one, songs, n_processes)


def _forked(work: Callable, items: Iterable, n_processes: int) -> Iterator:
    """`work` of each, in their order, by processes that share what it holds: a synthesizer cannot be sent to them."""
    global _work  # reaches the processes by fork
    _work = work
    with multiprocessing.get_context("fork").Pool(n_processes, torch.set_num_threads, (1,)) as pool:
        yield from pool.imap(_worked, items, chunksize=4)


def _features(
    synthesizer: Synthesizer, lessons: Lessons, coded: Coded, n_processes: int
) -> Iterator[tuple[Tensor, Tensor, list[int]]]:
    """(timbres, whole, answers) of each lesson through an equalizer of its own, worn by chance, and of its copy behind the codec."""
    one = partial(_of_lesson, synthesizer, lessons, coded)
    numbers = range(lessons.n)
    for versions in map(one, numbers) if n_processes == 1 else _forked(one, numbers, n_processes):
        yield from ((torch.from_numpy(rows), torch.from_numpy(overall), answer) for rows, overall, answer in versions)


@torch.no_grad()
def _of_lesson(
    synthesizer: Synthesizer, lessons: Lessons, coded: Coded, number: int
) -> list[tuple[np.ndarray, np.ndarray, list[int]]]:
    """Both versions of one lesson; none of a window in which nothing sounds."""
    song = lesson(number, lessons)
    clip = torch.from_numpy(_rendered(synthesizer, song, CLIP_S))
    if float(clip.abs().max()) < _FAINT:
        return []
    rng = np.random.default_rng([_STREAM, lessons.seed, number, 1])
    generator = torch.Generator().manual_seed(int(rng.integers(2**62)))
    plain = equalised(clip, generator)
    versions = [worn(plain, generator) if rng.random() < _WORN else plain, *coded([equalised(clip, generator)])]
    answer = answers(song, number >= lessons.solos * len(NAMES))
    rows = [timbres(samples, synthesizer.rate_hz) for samples in versions]
    return [
        (crops.numpy(), whole(samples, synthesizer.rate_hz, crops).numpy(), answer)
        for samples, crops in zip(versions, rows, strict=True)
    ]


def untaught(n_timbre: int, n_whole: int) -> Judge:
    """A judge that has not begun to learn. n_timbre, n_whole: how many features `timbres` and `whole` give."""
    players = Voters(n_timbre, (len(NAMES),), _MEMBERS, _WIDTH)
    return Judge(players, Voters(n_whole, (len(STYLES), 2, 2), _MEMBERS, _WIDTH))


_work: Callable


def _worked(item: object) -> object:
    return _work(item)


def _rendered(synthesizer: Synthesizer, song: Song, duration_s: float) -> np.ndarray:
    samples = synthesizer.play(song.parts, song.first_s, duration_s)
    return levelled(samples, song.facts.dynamics)
