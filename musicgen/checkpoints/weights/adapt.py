"""Puts an adapter on a base: every tensor of it becomes a change of one of the base's weights, or part of an error."""

import copy
import re
from collections.abc import Mapping
from dataclasses import replace

from ...conditioning.text import TextEncoder
from ...errors import CheckpointError
from ..adapter import Adapter, Changes, Module
from ..checkpoint import Checkpoint
from ..formats.bare import PUBLISHED
from ..formats.peft import check_values
from ..formats.peft_names import TEXT_ENCODER, Place, places, unflattened
from .adapted import (
    Change,
    embedding_delta,
    embedding_dora,
    held,
    linear_delta,
    linear_dora,
    replaced,
    scaled,
    whole_of,
    with_changes,
)
from .inventory import Inventory
from .lazy import Stored, Weight


def adapt(base: Checkpoint, adapter: Adapter, strength: float) -> Checkpoint:
    """`base` with the adapter's changes of language model and projections at `strength`.

    Of the base nothing is read yet; the adapter's tensors are, to see that they are numbers.
    """
    changes = changes_of(base, adapter, strength)
    suffix = "" if strength == 1 else f" x {strength:g}"
    return replace(
        base,
        config=replace(base.config, name=f"{base.config.name} + {adapter.name}{suffix}"),
        lm=with_changes(base.lm, changes.lm),
        conditioner=with_changes(base.conditioner, changes.conditioner),
    )


def changes_of(
    base: Checkpoint, adapter: Adapter, strength: float = 1.0, text_encoder: Mapping[str, Weight] | None = None
) -> Changes:
    """What the adapter adds to each of the base's weights.

    text_encoder: its weights, where those are to be changed too; without them its modules are passed over.
    CheckpointError, naming tensors and base, unless every tensor has its place in the base.
    """
    taker = _Taker(base, adapter, strength)
    for name, module in adapter.modules.items():
        if name.startswith(TEXT_ENCODER) and text_encoder is None:
            continue
        taker.take(name, module, text_encoder or {})
    taker.check()
    return taker.changes


def alters_text_encoder(tuned: object) -> bool:
    """Whether an adapter changes the text encoder as well. Whole fine-tunes never do."""
    return isinstance(tuned, Adapter) and any(name.startswith(TEXT_ENCODER) for name in tuned.modules)


def adapt_text_encoder(encoder: TextEncoder, base: Checkpoint, tuned: object, strength: float) -> TextEncoder:
    """A copy of `encoder` in CPU memory with the changes that `tuned` makes of it; `encoder` itself where it makes none."""
    if not isinstance(tuned, Adapter) or not alters_text_encoder(tuned) or strength == 0:
        return encoder
    parameters = dict(encoder.encoder.named_parameters())
    weights: dict[str, Weight] = {name: held(name, parameter) for name, parameter in parameters.items()}
    adapted = copy.copy(encoder)
    adapted._modules = {**encoder._modules, "encoder": copy.deepcopy(encoder.encoder).cpu()}
    changes = changes_of(base, tuned, strength, weights).text_encoder
    for name, weight in with_changes(weights, changes).items():
        if name in changes:
            weight.copy_into(adapted.encoder.get_parameter(name).data)
    return adapted


