"""Reads files of torch.save: the zip's directory, its pickle through our own unpickler, tensors by their place."""

import math
import struct
import zipfile
from pathlib import Path

from ...errors import CheckpointError
from ...foreign import guarded
from ..weights.lazy import Stored, WeightsFile
from .inert import TensorRecord
from .unpickler import MAX_PICKLE_BYTES, unpickle

MAX_ENTRIES = 100_000
_DAMAGED = "is damaged or was not downloaded completely: download it again"
_ARCHIVES = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"(\xb5/\xfd": "zstd",
    b"7z\xbc\xaf": "7z",
    b"Rar!": "RAR",
}
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, lengths of the name and of the extra field


class TorchFile:
    """A torch zip file: `contents` is the unpickled object with TensorRecord in place of tensors."""

    def __init__(self, path: Path):
        self.path = path
        self._file = WeightsFile(path)
        if self._file.read(0, 4) != b"PK\x03\x04":
            raise CheckpointError(_not_a_zip(self._file))
        with guarded(str(path), _DAMAGED), zipfile.ZipFile(path) as archive:
            self._entries = self._directory(archive)
            pickle = archive.read(self._entries[self._root + "data.pkl"])
        self._ranges: dict[str, tuple[int, int]] = {}
        self.contents = unpickle(pickle, str(path))

    def _directory(self, archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
        infos = archive.infolist()
        roots = [info.filename.removesuffix("data.pkl") for info in infos if info.filename.endswith("/data.pkl")]
        entries = {info.filename: info for info in infos}
        if len(infos) > MAX_ENTRIES or len(entries) != len(infos):
            raise CheckpointError(f"{self.path} lists {len(infos)} entries, too many or twice the same: it is refused")
        if len(roots) != 1 or roots[0].count("/") != 1:
            raise CheckpointError(
                f"{self.path} is a zip file, but no file of weights: it holds no data.pkl. If it is an archive with a "
                "checkpoint in it, unpack it and give that folder."
            )
        for info in infos:
            # torch never compresses; a compressed entry could unfold to any size.
            if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size or info.flag_bits & 1:
                raise CheckpointError(
                    f"{self.path}: its entry {info.filename[:100]!r} is compressed or encrypted, which torch never "
                    "does: it is refused"
                )
        self._root = roots[0]
        if entries[self._root + "data.pkl"].file_size > MAX_PICKLE_BYTES:
            raise CheckpointError(f"{self.path}: its table of contents is larger than {MAX_PICKLE_BYTES} bytes")
        order = entries.get(self._root + "byteorder")
        if order is not None and (order.file_size > 16 or archive.read(order) != b"little"):
            raise CheckpointError(f"{self.path} was saved on a big-endian machine, which is not supported")
        return entries

    def verify(self) -> None:
        """Read everything and compare it with the checksums that the file carries. CheckpointError if one differs."""
        with guarded(str(self.path), _DAMAGED), zipfile.ZipFile(self.path) as archive:
            broken = archive.testzip()
        if broken is not None:
            raise CheckpointError(
                f"{self.path} is damaged: the checksum of {broken[:100]!r} is wrong. Download it again."
            )

    def tensor(self, record: TensorRecord, name: str) -> Stored:
        """The weight that `record` describes. CheckpointError if its storage is absent or of another size."""
        storage = record.storage
        start, n_bytes = self._place(storage.key, name)
        if n_bytes != storage.n_elements * storage.dtype.itemsize:
            raise CheckpointError(
                f"{self.path} is damaged: tensor '{name}' should have {storage.n_elements} numbers of "
                f"{storage.dtype.itemsize} bytes, but {n_bytes} bytes are there. Download it again."
            )
        offset = start + record.offset * storage.dtype.itemsize
        return Stored(record.shape, (name,), self._file, offset, storage.dtype, record.strides)

    def tensors(self, table: object, what: str) -> dict[str, Stored]:
        """A flat table name -> tensor of this file, such as its best_state."""
        if not isinstance(table, dict) or not table:
            raise CheckpointError(f"{self.path}: '{what}' is no table of tensors")
        for name, record in table.items():
            if not isinstance(name, str) or not isinstance(record, TensorRecord):
                raise CheckpointError(f"{self.path}: '{what}' holds {str(name)[:100]!r}, which is no tensor")
        weights = {name: self.tensor(record, name) for name, record in table.items()}
        # A tensor that repeats itself (stride 0, shared data) could claim any size from a small file.
        n_bytes = sum(math.prod(weight.shape) * weight.dtype.itemsize for weight in weights.values())
        if n_bytes > 2 * len(self._file):
            raise CheckpointError(f"{self.path}: '{what}' claims {n_bytes} bytes, far more than the file holds")
        return weights

    def _place(self, key: str, name: str) -> tuple[int, int]:
        """First byte and number of bytes of a storage."""
        if key not in self._ranges:
            info = self._entries.get(f"{self._root}data/{key}")
            if info is None:
                raise CheckpointError(f"{self.path} is damaged: the data of tensor '{name}' is not in it")
            header = self._file.read(info.header_offset, info.header_offset + _LOCAL_HEADER.size)
            if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\x03\x04"):
                raise CheckpointError(f"{self.path} is damaged: no data where tensor '{name}' should be")
            _, n_name, n_extra = _LOCAL_HEADER.unpack(header)
            start = info.header_offset + _LOCAL_HEADER.size + n_name + n_extra
            if start + info.file_size > len(self._file):
                raise CheckpointError(f"{self.path} is damaged: it ends inside tensor '{name}'. Download it again.")
            self._ranges[key] = (start, info.file_size)
        return self._ranges[key]


def _not_a_zip(file: WeightsFile) -> str:
    """Message that names the kind of file it seems to be, and the remedy."""
    remedy = "Download the checkpoint again."
    archives = [name for start, name in _ARCHIVES.items() if file.read(0, len(start)) == start]
    if archives or file.read(257, 262) == b"ustar":
        kind = f"is a {(archives or ['tar'])[0]} archive, not a torch file"
        remedy = "Unpack it and give the folder with the checkpoint."
    elif file.read(0, 1) == b"\x80":
        kind = "was saved in torch's old format (before 1.6) or as a bare pickle, which is not read"
        remedy = "Load it in a torch that you trust with it, and save it again with torch.save."
    elif file.read(0, 9).lstrip()[:1] == b"<":
        kind = "is a web page, not a checkpoint: the download went wrong"
    elif file.read(0, 7) == b"version":
        kind = "is a Git LFS pointer, not the file itself"
        remedy = "Fetch the file itself (git lfs pull), or download it in the browser."
    else:
        kind = "is no torch file"
    return f"{file.path} {kind}. {remedy}"
