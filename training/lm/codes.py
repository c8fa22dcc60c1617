"""Clips as the language model is taught them: codes, chroma and labels, in shards on the disk."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...musicgen.codec import Codec
from ...musicgen.conditioning.chroma import chroma
from ...musicgen.conditioning.melody import tiled
from .. import runs
from ..data import voices
from ..data.pieces import Clip, Label, clip
from ..recipe import CLIP_S, melody_of, model_config

SHARD_CLIPS = 64
CODEBOOKS_FILE = "codebooks.npy"
_AT_ONCE = 2
MELODIES = ("mix", "melodic", "guide")  # what the chroma is taken from
# mix: the clip itself. melodic: the clip without the buk. guide: the same line on a flute, so that the model learns to
# follow a melody in another sound than its own. All three are the mix where the buk is alone.


@dataclass(frozen=True)
class Shard:
    """N clips. Chroma frames as the index of their strongest pitch class, all that the model hears of them."""

    codes: np.ndarray  # [N, K, T] int16
    chroma: np.ndarray  # [N, len(MELODIES), F] uint8
    labels: tuple[Label, ...]
    numbers: range  # of the clips in their split


def read_codebooks(folder: Path) -> Tensor:
    """Of the codec that made the codes: [K, card, D]."""
    return torch.from_numpy(np.load(folder / CODEBOOKS_FILE))


def shard_path(folder: Path, split: str, number: int) -> Path:
    return folder / f"{split}-{number:05d}.npz"


def read_shard(path: Path) -> Shard:
    with np.load(path) as file:
        labels = tuple(Label(**table) for table in json.loads(str(file["labels"])))
        first = int(path.stem.rpartition("-")[2]) * len(labels)
        return Shard(file["codes"], file["chroma"], labels, range(first, first + len(labels)))


def write_shards(
    out: Path, codec: Codec, split: str, n_clips: int, minutes: float, part: tuple[int, int] = (1, 1)
) -> int:
    """Code the first `n_clips` clips of a split, shards that are there already left alone; how many shards there are.

    part (i, n): only every n-th shard, from the i-th, for n processes side by side.
    """
    out.mkdir(parents=True, exist_ok=True)
    codec = codec.to(runs.pick_device())
    np.save(out / CODEBOOKS_FILE, np.stack([layer.codebook.embed.cpu().numpy() for layer in codec.quantizer.layers]))
    numbers = range(part[0] - 1, -(-n_clips // SHARD_CLIPS), part[1])
    missing = [number for number in numbers if not shard_path(out, split, number).exists()]
    box = runs.TimeBox(minutes)
    for done, number in enumerate(missing, start=1):
        _write(out, codec, split, number)
        over = box.over
        speed = done * SHARD_CLIPS * CLIP_S / max(box.elapsed_s, 1e-3)
        print(f"{split} shard {number}: {done} of {len(missing)}, {speed:.1f} s of audio a second", flush=True)
        if over:
            break
    return len(list(out.glob(f"{split}-*.npz")))


@torch.no_grad()
def encode(codec: Codec, waves: Tensor) -> Tensor:
    """Codes [B, K, T] of clips [B, L] of whole frames: `Codec.encode` without its chunks, which is quicker here."""
    return codec.quantizer.encode(codec.encoder(waves[:, None].to(codec.device))).cpu()


def chroma_rows(made: Clip) -> np.ndarray:
    """[len(MELODIES), F] uint8: the chroma of the mix, of the line alone, and of the line on a flute."""
    config = melody_of(model_config(64, 1, 1))
    sources = [made.samples] * len(MELODIES)
    if made.melodic is not None and made.line is not None:
        flute = voices.blow(made.line, made.rate_hz, len(made.samples), np.random.default_rng(0))
        sources = [made.samples, made.melodic, flute]
    rows = []
    for samples in sources:
        frames = chroma(torch.from_numpy(samples.astype(np.float32)), made.rate_hz, config, config.n_frames)
        rows.append(tiled(frames, config.n_frames).argmax(dim=1).numpy())
    return np.stack(rows).astype(np.uint8)


def _write(out: Path, codec: Codec, split: str, number: int) -> None:
    first, rate_hz = number * SHARD_CLIPS, codec.config.sample_rate_hz
    codes, rows, labels = [], [], []
    for clips in _groups(split, first, rate_hz):
        codes.append(encode(codec, torch.from_numpy(np.stack([made.samples for made in clips]))).numpy())
        rows += [chroma_rows(made) for made in clips]
        labels += [asdict(made.label) for made in clips]
    path = shard_path(out, split, number)
    draft = path.with_suffix(".part")
    with open(draft, "wb") as file:
        np.savez(file, codes=np.concatenate(codes).astype(np.int16), chroma=np.stack(rows), labels=json.dumps(labels))
    draft.replace(path)


def _groups(split: str, first: int, rate_hz: int) -> Iterator[list[Clip]]:
    for start in range(first, first + SHARD_CLIPS, _AT_ONCE):
        yield [clip(split, start + i, CLIP_S, rate_hz) for i in range(_AT_ONCE)]
