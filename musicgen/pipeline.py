"""The facade that nodes and the command line call: condition, generate, decode.

`loading.load` gives three objects, split as ComfyUI splits MODEL, CLIP and VAE: LanguageModel, Conditioner and Codec.
The audiocraft engine (`reference/audiocraft.py`) has objects with the same methods. Diffusion comes from a file of its
own, and decodes codes in the codec's place.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from . import accel
from .accel.cuda_graph import ROOM_OF
from .audio import Audio
from .checkpoints import Checkpoint
from .codec import Codec
from .codes import Codes, Origin
from .conditioning import Conditioning
from .config import GenerationParams
from .diffusion import WINDOW_S, MultiBandDecoder
from .diffusion.config import DiffusionConfig
from .errors import InputError
from .lm import LM, PlainStepper, RowNoise, Sampling, Stream, generate_codes
from .seeds import row_seed, seed_alone
from .windows import Window, plan_windows

OnStep = Callable[[int, int], None]


class LanguageModel(nn.Module):
    """The language model of one checkpoint, with the arithmetic of durations, prompts and windows."""

    def __init__(self, source: Checkpoint, lm: LM, precision: str, loaded_for: torch.device):
        super().__init__()
        self.config = source.config
        self.precision = precision
        self.loaded_for = loaded_for  # the device that its layers are laid out for
        self.lm = lm
        self.source = source  # what a fine-tune is blended into

    def generate(
        self,
        conditioning: Conditioning,
        params: GenerationParams,
        prompt: Codes | None = None,
        negative: Conditioning | None = None,
        on_step: OnStep | None = None,
    ) -> Codes:
        """Codes [B, K, T] of `params.duration_s`, the prompt included.

        B is `params.batch_size` takes of a conditioning of one row, else the rows of the conditioning.
        prompt: codes to continue, one row or B. negative: replaces the null rows of guidance.
        on_step(done, total) is called after each step of the piece; an exception that it raises ends the run.
        """
        self._check(conditioning, "positive")
        n_rows = max(params.batch_size, conditioning.n_rows)
        conditioning = self._expanded(conditioning, n_rows, "positive")
        if prompt is None and conditioning.melody is None:
            conditioning = conditioning.with_default()
        null = conditioning.null() if negative is None else self._expanded(negative, n_rows, "negative")
        codes = self._prompt_codes(prompt, n_rows)
        windows = plan_windows(self.config, params, 0 if codes is None else codes.shape[-1])
        rate_hz = self.config.codec.frame_rate_hz
        sampling = Sampling(params.top_k, params.top_p, params.temperature)
        noise = RowNoise(params.seed, n_rows, self.config.lm.n_codebooks, self.config.lm.cardinality)
        result = codes
        with accel.choose(self.lm, 2 * n_rows, self.lm.device) or PlainStepper(self.lm) as stepper:
            for window in windows:
                start_s = window.start / rate_hz if len(windows) > 1 or window.start else None
                conditional, unconditional = self._streams(conditioning, start_s), self._streams(null, start_s)
                if params.cfg == 1 or _same(conditional, unconditional):
                    unconditional = None  # null + (conditional - null) * cfg is the conditional itself
                known = None if result is None else result[..., window.start :]
                codes = generate_codes(
                    self.lm, conditional, unconditional, window.n_frames, sampling, noise, params.cfg, known,
                    _within(on_step, window, windows), stepper,
                )  # fmt: skip
                result = codes if result is None else torch.cat([result[..., : window.start], codes], dim=-1)
        words = conditioning.words or (None,) * n_rows
        origins = tuple(Origin(seed_alone(params.seed, row), text) for row, text in enumerate(words))
        return Codes(result, rate_hz, self.config.codec.identity, origins)

    def streams(self, conditioning: Conditioning, n_rows: int, start_s: float | None = None) -> list[Stream]:
        """What each of `n_rows` is conditioned by; start_s: where the window starts in a piece of several."""
        return self._streams(self._expanded(conditioning, n_rows, "positive"), start_s)

    def memory_bytes(self, params: GenerationParams, conditioning: Conditioning) -> int:
        """Memory of a generation besides the weights: caches, logits and activations of one window."""
        self._check(conditioning, "positive")
        n_rows = 2 * max(params.batch_size, conditioning.n_rows)
        n_text = max(len(row) for row in conditioning.text)
        n_melody = 0 if conditioning.null_melody is None else len(conditioning.null_melody)
        seconds = min(params.duration_s, self.config.segment_s)
        n_columns = int(seconds * self.config.codec.frame_rate_hz) + self.config.lm.max_delay + 1 + n_text + n_melody
        n_columns += ROOM_OF  # padding of the buffers of captured steps
        lm = self.config.lm
        prefill = 4 * n_rows * n_columns * (4 * lm.dim + lm.ffn_dim)
        logits = 4 * 4 * n_rows * lm.n_codebooks * lm.cardinality
        return self.lm.cache_bytes(n_rows, n_columns, n_text) + prefill + logits

    def _expanded(self, conditioning: Conditioning, n_rows: int, name: str) -> Conditioning:
        self._check(conditioning, name)
        if conditioning.n_rows == 1:
            words = conditioning.words and conditioning.words * n_rows
            return replace(conditioning, text=conditioning.text * n_rows, words=words)
        if n_rows != conditioning.n_rows:
            raise InputError(
                f"'{name}' has {conditioning.n_rows} rows and cannot be spread over a batch of {n_rows}. "
                "Give one text, or as many as the batch has rows."
            )
        return conditioning

    def _check(self, conditioning: Conditioning, name: str) -> None:
        """InputError, naming both models, unless the conditioning is of this one's kind."""
        if not isinstance(conditioning, Conditioning):
            raise InputError(
                f"'{name}' comes from another engine than the model {self.config.name}. "
                "Connect the conditioner of the same Load MusicGen node."
            )
        if conditioning.dim != self.config.lm.dim:
            raise InputError(
                f"'{name}' was made by the conditioner of {conditioning.model} (width {conditioning.dim}), but the model "
                f"is {self.config.name} (width {self.config.lm.dim}). Connect the conditioner of the same Load MusicGen node."
            )
        if (conditioning.null_melody is None) != (self.config.melody is None):
            kind = {True: "without", False: "with"}
            raise InputError(
                f"'{name}' was made by {conditioning.model}, {kind[conditioning.null_melody is None]} melody conditioning, "
                f"but the model {self.config.name} is {kind[self.config.melody is None]}. "
                "Connect the conditioner of the same Load MusicGen node."
            )

    def _streams(self, conditioning: Conditioning, start_s: float | None) -> list[Stream]:
        """Cross-attention models attend to the text; the others have [melody | text] put in front of the codes."""
        nothing = conditioning.text[0][:0]
        if self.config.lm.cross_attention:
            # The empty text is a zero vector, whose cross-attention is zero: the same as no vector at all.
            return [Stream(nothing, row if row.any() else nothing) for row in conditioning.text]
        return [Stream(conditioning.prefix(row, start_s), nothing) for row in range(conditioning.n_rows)]

    def _prompt_codes(self, prompt: Codes | None, n_rows: int) -> Tensor | None:
        if prompt is None:
            return None
        prompt.check_codec(self.config.codec.identity)
        codes = prompt.codes
        if codes.shape[0] not in (1, n_rows):
            count = "one is" if n_rows == 1 else f"{n_rows} are"
            also = "" if n_rows == 1 else f", or {n_rows}"
            raise InputError(
                f"'prompt' holds {codes.shape[0]} clips, but {count} to be made. Give one clip{also}, or set 'batch_size' "
                f"to {codes.shape[0]}."
            )
        return codes.expand(n_rows, -1, -1)


