"""Rows of `inspect` about an adapter: how large, how strong, and for which base."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch

from ..checkpoints import Adapter
from ..checkpoints.containers.safetensors import looks_like_safetensors
from ..checkpoints.containers.torch_zip import TorchFile
from ..checkpoints.formats.converted import DIGEST_KEY
from ..checkpoints.formats.peft import CONFIG_KEY, check_values, open_adapter
from ..checkpoints.formats.peft_names import TEXT_ENCODER
from ..checkpoints.open import open_checkpoint
from ..checkpoints.tools.verify import check_digest
from ..checkpoints.weights.adapt import changes_of, described
from ..checkpoints.weights.lazy import WeightsFile
from ..errors import CheckpointError
from ..store import ModelStore
from ..store.published import SHIPPED

_UNTOLD = {"format", CONFIG_KEY, DIGEST_KEY}  # metadata that other rows say, or nobody reads
_MAX_TEXT, _MAX_ROWS, _MAX_MODELS = 300, 20, 50


def describe_adapter(path: Path, store: ModelStore) -> list[tuple[str, str]]:
    """(what, value) rows. Every number in it is read; `store` has the models that it may be for.

    CheckpointError for an adapter that is damaged or of another kind.
    """
    adapter = open_adapter(path)
    if not looks_like_safetensors(adapter.file):
        TorchFile(adapter.file).verify()
    elif DIGEST_KEY in adapter.metadata:
        check_digest(WeightsFile(adapter.file))
    check_values(adapter)
    tensors = [tensor for module in adapter.modules.values() for tensor in module.tensors.values()]
    counts = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in tensors)
    parameters = sum(torch.Size(tensor.shape).numel() for tensor in tensors)
    rows = [
        ("what", f"an adapter ({'DoRA' if adapter.settings.dora else 'LoRA'}), to be put on a model"),
        ("for", described(adapter)),
        ("fits", ", ".join(_fitting(adapter, store)) or "no model that is on this machine"),
        ("changes", _changes(adapter)),
        ("strength", _strength(adapter)),
        (
            "size",
            f"{len(WeightsFile(adapter.file)) / 1e9:.3f} GB, {parameters / 1e6:,.3f} million parameters, {', '.join(counts)}",
        ),
    ]
    told = [(key, value) for key, value in sorted(adapter.metadata.items()) if key not in _UNTOLD]
    return rows + [(key[:40], value.replace("\n", " ")[:_MAX_TEXT]) for key, value in told[:_MAX_ROWS]]


def _fitting(adapter: Adapter, store: ModelStore) -> Iterator[str]:
    """Names of the models here in which every tensor of the adapter has its place."""
    for name in [*SHIPPED, *store.list()][:_MAX_MODELS]:
        try:
            base = open_checkpoint(store.find(name), codec_required=False)
            changes_of(base, adapter)
        except CheckpointError:
            continue
        yield name


def _changes(adapter: Adapter) -> str:
    low = sum(module.rank is not None for module in adapter.modules.values())
    whole = len(adapter.modules) - low
    text = sum(name.startswith(TEXT_ENCODER) for name in adapter.modules)
    parts = [f"{low} matrices by a low rank"]
    parts += [f"{whole} norms, biases or matrices as a whole"] if whole else []
    parts += [f"{text} of these in the text encoder"] if text else []
    return ", ".join(parts)


def _strength(adapter: Adapter) -> str:
    """Rank, and the factor that stands before B A, of the most modules."""
    settings = adapter.settings
    scales = Counter(
        (module.rank, settings.scale(module.path, module.rank)) for module in adapter.modules.values() if module.rank
    )
    if not scales:
        return "no matrix of a low rank"
    (rank, scale), n_modules = scales.most_common(1)[0]
    others = f"; other ranks or scales in {sum(scales.values()) - n_modules} modules" if len(scales) > 1 else ""
    kind = " (rank-stabilised)" if settings.root else ""
    return f"rank {rank}, changes times {scale:g}{kind} at strength 1{others}"
