"""Trains the codec: EnCodec's network on the synthesizer's clips, for as long as one likes, in as many sittings.

Losses: compressed mel spectra at four resolutions, the waveform's absolute difference relative to its level, commitment. The
first steps run without the quantizer; the codebooks are then set by k-means of the latents seen. Once the encoder is good
enough to make codes with, it can be frozen with the codebooks: the decoder goes on alone, while a language model learns
the codes.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations, parametrize

from ...musicgen.codec import Codec
from ...musicgen.config import CodecConfig
from ...musicgen.errors import InputError
from .. import runs
from ..recipe import CODEC
from . import crops
from .quantization import QuantizerTraining
from .spectral import mel_distance, mel_loss, si_sdr_db

CHECKPOINT = "codec.pt"
_WARM_UP_STEPS, _PLAIN_STEPS, _KMEANS_VECTORS = 100, 300, 24_000
_WAVE, _MEL, _COMMITMENT = 1.0, 15.0, 0.25  # weights of the losses
_ALL_CODEBOOKS = 0.5  # chance that a clip is coded with all codebooks; otherwise with any number
_OUTPUT_LEVEL = 0.1  # of the clips, roughly
_LOG_STEPS, _MEASURE_S = 50, 600.0


@dataclass(frozen=True)
class CodecTraining:
    """How to train. The learning rate falls along a cosine over `audio_hours`, and then stays at a twentieth."""

    audio_hours: float = 5.5
    batch_size: int = 4
    crop_s: float = 1.0
    learning_rate: float = 9e-4
    decoder_only: bool = False  # encoder and codebooks stay as they are, and with them every code
    seed: int = 0


class Trainer:
    """A codec in training: network, averages of the codebooks, optimizer, and how far it has come."""

    def __init__(self, config: CodecConfig, plan: CodecTraining, device: torch.device) -> None:
        torch.manual_seed(plan.seed)  # the initialization of torch's own layers knows no other generator
        self.config, self.plan, self.device = config, plan, device
        self.codec = trainable(Codec(config)).to(device)
        self.quantizer = QuantizerTraining(self.codec.quantizer).to(device)
        self.optimizer = torch.optim.AdamW(
            [p for p in self.codec.parameters() if p.requires_grad], lr=plan.learning_rate, betas=(0.8, 0.99),
            weight_decay=0.0,
        )  # fmt: skip
        self.generator = torch.Generator().manual_seed(plan.seed)
        set_levels(self.codec, crops.held_out(4, 1.0, config.sample_rate_hz).to(device))
        self.step, self.audio_s = 0, 0.0
        self.begun_s = 0.0  # where the learning rate begins to fall
        self._seen: list[Tensor] = []

    def train_step(self, waves: Tensor) -> dict[str, float]:
        """One batch [B, L] -> the losses."""
        waves = waves.to(self.device)
        self.codec.train()
        self.quantizer.train(not self.plan.decoder_only)
        rate = self._learning_rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.set_grad_enabled(not self.plan.decoder_only):
            latents = self.codec.encoder(waves[:, None])
        commitment = latents.new_zeros(())
        if self.quantizer.ready:
            quantized = self.quantizer(latents, self._n_used(len(waves)), self.generator)
            latents, commitment = quantized.latents, quantized.commitment
        elif self.step >= _PLAIN_STEPS:
            self._collect(latents.detach())
        decoded = self.codec.decoder(latents)[:, 0, : waves.shape[-1]]
        level = waves.abs().mean(dim=1, keepdim=True) + 0.01
        wave = ((decoded - waves).abs() / level).mean()
        mel = mel_loss(decoded, waves, self.config.sample_rate_hz)
        loss = _WAVE * wave + _MEL * mel + _COMMITMENT * commitment
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.codec.parameters(), 3.0)
        self.optimizer.step()
        self.step += 1
        self.audio_s += waves.numel() / self.config.sample_rate_hz
        losses = {"loss": loss, "wave": wave, "mel": mel, "commitment": commitment, "gradient": norm}
        return {name: value.item() for name, value in losses.items()} | {"rate": rate}

    @torch.no_grad()
    def measure(self, waves: Tensor) -> dict[str, float]:
        """Mel distance and SI-SDR of clips [B, L] with all codebooks, and with the first alone."""
        codec = shipped(self.codec, self.config)
        result = {}
        for n_codebooks in (self.config.n_codebooks, 1):
            decoded = torch.cat([through(codec, wave[None].to(self.device), n_codebooks) for wave in waves])
            theirs = waves.to(self.device)[:, : decoded.shape[-1]]
            result[f"mel{n_codebooks}"] = float(mel_distance(decoded, theirs, self.config.sample_rate_hz))
            result[f"sdr{n_codebooks}"] = float(si_sdr_db(decoded, theirs).mean())
        return result

    def freeze_encoder(self) -> None:
        """From here on the decoder alone is trained, with a learning rate that falls anew."""
        if not self.quantizer.ready:
            raise InputError("the codec has no codebooks yet. Train it longer before its decoder is trained alone.")
        self.plan = replace(self.plan, decoder_only=True)
        self.begun_s = self.audio_s
        for part in (self.codec.encoder, self.codec.quantizer):
            part.requires_grad_(False)

    def state(self) -> dict:
        return {
            "config": asdict(self.config), "plan": asdict(self.plan), "step": self.step, "audio_s": self.audio_s,
            "begun_s": self.begun_s,
            "codec": self.codec.state_dict(), "quantizer": self.quantizer.state_dict(),
            "optimizer": self.optimizer.state_dict(), "generator": self.generator.get_state(),
        }  # fmt: skip

    def restore(self, table: Mapping) -> None:
        self.codec.load_state_dict(table["codec"])
        self.quantizer.load_state_dict(table["quantizer"])
        self.optimizer.load_state_dict(table["optimizer"])
        self.generator.set_state(table["generator"])
        self.step, self.audio_s = table["step"], table["audio_s"]
        if table["plan"].get("decoder_only"):
            self.freeze_encoder()
            self.begun_s = table["begun_s"]

    def _learning_rate(self) -> float:
        done = (self.audio_s - self.begun_s) / max(1.0, 3600 * self.plan.audio_hours - self.begun_s)
        return runs.learning_rate(self.plan.learning_rate, done, self.step, _WARM_UP_STEPS)

    def _n_used(self, n_rows: int) -> Tensor:
        n_codebooks = self.config.n_codebooks
        some = torch.randint(1, n_codebooks + 1, (n_rows,), generator=self.generator)
        whole = torch.rand(n_rows, generator=self.generator) < _ALL_CODEBOOKS
        return torch.where(whole, n_codebooks, some).to(self.device)

    def _collect(self, latents: Tensor) -> None:
        self._seen.append(latents.transpose(1, 2).reshape(-1, latents.shape[1]))
        if sum(map(len, self._seen)) >= _KMEANS_VECTORS:
            self.quantizer.start(torch.cat(self._seen), self.generator)
            self._seen.clear()


def train(
    out: Path, minutes: float, plan: CodecTraining, resume: bool = False, n_workers: int = 0,
    config: CodecConfig = CODEC,
) -> Trainer:  # fmt: skip
    """Train for so many minutes and leave the checkpoint and a log in `out`."""
    box = runs.TimeBox(minutes)
    trainer = Trainer(config, replace(plan, decoder_only=False), runs.pick_device())
    path, log, measured = out / CHECKPOINT, runs.Log(out / "codec.csv"), runs.Log(out / "codec_held_out.csv")
    out.mkdir(parents=True, exist_ok=True)
    if resume and path.exists():
        trainer.restore(runs.load(path))
    if plan.decoder_only and not trainer.plan.decoder_only:
        trainer.freeze_encoder()
    begun_s, measured_s, totals = trainer.audio_s, 0.0, {}
    data = crops.batches(plan.crop_s, config.sample_rate_hz, trainer.step * plan.batch_size, plan.batch_size, n_workers)
    check = crops.held_out(8, 3.0, config.sample_rate_hz)

    def keep() -> None:
        runs.save(path, trainer.state())

    while not box.over:
        losses = trainer.train_step(next(data))
        totals = {name: totals.get(name, 0.0) + value for name, value in losses.items()}
        if trainer.step % _LOG_STEPS == 0:
            speed = (trainer.audio_s - begun_s) / box.elapsed_s
            means = {name: value / _LOG_STEPS for name, value in totals.items()}
            used = {f"used{k}": value for k, value in enumerate(trainer.quantizer.perplexity())}
            log.write({"step": trainer.step, "audio_h": trainer.audio_s / 3600, "speed": speed, **means, **used})
            totals = {}
        if box.checkpoint_due():
            keep()
        if trainer.quantizer.ready and box.elapsed_s - measured_s > _MEASURE_S:
            measured_s = box.elapsed_s
            measured.write({"step": trainer.step, "audio_h": trainer.audio_s / 3600, **trainer.measure(check)})
    keep()
    if trainer.quantizer.ready:
        measured.write({"step": trainer.step, "audio_h": trainer.audio_s / 3600, **trainer.measure(check)})
    return trainer


def finished(path: Path) -> Codec:
    """The codec of a run, as it is shipped: weight norm multiplied out, rounded to float16."""
    table = runs.load(path)
    config = CodecConfig(**{**table["config"], "ratios": tuple(table["config"]["ratios"])})
    codec = trainable(Codec(config))
    codec.load_state_dict(table["codec"])
    return shipped(codec, config)


def shipped(trained: Codec, config: CodecConfig) -> Codec:
    """A copy for use. Rounding to float16 comes before any code is made with it, so that codes and file agree."""
    codec = trainable(Codec(config))
    codec.load_state_dict(trained.state_dict())
    for conv in _convolutions(codec):
        parametrize.remove_parametrizations(conv, "weight")
    for tensor in codec.state_dict().values():
        tensor.copy_(tensor.half())
    return codec.to(trained.device).eval().requires_grad_(False)


def trainable(codec: Codec) -> Codec:
    """Freshly initialized, with weight norm on every convolution, as EnCodec is trained."""
    for module in [*codec.encoder.modules(), *codec.decoder.modules()]:
        if isinstance(module, (nn.Conv1d, nn.ConvTranspose1d, nn.LSTM)):
            module.reset_parameters()
    for layer in codec.quantizer.layers:
        layer.codebook.embed.zero_()
    for conv in _convolutions(codec):
        parametrizations.weight_norm(conv)
    return codec.requires_grad_(True)


@torch.no_grad()
def set_levels(codec: Codec, waves: Tensor) -> None:
    """Scale every convolution so that, for clips [B, L], its output has the standard deviation 1.

    With torch's own initialization the signal fades from layer to layer, until the decoder learns to do without it.
    Source: D. Mishkin and J. Matas, "All you need is a good init", arXiv:1511.06422.
    """
    convolutions = _convolutions(codec)

    def scale(conv: nn.Module, _: object, output: Tensor) -> Tensor:
        goal = _OUTPUT_LEVEL if conv is convolutions[-1] else 1.0
        factor = goal / output.std()
        conv.get_parameter("parametrizations.weight.original0").mul_(factor)
        return output * factor

    for conv in convolutions:
        assert conv.bias is not None  # EnCodec's have one
        conv.bias.zero_()
    hooks = [conv.register_forward_hook(scale) for conv in convolutions]
    codec.decoder(codec.encoder(waves[:, None]))
    for hook in hooks:
        hook.remove()


def _convolutions(codec: Codec) -> list[nn.Conv1d | nn.ConvTranspose1d]:
    return [m for m in codec.modules() if isinstance(m, (nn.Conv1d, nn.ConvTranspose1d))]


@torch.no_grad()
def through(codec: Codec, waves: Tensor, n_codebooks: int) -> Tensor:
    """[B, L] -> reconstructions [B, L'] from the first `n_codebooks` codes."""
    codes = codec.quantizer.encode(codec.encoder(waves[:, None]))
    books = [layer.codebook.embed for layer in codec.quantizer.layers[:n_codebooks]]
    latents = torch.stack([F.embedding(codes[:, k], book) for k, book in enumerate(books)]).sum(dim=0)
    return codec.decoder(latents.transpose(1, 2))[:, 0, : waves.shape[-1]]
