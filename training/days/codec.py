"""Trains the codec, in as many sittings as one likes: the checkpoint knows everything, the clips follow from the step."""

import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import safetensors
import safetensors.torch
import torch

from ...musicgen.codec import Codec
from ...musicgen.errors import InputError
from .. import runs
from ..codec import adversarial
from ..codec.train import finished
from ..codec.widen import widened
from ..onegpu.figures import codec_figures
from ..onegpu.run import load_codec, rebuilt
from ..shipped import SUFFIX, codec_of
from .crops import Crops, Play
from .place import Place
from .recipe import Days

SHIPPED = Path(__file__).with_name(
    "codec.safetensors"
)  # trained by these steps; the codes of all machines are its codes
_CONFIG = "codec"  # in the file's metadata
_LOG_STEPS, _MEASURE_S, _MEASURED_CLIPS = 50, 1800.0, 8
_LEVEL = 1.3  # of `adversarial.Plan`, for the decoder alone
_UNHEARD = 40_000  # clips of the training split before this one are the language model's
_NEVER = 2.0  # share of the run from which there is a discriminator: it cost SI-SDR, and half of the time


def train(
    place: Place, days: Days, minutes: float, play: Play, held_out: Play, begin_with: Codec | None = None
) -> adversarial.Trainer:
    """Train until the minutes are over, the process is asked to end, or the codec is done; goes on where it was.

    play, held_out: number of a clip of the split -> samples [L]. begin_with: what a new run begins with, which may be narrower.
    """
    return _sitting(
        place.codec,
        days,
        minutes,
        days.codec_steps,
        play,
        held_out,
        lambda crops: begun(place, days, crops, begin_with),
    )


def train_decoder(place: Place, days: Days, minutes: float, play: Play, held_out: Play) -> adversarial.Trainer:
    """The same with the frozen codec's decoder alone, by clips that no code was learnt from: what it is taught fits all codes."""
    return _sitting(
        place.decoder, days, minutes, days.decoder_steps, lambda number: play(_UNHEARD + number), held_out,
        lambda crops: _begun_decoder(place, days, crops),
    )  # fmt: skip


def _sitting(
    path: Path,
    days: Days,
    minutes: float,
    n_steps: int,
    play: Play,
    held_out: Play,
    begin: Callable[[Crops], adversarial.Trainer],
) -> adversarial.Trainer:
    """path: of the checkpoint, whose logs lie beside it. n_steps: when all is done. begin: as far as the checkpoint is."""
    box = runs.TimeBox(minutes)
    path.parent.mkdir(parents=True, exist_ok=True)
    recipe, crops = days.recipe, Crops(days, play)
    log, measured = runs.Log(path.with_suffix(".csv")), runs.Log(path.with_name(f"{path.stem}_held_out.csv"))
    try:
        trainer = begin(crops)
        check = torch.stack([torch.from_numpy(held_out(i)) for i in range(_MEASURED_CLIPS)])
        means, first, measured_s = runs.Means(), trainer.step, 0.0
        row_s = recipe.codec_batch * recipe.codec_crop_s

        def measure() -> None:
            if trainer.quantizes:
                codec = trainer.finished()
                measured.write({"step": trainer.step, **codec_figures(codec, check.to(trainer.device))})

        while not box.over and trainer.step < n_steps:
            waves = crops.batch(trainer.step).to(trainer.device)
            losses = trainer.train_step(waves, trainer.step / n_steps)
            means.add({name: loss.item() for name, loss in losses.items()})
            if trainer.step % _LOG_STEPS == 0:
                speed = (trainer.step - first) * row_s / max(box.elapsed_s, 1e-3)
                used = {f"used{k}": value for k, value in enumerate(trainer.quantizer.perplexity())}
                log.write(
                    {
                        "step": trainer.step,
                        "audio_h": trainer.step * row_s / 3600,
                        "speed": speed,
                        **means.taken(),
                        **used,
                    }
                )
            if box.checkpoint_due():
                runs.save(path, trainer.state())
            if box.elapsed_s - measured_s > _MEASURE_S:
                measured_s = box.elapsed_s
                measure()
        runs.save(path, trainer.state())
        if trainer.step >= n_steps:  # not when asked to end: who asks may not wait
            measure()
    finally:
        crops.close()
    return trainer


