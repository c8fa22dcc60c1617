"""What the codec gives back of single players of the held-out split, beside chance and ceiling, with spectrograms."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from ...musicgen.audio import Audio
from ...musicgen.audio.spectrogram import spectrogram_picture
from ...musicgen.codec import Codec
from ...musicgen.dependencies import require
from ..codec.spectral import bandwidth_hz, lost_above_db, mel_distance, si_sdr_db
from ..codec.train import finished, through
from ..data.render import Synthesizer, levelled
from ..data.songs import song
from ..onegpu.figures import comb_db
from ..onegpu.run import load_codec
from ..recipe import CLIP_S
from .place import Place

# kind: (leads that count, SI-SDR in dB that is asked); None: drums alone
KINDS: dict[str, tuple[tuple[str, ...] | None, float]] = {
    "piano": (("piano",), 9.0),
    "guitar": (("acoustic guitar", "electric guitar"), 8.0),
    "violin": (("violin",), 8.0),
    "voice": (("choir",), 6.0),
    "drums": (None, 9.0),
}
_COMB_DB, _CLIPS, _SEARCHED = 6.0, 6, 20_000


def numbers(kind: str) -> Iterator[int]:
    """Clips of the held-out split that one player of a kind, or a kit, plays alone."""
    leads = KINDS[kind][0]
    for number in range(_SEARCHED):
        facts = song("held-out", number, CLIP_S).facts
        alone = facts.arrangement == ("drums alone" if leads is None else "solo")
        if alone and (leads is None or facts.lead in leads):
            yield number


def clips(kind: str, synthesizer: Synthesizer, n: int = _CLIPS) -> torch.Tensor:
    """[n, L] the first clips of a kind."""
    rows = []
    for number in itertools.islice(numbers(kind), n):
        piece = song("held-out", number, CLIP_S)
        samples = synthesizer.play(piece.parts, piece.first_s, CLIP_S)
        rows.append(levelled(samples, piece.facts.dynamics))
    return torch.from_numpy(np.stack(rows))


@torch.no_grad()
def figures(codec: Codec, kinds: dict[str, torch.Tensor]) -> dict[str, dict[str, float]]:
    """For each kind [n, L]: SI-SDR, what is lost above 500 Hz, bandwidth and mel distance, asked, by chance (another clip of the kind coded in its place), and at
    best (without the quantizer)."""
    rate_hz, frame_hz, result, decoded_all = codec.config.sample_rate_hz, codec.config.frame_rate_hz, {}, []
    for kind, waves in kinds.items():
        decoded = torch.cat([through(codec, one[None], codec.config.n_codebooks) for one in waves])
        theirs = waves[:, : decoded.shape[-1]]
        bare = torch.cat([codec.decoder(codec.encoder(one[None, None]))[:, 0, : theirs.shape[-1]] for one in waves])
        result[kind] = {
            "si_sdr_db": float(si_sdr_db(decoded, theirs).mean()),
            "asked_db": KINDS[kind][1] if kind in KINDS else float("nan"),
            "chance_db": float(si_sdr_db(decoded.roll(1, 0), theirs).mean()),
            "unquantized_db": float(si_sdr_db(bare, theirs).mean()),
            "lost_above_500_hz_db": float(lost_above_db(decoded, theirs, rate_hz).median()),
            "lost_above_500_hz_db_chance": float(lost_above_db(decoded.roll(1, 0), theirs, rate_hz).abs().median()),
            "lost_above_500_hz_db_unquantized": float(lost_above_db(bare, theirs, rate_hz).median()),
            "bandwidth_hz": float(bandwidth_hz(decoded, rate_hz).median()),
            "bandwidth_hz_of_clips": float(bandwidth_hz(theirs, rate_hz).median()),
            "mel_distance": float(mel_distance(decoded, theirs, rate_hz)),
            "mel_distance_chance": float(mel_distance(decoded.roll(1, 0), theirs, rate_hz)),
        }
        decoded_all.append(decoded)
    everything, originals = torch.cat(decoded_all), torch.cat(list(kinds.values()))
    result["comb at the frame rate"] = {
        "db": comb_db(everything, rate_hz, frame_hz), "asked_db": _COMB_DB,
        "of_clips_db": comb_db(originals, rate_hz, frame_hz),
    }  # fmt: skip
    return result


def report(place: Place, synthesizer: Synthesizer) -> str:
    """Writes figures-codec.json and spectrograms into the folder; the figures as text. Of the frozen codec if there is one."""
    codec = load_codec(place.frozen) if place.frozen.exists() else finished(place.codec)
    kinds = {kind: clips(kind, synthesizer) for kind in KINDS}
    table = figures(codec, kinds)
    text = json.dumps(table, indent=1)
    (place.out / "figures-codec.json").write_text(text, encoding="utf-8")
    for kind, waves in kinds.items():
        _picture(codec, waves[0], place.out / f"codec-{kind}.png")
    return text


def _picture(codec: Codec, wave: torch.Tensor, path: Path) -> None:
    """A clip above, what the codec makes of it below."""
    config = codec.config
    rows = [wave, through(codec, wave[None], config.n_codebooks)[0]]
    picture = torch.cat([spectrogram_picture(Audio(row[None, None], config.sample_rate_hz))[0] for row in rows])
    image = require("PIL.Image", "Drawing pictures", "Pillow")
    image.fromarray((picture.clamp(0, 1) * 255).byte().numpy()).save(path)
