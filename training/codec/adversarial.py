"""Trains the codec, against a discriminator if the plan has one. The time box is that of one GPU; `days` has its own loop."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor, nn

from ...musicgen.codec import Codec
from ...musicgen.config import CodecConfig
from ...musicgen.errors import InputError
from .adversary import Balancer, Discriminator, fooled, judged, level_loss, spectral_loss, wave_loss
from .quantization import QuantizerTraining
from .train import set_levels, shipped, trainable

_WEIGHTS = {"wave": 1.0, "spectrum": 1.2, "verdict": 0.35, "features": 0.7}  # shares of the gradient
_COMMITMENT, _KMEANS_VECTORS = 0.25, 40_000
_CARRIED = (nn.Conv1d, nn.ConvTranspose1d, nn.LSTM)
_ALL_CODEBOOKS = 0.7  # chance that a clip is coded with all codebooks; otherwise with any number


@dataclass(frozen=True)
class Plan:
    """How to train. Shares are of the time box."""

    seconds: float
    batch_size: int = 48
    crop_s: float = 1.2
    learning_rate: float = 1.0e-3
    adversary_rate: float = 3e-4
    quantized_from: float = 0.03
    adversary_from: float = 0.40
    adversary_alone: float = 0.03  # for which it learns before the codec hears of it
    judged: float = 0.5  # share of the rows that the discriminator hears
    n_filters: int = 16  # of the discriminator
    seed: int = 0
    level: float = 0.0  # share of the gradient that `level_loss` has, where the waveform has 1
    decoder_only: bool = False  # encoder and codebooks stay as they are, and with them every code


class Trainer:
    """Codec, codebooks' averages, discriminator and their optimizers."""

    def __init__(self, config: CodecConfig, plan: Plan, device: torch.device, waves: Tensor) -> None:
        """waves [B, L]: clips by whose level the network is initialized."""
        torch.manual_seed(plan.seed)  # the initialization of torch's own layers knows no other generator
        self.config, self.plan, self.device = config, plan, device
        self.codec = trainable(Codec(config)).to(device)
        if plan.decoder_only:
            for part in (self.codec.encoder, self.codec.quantizer):
                part.requires_grad_(False)
        self.quantizer = QuantizerTraining(self.codec.quantizer).to(device)
        self.adversary = Discriminator(plan.n_filters).to(device)
        self.optimizer = torch.optim.AdamW(
            [p for p in self.codec.parameters() if p.requires_grad], lr=plan.learning_rate, betas=(0.8, 0.99),
            weight_decay=0.0,
        )  # fmt: skip
        self.against = torch.optim.AdamW(self.adversary.parameters(), lr=plan.adversary_rate, betas=(0.5, 0.9))
        self.generator = torch.Generator().manual_seed(plan.seed)
        self.balancer, self.step, self.quantizes = Balancer(), 0, False
        self._seen: list[Tensor] = []
        set_levels(self.codec, waves.to(device))

    def train_step(self, waves: Tensor, done: float) -> dict[str, Tensor]:
        """One batch [B, L] at the share `done` of the time box -> losses, which are not waited for."""
        rate = _rate(done, self.step)
        for optimizer, peak in ((self.optimizer, self.plan.learning_rate), (self.against, self.plan.adversary_rate)):
            for group in optimizer.param_groups:
                group["lr"] = peak * rate
        self.codec.train()
        latents, commitment = self._latents(waves, done)
        with self._autocast():
            decoded = self.codec.decoder(latents)[:, 0, : waves.shape[-1]]
        decoded = decoded.float()
        held = decoded.detach().requires_grad_(True)
        offset = int(torch.randint(1024, (), generator=self.generator))
        losses = {
            "wave": wave_loss(held, waves),
            "spectrum": spectral_loss(held, waves, self.config.sample_rate_hz, offset),
        }
        if self.plan.level:
            losses["level"] = level_loss(held, waves, self.config.sample_rate_hz, offset)
        against = {}
        if done >= self.plan.adversary_from:
            some = max(
                1, round(self.plan.judged * len(waves))
            )  # of the rows: the discriminator takes as long as the codec
            against["adversary"], real = self._train_adversary(held[:some].detach(), waves[:some])
            if done >= self.plan.adversary_from + self.plan.adversary_alone:
                with self._autocast():
                    losses["verdict"], losses["features"] = fooled(real, self.adversary(held[:some]))
        gradient = self.balancer.gradient(losses, {**_WEIGHTS, "level": self.plan.level}, held)
        self.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward([decoded], [gradient], retain_graph=commitment.requires_grad)
        if commitment.requires_grad:
            (_COMMITMENT * commitment).backward()
        norm = nn.utils.clip_grad_norm_(self.codec.parameters(), 3.0)
        self.optimizer.step()
        self.step += 1
        return {
            name: loss.detach() for name, loss in {**losses, **against, "commitment": commitment, "norm": norm}.items()
        }

    def state(self) -> dict:
        """All that a run goes on from, to the bit."""
        return {
            "config": asdict(self.config), "step": self.step, "quantizes": self.quantizes,
            "codec": self.codec.state_dict(), "quantizer": self.quantizer.state_dict(),
            "adversary": self.adversary.state_dict(), "optimizer": self.optimizer.state_dict(),
            "against": self.against.state_dict(), "generator": self.generator.get_state(),
            "balancer": self.balancer.state(), "seen": list(self._seen),
        }  # fmt: skip

    def restore(self, table: Mapping) -> None:
        """Go on from `state()`. The plan stays this trainer's own."""
        for name in ("codec", "quantizer", "adversary", "optimizer", "against"):
            getattr(self, name).load_state_dict(table[name])
        self.generator.set_state(table["generator"])
        self.balancer.restore(table["balancer"])
        self.step, self.quantizes, self._seen = table["step"], table["quantizes"], list(table["seen"])

    @torch.no_grad()
    def begin_with(self, codec: Codec) -> None:
        """Go on from a finished codec, its codebooks included, with optimizers that know nothing. InputError for other sizes."""
        if replace(codec.config, fingerprint="") != replace(self.config, fingerprint=""):
            raise InputError(
                f"the codec to begin with has other sizes ({codec.config}) than this recipe ({self.config})."
            )
        ours, theirs = ([m for m in each.modules() if isinstance(m, _CARRIED)] for each in (self.codec, codec))
        for module, other in zip(ours, theirs, strict=True):
            if isinstance(module, nn.LSTM):
                module.load_state_dict(other.state_dict())
            elif isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
                module.weight = other.state_dict()["weight"]  # by weight norm's inverse
                if module.bias is not None:
                    module.bias.copy_(other.state_dict()["bias"])
        for layer, other in zip(self.codec.quantizer.layers, codec.quantizer.layers, strict=True):
            layer.codebook.embed.copy_(other.codebook.embed)
        self.quantizer.go_on()
        self.quantizes = True

    def finished(self) -> Codec:
        """As it is shipped: weight norm multiplied out, rounded to float16."""
        return shipped(self.codec, self.config)

    def _latents(self, waves: Tensor, done: float) -> tuple[Tensor, Tensor]:
        """What the decoder is given of [B, L], and the price of the encoder's distance from the codebooks."""
        if self.plan.decoder_only:
            with torch.no_grad(), self._autocast():
                latents = self.codec.encoder(waves[:, None]).float()
                return self.codec.quantizer.decode(self.codec.quantizer.encode(latents)), latents.new_zeros(())
        with self._autocast():
            latents = self.codec.encoder(waves[:, None]).float()
        if self.quantizes:
            quantized = self.quantizer(latents, self._n_used(len(waves)), self.generator)
            return quantized.latents, quantized.commitment
        if done >= self.plan.quantized_from:
            self._collect(latents.detach())
        return latents, latents.new_zeros(())

    def _train_adversary(self, decoded: Tensor, waves: Tensor) -> tuple[Tensor, list[list[Tensor]]]:
        """One step of the discriminator: its loss, and its features of the clips before it."""
        with self._autocast():
            real = self.adversary(waves)
            loss = judged(real, self.adversary(decoded))
        self.against.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.adversary.parameters(), 3.0)
        self.against.step()
        return loss, [[features.detach() for features in scale] for scale in real]

    def _collect(self, latents: Tensor) -> None:
        self._seen.append(latents.transpose(1, 2).reshape(-1, latents.shape[1]))
        size = self.config.codebook_size
        if sum(map(len, self._seen)) >= max(min(_KMEANS_VECTORS, 40 * size), 2 * size):
            self.quantizer.start(torch.cat(self._seen), self.generator)
            self._seen.clear()
            self.quantizes = True

    def _n_used(self, n_rows: int) -> Tensor:
        n_codebooks = self.config.n_codebooks
        some = torch.randint(1, n_codebooks + 1, (n_rows,), generator=self.generator)
        whole = torch.rand(n_rows, generator=self.generator) < _ALL_CODEBOOKS
        return torch.where(whole, n_codebooks, some).to(self.device)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")


def train(
    trainer: Trainer, batches: Callable[[], Tensor], log: Callable[[dict[str, float]], None], log_s: float = 10.0
) -> None:
    """Steps until the plan's time is over. batches: gives the next clips [B, L] on the trainer's device."""
    begun = logged = time.monotonic()
    while (elapsed := time.monotonic() - begun) < trainer.plan.seconds or not trainer.quantizes:
        losses = trainer.train_step(batches(), elapsed / trainer.plan.seconds)
        if time.monotonic() - logged > log_s or trainer.step <= 2:
            logged = time.monotonic()
            used = {f"used{k}": value for k, value in enumerate(trainer.quantizer.perplexity())}
            log(
                {"step": trainer.step, "elapsed_s": logged - begun}
                | {name: value.item() for name, value in losses.items()}
                | used
            )


def _rate(done: float, step: int) -> float:
    """Rises over 100 steps; falls in the last 60 % of the time box, to a fiftieth."""
    falling = max(0.0, (min(done, 1.0) - 0.4) / 0.6)
    return min(1.0, (step + 1) / 100) * max(0.02, 1 - falling)
