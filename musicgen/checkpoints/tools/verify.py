"""Reads every weight of a checkpoint, and compares it with the checksums that its files carry."""

import hashlib
import zipfile
from collections.abc import Iterable, Iterator

from ...errors import CheckpointError
from ..checkpoint import Checkpoint
from ..containers.safetensors import read_with_metadata
from ..containers.torch_zip import TorchFile
from ..formats.converted import DIGEST_KEY
from ..weights.fill import check_finite
from ..weights.lazy import Weight, WeightsFile


def verify(checkpoint: Checkpoint) -> str:
    """Read every weight; compare with all checksums that the files carry. Says which there were.

    CheckpointError names the file or the tensor that is damaged.
    """
    kinds = set()
    for file in files_of(checkpoint.weights()):
        if zipfile.is_zipfile(file.path):
            TorchFile(file.path).verify()
            kinds.add("CRC-32")
        elif checkpoint.format == "converted":
            check_digest(file)
            kinds.add("SHA-256")
    parts = {"lm": checkpoint.lm, "conditioner": checkpoint.conditioner, "codec": checkpoint.codec}
    parts["text_encoder"] = checkpoint.text_encoder.weights
    for part, weights in parts.items():
        verify_weights((f"{part}.{name}", weight) for name, weight in weights.items())
    return f"checked ({', '.join(sorted(kinds)) or 'without checksums, which this format has none of'})"


def verify_weights(weights: Iterable[tuple[str, Weight]]) -> None:
    for name, weight in weights:
        for _, rows in weight.slabs():
            check_finite(rows.read(), f"{weight.label} ({name})")


def check_digest(file: WeightsFile) -> None:
    expected = read_with_metadata(file.path)[1].get(DIGEST_KEY)
    start = 8 + int.from_bytes(file.read(0, 8), "little")
    digest = hashlib.sha256()
    for position in range(start, len(file), 2**22):
        digest.update(file.read(position, position + 2**22))
    if digest.hexdigest() != expected:
        raise CheckpointError(
            f"{file.path} is damaged: its data do not have the checksum in its header. Convert it again."
        )


def files_of(weights: Iterable[Weight]) -> Iterator[WeightsFile]:
    seen = set()
    for weight in weights:
        for file in weight.files():
            if file.path not in seen:
                seen.add(file.path)
                yield file