def begun(place: Place, days: Days, crops: Crops, begin_with: Codec | None = None) -> adversarial.Trainer:
    """The trainer of the checkpoint, or a new one."""
    return _restored(place.codec, _plan(days, days.codec_rate), days, crops, begin_with)


def _begun_decoder(place: Place, days: Days, crops: Crops) -> adversarial.Trainer:
    plan = replace(_plan(days, days.decoder_rate), level=_LEVEL, decoder_only=True)
    return _restored(place.decoder, plan, days, crops, frozen(place, days))


def _plan(days: Days, rate: float) -> adversarial.Plan:
    recipe = days.recipe
    return adversarial.Plan(
        0.0, recipe.codec_batch, recipe.codec_crop_s, rate, adversary_from=_NEVER, n_filters=recipe.adversary_filters
    )


def _restored(
    path: Path, plan: adversarial.Plan, days: Days, crops: Crops, begin_with: Codec | None
) -> adversarial.Trainer:
    trainer = adversarial.Trainer(days.recipe.codec, plan, runs.pick_device(), crops.batch(0))
    if path.exists():
        table = runs.load(path)
        if table["config"] != trainer.state()["config"]:
            raise InputError(f"{path} has other sizes than this recipe. Give another --out, or the same recipe.")
        trainer.restore(table)
    elif begin_with:
        trainer.begin_with(widened(begin_with, days.recipe.codec))
    return trainer


def opened(path: Path) -> Codec:
    """A trained codec: of `ship`, of a model that ships, of this training's checkpoint, or frozen. InputError if it is not there."""
    if not path.exists():
        raise InputError(f"there is no {path} to begin with. Give a codec.pt, or a model that ships (.safetensors).")
    if path.suffix == SUFFIX:
        with safetensors.safe_open(path, "pt") as file:
            if config := (file.metadata() or {}).get(_CONFIG):
                return rebuilt(json.loads(config), {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
    if path.suffix == SUFFIX or "optimizer" in runs.load(path):
        return codec_of(path)
    return load_codec(path)


def ship(codec: Codec, path: Path) -> None:
    """Write a codec alone, in float16, for `opened`."""
    tensors = {name: tensor.half().contiguous() for name, tensor in codec.state_dict().items()}
    safetensors.torch.save_file(tensors, path, {_CONFIG: json.dumps(asdict(codec.config))})


def frozen(place: Place, days: Days, early: bool = False, shipped: Path = SHIPPED) -> Codec:
    """The codec for coding: written once, and read ever after. Where none was trained it is the one of the checkout.

    InputError if it is not trained to the end, unless `early`; and if the checkout's has other sizes than the recipe.
    """
    if not place.frozen.exists() and not place.codec.exists():
        codec = opened(shipped)
        if replace(codec.config, fingerprint="") != replace(days.recipe.codec, fingerprint=""):
            raise InputError(
                f"there is no codec in {place.out}, and {shipped.name} has other sizes. Train one: `days codec`."
            )
        place.out.mkdir(parents=True, exist_ok=True)
        runs.save(place.frozen, {"config": asdict(codec.config), "step": days.codec_steps, "codec": codec.state_dict()})
    if not place.frozen.exists():
        table = runs.load(place.codec)
        if (table["step"] < days.codec_steps and not early) or not table["quantizes"]:
            raise InputError(
                f"the codec has done {table['step']} of {days.codec_steps} steps, and codes are worth nothing once it goes "
                "on. Run `days codec` to the end, or give --early to take it as it is."
            )
        codec = finished(place.codec)
        runs.save(place.frozen, {"config": table["config"], "step": table["step"], "codec": codec.state_dict()})
    return load_codec(place.frozen)


def latest(place: Place, days: Days, early: bool = False) -> Codec:
    """The codec that ships: the frozen one, with its decoder as far as that was trained on alone. Errors as in `frozen`."""
    codec = frozen(place, days, early)
    if place.decoder.exists():
        codec.decoder.load_state_dict(finished(place.decoder).decoder.state_dict())
    return codec
