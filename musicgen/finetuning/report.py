"""What a training says of itself: lines of text, and its losses as a picture."""

import math

import numpy as np
import torch
from torch import Tensor

from ..dependencies import require
from .dataset import Dataset
from .proof import Losses, Proof
from .settings import TrainSettings
from .trainer import History

WIDTH, HEIGHT = 840, 520  # pixels, as of the core's own loss graph
_BACKGROUND, _LINES, _TEXT = (18, 20, 28), (41, 46, 59), (226, 229, 236)
_LOSS, _SMOOTH, _HELD_OUT, _FOREIGN = (70, 76, 98), (140, 150, 190), (245, 186, 74), (110, 190, 150)
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 36, 34
_SMOOTHING = 0.9
_SHOWN, _ROW, _RED = 32, 20, (224, 108, 100)  # rows of clips, pixels of a row


def loss_image(history: History, total: int) -> object:
    """Losses over updates as a PIL image: of each update and smoothed, held-out, and of other music."""
    pillow = require("PIL.Image", "The picture of the losses", "pillow")
    drawing = require("PIL.ImageDraw", "The picture of the losses", "pillow")
    image = pillow.new("RGB", (WIDTH, HEIGHT), _BACKGROUND)
    draw = drawing.Draw(image)
    losses = [loss for loss in history.losses if math.isfinite(loss)]
    values = losses + [v for one in history.measured for v in (one.held_out, one.foreign) if v]
    if not values:
        return image
    low, high = min(values), max(values)
    low, high = low - 0.05 * (high - low) - 0.01, high + 0.05 * (high - low) + 0.01

    def at(step: float, value: float) -> tuple[float, float]:
        x = _LEFT + step / max(1, total) * (WIDTH - _LEFT - _RIGHT)
        return x, _TOP + (high - value) / (high - low) * (HEIGHT - _TOP - _BOTTOM)

    for part in range(6):
        value = low + (high - low) * part / 5
        draw.line((_LEFT, at(0, value)[1], WIDTH - _RIGHT, at(0, value)[1]), fill=_LINES)
        draw.text((8, at(0, value)[1] - 6), f"{value:.2f}", fill=_TEXT)
        draw.text((at(total * part / 5, low)[0] - 10, HEIGHT - _BOTTOM + 10), f"{round(total * part / 5)}", fill=_TEXT)
    smooth, points, smoothed = losses[0] if losses else 0.0, [], []
    for step, loss in enumerate(losses, start=1):
        smooth = _SMOOTHING * smooth + (1 - _SMOOTHING) * loss
        points.append(at(step, loss))
        smoothed.append(at(step, smooth))
    lines = [
        ("learned", _LOSS, points, 1),
        ("learned, smoothed", _SMOOTH, smoothed, 2),
        ("held out", _HELD_OUT, [at(one.step, one.held_out) for one in history.measured], 3),
        ("other music", _FOREIGN, [at(one.step, one.foreign) for one in history.measured if one.foreign], 3),
    ]
    x = _LEFT
    for name, color, line, width in lines:
        if len(line) > 1:
            draw.line(line, fill=color, width=width)
        draw.text((x, 12), name, fill=color)
        x += 7 * len(name) + 28
    return image


def loss_picture(history: History, total: int) -> Tensor:
    """`loss_image` as [1, H, W, 3] float32 in 0..1."""
    return torch.from_numpy(np.asarray(loss_image(history, total), dtype=np.float32) / 255)[None]


