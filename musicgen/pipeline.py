"""The facade that nodes and the command line call: condition, generate, decode.

`loading.load` gives three objects, split as ComfyUI splits MODEL, CLIP and VAE: LanguageModel, Conditioner and Codec.
The audiocraft engine (`reference/audiocraft.py`) has objects with the same methods. Diffusion comes from a file of its
own, and decodes codes in the codec's place.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from . import accel
from .accel.cuda_graph import ROOM_OF
from .checkpoints import Checkpoint
from .codes import Codes, Origin
from .conditioning import Conditioning, Mixture, check_model
from .conditioning.chroma import NO_ANCHOR, Anchor
from .config import GenerationParams
from .errors import InputError
from .faults import Faults
from .guidance import asked_for, guided, n_groups, new_start_s, planned
from .handover import OnStep, from_start, joined, known, within
from .lm import LM, OnFrames, PlainStepper, RowNoise, Sampling, Stream, generate_codes
from .seeds import seed_alone


class LanguageModel(nn.Module):
    """The language model of one checkpoint, with the arithmetic of durations, prompts and windows."""

    def __init__(self, source: Checkpoint, lm: LM, precision: str, loaded_for: torch.device):
        super().__init__()
        self.config = source.config
        self.precision = precision
        self.loaded_for = loaded_for  # the device that its layers are laid out for
        self.lm = lm
        self.source = source  # what a fine-tune is blended into
        self.faults: Faults | None = None  # what is drawn again, for models whose card says so

    def generate(
        self,
        conditioning: Conditioning | Mixture,
        params: GenerationParams,
        prompt: Codes | None = None,
        negative: Conditioning | Mixture | None = None,
        on_step: OnStep | None = None,
        on_redraw: Callable[[str], None] | None = None,
        on_frames: OnFrames | None = None,
    ) -> Codes:
        """Codes [B, K, T] of `params.duration_s`, the prompt included.

        B is `params.batch_size` takes of a conditioning of one row, else the rows of the conditioning. Where a timeline
        changes, a window is cut, so that what follows is written under the new text.
        prompt: codes to continue, one row or B. negative: replaces the null rows of guidance.
        on_step(done, total) is called after each step of the piece; an exception that it raises ends the run.
        A row with one of the model's `faults` is drawn again, and on_redraw(text) is told.
        on_frames(n, read) is called before on_step: n frames of the piece are finished, read(first, last) gives some of them.
        """
        self._check(conditioning, "positive")
        conditioning = conditioning.with_default() if prompt is None else conditioning
        codes = self._draw(conditioning, params, prompt, negative, on_step, on_frames)
        if self.faults is None or params.temperature == 0:
            return codes

        def draw_row(row: int, seed: int, kept: Codes | None) -> Tensor:
            def one(leaf: Conditioning) -> Conditioning:  # the only row stands for every row
                return leaf.with_rows(lambda rows: rows if len(rows) == 1 else rows[row : row + 1])

            alone = replace(params, seed=seed, batch_size=1)
            clip = kept or (prompt if prompt is None or len(prompt.codes) == 1 else prompt.rows([row]))
            return self._draw(conditioning.mapped(one), alone, clip, negative and negative.mapped(one), on_step).codes

        asked = asked_for(conditioning, params.duration_s, len(codes.codes), 0 if prompt is None else prompt.n_frames)
        drawn, seeds = self.faults.redrawn(codes, params.seed, draw_row, self.config.name, on_redraw, asked)
        origins = tuple(replace(each, seed=seeds.get(row, each.seed)) for row, each in enumerate(codes.origins or ()))
        return replace(codes, codes=drawn, origins=origins)

    def _draw(
        self,
        conditioning: Conditioning | Mixture,
        params: GenerationParams,
        prompt: Codes | None,
        negative: Conditioning | Mixture | None,
        on_step: OnStep | None,
        on_frames: OnFrames | None = None,
    ) -> Codes:
        """`generate`, every row from its first seed."""
        n_rows = max(params.batch_size, conditioning.n_rows)
        conditioning = self._expanded(conditioning, n_rows, "positive")
        negative = None if negative is None else self._expanded(negative, n_rows, "negative")
        result = self._prompt_codes(prompt, n_rows)
        rate_hz = self.config.codec.frame_rate_hz
        n_prompt, duration_s = 0 if result is None else result.shape[-1], params.duration_s
        windows, followed = planned(self.config, params, n_prompt, conditioning, negative)
        is_long = windows[-1].start > 0  # in one window, a melody is repeated from its start
        sampling = Sampling(params.top_k, params.top_p, params.temperature)
        noise = RowNoise(params.seed, n_rows, self.config.lm.n_codebooks, self.config.lm.cardinality)
        with accel.choose(self.lm, 2 * n_rows, self.lm.device) or PlainStepper(self.lm) as stepper:
            for window, positive in zip(windows, followed, strict=True):
                time_s, start_s = new_start_s(window, rate_hz), window.start / rate_hz if is_long else None
                anchor = window.n_anchor / rate_hz, window.anchor / rate_hz
                run = guided(
                    positive.at(time_s, duration_s), negative and negative.at(time_s, duration_s), params.cfg,
                    partial(self._streams, start_s=start_s, anchor=anchor),
                )  # fmt: skip
                codes = generate_codes(
                    self.lm, run.conditional, run.null, window.n_frames, sampling, noise, params.cfg, known(result, window),
                    within(on_step, window, windows), stepper, run.mix, run.n_texts, from_start(on_frames, result, window),
                )  # fmt: skip
                result = codes if result is None else joined(result, codes, window)
        assert result is not None  # there is a window at least
        return Codes(result, rate_hz, self.config.codec.identity, self.origins(conditioning, params))

    def origins(self, conditioning: Conditioning | Mixture, params: GenerationParams) -> tuple[Origin, ...]:
        """Where each row of `generate` comes from. A mixture's rows have no text of their own."""
        n_rows = max(params.batch_size, conditioning.n_rows)
        words = (conditioning.words if isinstance(conditioning, Conditioning) else None) or (None,)
        words = words * n_rows if len(words) == 1 else words
        return tuple(Origin(seed_alone(params.seed, row), text) for row, text in enumerate(words))

    def streams(self, conditioning: Conditioning, n_rows: int, start_s: float | None = None) -> list[Stream]:
        """What each of `n_rows` is conditioned by; start_s: where the window starts in a piece of several.

        InputError for a mixture, which has no single text.
        """
        if not isinstance(conditioning, Conditioning):
            raise InputError(
                "'positive' is a mixture of texts (Prompt Timeline, Blend Prompts), under which takes have no likelihood. "
                "Connect one MusicGen Text, or unplug 'positive'."
            )
        self._check(conditioning, "positive")
        return self._streams(_spread(conditioning, n_rows, "positive"), start_s)

    def memory_bytes(self, params: GenerationParams, conditioning: Conditioning | Mixture) -> int:
        """Memory of a generation besides the weights: caches, logits and activations of one window."""
        self._check(conditioning, "positive")
        leaves = conditioning.leaves()
        n_texts = n_groups(conditioning, params.duration_s)
        n_rows = (n_texts + 1) * max(params.batch_size, conditioning.n_rows)
        n_text = max(len(row) for leaf in leaves for row in leaf.text)
        n_melody = 0 if leaves[0].null_melody is None else len(leaves[0].null_melody)
        seconds = min(params.duration_s, self.config.segment_s)
        n_columns = int(seconds * self.config.codec.frame_rate_hz) + self.config.lm.max_delay + 1 + n_text + n_melody
        n_columns += ROOM_OF  # padding of the buffers of captured steps
        lm = self.config.lm
        prefill = 4 * n_rows * n_columns * (4 * lm.dim + lm.ffn_dim)
        logits = 4 * 4 * n_rows * lm.n_codebooks * lm.cardinality
        return self.lm.cache_bytes(n_rows, n_columns, n_text) + prefill + logits

    def _expanded(self, conditioning: Conditioning | Mixture, n_rows: int, name: str) -> Conditioning | Mixture:
        self._check(conditioning, name)
        return conditioning.mapped(partial(_spread, n_rows=n_rows, name=name))

    def _check(self, conditioning: Conditioning | Mixture, name: str) -> None:
        """InputError, naming both models, unless the conditioning is of this one's kind."""
        if not isinstance(conditioning, (Conditioning, Mixture)):
            raise InputError(
                f"'{name}' comes from another engine than the model {self.config.name}. "
                "Connect the conditioner of the same Load MusicGen node."
            )
        for leaf in conditioning.leaves():
            check_model(leaf, self.config, name)

    def _streams(self, conditioning: Conditioning, start_s: float | None, anchor: Anchor = NO_ANCHOR) -> list[Stream]:
        """Cross-attention models attend to the text; the others have [melody | text] put in front of the codes."""
        nothing = conditioning.text[0][:0]
        if self.config.lm.cross_attention:
            # The empty text is a zero vector, whose cross-attention is zero: the same as no vector at all.
            return [Stream(nothing, row if row.any() else nothing) for row in conditioning.text]
        return [Stream(conditioning.prefix(row, start_s, anchor), nothing) for row in range(conditioning.n_rows)]

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


def _spread(leaf: Conditioning, n_rows: int, name: str) -> Conditioning:
    if leaf.n_rows == 1:
        return leaf.with_rows(lambda rows: rows * n_rows)
    if n_rows != leaf.n_rows:
        raise InputError(
            f"'{name}' has {leaf.n_rows} rows and cannot be spread over a batch of {n_rows}. "
            "Give one text, or as many as the batch has rows."
        )
    return leaf
