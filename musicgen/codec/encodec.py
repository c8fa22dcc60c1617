"""EnCodec, the library's network behind our interface. Source: audiocraft `EncodecModel`, transformers' port of it."""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..audio import Audio, convert
from ..codes import Codes
from ..config import CodecConfig
from ..dependencies import require
from ..errors import CheckpointError, InputError
from . import stereo
from .quantizer import ResidualQuantizer
from .streaming import Section, split_at_lstm, stream

OnStep = Callable[[int, int], None]

_PAD_MODES = ("reflect", "constant", "replicate")
# Rows and frames between two looks at Cancel: a second of audio, a fifth of a second's work for two slow cores, and for
# anything faster as many rows as keep it busy in a few hundred megabytes. Fewer rows go on for longer, as shorter chunks
# lose more to their overlap. Two rows are the channels of a stereo clip.
_AT_ONCE_ON_CPU, _AT_ONCE = (2, 50), (8, 50)


class Codec(nn.Module):
    """Waveforms to codes and back: a network for one channel, that runs over the channels of `config`.

    Made with its weights allocated but not filled. Its state_dict holds transformers' names with the weight
    normalization multiplied out, and of the quantizer `quantizer.layers.{q}.codebook.embed` only.
    """

    def __init__(self, config: CodecConfig) -> None:
        super().__init__()
        self.config = config
        _check_supported(config)
        library = _transformers_encodec()
        with torch.device("meta"):  # no memory and no random numbers for weights that are to be overwritten
            self.encoder, self.decoder = _networks(config, library)
            n_codebooks = config.n_codebooks // config.channels
            self.quantizer = ResidualQuantizer(n_codebooks, config.codebook_size, config.latent_dim)
        self.to_empty(device="cpu")
        self.requires_grad_(False)
        self.eval()

    @property
    def device(self) -> torch.device:
        return self.quantizer.layers[0].codebook.embed.device

    @torch.no_grad()
    def encode(self, audio: Audio, on_step: OnStep | None = None) -> Codes:
        """Codes [B, K, ceil(L / hop)] of audio of any rate and number of channels that can be converted."""
        config = self.config
        samples = convert(audio, config.sample_rate_hz, config.channels).samples
        rows = samples.reshape(-1, 1, samples.shape[-1])
        n_frames = math.ceil(rows.shape[-1] / config.hop)
        codes = torch.empty(rows.shape[0], len(self.quantizer.layers), n_frames, dtype=torch.int64)
        before, lstm, after = split_at_lstm(self.encoder.layers)
        front, back = Section(before, config.hop, 1), Section(after, 1, 1)

        def chunks(group: slice, size: int) -> Iterator[None]:
            def read(first: int, last: int) -> Tensor:
                return rows[group, :, first * config.hop : last * config.hop].to(self.device)

            for first, last, latents in stream(front, lstm, back, read, n_frames, size):
                codes[group, :, first:last] = self.quantizer.encode(latents).cpu()
                yield

        self._in_steps(chunks, rows.shape[0], n_frames, on_step)
        return Codes(stereo.interleave(codes, config.channels), config.frame_rate_hz, config.identity)

    @torch.no_grad()
    def decode(self, codes: Codes, on_step: OnStep | None = None) -> Audio:
        """Audio [B, channels, T * hop] of codes of this very codec."""
        config = self.config
        self._check(codes)
        rows = stereo.separate(codes.codes, config.channels).long()
        samples = torch.empty(rows.shape[0], 1, codes.n_frames * config.hop)
        before, lstm, after = split_at_lstm(self.decoder.layers)
        front, back = Section(before, 1, 1), Section(after, 1, config.hop)

        def chunks(group: slice, size: int) -> Iterator[None]:
            def read(first: int, last: int) -> Tensor:
                return self.quantizer.decode(rows[group, :, first:last].to(self.device))

            for first, last, wave in stream(front, lstm, back, read, codes.n_frames, size):
                samples[group, :, first * config.hop : last * config.hop] = wave.cpu()
                yield

        self._in_steps(chunks, rows.shape[0], codes.n_frames, on_step)
        return Audio(samples.view(-1, config.channels, samples.shape[-1]), config.sample_rate_hz)

    @torch.no_grad()
    def decode_latent(self, codes: Codes) -> Tensor:
        """The sums of codebook vectors [B * channels, D, T] on the CPU, a row for each channel of each clip."""
        self._check(codes)
        rows = stereo.separate(codes.codes, self.config.channels).long()
        return self.quantizer.decode(rows.to(self.device)).cpu()

    def _in_steps(
        self, chunks: Callable[[slice, int], Iterator[None]], n_rows: int, n_frames: int, on_step: OnStep | None
    ) -> None:
        """Work through groups of rows, chunk by chunk, and report each chunk."""
        rows_at_once, frames_at_once = _AT_ONCE_ON_CPU if self.device.type == "cpu" else _AT_ONCE
        frames_at_once *= max(1, rows_at_once // n_rows)
        groups = range(0, n_rows, rows_at_once)
        done, total = 0, len(groups) * math.ceil(n_frames / frames_at_once)
        for start in groups:
            for _ in chunks(slice(start, start + rows_at_once), frames_at_once):
                done += 1
                if on_step:
                    on_step(done, total)

    def _check(self, codes: Codes) -> None:
        codes.check_codec(self.config.identity)
        values, size = codes.codes, self.config.codebook_size
        if values.is_floating_point() or values.dtype == torch.bool:
            raise InputError(f"codes must be whole numbers, got {values.dtype}")
        if values.shape[1] != self.config.n_codebooks:
            raise InputError(f"codes have {values.shape[1]} codebooks, but the codec has {self.config.n_codebooks}")
        if 0 in values.shape:
            raise InputError(f"codes are empty: their shape is {list(values.shape)} [batch, codebooks, frames]")
        low, high = (edge.item() for edge in values.aminmax())
        if low >= 0 and high < size:
            return
        place = ((values < 0) | (values >= size)).nonzero()[0].tolist()
        value = values[tuple(place)].item()
        hint = ", the special token of the language model, which means no sound" if value == size else ""
        raise InputError(
            f"codes must lie between 0 and {size - 1}, got {value}{hint} at [batch, codebook, frame] {place}. "
            "Decode codes as a sampler or an encoder gives them."
        )


def fingerprint(codec: Codec) -> str:
    """Short digest of the codebooks: codes fit another codec only if this is the same."""
    return fingerprint_of(layer.codebook.embed for layer in codec.quantizer.layers)


def fingerprint_of(codebooks: Iterable[Tensor]) -> str:
    """`fingerprint` of the vectors [bins, D] of each codebook, from wherever they come."""
    digest = hashlib.sha256()
    for vectors in codebooks:
        digest.update(vectors.detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def _check_supported(config: CodecConfig) -> None:
    if config.causal:
        raise CheckpointError("causal EnCodec models, such as encodec_24khz, are not supported: MusicGen uses none")
    if config.pad_mode not in _PAD_MODES:
        raise CheckpointError(f"codec pad_mode must be one of {', '.join(_PAD_MODES)}, got {config.pad_mode!r}")


def _transformers_encodec() -> ModuleType:
    """Imported while no default device is set: transformers 4 imports torch._dynamo, which torch 2.8 cannot do under one."""
    return require("transformers.models.encodec.modeling_encodec", "The EnCodec codec", "transformers")


def _networks(config: CodecConfig, library: ModuleType) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder of transformers' EncodecModel for one channel, weight normalization removed."""
    try:
        model = library.EncodecModel(
            library.EncodecConfig(
                sampling_rate=config.sample_rate_hz,
                audio_channels=1,
                upsampling_ratios=list(config.ratios),
                hidden_size=config.latent_dim,
                num_filters=config.n_filters,
                num_residual_layers=config.n_residual_layers,
                kernel_size=config.kernel_size,
                last_kernel_size=config.last_kernel_size,
                residual_kernel_size=config.residual_kernel_size,
                dilation_growth_rate=config.dilation_base,
                compress=config.compress,
                num_lstm_layers=config.lstm_layers,
                use_causal_conv=False,
                use_conv_shortcut=config.conv_shortcut,
                pad_mode=config.pad_mode,
                trim_right_ratio=config.trim_right_ratio,
                norm_type="weight_norm",
                normalize=False,
            )
        )
    except (ValueError, TypeError, RuntimeError, ZeroDivisionError) as error:
        raise CheckpointError(f"transformers cannot build the codec {config}: {error}") from error
    for module in [*model.encoder.modules(), *model.decoder.modules()]:
        conv = getattr(module, "conv", None)
        if not isinstance(conv, (nn.Conv1d, nn.ConvTranspose1d)):
            continue
        if parametrize.is_parametrized(conv, "weight"):
            parametrize.remove_parametrizations(conv, "weight")
        else:  # transformers before 4.45
            nn.utils.remove_weight_norm(conv)
        if "padding_total" in module._buffers:
            _restore_sizes(module, conv)
    return model.encoder, model.decoder


def _restore_sizes(layer: nn.Module, conv: nn.Conv1d) -> None:
    """Give a padded convolution of transformers its sizes again, which have no values on the meta device.

    They become plain attributes on the CPU. As the buffers that they were, they would follow the weights to
    a GPU, where each use of them waits for all work before it.
    """
    stride = torch.tensor(conv.stride[0], device="cpu")
    kernel_size = torch.tensor((conv.kernel_size[0] - 1) * conv.dilation[0] + 1, device="cpu")
    for name, value in (("stride", stride), ("kernel_size", kernel_size), ("padding_total", kernel_size - stride)):
        delattr(layer, name)
        setattr(layer, name, value)
