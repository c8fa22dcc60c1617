"""EnCodec's options: the name of each in every format, its default there, and its limits."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ...config import CodecConfig
from ..settings import REQUIRED, Settings

Reader = Callable[[Settings, str, object], Any]  # (settings, key, default) -> value


def _whole(most: int = 2**20, least: int = 1) -> Reader:
    return lambda settings, key, default: settings.integer(key, default, most, least)


def _wholes(settings: Settings, key: str, default: object) -> tuple[int, ...]:
    return settings.integers(key, default, least=1)


def _share(settings: Settings, key: str, default: object) -> float:
    return settings.number(key, default, most=1.0)


def _flag(settings: Settings, key: str, default: object) -> object:
    return settings.expect(key, True, False, default=default)


def _pad_mode(settings: Settings, key: str, default: object) -> object:
    return settings.expect(key, "constant", "reflect", "replicate", default=default)


@dataclass(frozen=True)
class Option:
    """One field of CodecConfig. Converted files have it under the field's name and leave none out."""

    field: str
    read: Reader
    audiocraft: str  # dotted key in the codec's `xp.cfg`
    huggingface: str  # key in transformers' EncodecConfig
    huggingface_default: object  # transformers leaves defaults out when it saves
    audiocraft_default: object = REQUIRED

    def key(self, format: str) -> str:
        return {"audiocraft": self.audiocraft, "huggingface": self.huggingface}.get(format, self.field)

    def default(self, format: str) -> object:
        defaults = {"audiocraft": self.audiocraft_default, "huggingface": self.huggingface_default}
        return defaults.get(format, REQUIRED)


OPTIONS = (
    Option("sample_rate_hz", _whole(), "encodec.sample_rate", "sampling_rate", 24000),
    Option("ratios", _wholes, "seanet.ratios", "upsampling_ratios", [8, 5, 4, 2]),
    Option("codebook_size", _whole(), "rvq.bins", "codebook_size", 1024),
    Option("n_filters", _whole(2**12), "seanet.n_filters", "num_filters", 32),
    Option("latent_dim", _whole(2**16), "seanet.dimension", "hidden_size", 128),
    Option("n_residual_layers", _whole(16, 0), "seanet.n_residual_layers", "num_residual_layers", 1),
    Option("kernel_size", _whole(1000), "seanet.kernel_size", "kernel_size", 7),
    Option("last_kernel_size", _whole(1000), "seanet.last_kernel_size", "last_kernel_size", 7),
    Option("residual_kernel_size", _whole(1000), "seanet.residual_kernel_size", "residual_kernel_size", 3),
    Option("dilation_base", _whole(1000), "seanet.dilation_base", "dilation_growth_rate", 2),
    Option("compress", _whole(1000), "seanet.compress", "compress", 2),
    Option("lstm_layers", _whole(16), "seanet.lstm", "num_lstm_layers", 2),
    Option("causal", _flag, "seanet.causal", "use_causal_conv", True, False),
    Option("conv_shortcut", _flag, "seanet.true_skip", "use_conv_shortcut", True, True),  # audiocraft's is the opposite
    Option("pad_mode", _pad_mode, "seanet.pad_mode", "pad_mode", "reflect", "reflect"),
    Option("trim_right_ratio", _share, "seanet.decoder.trim_right_ratio", "trim_right_ratio", 1.0, 1.0),
)


def read_codec(settings: Settings, format: str, n_codebooks: int, channels: int) -> CodecConfig:
    """The codec that `settings` describe. CheckpointError naming the setting that is wrong.

    format: "audiocraft", "huggingface" or "converted".
    """
    values = {option.field: option.read(settings, option.key(format), option.default(format)) for option in OPTIONS}
    if format == "audiocraft":
        values["conv_shortcut"] = not values["conv_shortcut"]
    if not values["causal"]:
        values["trim_right_ratio"] = 1.0  # without effect
    return CodecConfig(n_codebooks=n_codebooks, channels=channels, **values)
