"""MultiBand Diffusion files: audiocraft's (`mbd_*.th`, `mbd_*.pt`), and the same model as safetensors.

Audiocraft's is a torch file: `sample_rate`, `n_bands`, and for each band under its number `cfg`, a pickled DictConfig,
`model_state` and `processor_state`. Ours has the weights as `bands.{i}.unet.*` and `bands.{i}.processor.*`, and the
same settings as JSON in its metadata.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from ..checkpoints.containers.safetensors import looks_like_safetensors, read_with_metadata
from ..checkpoints.containers.torch_zip import TorchFile
from ..checkpoints.settings import DIFFUSION_KEY, Settings, plain
from ..checkpoints.weights.expected import Shapes, shapes_of
from ..checkpoints.weights.inventory import Inventory
from ..checkpoints.weights.lazy import Stored, Weight, WeightsFile
from ..errors import CheckpointError
from .config import N_STEPS, BandConfig, DiffusionConfig, ProcessorConfig, ScheduleConfig, UnetConfig
from .processor import Processor
from .unet import Unet

VERSION = 1
MAX_BANDS = 64

_UNET_KEYS = {*UnetConfig.__dataclass_fields__, "dropout"}
_PROCESSOR_KEYS = {"use", "name", "n_bands", "num_samples", "power_std"}
_FILTERS = "split_bands.lowpass.filters"  # audiocraft's name


@dataclass(frozen=True)
class DiffusionCheckpoint:
    """A file whose headers were read and found whole; no weight has been read yet."""

    path: Path
    format: str  # "audiocraft" or "converted"
    config: DiffusionConfig
    weights: dict[str, Weight]

    def files(self) -> Iterator[WeightsFile]:
        for weight in self.weights.values():
            yield from weight.files()


def open_diffusion(path: Path) -> DiffusionCheckpoint:
    """Read the headers of a MultiBand Diffusion file, known by its content, whatever its name.

    CheckpointError names the tensor or setting for anything missing, damaged, unsafe, unsupported or left over.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist. Give the file of a MultiBand Diffusion model.")
    return _open_converted(path) if looks_like_safetensors(path) else _open_audiocraft(path)


def metadata_of(config: DiffusionConfig) -> dict[str, str]:
    """Metadata of a safetensors file of this model."""
    bands = [
        {
            "channels": 1,
            "diffusion_unet": asdict(band.unet),
            "schedule": {**asdict(band.schedule), "num_steps": N_STEPS},
            "processor": {"use": False} if band.processor is None else _processor_table(band.processor),
        }
        for band in config.bands
    ]
    return {DIFFUSION_KEY: json.dumps({"version": VERSION, "sample_rate": config.sample_rate_hz, "bands": bands})}


def _processor_table(config: ProcessorConfig) -> dict:
    return {"use": True, "name": "multi_band_processor", "n_bands": config.n_bands, "power_std": config.power_std}


def _open_audiocraft(path: Path) -> DiffusionCheckpoint:
    file = TorchFile(path)
    contents = file.contents
    if not isinstance(contents, dict) or "n_bands" not in contents or "sample_rate" not in contents:
        raise CheckpointError(
            f"{path} is no MultiBand Diffusion model: it has no 'n_bands' and 'sample_rate'. Models of music are loaded "
            "by Load MusicGen."
        )
    head = Settings({key: value for key, value in contents.items() if isinstance(key, str)}, str(path))
    n_bands = head.integer("n_bands", most=MAX_BANDS)
    extra = [key for key in contents if isinstance(key, int) and not 0 <= key < n_bands]
    if extra:
        raise CheckpointError(f"{path} has a band {extra[0]}, but says that it has {n_bands} bands")
    bands, weights = [], {}
    for number in range(n_bands):
        source = f"{path}, band {number}"
        band = contents.get(number)
        if not isinstance(band, dict) or not {"cfg", "model_state", "processor_state"} <= band.keys():
            raise CheckpointError(f"{source} is missing, or without 'cfg', 'model_state' or 'processor_state'")
        table = plain(band["cfg"], f"{source}: cfg")
        if not isinstance(table, dict):
            raise CheckpointError(f"{source}: cfg is no table of settings, so the model cannot be rebuilt from it")
        tensors = {f"unet.{k}": v for k, v in file.tensors(band["model_state"], f"{number}.model_state").items()}
        state = band["processor_state"]
        levels = file.tensors(state, f"{number}.processor_state") if state else {}
        tensors |= {f"processor.{'filters' if k == _FILTERS else k}": v for k, v in levels.items()}
        config, taken = _band(Settings(table, f"{source}: cfg"), tensors, source)
        bands.append(config)
        weights |= {f"bands.{number}.{name}": weight for name, weight in taken.items()}
    config = DiffusionConfig(path.stem, head.integer("sample_rate"), tuple(bands))
    return DiffusionCheckpoint(path, "audiocraft", config, weights)