def time_left(seconds: float) -> str:
    """`3 min 20 s left`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{hours} h"] * bool(hours) + [f"{minutes} min"] * bool(minutes) + [f"{rest} s"] * (not hours)
    return f"{' '.join(parts)} left"


def summary(history: History, settings: TrainSettings, proof: Proof) -> str:
    """The proof in words, a line a fact: the verdict, what a musician asks, and below "Details" the figures."""
    lines = [proof.verdict, *_in_plain_words(proof), "", "Details (losses in nats a code: less = better known)"]
    if history.stopped:
        lines.append(f"Ended after {len(history.losses)} of {settings.updates} updates: {history.stopped}.")
    lines.append(f"The weights are those after {history.best_step} updates, {history.took_s:.0f} s of training.")
    lines.append(_line("music like it, not learned", proof.held_out))
    lines.append(_line("the same without text", proof.held_out_without_text))
    lines.append(_line("music that was learned", proof.learned))
    if proof.foreign is not None:
        lines.append(_line("other music", proof.foreign))
    if proof.sampled:
        away = {strength: kinds["all"] for strength, kinds in proof.distances.items()}
        kinds = ", ".join(
            f"{kind} {proof.distances['0'][kind]:.2f} -> {proof.distances['1'][kind]:.2f}"
            for kind in ("chroma", "tempo", "timbre")
        )
        lines += [
            f"{proof.sampled} clips by the base and as many by the fine-tune: told apart by their sound in "
            f"{100 * proof.told_by_sound:.0f} % (chance 50 %), by likelihood in {100 * proof.told_by_likelihood:.0f} %.",
            f"Base's loss minus the fine-tune's, nats a code: {proof.ratio_of_base_clips:+.3f} on the base's clips, "
            f"{proof.ratio_of_tuned_clips:+.3f} on the fine-tune's.",
            f"Distance of the clips' mean to the music's, in deviations, base -> fine-tune: {kinds}.",
            "By strength 0, 0.5, 1: distance " + ", ".join(f"{away[s]:.2f}" for s in ("0", "0.5", "1"))
            + "; likelihood ratio " + ", ".join(f"{proof.ratios_by_strength[s]:+.3f}" for s in ("0", "0.5", "1"))
            + "; held-out loss " + ", ".join(f"{proof.losses_by_strength[s]:.3f}" for s in ("0", "0.5", "1")) + ".",
            f"Seconds that are nearly the music's own: {100 * proof.copied:.0f} % (among the music's own clips "
            f"{100 * proof.copied_among_data:.0f} %).",
        ]  # fmt: skip
    return "\n".join(lines)


def _in_plain_words(proof: Proof) -> list[str]:
    better, told, forgot = round(-100 * proof.held_out.change), "not measured: no clips were written", "not measured"
    if proof.sampled:
        told = f"{100 * proof.told_by_sound:.0f} % (chance 50 %)"
    if proof.foreign is not None:
        rise = round(100 * proof.foreign.change)
        forgot = f"{rise} %" if rise > 0 else "nothing"
    return [
        f"How much better it knows your music: {better} %" + (" (it knows it worse)" if better < 0 else ""),
        f"How often its sound is told from before: {told}",
        f"How much of other music it forgot: {forgot}",
    ]


def _line(what: str, losses: Losses) -> str:
    return (
        f"Loss on {what}: {losses.base:.3f} -> {losses.tuned:.3f} ({100 * losses.change:+.1f} %; change {losses.low:+.3f} to "
        f"{losses.high:+.3f} in 95 % of resamplings)."
    )


def dataset_picture(dataset: Dataset) -> Tensor:
    """Clips as bars as long as they are, with their names and texts, and what is not used in red: [1, H, W, 3] float32 in 0..1."""
    pillow = require("PIL.Image", "The picture of the clips", "pillow")
    drawing = require("PIL.ImageDraw", "The picture of the clips", "pillow")
    rows = [(clip.name, f"{clip.duration_s:.0f} s  {clip.text}", clip.duration_s) for clip in dataset.clips[:_SHOWN]]
    rows += [(problem.name, problem.reason, 0.0) for problem in dataset.problems[: max(8, _SHOWN - len(rows))]]
    left_out = len(dataset.clips) + len(dataset.problems) - len(rows)
    image = pillow.new("RGB", (WIDTH, _ROW * (len(rows) + 2)), _BACKGROUND)
    draw = drawing.Draw(image)
    head = f"{len(dataset.clips)} clips, {dataset.duration_s / 60:.1f} min; {len(dataset.problems)} not used"
    draw.text((8, 6), head + (f"; {left_out} more" if left_out else ""), fill=_TEXT)
    longest = max(clip.duration_s for clip in dataset.clips)
    for number, (name, words, duration_s) in enumerate(rows, start=1):
        top = _ROW * number + 6
        draw.rectangle((240, top, 240 + duration_s / longest * (WIDTH - 256), top + _ROW - 6), fill=_LINES)
        draw.text((8, top), _ascii(name, 36), fill=_TEXT if duration_s else _RED)
        draw.text((246, top), _ascii(words, 95), fill=_TEXT if duration_s else _RED)
    return torch.from_numpy(np.asarray(image, dtype=np.float32) / 255)[None]


def _ascii(text: str, longest: int) -> str:
    """What Pillow's own font can show."""
    shown = text.encode("ascii", "replace").decode()
    return shown if len(shown) <= longest else shown[: longest - 3] + "..."