class _Taker:
    """Crosses off an adapter's tensors, module by module."""

    def __init__(self, base: Checkpoint, adapter: Adapter, strength: float):
        self._base, self._adapter, self._strength = base, adapter, strength
        self._places = places(base.config)
        self.changes = Changes()
        self._problems: list[str] = []
        self._unplaced: list[str] = []

    def take(self, name: str, module: Module, text_encoder: Mapping[str, Weight]) -> None:
        """The changes of one module's weight and bias."""
        name = unflattened(name, self._places)
        inventory = Inventory({f"{name}.{role}": tensor for role, tensor in module.tensors.items()}, "")
        for kind in ("weight", "bias"):
            roles = _BIASES if kind == "bias" else module.tensors.keys() - _BIASES
            if not roles & module.tensors.keys():
                continue
            place = self._place(f"{name}.{kind}", text_encoder)
            if place is None:
                tensors = [module.tensors[role] for role in sorted(roles & module.tensors.keys())]
                self._unplaced += [tensor.label for tensor in tensors]
                inventory.drop(rf"{re.escape(name)}\.({'|'.join(map(re.escape, roles))})")
                continue
            base = self._weight(place, text_encoder)
            delta = (self._bias if kind == "bias" else self._matrix)(inventory, name, module, place, base)
            if delta is not None:
                part = getattr(self.changes, place.part)
                part.setdefault(place.weight, []).append(Change(delta, place.first_row, self._strength))
        self._problems += inventory.problems()

    def _place(self, tensor: str, text_encoder: Mapping[str, Weight]) -> Place | None:
        if tensor.startswith(TEXT_ENCODER):
            inner = tensor.removeprefix(TEXT_ENCODER)
            known = text_encoder.get(inner)
            return None if known is None else Place("text_encoder", inner, 0, known.shape)
        return self._places.get(tensor)

    def _weight(self, place: Place, text_encoder: Mapping[str, Weight]) -> Weight:
        """The rows of the base's own weight that the place stands for, without the changes of other adapters."""
        if place.part == "text_encoder":
            return whole_of(text_encoder[place.weight])
        whole = whole_of(getattr(self._base, place.part)[place.weight])
        n_rows = 1 if place.is_embedding else place.shape[0]
        return whole if whole.shape[0] == n_rows else whole.rows(place.first_row, place.first_row + n_rows)

    def _matrix(self, inventory: Inventory, name: str, module: Module, place: Place, base: Weight) -> Weight | None:
        if "weight" in module.tensors:
            saved = inventory.take(f"{name}.weight", place.shape)
            return replaced(base, saved.as_row() if place.is_embedding else saved)
        if len(place.shape) != 2:
            return None  # of a norm: what is there is left over, and named
        n_out, n_in = place.shape
        form = "lora_embedding_" if place.is_embedding else "lora_"
        rank = module.rank or 1
        if rank > max(place.shape):
            self._problems.append(f"{name}: its rank {rank} is more than the {n_out} x {n_in} matrix can hold")
        a_shape, b_shape = ((rank, n_out), (n_in, rank)) if place.is_embedding else ((rank, n_in), (n_out, rank))
        a, b = inventory.take(f"{name}.{form}A", a_shape), inventory.take(f"{name}.{form}B", b_shape)
        scale = self._adapter.settings.scale(module.path, rank, self._alpha(inventory, name, module))
        delta = (embedding_delta if place.is_embedding else linear_delta)(a, b, scale)
        if not self._adapter.settings.dora and "magnitude" not in module.tensors:
            return delta
        dim = n_in if place.is_embedding else n_out
        magnitude = inventory.take(f"{name}.magnitude", (dim,))
        return (embedding_dora if place.is_embedding else linear_dora)(base, delta, magnitude)

    def _alpha(self, inventory: Inventory, name: str, module: Module) -> float | None:
        """kohya's alpha: one number beside A and B."""
        if "alpha" not in module.tensors:
            return None
        shape = module.tensors["alpha"].shape
        stored = inventory.take(f"{name}.alpha", shape if shape in ((), (1,)) else ())
        return float(stored.read()) if isinstance(stored, Stored) else None

    def _bias(self, inventory: Inventory, name: str, module: Module, place: Place, base: Weight) -> Weight | None:
        if "bias" in module.tensors:
            return replaced(base, inventory.take(f"{name}.bias", place.shape))
        rank = module.rank or 1
        stored = inventory.take(f"{name}.lora_B.bias", place.shape)
        return scaled(stored, self._adapter.settings.scale(module.path, rank))

    def check(self) -> None:
        """CheckpointError that names what has no place, or does not fit its place."""
        problems = list(self._problems)
        if self._unplaced:
            problems.insert(0, _listed("no place in it", self._unplaced))
        if problems:
            more = f"; and {len(problems) - 4} more" if len(problems) > 4 else ""
            raise CheckpointError(
                f"The adapter {self._adapter.path} does not fit the model {self._base.config.name} ({self._base.path}): "
                f"{'; '.join(problems[:4])}{more}. {described(self._adapter)}"
            )
        check_values(self._adapter)


_BIASES = {"bias", "lora_B.bias"}


def _listed(what: str, names: list[str]) -> str:
    shown = ", ".join(name[:200] for name in names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return f"{len(names)} tensor{'s have' if len(names) > 1 else ' has'} {what} ({shown})"


# --- for which base


def described(adapter: Adapter) -> str:
    """The base that the adapter was made for, as far as it shows."""
    width, n_layers, n_codebooks, cross = shapes_of(adapter)
    facts = [f"width {width}"] if width else []
    facts += [f"{n_layers} layers"] if n_layers else []
    facts += [f"{n_codebooks} codebooks"] if n_codebooks else []
    facts += ["cross-attention to the text"] if cross else ["the text in front of the codes"] if cross is False else []
    names = [
        name
        for name, known in PUBLISHED.items()
        if all(mine in (None, theirs) for mine, theirs in zip((width, n_layers, n_codebooks, cross), known))
    ]
    base = f" Its settings name {adapter.settings.base}." if adapter.settings.base else ""
    models = f": {' or '.join(names)}" if names and len(names) <= 4 else "" if names else ": no published model"
    return f"It was made for a model of {', '.join(facts) or 'shapes that it does not show'}{models}.{base}"


def shapes_of(adapter: Adapter) -> tuple[int | None, int | None, int | None, bool | None]:
    """Width, layers, codebooks, whether it has cross-attention; None for what no tensor shows."""
    width = n_layers = n_codebooks = cross = None
    for name, module in adapter.modules.items():
        if layer := re.search(r"\.layers\.(\d{1,6})\.", name):
            n_layers = max(n_layers or 0, int(layer[1]) + 1)
        if book := re.search(r"(?:lm_heads|embed_tokens)\.(\d{1,6})$", name):
            n_codebooks = max(n_codebooks or 0, int(book[1]) + 1)
        a = module.tensors.get("lora_A")
        if (
            a is not None
            and a.shape
            and re.search(r"self_attn\.[qkv]_proj$|encoder_attn\.q_proj$|fc1$|lm_heads\.\d+$", name)
        ):
            width = width or a.shape[-1]
        if "encoder_attn" in name:
            cross = True
        elif name == "audio_enc_to_dec_proj":
            cross = False
    return width, n_layers, n_codebooks, cross
