"""Files that are written: checked before any work is done, and there whole or not at all.

A file grows under a hidden name in its folder, locked as long as its process runs. The next file that is written into
the folder removes what killed processes left there.
"""

import contextlib
import errno
import os
import secrets
import stat
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, BinaryIO

from .errors import InputError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

DISK_FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))  # disk, file size limit, quota
_LOCKED_BYTE = 2**40  # of a file on Windows, where a locked byte can be neither read nor written
_MAX_SHOWN = 300  # characters of a path in a message


def check_output(path: str | os.PathLike, formats: Sequence[str] = ()) -> Path:
    """The plain file that `path` leads to, there or not. `formats`: suffixes without their dot that it may have.

    InputError for one that cannot be written: of another format, a folder, a device, read-only, too long a name.
    """
    shown = _shown(path)
    if formats and Path(path).suffix.lower().lstrip(".") not in formats:
        raise InputError(f"'{shown}' must end in {' or '.join('.' + format for format in formats)}")
    try:
        target = _plain_file(path)
        if target.exists() and not os.access(target, os.W_OK):
            raise InputError(f"'{shown}' is read-only. Choose another name, or make it writable.")
        draft, file = _new_draft(target.parent)
        file.close()
        draft.unlink()
    except OSError as error:
        raise InputError(f"'{shown}' cannot be written: {error.strerror or error}. Choose another file.") from error
    return target


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike, replace: bool = True) -> Iterator[BinaryIO]:
    """Binary file that takes the place of `path` when the block ends, and is removed if the block raises.

    FileExistsError when the block ends where there is such a file by then and `replace` is off: of several processes, one succeeds.

    Links are written through. InputError for what is not a plain file; OSError where the system refuses.
    """
    target = _plain_file(path)
    remove_abandoned(target.parent, ".musicgen-*.part")
    draft, file = _new_draft(target.parent)
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(draft.unlink, missing_ok=True)
        cleanup.enter_context(file)
        yield file
        file.flush()
        if sys.platform == "win32":  # where an open file cannot be renamed
            file.close()
        os.replace(draft, target) if replace else _rename_to_new(draft, target)


def _rename_to_new(draft: Path, target: Path) -> None:
    try:
        os.link(draft, target)
    except FileExistsError:
        raise
    except OSError:  # the file system has no hard links
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        os.replace(draft, target)


def remove_abandoned(folder: Path, pattern: str) -> None:
    """Remove the files of a folder that match, other than those that a running process has locked."""
    for draft in folder.glob(pattern):
        with contextlib.suppress(OSError):
            if not stat.S_ISREG(draft.lstat().st_mode):
                continue
            with open(draft, "ab") as file:
                if not lock(file, default=False):
                    continue
                if sys.platform == "win32":  # where an open file cannot be removed
                    file.close()
                draft.unlink()


def lock(file: IO[bytes], default: bool) -> bool:
    """Whether this open file now holds its lock; False: another one does. The system unlocks it when it is closed.

    default: the answer where the file system has no locks.
    """
    try:
        if sys.platform == "win32":
            position = file.tell()
            file.seek(_LOCKED_BYTE)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            file.seek(position)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return default
    return True


def _plain_file(path: str | os.PathLike) -> Path:
    """The file at the end of all links. InputError for a folder, a device and the like, or a folder that is absent."""
    shown = _shown(path)
    try:
        target = Path(os.path.realpath(path))
        has_folder = target.parent.is_dir()
        mode = target.stat().st_mode
    except FileNotFoundError:
        mode = stat.S_IFREG
    except ValueError as error:  # NUL, or a lone surrogate
        raise InputError(f"'{shown}' is no usable name of a file ({error})") from error
    if not has_folder:
        folder = _shown(target.parent)
        raise InputError(
            f"'{shown}' cannot be written: the folder {folder} does not exist. Make it, or choose another."
        )
    if stat.S_ISDIR(mode):
        raise InputError(f"'{shown}' is a folder; give the name of a file")
    if not stat.S_ISREG(mode):
        raise InputError(f"'{shown}' is a device, a pipe or a socket; give the name of a file")
    return target


def _new_draft(folder: Path) -> tuple[Path, BinaryIO]:
    """A hidden file in `folder`, open and locked."""
    while True:
        draft = folder / f".musicgen-{secrets.token_hex(8)}.part"
        file = open(draft, "xb")  # noqa: SIM115  not tempfile, whose files only their owner may read
        if lock(file, default=True) and draft.exists():  # else another process removes it before it is locked
            return draft, file
        file.close()


def _shown(path: str | os.PathLike) -> str:
    text = os.fspath(path)[:_MAX_SHOWN].replace("\0", "\\0")
    return text.encode(errors="backslashreplace").decode()
