"""Figures of the codec and music of the model, quickly, on the machine that trained it."""

import io
import json
import time
import wave
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...musicgen.codec import Codec
from ...musicgen.codes import Codes
from ...musicgen.config import GenerationParams
from ...musicgen.loading import Loaded, load
from ..codec.spectral import mel_distance, si_sdr_db
from ..codec.train import through
from ..data.instruments import INSTRUMENTS
from ..data.songwords import GENRE_WORDS
from ..recipe import SHARPNESS

_AT_ONCE = 96  # prompts
PROMPTS = (
    "solo piano", "piano", "jazz trio", "synthwave", "drums alone", "acoustic guitar alone, no drums", "rock song, 120 bpm",
    "sad violin, slow", "happy pop song with drums, 110 bpm", "bossa nova guitar", "blues harmonica", "reggae, 80 bpm",
    "irish jig, fiddle", "waltz, accordion", "tango", "heavy metal", "ambient pad", "funk, 100 bpm, bass and drums",
    "flute solo, high", "music box", "피아노 솔로", "슬픈 첼로", "pansori voice with the buk, jungmori, 80 bpm", "",
)  # fmt: skip


@torch.no_grad()
def codec_figures(codec: Codec, waves: Tensor) -> dict[str, float]:
    """Mel distance, SI-SDR and the comb of clips [B, L], with all codebooks and with one."""
    rate_hz, result = codec.config.sample_rate_hz, {}
    waves = waves[waves.abs().amax(dim=1) > 0.01]
    for n_codebooks in (codec.config.n_codebooks, 1):
        decoded = torch.cat([through(codec, one[None], n_codebooks) for one in waves])
        theirs = waves[:, : decoded.shape[-1]]
        result[f"mel_distance_{n_codebooks}"] = float(mel_distance(decoded, theirs, rate_hz))
        sdr = si_sdr_db(decoded, theirs)
        result[f"si_sdr_db_{n_codebooks}"] = float(sdr.mean())
        result[f"si_sdr_db_{n_codebooks}_median"] = float(sdr.median())
        if n_codebooks > 1:
            result["comb_db"] = comb_db(decoded, rate_hz, codec.config.frame_rate_hz)
            result["comb_db_of_clips"] = comb_db(theirs, rate_hz, codec.config.frame_rate_hz)
    return result


def comb_db(waves: Tensor, rate_hz: int, frame_rate_hz: float) -> float:
    """How far the bins at multiples of the frame rate, 2 to 10 kHz, stand above those midway between: median over clips, dB."""
    n = rate_hz // 5  # bins of 5 Hz
    spectrum = torch.stft(
        waves, n, n // 2, window=torch.hann_window(n, device=waves.device), return_complex=True
    ).abs().pow(2).mean(dim=-1)  # fmt: skip
    lines = torch.arange(round(2000 / frame_rate_hz), round(10000 / frame_rate_hz), device=waves.device)
    on = (lines * frame_rate_hz / 5).round().long()
    between = ((lines + 0.5) * frame_rate_hz / 5).round().long()
    ratio = spectrum[:, on].clamp(min=1e-12).log10().mean(1) - spectrum[:, between].clamp(min=1e-12).log10().mean(1)
    return float(10 * ratio.median())


def samples(
    model: Path, out: Path, device: torch.device, duration_s: float, prompts: Sequence[str] = PROMPTS
) -> dict[str, float]:
    """Music to the prompts by the engine, from the file that ships: WAV files in one archive. Figures of loudness."""
    loaded, codes = _written(model, list(prompts), device, duration_s, seed=0)
    audio = loaded.codec.decode(codes).samples[:, 0].cpu().numpy()
    with zipfile.ZipFile(out / "samples.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for i, (text, one) in enumerate(zip(prompts, audio, strict=True)):
            name = "".join(c if c.isalnum() else "-" for c in text)[:40] or "empty"
            archive.writestr(f"{i:02d}-{name}.wav", _wav(one, loaded.config.codec.sample_rate_hz))
        archive.writestr("prompts.json", json.dumps(list(prompts), ensure_ascii=False))
    rms = np.sqrt((audio**2).mean(axis=1))
    return {"sample_rms_least": float(rms.min()), "sample_rms_median": float(np.median(rms)), "sharpness": SHARPNESS}


def judged_codes(model: Path, out: Path, device: torch.device, duration_s: float, end: float) -> None:
    """Codes to held-out prompts, for whoever judges them later: codes.npz, as many batches as there is time for."""
    prompts = judging_prompts()
    done: list[np.ndarray] = []
    slowest_s = 0.0
    for seed, first in enumerate(range(0, len(prompts), _AT_ONCE)):
        begun = time.monotonic()
        if begun + 1.3 * slowest_s > end - 8:
            break
        some = prompts[first : first + (_AT_ONCE if duration_s > 1 else 2)]
        done.append(
            _written(model, [text for text, _ in some], device, duration_s, seed)[1].codes.numpy().astype(np.int16)
        )
        slowest_s = max(slowest_s, time.monotonic() - begun)
        if duration_s <= 1:
            break
    if not done:
        return
    n = sum(len(codes) for codes in done)
    np.savez_compressed(out / "codes.npz", codes=np.concatenate(done))
    (out / "prompts.json").write_text(json.dumps(prompts[:n], ensure_ascii=False), encoding="utf-8")


def judging_prompts() -> list[tuple[str, dict]]:
    """(text, what it asks for): instruments alone, genres, tempos, drums or none; in an order in which any beginning is fair."""
    rng, prompts = np.random.default_rng(5), []
    for name in INSTRUMENTS:
        words = INSTRUMENTS[name].english
        for form in ("solo {}", "{}", "{} alone, no drums"):
            prompts.append((form.format(words[int(rng.integers(len(words)))]), {"lead": name, "solo": form != "{}"}))
    for genre, (english, _) in GENRE_WORDS.items():
        for form in ("{}", "{} with drums", "{} song"):
            prompts.append((form.format(english[int(rng.integers(len(english)))]), {"genre": genre}))
    for _ in range(96):
        genre, bpm = str(rng.choice(list(GENRE_WORDS))), int(rng.integers(60, 181))
        prompts.append(
            (f"{GENRE_WORDS[genre][0][0]} with drums, {bpm} bpm", {"genre": genre, "bpm": bpm, "drums": True})
        )
    prompts += [(text, {"drums_alone": True}) for text in ("drums alone", "drum solo", "only drums", "드럼 솔로") * 4]
    prompts += [("", {}) for _ in range(8)]
    return [prompts[i] for i in rng.permutation(len(prompts))]


def _written(
    model: Path, prompts: list[str], device: torch.device, duration_s: float, seed: int
) -> tuple[Loaded, Codes]:
    """What the file writes to texts, each at temperature 1 with guidance 3."""
    loaded = load(model, "float32", device)
    for part in (loaded.model, loaded.codec):
        part.to(device)
    params = GenerationParams(duration_s=duration_s, seed=seed, cfg=3.0, batch_size=1)
    return loaded, loaded.model.generate(loaded.conditioner.encode_text(prompts), params)


def _wav(samples_: np.ndarray, rate_hz: int) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate_hz)
        file.writeframes((np.clip(samples_, -1, 1) * 32767).astype("<i2").tobytes())
    return buffer.getvalue()
