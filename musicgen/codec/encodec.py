"""EnCodec: transformers' networks behind our interface. Source: audiocraft `EncodecModel`."""

import functools
import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType

import torch
from torch import Tensor, nn

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
# Rows and frames of a chunk; Cancel is checked between its layers. 50 frames are one second of audio. More rows keep a GPU
# busy within a few hundred MB. Fewer rows get longer chunks, as short chunks lose more to their overlap.
_AT_ONCE_ON_CPU, _AT_ONCE = (2, 50), (8, 50)


class Codec(nn.Module):
    """Codec of waveforms: a network for one channel, applied to each channel of `config`.

    The constructor allocates the weights without filling them; on the meta device it allocates none. The state_dict has
    transformers' names without weight normalization; the quantizer has `quantizer.layers.{q}.codebook.embed` alone.
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
        if torch.get_default_device().type != "meta":
            self.to_empty(device="cpu")
        self.requires_grad_(False)
        self.eval()

    @property
    def device(self) -> torch.device:
        return self.quantizer.layers[0].codebook.embed.device

    @torch.no_grad()
    def encode(self, audio: Audio, on_step: OnStep | None = None) -> Codes:
        """Encode audio [B, C, L] to codes [B, K, ceil(L / hop)] of the audio converted to the codec's rate and channels."""
        config = self.config
        samples = convert(audio, config.sample_rate_hz, config.channels).samples
        rows = samples.reshape(-1, 1, samples.shape[-1])
        n_frames = math.ceil(rows.shape[-1] / config.hop)
        codes = torch.empty(rows.shape[0], len(self.quantizer.layers), n_frames, dtype=torch.int64)

        def read(group: slice, first: int, last: int) -> Tensor:
            return rows[group, :, first * config.hop : last * config.hop].to(self.device)

        chunks = self._chunks(self.encoder, config.hop, 1, read, rows.shape[0], n_frames, on_step)
        for group, first, last, latents in chunks:
            codes[group, :, first:last] = self.quantizer.encode(latents).cpu()
        return Codes(stereo.interleave(codes, config.channels), config.frame_rate_hz, config.identity)

    @torch.no_grad()
    def decode(self, codes: Codes, on_step: OnStep | None = None) -> Audio:
        """Decode codes [B, K, T] to audio [B, C, T * hop]. InputError for codes of another codec."""
        config = self.config
        self._check(codes)
        rows = stereo.separate(codes.codes, config.channels).long()
        samples = torch.empty(rows.shape[0], 1, codes.n_frames * config.hop)

        def read(group: slice, first: int, last: int) -> Tensor:
            return self.quantizer.decode(rows[group, :, first:last].to(self.device))

        chunks = self._chunks(self.decoder, 1, config.hop, read, rows.shape[0], codes.n_frames, on_step)
        for group, first, last, wave in chunks:
            samples[group, :, first * config.hop : last * config.hop] = wave.cpu()
        return Audio(samples.view(-1, config.channels, samples.shape[-1]), config.sample_rate_hz)

    @torch.no_grad()
    def decode_latent(self, codes: Codes) -> Tensor:
        """Latents [B * C, D, T] on the CPU: sums of codebook vectors, a row for each channel of each clip."""
        self._check(codes)
        rows = stereo.separate(codes.codes, self.config.channels).long()
        return self.quantizer.decode(rows.to(self.device)).cpu()

    def _chunks(
        self,
        network: nn.Module,
        n_in: int,
        n_out: int,
        read: Callable[[slice, int, int], Tensor],
        n_rows: int,
        n_frames: int,
        on_step: OnStep | None,
    ) -> Iterator[tuple[slice, int, int, Tensor]]:
        """Run a network of `n_in` input and `n_out` output samples a frame; yield (rows, first, last, result) a chunk."""
        before, lstm, after = split_at_lstm(network)
        rows_at_once, frames_at_once = _AT_ONCE_ON_CPU if self.device.type == "cpu" else _AT_ONCE
        frames_at_once *= max(1, rows_at_once // n_rows)
        groups = range(0, n_rows, rows_at_once)
        done, total = 0, len(groups) * math.ceil(n_frames / frames_at_once)
        check = (lambda: on_step(done, total)) if on_step else None
        front, back = Section(before, n_in, 1, check), Section(after, 1, n_out, check)
        for start in groups:
            group = slice(start, start + rows_at_once)
            read_group = functools.partial(read, group)
            for first, last, result in stream(front, lstm, back, read_group, n_frames, frames_at_once):
                yield group, first, last, result
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
        position = ((values < 0) | (values >= size)).nonzero()[0].tolist()
        value = values[tuple(position)].item()
        hint = ", the special token of the language model, which means no sound" if value == size else ""
        raise InputError(
            f"codes must lie between 0 and {size - 1}, got {value}{hint} at [batch, codebook, frame] {position}. "
            "Decode codes as a sampler or an encoder gives them."
        )


def fingerprint(codec: Codec) -> str:
    """Short digest of the codec's codebooks: codes are valid for codecs of the same digest only."""
    return fingerprint_of(layer.codebook.embed for layer in codec.quantizer.layers)


def fingerprint_of(codebooks: Iterable[Tensor]) -> str:
    """Short digest of codebooks [bins, D], in their order."""
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
                norm_type="time_group_norm",
                normalize=False,
            )
        )
    except (ValueError, TypeError, RuntimeError, ArithmeticError) as error:
        raise CheckpointError(f"transformers cannot build the codec {config}: {error}") from error
    for module in [*model.encoder.modules(), *model.decoder.modules()]:
        conv = getattr(module, "conv", None)
        if not isinstance(conv, (nn.Conv1d, nn.ConvTranspose1d)):
            continue
        # The weights come with their normalization multiplied in. Group norm is quicker to take away again.
        del module.norm
        module.norm_type = "weight_norm"
        if "padding_total" in module._buffers:
            _restore_sizes(module, conv)
    return model.encoder, model.decoder


def _restore_sizes(layer: nn.Module, conv: nn.Conv1d | nn.ConvTranspose1d) -> None:
    """Restore the sizes of a padded convolution of transformers, which have no values on the meta device.

    They become plain attributes on the CPU. As buffers they would move to a GPU with the weights, where each use
    of them synchronizes.
    """
    stride = torch.tensor(conv.stride[0], device="cpu")
    kernel_size = torch.tensor((conv.kernel_size[0] - 1) * conv.dilation[0] + 1, device="cpu")
    for name, value in (("stride", stride), ("kernel_size", kernel_size), ("padding_total", kernel_size - stride)):
        delattr(layer, name)
        setattr(layer, name, value)
