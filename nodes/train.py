"""A folder of music -> a fine-tune of the model, proven; both for Apply MusicGen Fine-Tune."""

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..musicgen.audio import Audio
from ..musicgen.errors import InputError
from ..musicgen.finetuning.settings import (
    LR_SCHEDULERS,
    METHODS,
    OPTIMIZERS,
    TARGETS,
    TRAIN_PARAMETERS,
    TRAINING_PRECISIONS,
    TrainSettings,
)  # fmt: skip
from . import host, reports
from .inputs import Node, checked, checked_text
from .live import play
from .sockets import AUDIO, CATEGORY, CODEC, CONDITIONER, DATASET, LOSS_MAP, MODEL, audio_out
from .widgets import Widget, choice, seed, socket, switch, text

if TYPE_CHECKING:
    from ..musicgen.finetuning.dataset import Dataset
    from ..musicgen.finetuning.trainer import History

EXAMPLES = Path(__file__).resolve().parent.parent / "clips"
EXAMPLE = "house music"  # the folder there
FOLDER = "loras"  # below models/musicgen
_PICTURE_S = 3.0  # between two pictures of the losses
_NAME = re.compile(r"[\w][\w .+-]{0,99}")


class MusicGenDataset(Node):
    DESCRIPTION = (
        "The music of a folder or a zip, with its texts, for Train Fine-Tune: how long it is, what it is told to be, and what of it "
        "cannot be used, with the reasons."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = (
        "dataset",
        "training data",
        "music folder",
        "load dataset",
        "lora dataset",
        "captions",
        "fine-tune",
    )
    FUNCTION = "read"
    RETURN_TYPES = (DATASET, "STRING", "IMAGE")
    RETURN_NAMES = ("dataset", "report", "picture")
    OUTPUT_TOOLTIPS = (
        "The clips and their texts, for Train Fine-Tune.",
        "Every clip with its length and text, and what is not used, a line each.",
        "The clips as bars, as long as they are; what is not used in red.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "folder": text(
                    EXAMPLE,
                    "Folder in ComfyUI's input folder, or a zip, tar or tar.gz there, such as the published trainer takes. Beside "
                    f"song.mp3, song.txt says what it is. '{EXAMPLE}' comes with the pack: ten clips to try it with.",
                ),
                "caption": text("", "What clips without a text of their own are. Empty = see auto_labeling.", multiline=True),
                "one_same_description": text("", "What every clip is, whatever text it has. Empty = each its own.", multiline=True),
                "auto_labeling": switch(True, "Give clips without any text their tempo and key, where those are heard surely."),
                "drop_vocals": switch(False, "Take the voices out of every clip, by Demucs (a Python package, and its weights)."),
            },
        }  # fmt: skip

    @classmethod
    def VALIDATE_INPUTS(cls, folder: Any = None, input_types: dict | None = None) -> bool | str:
        try:
            if folder is not None:  # None: wired from another node
                _place(folder)
        except InputError as error:
            return str(error)
        return super().VALIDATE_INPUTS(input_types or {})

    @classmethod
    def IS_CHANGED(cls, folder: str | None = None, **_: Any) -> str:
        try:
            path = _place(folder or "")
            files = sorted(path.rglob("*")) if path.is_dir() else [path]
            return "\n".join(f"{file} {file.stat().st_size} {file.stat().st_mtime_ns}" for file in files)
        except (InputError, OSError):
            return ""

    @checked()
    def read(
        self, folder: str, caption: str, one_same_description: str, auto_labeling: bool, drop_vocals: bool
    ) -> tuple:
        path = _place(folder)
        from ..musicgen.finetuning.dataset import read_dataset
        from ..musicgen.finetuning.report import dataset_picture

        below = None if path.is_dir() else host.temp_folder("musicgen_datasets")
        dataset = read_dataset(
            path, caption, one_same_description, auto_labeling, drop_vocals, below, host.progress()
        )  # fmt: skip
        reports.show(dataset.report)
        return dataset, dataset.report, dataset_picture(dataset)


def _place(folder: Any) -> Path:
    """The folder or archive of a name: in ComfyUI's input folder, else the example. Links there are followed."""
    name = checked_text("folder", folder, 900).strip().replace("\\", "/")
    parts = [part for part in name.split("/") if part]
    if name and not name.startswith("/") and ".." not in parts and ":" not in name and "\0" not in name:
        for root in [*host.input_dirs(), EXAMPLES]:
            path = root.joinpath(*parts)
            if path.is_dir() or (root != EXAMPLES and path.is_file()):
                return path
    raise InputError(
        f"'folder' must name a folder or an archive in ComfyUI's input folder, or '{EXAMPLE}', which comes with the pack; there is no "
        f"{name[:200]!a}. Put the music there, or a link to where it is."
    )


