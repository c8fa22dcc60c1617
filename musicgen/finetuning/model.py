"""The model that is trained: plain layers filled from the base's files, apart from what ComfyUI holds of them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..checkpoints import Checkpoint, Weight, fill
from ..checkpoints.weights.lazy import Check, unchecked
from ..conditioning.text import filled_up
from ..config import ModelConfig
from ..lm import LM, Stream, quantize_linears, storage_dtype
from ..lm.linear import Linear
from .low_rank import LowRank, add_adapters, set_strength
from .settings import TrainSettings

State = dict[str, Tensor]
_FLOAT32_PARAMETERS = 200e6  # of a model that `auto` holds in float32 on a CPU: musicgen-small has 420 million


@dataclass
class Trainable:
    """The language model and its projections. Only adapters, or all weights of the language model, have gradients."""

    config: ModelConfig
    lm: LM
    text_projection: nn.Module
    melody_projection: nn.Linear | None
    adapters: dict[str, LowRank]  # by the name of the weight in the checkpoint; empty: whole weights
    precision: str
    base_state: State  # the base's values of whole weights; empty for adapters, which are beside them

    @property
    def device(self) -> torch.device:
        return self.lm.device

    def parameters(self) -> dict[str, nn.Parameter]:
        """What is trained, by name."""
        if self.adapters:
            return {
                f"{name}.{part}": parameter
                for name, adapter in self.adapters.items()
                for part, parameter in (("a", adapter.a), ("b", adapter.b))
            }
        return {f"lm.{name}": parameter for name, parameter in self.lm.named_parameters()}

    def train(self, training: bool) -> None:
        self.lm.train(training)
        self.text_projection.train(training)

    def text_row(self, states: Tensor) -> Tensor:
        """Hidden states of a text [n, t] -> rows [n, D]; no states, [0, t], are the empty text: one zero vector."""
        if not len(states):
            rows = torch.zeros(1, self.config.lm.dim, device=self.device)
        else:
            rows = self.text_projection(states.to(self.device, torch.float32))
        return filled_up(rows, self.config.text)

    def stream(self, states: Tensor, chroma: Tensor | None = None, drop_text: bool = False) -> Stream:
        """What a row is conditioned by, as at inference (`LanguageModel.streams`). drop_text: its null row.

        chroma: pitch classes [F] of a melody, for a model that has melodies; None = the null melody.
        """
        text = self.text_row(states)
        if drop_text:
            text = torch.zeros_like(text)
        nothing = text[:0]
        if self.config.lm.cross_attention:
            return Stream(nothing, nothing if drop_text or not len(states) else text)
        return Stream(torch.cat([*self._melody(chroma), text]), nothing)

    def _melody(self, chroma: Tensor | None) -> Iterator[Tensor]:
        melody = self.config.melody
        if melody is None or self.melody_projection is None:
            return
        if melody.chords:
            yield torch.zeros(melody.n_frames, self.config.lm.dim, device=self.device)
            return
        classes = torch.zeros(melody.n_frames, dtype=torch.long) if chroma is None else chroma.long()
        frames = torch.nn.functional.one_hot(classes, melody.n_chroma).float().to(self.device)
        yield self.melody_projection(frames)


def training_precision(precision: str, n_parameters: int, device: torch.device, method: str) -> str:
    """The precision of the frozen base; auto: bfloat16 on CUDA, float32 or, for larger models, int8 on a CPU."""
    if method != "lora":
        return "float32"
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
    return "float32" if n_parameters <= _FLOAT32_PARAMETERS else "int8"


def build(source: Checkpoint, settings: TrainSettings, device: torch.device, check: Check = unchecked) -> Trainable:
    """The base's weights, read from its files once more, with adapters beside them."""
    config = source.config
    with torch.device("meta"):
        lm = LM(config.lm)
    n_parameters = sum(parameter.numel() for parameter in lm.parameters())
    precision = training_precision(settings.precision, n_parameters, device, settings.method)
    dtype = storage_dtype(precision)
    label = f"{source.path} (language model)"
    for index, block in enumerate(lm.layers):
        prefix = f"layers.{index}."
        for module in block.modules():
            if isinstance(module, Linear):
                module.weight = nn.Parameter(torch.empty(module.weight.shape, dtype=dtype))
        fill(block, _below(source.lm, prefix), f"{label}, layer {index}", check)
        if precision == "int8":
            quantize_linears(block, torch.float16 if device.type == "cuda" else torch.float32, check)
    layers, lm.layers = lm.layers, nn.ModuleList()  # pyright: ignore[reportAttributeAccessIssue]
    fill(lm, {name: weight for name, weight in source.lm.items() if not name.startswith("layers.")}, label, check)
    lm.layers = layers
    text_projection = _projection(source, "text_projection.", config.text.dim)
    melody_projection = _projection(source, "melody_projection.", config.melody.n_chroma) if config.melody else None
    whole = settings.method != "lora"
    lm.requires_grad_(whole).to(device)
    for projection in filter(None, (text_projection, melody_projection)):
        projection.requires_grad_(False).to(device)
    adapters: dict[str, LowRank] = {}
    adapted: nn.Module = text_projection
    if not whole:
        adapters, adapted = add_adapters(
            lm, text_projection, settings.rank, settings.scale, settings.dropout, settings.targets, settings.seed
        )
    model = Trainable(config, lm, adapted, melody_projection, adapters, precision, {})
    if whole:
        model.base_state = state_of(model)
    return model


def _projection(source: Checkpoint, prefix: str, n_in: int) -> nn.Linear:
    with torch.device("meta"):
        projection = nn.Linear(n_in, source.config.lm.dim)
    fill(projection, _below(source.conditioner, prefix), f"{source.path} (conditioning)")
    return projection


def _below(weights: dict[str, Weight], prefix: str) -> dict[str, Weight]:
    return {name.removeprefix(prefix): weight for name, weight in weights.items() if name.startswith(prefix)}


class AtStrength:
    """The model with its fine-tune at another strength, as a context: 0 is the base."""

    def __init__(self, model: Trainable, strength: float) -> None:
        self._model, self._strength = model, strength
        self._tuned: State = {}

    def __enter__(self) -> None:
        set_strength(self._model.adapters, self._strength)
        if self._model.base_state:
            self._tuned = state_of(self._model)
            base = self._model.base_state
            put_state(self._model, {name: base[name].lerp(w, self._strength) for name, w in self._tuned.items()})

    def __exit__(self, *_: object) -> None:
        set_strength(self._model.adapters, 1.0)
        if self._tuned:
            put_state(self._model, self._tuned)


def state_of(model: Trainable) -> State:
    """A copy of what is trained, on the CPU."""
    return {name: parameter.detach().cpu().clone() for name, parameter in model.parameters().items()}


@torch.no_grad()
def put_state(model: Trainable, state: State) -> None:
    """Copy `state_of` back."""
    for name, parameter in model.parameters().items():
        parameter.copy_(state[name])


def padded(rows: Sequence[Tensor], value: int) -> tuple[Tensor, Tensor]:
    """Codes [K, T_r] of rows -> [R, K, T] int64 filled with `value`, and T_r [R]."""
    longest = max(row.shape[-1] for row in rows)
    filled = torch.full((len(rows), rows[0].shape[0], longest), value, dtype=torch.long)
    for row, codes in zip(filled, rows, strict=True):
        row[:, : codes.shape[-1]] = codes
    return filled, torch.tensor([row.shape[-1] for row in rows])
