"""Accounts for every tensor of a checkpoint: each is taken, or dropped on purpose, or an error that names it."""

import re
from collections.abc import Callable, Mapping

from ...config import CodecConfig, LMConfig
from ...errors import CheckpointError
from .expected import codec_shapes, lm_shapes
from .lazy import Stored, Weight, join, weight_norm

_SHOWN = 4  # tensors of one kind named in a message


class Inventory:
    """The tensors of one file, crossed off one by one. Problems are gathered, so that one message names them all."""

    def __init__(self, tensors: Mapping[str, Stored], source: str):
        self._left = dict(tensors)
        self.source = source
        self._missing: list[str] = []
        self._wrong: list[str] = []

    @classmethod
    def renamed(cls, tensors: Mapping[str, Stored], rename: Callable[[str], str], source: str) -> "Inventory":
        """The tensors under the names that `rename` gives them, which must stay different."""
        table = {rename(name): tensor for name, tensor in tensors.items()}
        if len(table) != len(tensors):
            raise CheckpointError(f"{source} holds some of its tensors twice, under an old and a new name")
        return cls(table, source)

    def has(self, name: str) -> bool:
        return name in self._left

    def take(self, name: str, shape: tuple[int, ...]) -> Weight:
        """The tensor `name`, which must be floating point and of this shape."""
        tensor = self._left.pop(name, None)
        if tensor is None:
            self._missing.append(name)
        elif not tensor.dtype.is_floating_point:
            self._wrong.append(f"{name} holds {str(tensor.dtype).removeprefix('torch.')}, not floating-point numbers")
        elif tensor.shape != shape:
            self._wrong.append(f"{name} is {list(tensor.shape)}, not {list(shape)}")
        else:
            return tensor
        return Weight(shape, (name,))  # never read: `check` raises

    def drop(self, pattern: str) -> None:
        """Cross off what the engine has no use for: names that match in full."""
        compiled = re.compile(pattern)
        self._left = {name: tensor for name, tensor in self._left.items() if not compiled.fullmatch(name)}

    def take_prefix(self, prefix: str) -> dict[str, Stored]:
        """All tensors under `prefix`, which is cut off."""
        names = [name for name in self._left if name.startswith(prefix)]
        return {name.removeprefix(prefix): self._left.pop(name) for name in names}

    def split(self, part: str) -> "Inventory":
        """The tensors of one part of the model, under their names in it, to be crossed off by themselves."""
        return Inventory(self.take_prefix(f"{part}."), f"{self.source} ({part})")

    def take_lm(self, config: LMConfig, names: Mapping[str, str | tuple[str, ...]]) -> dict[str, Weight]:
        """The language model's weights.

        names: ours, without the number of the layer -> theirs, with {i} for it and {k} for that of a codebook; several
        are joined.
        """
        weights: dict[str, Weight] = {}
        for name, shape in lm_shapes(config).items():
            key, layer = re.subn(r"^layers\.\d+\.", "layers.", name)
            found = names[key]
            theirs = [found] if isinstance(found, str) else list(found)
            if "{k}" in theirs[0]:
                theirs = [theirs[0].replace("{k}", str(k)) for k in range(config.n_codebooks)]
            theirs = [other.replace("{i}", name.split(".")[1]) if layer else other for other in theirs]
            if name == "embeddings":
                weights[name] = join([self.take(other, shape[1:]).as_row() for other in theirs])
            else:
                weights[name] = join([self.take(other, (shape[0] // len(theirs), *shape[1:])) for other in theirs])
        return weights

    def take_codec(self, config: CodecConfig) -> dict[str, Weight]:
        """EnCodec's weights, under their names in transformers, in any of the three spellings of weight norm."""
        weights: dict[str, Weight] = {}
        shapes = codec_shapes(config)
        for name, shape in shapes.items():
            if not name.endswith(".conv.weight") or self.has(name):
                weights[name] = self.take(name, shape)
                continue
            stem = name.removesuffix("weight")
            gain, direction = "weight_g", "weight_v"
            if self.has(stem + "parametrizations.weight.original1"):
                gain, direction = "parametrizations.weight.original0", "parametrizations.weight.original1"
            gain_shape = (shape[0],) + (1,) * (len(shape) - 1)
            weights[name] = weight_norm(self.take(stem + gain, gain_shape), self.take(stem + direction, shape))
        # What training left behind, and codebooks beyond those that the model was trained with.
        self.drop(r"quantizer\.layers\.\d+\.codebook\.(inited|cluster_size|embed_avg)")
        self.drop(r"(encoder|decoder)\.layers\..*\.(stride|kernel_size|padding_total)")
        n_codebooks = config.n_codebooks // config.channels
        for name in [name for name in self._left if name.startswith("quantizer.layers.")]:
            if name.endswith(".codebook.embed") and int(name.split(".")[2]) >= n_codebooks:
                del self._left[name]
        return weights

    def problems(self) -> list[str]:
        """What is missing, misshapen or left over, a phrase a kind."""
        return [
            *_listed("missing", self._missing),
            *_listed("of the wrong shape or type", self._wrong),
            *_listed("not expected", sorted(self._left)),
        ]

    def check(self) -> None:
        """CheckpointError that names what is missing, misshapen or left over."""
        problems = self.problems()
        if problems:
            raise CheckpointError(
                f"{self.source} does not fit the model that its settings describe: {'; '.join(problems)}. "
                "The file is damaged, or of a kind of model that is not supported."
            )


def _listed(kind: str, names: list[str]) -> list[str]:
    if not names:
        return []
    shown = ", ".join(name[:200] for name in names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return [f"{len(names)} tensor{'s' if len(names) > 1 else ''} {kind} ({shown}{more})"]
