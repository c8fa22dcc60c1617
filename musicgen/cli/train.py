"""python -m musicgen train: a fine-tune of a model on a folder of music."""

import argparse
import sys
import time
from pathlib import Path

import torch

from .. import audio as audio_files
from ..audio import Audio
from ..finetuning.dataset import Dataset, read_dataset
from ..finetuning.encoding import Separate
from ..finetuning.report import loss_image, summary, time_left
from ..finetuning.run import Part, Watch, fine_tune
from ..finetuning.samples import Base
from ..finetuning.settings import CHOICES, TRAIN_PARAMETERS, TrainSettings
from ..finetuning.trainer import History
from ..loading import Loaded, load
from ..outputs import check_output
from ..render import find_device
from ..separation import load_separator, separate_stems
from ..store.published import DEFAULT
from .console import Progress
from .options import add_models, model_store

FOLDER = "loras"  # of a models folder: where fine-tunes are looked for
_PICTURE_S = 5.0  # between two pictures of the losses


def add(parser: argparse.ArgumentParser, models: Path) -> None:
    """Options of `train`."""
    parser.set_defaults(run=run)
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="of music, with a text of the same name beside each; or a zip"
    )
    parser.add_argument("--base", default=DEFAULT, metavar="DIR_OR_NAME", help="model that is trained (%(default)s)")
    add_models(parser, models)
    parser.add_argument("--out", type=Path, metavar="FILE", help="safetensors file (NAME in --models/musicgen/loras)")
    parser.add_argument("--peft-folder", type=Path, metavar="DIR", help="also write the adapter as PEFT's folder")
    parser.add_argument("--caption", default="", metavar="TEXT", help="text of the clips that have none")
    parser.add_argument(
        "--one-same-description", default="", metavar="TEXT", help="text of every clip, whatever it has"
    )
    parser.add_argument(
        "--auto-labeling",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="tempo and key for clips without any text",
    )
    parser.add_argument("--drop-vocals", action="store_true", help="take the voices out of each clip, by Demucs")
    for name, entry in TRAIN_PARAMETERS.items():
        kind = int if entry.is_whole else float
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=kind, default=entry.default, metavar="N" if entry.is_whole else "X",
            help=f"{entry.description.replace('%', '%%')} (%(default)s)",
        )  # fmt: skip
    for name, allowed in CHOICES.items():
        default = getattr(TrainSettings, name)
        parser.add_argument(f"--{name.replace('_', '-')}", choices=allowed, default=default, help="(%(default)s)")
    parser.add_argument("--device", default="auto", metavar="D", help="auto, cpu, cuda, cuda:1, mps (%(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """Print the data set, the proof, and the path of the fine-tune last. Samples and the losses' picture go beside it."""
    settings = TrainSettings(**{name: getattr(arguments, name) for name in (*TRAIN_PARAMETERS, *CHOICES)})
    folder = arguments.models / "musicgen" / FOLDER
    target = arguments.out or folder / f"{arguments.folder.resolve().name.partition('.')[0]}.safetensors"
    target.parent.mkdir(parents=True, exist_ok=True)
    check_output(target, ["safetensors"])
    device = find_device(arguments.device)
    store = model_store(arguments)
    with Progress() as on_progress:
        dataset = _dataset(arguments, folder, on_progress)
        print(dataset.report, flush=True)
        separate = _voices(arguments, device, on_progress) if dataset.drop_vocals else None
        path = store.ensure(arguments.base, lambda done, total: on_progress("downloading", done, total))
        encoders = [arguments.models / "text_encoders"]
        loaded = load(
            path, "auto", device, encoders, arguments.base, store, lambda d, t: on_progress("downloading", d, t)
        )
        work = target.with_name(f".{target.stem}.training")
        follower = _Follower(on_progress, target, loaded, device)
        base = Base(loaded.model, loaded.conditioner, loaded.codec)
        try:
            result = fine_tune(
                base,
                dataset,
                settings,
                target,
                work,
                folder / ".cache",
                device,
                follower,
                separate,
                arguments.peft_folder,
            )
        except KeyboardInterrupt:
            if (work / "checkpoint.pt").is_file():
                print(f"stopped; the same command goes on where it was ({work})", file=sys.stderr)
            raise
    for file in work.glob("*"):
        file.unlink()
    work.rmdir()
    print(summary(result.history, settings, result.proof))
    print(target)


def _dataset(arguments: argparse.Namespace, folder: Path, on_progress: Progress) -> Dataset:
    return read_dataset(
        arguments.folder, arguments.caption, arguments.one_same_description, arguments.auto_labeling,
        arguments.drop_vocals, folder / ".cache" / "archives", lambda done, total: on_progress("reading", done, total),
    )  # fmt: skip


def _voices(arguments: argparse.Namespace, device: torch.device, on_progress: Progress) -> Separate:
    """Takes the voices out of a song."""
    separator = load_separator([arguments.models / "demucs"]).to(device)
    return lambda song: separate_stems(song, separator, lambda done, total: on_progress("voices", done, total)).vocals


class _Follower(Watch):
    """Progress bars; the losses as a picture and samples as sound files beside the fine-tune."""

    def __init__(self, on_progress: Progress, target: Path, loaded: Loaded, device: object) -> None:
        self._on_progress, self._target, self._loaded, self._device = on_progress, target, loaded, device
        self._drawn_s = 0.0

    def place(self, part: Part) -> None:
        """Only what is at work is on the device."""
        for name in ("model", "conditioner", "codec"):
            module = getattr(self._loaded, name)
            module.to(self._device if name == part or (part == "conditioner" and name == "model") else "cpu")

    def stage(self, name: str, done: int, total: int) -> None:
        self._on_progress(name, done, total)

    def updated(self, step: int, total: int, left_s: float, history: History) -> None:
        held_out = history.measured[-1].held_out
        self._on_progress("training", step, total)
        self._on_progress.note(f"loss {history.losses[-1]:.3f}, held out {held_out:.3f}, {time_left(left_s)}")
        if step == total or time.monotonic() - self._drawn_s > _PICTURE_S:
            self._drawn_s = time.monotonic()
            picture: object = loss_image(history, total)
            picture.save(self._target.with_suffix(".png"))  # pyright: ignore[reportAttributeAccessIssue]

    def sample(self, step: int, audio: Audio) -> None:
        name = f"{self._target.stem}-{step:05}.flac"
        audio_files.write(audio, self._target.with_name(name))
