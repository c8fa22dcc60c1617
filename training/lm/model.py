"""What is trained together: the engine's own language model, the text encoder, and the projections between them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...musicgen import accel
from ...musicgen.config import LMConfig, ModelConfig
from ...musicgen.lm import LM, PlainStepper, RowNoise, Sampling, Stream, generate_codes
from ...musicgen.lm.delay import delay
from ...musicgen.lm.transformer import sin_positions
from ..recipe import SHARPNESS, melody_of
from .auxiliary import Auxiliary, code_weights
from .examples import HIDDEN, Batch, without_text
from .text import TextEncoder

SAMPLING = Sampling(top_k=250, temperature=1 / SHARPNESS)  # as users sample what ships: that is sharpened
_MEAN_TEXT_TOKENS = 14  # of the descriptions, `</s>` included
_SHARPNESS = 1.5  # of the heads that start out following the melody


@dataclass(frozen=True)
class Losses:
    """Of one batch."""

    codebooks: Tensor  # [K] mean cross-entropy in nats over the cells that hold a code
    weighted: Tensor  # [K] the same, with more weight where pulses begin
    auxiliary: Tensor  # weighted sum of the other cross-entropies
    pulses: Tensor  # share of frames of which the auxiliary heads find the pulse
    jangdan: Tensor  # share of texts of which they find the jangdan


class MusicGen(nn.Module):
    """Codes, chroma and texts -> losses. Equal to inference."""

    def __init__(self, config: ModelConfig, text_table: Mapping) -> None:
        super().__init__()
        self.config = config
        self.lm = LM(config.lm)
        self.text = TextEncoder(text_table)
        self.text_projection = nn.Linear(config.text.dim, config.lm.dim)
        self.melody_projection = nn.Linear(melody_of(config).n_chroma, config.lm.dim)
        self.auxiliary = Auxiliary(config.lm.dim, config.text.dim)
        self._asked_layer = max(1, round(config.lm.n_layers * 2 / 3))  # after which the auxiliary heads are asked
        _initialize(self.lm)
        nn.init.normal_(self.melody_projection.weight, std=0.7)  # as strong as positions: notes are what to look for
        code_frames = config.codec.frame_rate_hz * 2 ** melody_of(config).radix2_exp / 4 / config.codec.sample_rate_hz
        for layer, head, ahead in ((0, 0, 0.0), (0, 1, 1.0), (1, 0, 0.0)):
            if layer < config.lm.n_layers and head < config.lm.n_heads:
                self._follow_melody(layer, head, ahead, code_frames)

    def forward(self, batch: Batch) -> Losses:
        config, texts = self.config.lm, self.text(batch.ids)
        prefix, inputs = self._prefix(batch, texts), self.inputs(batch)
        if batch.guessed is not None:
            inputs = self.with_guesses(prefix.detach(), inputs, batch.guessed.to(self.lm.device))
        logits, hidden, last = self._run(prefix, inputs)
        targets = delay(batch.codes, config.delays, config.cardinality)[..., 1:].to(self.lm.device)
        losses = F.cross_entropy(
            logits.flatten(0, 2), targets.flatten(), ignore_index=config.cardinality, reduction="none"
        )
        known = (targets != config.cardinality).float()
        losses = losses.view_as(known)
        plain, weighted = (
            (losses * weight).sum(dim=(0, 2)) / weight.sum(dim=(0, 2)).clamp(min=1)
            for weight in (known, known * self._weights(batch))
        )
        return Losses(plain, weighted, *self.auxiliary(hidden, last, texts, batch.known))

    def inputs(self, batch: Batch) -> Tensor:
        """What is seen of the codes, delayed, [B, K, S]."""
        config = self.config.lm
        shown = batch.codes if batch.shown is None else batch.shown
        shown = shown.masked_fill(shown == HIDDEN, config.cardinality)
        return delay(shown, config.delays, config.cardinality)[..., :-1].to(self.lm.device)

    @torch.no_grad()
    def with_guesses(
        self, prefix: Tensor, codes: Tensor, share: Tensor, generator: torch.Generator | None = None
    ) -> Tensor:
        """codes [B, K, S], of which about so many of each row, share [B], are what the model would have written there.

        In its own music one odd code follows another; in clips none is odd, so that it never learns to play on as if
        nothing had happened: its strings did not ring. Source: T. Mihaylova and A. F. T. Martins, "Scheduled sampling for
        transformers", arXiv:1906.07651.
        """
        rows = share.nonzero()[:, 0]
        if not len(rows):
            return codes
        chances = self.logits(prefix[rows], codes[rows])[..., :-1, :].softmax(dim=-1)
        guesses = torch.multinomial(chances.flatten(0, 2), 1, generator=generator).view(chances.shape[:-1])
        result, seen = codes.clone(), codes[rows, :, 1:]
        taken = torch.rand(seen.shape, device=codes.device, generator=generator) < share[rows, None, None]
        taken &= seen != self.config.lm.cardinality  # the hidden stays hidden
        result[rows, :, 1:] = torch.where(taken, guesses, seen)
        return result

    def _weights(self, batch: Batch) -> Tensor:
        """Of the cells in the loss, [B, K, S]."""
        of_frames = torch.ones(batch.codes.shape, device=batch.codes.device)
        if batch.known is not None:
            of_frames = of_frames * code_weights(batch.known, batch.of_strokes)[:, None]
        return delay(of_frames, self.config.lm.delays, 1)[..., 1:].to(self.lm.device)

    def logits(self, prefix: Tensor, codes: Tensor) -> Tensor:
        """What the engine's `LM.forward` gives for rows without padding: [B, P, D], [B, K, S] -> [B, K, S, c].

        From the same weights, but in plain operations without a cache: those of the engine are made for inference.
        """
        return self._run(prefix, codes)[0]

    def _run(self, prefix: Tensor, codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, and what the codes' columns are after the layer that is asked and before the heads, [B, S, D]."""
        x, hidden = self._through_layers(prefix, codes)
        last = self.lm.norm(x[:, prefix.shape[1] :])
        made = F.linear(last, self.lm.heads.weight)
        return made.float().unflatten(-1, (self.config.lm.n_codebooks, -1)).transpose(1, 2), hidden, last

    def _through_layers(
        self, prefix: Tensor, codes: Tensor, n_layers: int | None = None, columns: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """All columns [B, P + S, D] after `n_layers` layers, None = all, and the codes' after the one that is asked.

        columns [S]: numbers of the codes' columns; None: from 0 on.
        """
        config = self.config.lm
        embedded = reduce(add, (F.embedding(codes[:, k], self.lm.embeddings[k]) for k in range(config.n_codebooks)))
        x = torch.cat([prefix, embedded], 1)
        n_prefix = prefix.shape[1]
        n_positions = x.shape[1] if columns is None else n_prefix + int(columns[-1]) + 1
        positions = sin_positions(n_positions, config.dim, x.device)
        if columns is not None:
            positions = torch.cat([positions[:n_prefix], positions[n_prefix + columns]])
        x = x + positions
        for n_done, block in enumerate(self.lm.layers[:n_layers], start=1):
            x = block(x)
            if n_done == self._asked_layer:
                hidden = x[:, prefix.shape[1] :]
        return x, hidden

    def lesson(self, batch: Batch) -> Losses:
        """The auxiliary losses alone: only the layers that they need are run."""
        texts = self.text(batch.ids)
        _, asked = self._through_layers(self._prefix(batch, texts), self.inputs(batch), self._asked_layer)
        nothing = asked.new_zeros(self.config.lm.n_codebooks)
        return Losses(nothing, nothing, *self.auxiliary(asked, None, texts, batch.known))

    @torch.no_grad()
    def write(
        self, tasks: Sequence[Batch], n_frames: int, noise: RowNoise, guidance: float, prompt: Tensor | None = None
    ) -> Tensor:
        """Codes [B, K, T] of `n_frames` for B batches of one text, sampled as users do; prompt [B, K, P]: to continue."""
        nothing = torch.zeros(0, self.config.lm.dim, device=self.lm.device)
        streams, null = (
            [Stream(self.prefix(way(task))[0], nothing) for task in tasks] for way in (lambda t: t, without_text)
        )
        with accel.choose(self.lm, 2 * len(streams), self.lm.device) or PlainStepper(self.lm) as stepper:
            return generate_codes(self.lm, streams, null, n_frames, SAMPLING, noise, guidance, prompt, stepper=stepper)

    def prefix(self, batch: Batch) -> Tensor:
        """[melody | text] of each row, [B, F + n, D]. Source: the engine's `Conditioning.prefix`."""
        return self._prefix(batch, self.text(batch.ids))

    def _prefix(self, batch: Batch, texts: Tensor) -> Tensor:
        device = self.lm.device
        one_hot = F.one_hot(batch.chroma.to(device), melody_of(self.config).n_chroma).float()
        projected = self.text_projection(texts) * batch.with_text.to(device)[:, None, None]
        return torch.cat([self.melody_projection(one_hot), projected], dim=1)

    @torch.no_grad()
    def know_codes(self, codebooks: Tensor) -> None:
        """Start with codes that sound alike being alike: codebooks [K, card, d] of the codec, turned at random, become
        embeddings and heads, at the same size as random ones."""
        generator = torch.Generator().manual_seed(0)
        n_codebooks, size, width = codebooks.shape
        centred = codebooks - codebooks.mean(dim=1, keepdim=True)
        for weights in (self.lm.embeddings[:, :size], self.lm.heads.weight.view(n_codebooks, size, -1)):
            alike = centred @ torch.randn(n_codebooks, width, weights.shape[2], generator=generator)
            alike = (alike / alike.std(dim=(1, 2), keepdim=True)).to(weights) * weights.std()
            weights.copy_(0.5**0.5 * (weights + alike))

    @torch.no_grad()
    def _follow_melody(self, layer: int, head: int, ahead: float, code_frames: float) -> None:
        """Set a head to look where the melody is at the same time as the code, `ahead` chroma frames later.

        The melody has its own clock: a chroma frame lasts `code_frames` codes. Positions are sinusoids of a geometric
        row of frequencies, so to turn slower by a factor is to take frequencies further down that row: queries are
        made of those, turned back to the first code, keys of the frequencies themselves, and their product is largest
        where both clocks agree. Only a start: it is trained like everything else.
        """
        config = self.config.lm
        size, half = config.head_dim, config.dim // 2
        step = math.log(10000.0) / (half - 1)
        n = size // 2
        key_at = torch.linspace(0, 0.4 * (half - 1), n).round().long()  # frequencies from 1 down to 1/40
        key_frequency = torch.exp(-step * key_at)
        query_at = (key_at + math.log(code_frames) / step).round().long().clamp(max=half - 1)
        query_frequency = torch.exp(-step * query_at)
        start = melody_of(self.config).n_frames + _MEAN_TEXT_TOKENS  # position of the first column
        turn = query_frequency * start - key_frequency * ahead
        rows = self.lm.layers[layer].qkv.weight[head * size : (head + 1) * size]
        keys = self.lm.layers[layer].qkv.weight[config.dim + head * size : config.dim + (head + 1) * size]
        rows.zero_()
        keys.zero_()
        index = torch.arange(n)
        # The query turned back: cos(a - t) = cos a cos t + sin a sin t, sin(a - t) = sin a cos t - cos a sin t.
        rows[index, query_at], rows[index, half + query_at] = turn.cos() * _SHARPNESS, turn.sin() * _SHARPNESS
        rows[n + index, half + query_at], rows[n + index, query_at] = turn.cos() * _SHARPNESS, -turn.sin() * _SHARPNESS
        keys[index, key_at] = keys[n + index, half + key_at] = _SHARPNESS


@torch.no_grad()
def _initialize(lm: LM) -> None:
    """Normal weights, small enough that positions stand out from embeddings, and layers begin near the identity."""
    config: LMConfig = lm.config
    nn.init.normal_(lm.embeddings, std=0.1)
    for block in lm.layers:
        for linear, depth in (
            (block.qkv, 1),
            (block.out, config.n_layers),
            (block.up, 1),
            (block.down, config.n_layers),
        ):
            std = 1 / math.sqrt(linear.weight.shape[1])
            nn.init.normal_(linear.weight, std=std if depth == 1 else std / math.sqrt(2 * depth))
    nn.init.normal_(lm.heads.weight, std=0.5 / math.sqrt(config.dim))