class MusicGenTrain(Node):
    DESCRIPTION = (
        "Trains a fine-tune of the model on your own music, a LoRA or whole weights, and proves that it is heard. Its losses are shown "
        "while it trains; after Cancel the next run goes on where it was."
    )
    CATEGORY = CATEGORY
    SEARCH_ALIASES = ("train", "lora", "train lora", "fine-tune", "finetune", "dreambooth", "style", "own music")
    FUNCTION = "train"
    OUTPUT_NODE = True
    RETURN_TYPES = ("STRING", LOSS_MAP, "INT", "STRING", "IMAGE", AUDIO)
    RETURN_NAMES = ("weights", "loss_map", "steps", "report", "picture", "audio")
    OUTPUT_TOOLTIPS = (
        "Name of the file in models/musicgen, for the weights of Apply MusicGen Fine-Tune.",
        "The loss of each update, for the core's Plot Loss Graph.",
        "How many updates the fine-tune has had.",
        "The proof of effect: a verdict, and what it rests on, a line each. It is also in the file.",
        "The losses: learned, held out, and on other music.",
        "Clips by the fine-tune, 8 seconds each.",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict:
        return {
            "required": {
                "model": socket(MODEL, "The model to fine-tune, from Load MusicGen. It stays as it is."),
                "conditioner": socket(CONDITIONER, "The conditioner of the same Load MusicGen node."),
                "codec": socket(CODEC, "The codec of the same Load MusicGen node."),
                "dataset": socket(DATASET, "The music, from Training Clips."),
                "name": text("my style", "Name of the file that is written into models/musicgen/loras. One of this name is replaced."),
                **{name: _widget(name) for name in ("epochs", "updates_per_epoch", "batch_size")},
                "optimizer": choice(OPTIMIZERS, "torch's optimizer. The published trainer's dadam is not part of torch."),
                "lr": _widget("lr"),
                "lr_scheduler": choice(LR_SCHEDULERS, "How the learning rate falls after the warmup."),
                **{name: _widget(name) for name in ("warmup", "cfg_p", "rank")},
                "seed": seed(TRAIN_PARAMETERS["seed"].description),
            },
            "optional": {
                "method": choice(METHODS, "lora: small files beside the frozen model. whole weights: the whole model, six times the memory."),
                "sample_every": _widget("sample_every"),
                "targets": choice(
                    TARGETS, "What a LoRA changes. all: layers, heads and the text's projection. layers: without the latter two. attention: less."
                ),
                "precision": choice(
                    TRAINING_PRECISIONS,
                    "Number format of the frozen weights. auto: bfloat16 on a GPU; on a processor float32, or int8 for models larger than small.",
                ),
                **{
                    name: _widget(name)
                    for name in ("segment_s", "alpha", "dropout", "weight_decay", "keep_base", "max_forgetting", "proof_clips", "variants")
                },
            },
        }  # fmt: skip

    @classmethod
    def VALIDATE_INPUTS(cls, name: Any = None, input_types: dict | None = None) -> bool | str:
        try:
            if name is not None:  # None: wired from another node
                _file_name(name)
        except InputError as error:
            return str(error)
        return super().VALIDATE_INPUTS(input_types or {})

    @checked()
    def train(
        self, model: host.Managed, conditioner: host.Managed, codec: host.Managed, dataset: "Dataset", name: str,
        epochs: int, updates_per_epoch: int, batch_size: int, optimizer: str, lr: float, lr_scheduler: str, warmup: int,
        cfg_p: float, rank: int, seed: int, method: str = METHODS[0], sample_every: int = 0, targets: str = TARGETS[0],
        precision: str = TRAINING_PRECISIONS[0], segment_s: float = 0.0, alpha: float = 0.0, dropout: float = 0.05,
        weight_decay: float = 0.1, keep_base: float = 0.25, max_forgetting: float = 0.03, proof_clips: int = 8, variants: int = 0,
    ) -> dict:  # fmt: skip
        settings = TrainSettings(
            epochs=epochs, updates_per_epoch=updates_per_epoch, batch_size=batch_size, optimizer=optimizer, lr=lr,
            lr_scheduler=lr_scheduler, warmup=warmup, cfg_p=cfg_p, rank=rank, seed=seed, method=method, sample_every=sample_every,
            targets=targets, precision=precision, segment_s=segment_s, alpha=alpha, dropout=dropout, weight_decay=weight_decay,
            keep_base=keep_base, max_forgetting=max_forgetting, proof_clips=proof_clips, variants=variants,
        )  # fmt: skip
        file = _file_name(name)
        _check(model, conditioner, codec, dataset)
        from ..musicgen.finetuning.report import loss_picture, summary
        from ..musicgen.finetuning.run import fine_tune
        from ..musicgen.finetuning.samples import Base

        folder = _models_folder() / FOLDER
        work = folder / f".{file.removesuffix('.safetensors')}.training"
        base = Base(model.module, conditioner.module, codec.module)
        parts = {"model": model, "conditioner": conditioner, "codec": codec}
        watch = _watch(parts)
        try:
            result = fine_tune(
                base, dataset, settings, folder / file, work, folder / ".cache", host.model_device(), watch, _voices(dataset)
            )  # fmt: skip
        except BaseException as error:  # from 0.33 on ComfyUI's Cancel is no Exception
            if host.is_cancel(error):
                host.show_text(watch.where)
            raise
        (work / "checkpoint.pt").unlink(missing_ok=True)
        work.rmdir()
        history, report = result.history, summary(result.history, settings, result.proof)
        host.show_text(report)
        audio = host.nothing("No clips were written: proof_clips is 0.")
        if result.samples is not None:
            audio = audio_out(codec.run(lambda module: module.decode(result.samples)))
        picture = loss_picture(history, settings.updates)
        losses = {"loss": history.losses}
        return {
            "ui": {"text": [report]},
            "result": (f"{FOLDER}/{file}", losses, history.best_step, report, picture, audio),
        }


def _widget(name: str) -> Widget:
    """The widget of a number of TrainSettings."""
    entry = TRAIN_PARAMETERS[name]
    limits = {"default": entry.default, "min": entry.low, "max": entry.high, "step": entry.step}
    if not entry.is_whole:
        limits["round"] = min(entry.step, 1e-3) if name != "lr" else 1e-7
    return "INT" if entry.is_whole else "FLOAT", {**limits, "tooltip": entry.description}


def _file_name(name: Any) -> str:
    """The file of a fine-tune's name. InputError for one that no file can have, or that leads elsewhere."""
    given = checked_text("name", name, 200).strip().removesuffix(".safetensors")
    if not _NAME.fullmatch(given) or given != given.rstrip(". "):
        raise InputError(
            f"'name' must be 1 to 100 letters, digits, spaces or any of . _ + -, beginning with a letter or digit, got {given[:80]!a}."
        )
    return f"{given}.safetensors"


def _models_folder() -> Path:
    dirs = host.model_dirs()
    if not dirs:
        raise InputError("There is no folder models/musicgen to write the fine-tune into.")
    return dirs[0]


def _check(model: host.Managed, conditioner: host.Managed, codec: host.Managed, dataset: Any) -> None:
    """InputError for what cannot be trained: the audiocraft engine's objects, or objects of different models."""
    from ..musicgen.finetuning.dataset import Dataset
    from ..musicgen.pipeline import LanguageModel

    if not isinstance(dataset, Dataset):
        raise InputError(f"'dataset' must be of Training Clips, got {type(dataset).__name__}. Connect one.")
    if not isinstance(model.module, LanguageModel):
        raise InputError("Only the native engine's models can be trained. Set 'engine' of Load MusicGen to native.")
    config = model.module.config
    if conditioner.module.config.lm != config.lm:
        raise InputError("'conditioner' is of another model than 'model'. Connect both of the same Load MusicGen node.")
    if codec.module.config.identity != config.codec.identity:
        raise InputError(
            f"'codec' is {codec.module.config.identity}, but the model writes codes of {config.codec.identity}. Connect the codec of "
            "the same Load MusicGen node."
        )


def _voices(dataset: "Dataset") -> Any:
    """Takes the voices out of a song; None where they stay."""
    if not dataset.drop_vocals:
        return None
    from ..musicgen.separation import load_separator, memory_bytes, separate_stems

    separator = host.Managed(load_separator(host.stem_dirs()), "model")
    progress = host.progress()
    memory = memory_bytes(separator.module)
    return lambda song: separator.run(lambda module: separate_stems(song, module, progress).vocals, memory)


def _watch(parts: dict[str, host.Managed]) -> Any:
    """Shows the training on the node, and stops it at Cancel; `where` says what a Cancel then leaves."""
    from ..musicgen.finetuning.report import loss_image, time_left
    from ..musicgen.finetuning.run import Watch

    class OnNode(Watch):
        def __init__(self) -> None:
            self._progress, self._shown_s, self._drawn_s = host.progress(), 0.0, 0.0
            self.where = "Cancelled before the first update. What was heard so far is kept for the next run."

        def check(self) -> None:
            host.check_interrupted()

        def place(self, part: str) -> None:
            if part == "training":
                host.unload_all()
            else:
                parts[part].load()

        def stage(self, name: str, done: int, total: int) -> None:
            self._progress(done, total)
            self._say(f"{name}: {100 * done // max(1, total)} %", done in (0, total))

        def updated(self, step: int, total: int, left_s: float, history: "History") -> None:
            now_s, image = time.monotonic(), None
            if step == total or now_s - self._drawn_s > _PICTURE_S:
                self._drawn_s, image = now_s, loss_image(history, total)
            self.where = (
                f"Cancelled after update {step} of {total}. The next run with the same inputs goes on from there."
            )
            self._progress(step, total, image)
            held_out = history.measured[-1].held_out
            loss = history.losses[-1]
            losses = f"loss {loss:.3f}, of clips that are not learned {held_out:.3f}"
            self._say(f"learning, update {step} of {total}, {time_left(left_s)}\n{losses}", step == total)

        def sample(self, step: int, audio: Audio) -> None:
            play(audio)

        def _say(self, line: str, now: bool) -> None:
            if now or time.monotonic() - self._shown_s > 0.5:
                self._shown_s = time.monotonic()
                host.show_text(line)

    return OnNode()