def _open_converted(path: Path) -> DiffusionCheckpoint:
    tensors, metadata = read_with_metadata(path)
    if DIFFUSION_KEY not in metadata:
        raise CheckpointError(
            f"{path} is a safetensors file, but no MultiBand Diffusion model: it lacks the settings that 'python -m "
            "musicgen convert' writes into it."
        )
    settings = Settings.from_text(metadata[DIFFUSION_KEY], f"{path} (metadata)")
    if settings.integer("version") > VERSION:
        raise CheckpointError(f"{path} was written by a newer version of this program. Update it.")
    tables = settings.get("bands")
    if (
        not isinstance(tables, list)
        or not 1 <= len(tables) <= MAX_BANDS
        or not all(isinstance(t, dict) for t in tables)
    ):
        raise settings.wrong("bands", tables, f"a list of 1 to {MAX_BANDS} tables")
    left = Inventory(tensors, str(path))
    bands, weights = [], {}
    for number, table in enumerate(tables):
        prefix = f"bands.{number}."
        config, taken = _band(Settings(table, f"{path} (metadata), band {number}"), left.take_prefix(prefix), str(path))
        bands.append(config)
        weights |= {prefix + name: weight for name, weight in taken.items()}
    left.check()
    config = DiffusionConfig(path.stem, settings.integer("sample_rate"), tuple(bands))
    return DiffusionCheckpoint(path, "converted", config, weights)


def _band(settings: Settings, tensors: Mapping[str, Stored], source: str) -> tuple[BandConfig, dict[str, Weight]]:
    """One band's settings and weights, none missing and none left over."""
    settings.expect("channels", 1)
    config = BandConfig(_unet(settings.section("diffusion_unet")), _schedule(settings.section("schedule")),
                        _processor(settings.section("processor"), tensors))  # fmt: skip
    inventory = Inventory(tensors, source)
    weights = {name: inventory.take(name, shape) for name, shape in _band_shapes(config).items()}
    if config.unet.transformer:  # audiocraft builds and saves a bilstm beside a transformer, and never runs it
        inventory.drop(r"unet\.bilstm\..*")
    inventory.check()
    return config, weights


def _band_shapes(config: BandConfig) -> Shapes:
    parts = {"unet": _unet_shapes(config.unet)}
    processor = config.processor
    if processor is not None:
        parts["processor"] = shapes_of(lambda: Processor(processor))
    return {f"{part}.{name}": shape for part, shapes in parts.items() for name, shape in shapes.items()}


@lru_cache(maxsize=4)
def _unet_shapes(config: UnetConfig) -> Shapes:
    """One for all bands of a published model, which have U-Nets of one size."""
    return shapes_of(lambda: Unet(config))


def _unet(unet: Settings) -> UnetConfig:
    for key, value in unet.table.items():
        if key not in _UNET_KEYS and value is not None:
            raise unet.wrong(key, value, "a U-Net without this setting")
    default = UnetConfig()
    transformer = _flag(unet, "transformer", default.transformer)
    return UnetConfig(
        hidden=unet.integer("hidden", default.hidden, most=2**14),
        depth=unet.integer("depth", default.depth, most=8),
        growth=unet.number("growth", default.growth, most=64.0),
        max_channels=unet.integer("max_channels", default.max_channels),
        kernel=unet.integer("kernel", default.kernel, most=256),
        stride=unet.integer("stride", default.stride, most=64),
        norm_groups=unet.integer("norm_groups", default.norm_groups, most=2**14),
        res_blocks=unet.integer("res_blocks", default.res_blocks, most=16, least=0),
        emb_all_layers=_flag(unet, "emb_all_layers", default.emb_all_layers),
        codec_dim=unet.integer("codec_dim", most=2**16),
        bilstm=_flag(unet, "bilstm", default.bilstm) and not transformer,
        transformer=transformer,
        cross_attention=_flag(unet, "cross_attention", default.cross_attention) and transformer,
    )


def _flag(settings: Settings, key: str, default: bool) -> bool:
    return bool(settings.expect(key, True, False, default=default))


def _schedule(schedule: Settings) -> ScheduleConfig:
    """The settings that sampling reads; `variance` and `rescale` it leaves aside."""
    schedule.expect("num_steps", N_STEPS)
    schedule.expect("repartition", "power", default="power")
    schedule.expect("n_bands", None, default=None)
    default = ScheduleConfig()
    clip = schedule.get("clip", default.clip)
    return ScheduleConfig(
        beta_t0=schedule.number("beta_t0", default.beta_t0, most=1.0),
        beta_t1=schedule.number("beta_t1", default.beta_t1, most=1.0),
        beta_exp=schedule.number("beta_exp", default.beta_exp, most=1000.0),
        clip=0.0 if clip in (None, False) else schedule.number("clip", default.clip),
        noise_scale=schedule.number("noise_scale", default.noise_scale),
    )


def _processor(processor: Settings, tensors: Mapping[str, Stored]) -> ProcessorConfig | None:
    if not _flag(processor, "use", False):
        return None
    processor.expect("name", "multi_band_processor")
    for key, value in processor.table.items():
        if key not in _PROCESSOR_KEYS and value is not None:
            raise processor.wrong(key, value, "a processor without this setting")
    n_bands = processor.integer("n_bands", 8, most=256, least=2)
    filters = tensors.get("processor.filters")
    n_taps = filters.shape[-1] if filters is not None and filters.shape else 1
    if n_taps % 2 == 0:
        raise CheckpointError(
            f"{processor.source}: the processor's low-pass filters have {n_taps} taps, not an odd number"
        )
    return ProcessorConfig(n_bands, n_taps, processor.number("power_std", 1.0))