class Diffusion(nn.Module):
    """A MultiBand Diffusion model: another decoder for the codes of the codec that it was trained with."""

    def __init__(self, config: DiffusionConfig, decoder: MultiBandDecoder):
        super().__init__()
        self.config = config
        self.decoder = decoder

    def decode(self, codec: Codec, codes: Codes, seed: int = 0, on_step: OnStep | None = None) -> Audio:
        """Audio [B, channels, L] of codes [B, K, T]: `refine` of what the codec itself makes of them."""
        self.check(codec)
        codes.check_codec(codec.config.identity)
        plain = codec.decode(codes, on_step and (lambda done, total: on_step(0, 1)))
        return self.refine(plain, codec.decode_latent(codes), seed, on_step)

    def refine(self, plain: Audio, latents: Tensor, seed: int = 0, on_step: OnStep | None = None) -> Audio:
        """Audio [B, C, L] from the codec's `decode` and `decode_latent`; the codec need not stay on the device.

        The noise of clip i is that of `row_seed(seed, i)`, the same for all of its channels: where left and right
        have the same codes, they sound the same. on_step(done, total) is also called between layers with numbers
        that have not changed; what it raises ends the run.
        """
        n_clips, n_channels, length = plain.samples.shape
        seeds = [row_seed(seed, clip) for clip in range(n_clips) for _ in range(n_channels)]
        samples = self.decoder.decode(latents, plain.samples.reshape(-1, length), seeds, on_step)
        return Audio(samples.view_as(plain.samples), plain.rate_hz)

    def check(self, codec: Codec) -> None:
        """InputError, naming both, for a codec that this model was not made for."""
        config = codec.config
        fits = (config.sample_rate_hz, config.latent_dim) == (self.config.sample_rate_hz, self.config.latent_dim)
        if not fits or any(2 * config.hop < band.unet.hop for band in self.config.bands):
            raise InputError(
                f"The codes are those of {config.identity} (latents of width {config.latent_dim}), but the MultiBand "
                f"Diffusion model {self.config.identity} was made for another codec. Decode them with the codec alone, "
                "or load the diffusion model that belongs to it."
            )

    def memory_bytes(self, codes: Codes, codec: Codec) -> int:
        """Memory of a decode on the device besides the weights: U-Net levels of one window, and signals."""
        length = codes.n_frames * codec.config.hop
        rows = codes.codes.shape[0] * codec.config.channels
        return 4 * (100 * min(rows * length, int(WINDOW_S * self.config.sample_rate_hz)) + 6 * length)


def _same(left: Sequence[Stream], right: Sequence[Stream]) -> bool:
    """True where both sides of the guidance are equal."""
    return all(
        torch.equal(a.prefix, b.prefix) and torch.equal(a.cross, b.cross) for a, b in zip(left, right, strict=True)
    )


def _within(on_step: OnStep | None, window: Window, windows: Sequence[Window]) -> OnStep | None:
    """Convert progress of one window to progress over the piece, in frames."""
    if on_step is None:
        return None
    first = windows[0].start + windows[0].n_known
    total = windows[-1].start + windows[-1].n_frames - first
    before = window.start + window.n_known - first
    new = window.n_frames - window.n_known

    def report(done: int, steps: int) -> None:
        on_step(before + new * done // steps, total)

    return report
