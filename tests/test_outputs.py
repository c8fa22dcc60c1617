"""Files that are written: checked beforehand, whole or not at all, and nothing left of killed processes."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from comfyui_musicgen.musicgen.audio import FORMATS
from comfyui_musicgen.musicgen.cli.main import main
from comfyui_musicgen.musicgen.errors import InputError
from comfyui_musicgen.musicgen.outputs import atomic_file, check_output

ROOT = Path(__file__).resolve().parents[1]
posix = pytest.mark.skipif(os.name == "nt", reason="Windows has no such files")

# A process that writes a file for as long as it is let.
WRITER = """
    import sys, time
    sys.path.insert(0, sys.argv[1])
    from musicgen.outputs import atomic_file
    with atomic_file(sys.argv[2]) as file:
        file.write(b"x" * 1000)
        file.flush()
        print("writing", flush=True)
        time.sleep(60)
"""


def drafts(folder):
    return [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.fixture
def writer(tmp_path):
    """Another process in the middle of writing tmp_path/theirs.wav."""
    command = [sys.executable, "-c", textwrap.dedent(WRITER), str(ROOT), str(tmp_path / "theirs.wav")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        yield process
        process.kill()


def write(path, data=b"music"):
    with atomic_file(path) as file:
        file.write(data)


def test_the_draft_of_a_killed_process_is_removed_by_the_next_one(writer, tmp_path):
    writer.kill()
    writer.wait()
    assert len(drafts(tmp_path)) == 1, "killed in the middle"
    write(tmp_path / "ours.wav")
    assert [path.name for path in tmp_path.iterdir()] == ["ours.wav"]


def test_the_draft_of_a_running_process_is_left_alone(writer, tmp_path):
    (draft,) = drafts(tmp_path)
    write(tmp_path / "ours.wav")
    assert drafts(tmp_path) == [draft] and draft.stat().st_size == 1000


def test_files_of_others_are_never_removed(tmp_path):
    names = (".theirs.part", "musicgen-1.part", ".musicgen-notes.txt")
    for name in names:
        (tmp_path / name).write_bytes(b"theirs")
    (tmp_path / ".musicgen-folder.part").mkdir()
    write(tmp_path / "ours.wav")
    assert all((tmp_path / name).read_bytes() == b"theirs" for name in names)


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    write(tmp_path / "a.wav", b"before")
    with pytest.raises(KeyboardInterrupt), atomic_file(tmp_path / "a.wav") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert (tmp_path / "a.wav").read_bytes() == b"before" and drafts(tmp_path) == []


@posix
def test_links_are_written_through(tmp_path):
    (tmp_path / "there").mkdir()
    for target in ("exists.wav", "absent.wav"):
        link = tmp_path / f"link-to-{target}"
        link.symlink_to(tmp_path / "there" / target)
        if target == "exists.wav":
            (tmp_path / "there" / target).write_bytes(b"before")
        assert check_output(link, FORMATS) == tmp_path / "there" / target
        write(link)
        assert link.is_symlink() and (tmp_path / "there" / target).read_bytes() == b"music"


def fifo(folder):
    os.mkfifo(folder / "a.wav")
    return folder / "a.wav"


def listening_socket(folder):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / "a.wav"))
    return folder / "a.wav"


def link_to_device(folder):
    (folder / "a.wav").symlink_to("/dev/null")
    return folder / "a.wav"


def link_to_itself(folder):
    (folder / "a.wav").symlink_to(folder / "a.wav")
    return folder / "a.wav"


NO_FILES = {
    "device": (lambda folder: Path("/dev/null"), "device"),
    "link to a device": (link_to_device, "device"),
    "FIFO": (fifo, "pipe"),
    "socket": (listening_socket, "socket"),
    "link in a circle": (link_to_itself, "cannot be written"),
    "kernel's": (lambda folder: Path("/proc/a.wav"), "cannot be written"),
}


@posix
@pytest.mark.parametrize("kind", NO_FILES)
def test_what_is_no_plain_file_is_refused_and_stays(tmp_path, kind):
    make, words = NO_FILES[kind]
    path = make(tmp_path)
    before = os.lstat(path).st_mode if os.path.lexists(path) else None
    for attempt in (check_output, write):
        with pytest.raises((InputError, OSError), match=words if attempt is check_output else None):
            attempt(path)
    assert (os.lstat(path).st_mode if os.path.lexists(path) else None) == before


NAMES = {
    "folder": ("", "is a folder"),
    "no folder": ("absent/a.wav", "absent does not exist"),
    "long": ("a" * 300 + ".wav", "too long"),
    "long path": ("a/" * 3000 + "a.wav", "too long|does not exist"),
    "NUL": ("a\0b.wav", "no usable name"),
    "lone surrogate": ("\ud800.wav", "no usable name"),
    "file for a folder": ("file/a.wav", "does not exist|Not a directory"),
}


@posix
@pytest.mark.parametrize("kind", NAMES)
def test_names_that_cannot_be_are_found_beforehand(tmp_path, kind):
    name, words = NAMES[kind]
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match=words) as error:
        check_output(tmp_path / name)
    assert len(str(error.value)) < 1000
    str(error.value).encode()


def test_a_long_name_that_can_be_is_written(tmp_path):
    path = tmp_path / ("a" * 250 + ".wav")
    assert check_output(path) == path
    write(path)
    assert path.read_bytes() == b"music"


def test_read_only_files_and_folders_are_found_beforehand(tmp_path, monkeypatch):
    """The superuser, whom tests may run as, may write everywhere: the system's answers are stood in for."""
    write(tmp_path / "a.wav")
    with monkeypatch.context() as patch, pytest.raises(InputError, match="read-only"):
        patch.setattr(os, "access", lambda path, mode: False)
        check_output(tmp_path / "a.wav")
    with monkeypatch.context() as patch, pytest.raises(InputError, match="Read-only file system"):

        def refused(*_, **__):
            raise OSError(30, "Read-only file system")

        patch.setattr("builtins.open", refused)
        check_output(tmp_path / "b.wav")
    assert drafts(tmp_path) == []


@pytest.mark.parametrize("name", ["a", "a.wave", "a.m4a", ".wav", "a.mp3"])
def test_another_suffix_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=r"must end in \.wav or \.flac"):
        check_output(tmp_path / name, ("wav", "flac"))


def test_checking_leaves_nothing_behind(tmp_path):
    check_output(tmp_path / "a.WAV", FORMATS)
    assert list(tmp_path.iterdir()) == []


@posix
def test_a_killed_convert_leaves_nothing_after_the_next(toys, tmp_path):
    """The process is stopped while it writes; what it left was there for ever."""
    source = toys()
    code = f"""
        import os, signal, sys
        sys.path.insert(0, {str(ROOT)!r})
        from musicgen.cli.main import main
        from musicgen.checkpoints.tools import convert
        def killed(file, header, entries, on_bytes):
            file.write(header)
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        convert._write = killed
        main(["convert", {str(source)!r}, sys.argv[1], "--no-text-encoder"])
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "a.safetensors")]
    first = subprocess.run(command, capture_output=True, timeout=120)
    assert first.returncode == -signal.SIGKILL and len(drafts(tmp_path)) == 1
    assert main(["convert", str(source), str(tmp_path / "b.safetensors"), "--no-text-encoder"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["b.safetensors"]


def test_two_processes_may_write_one_file_at_once(tmp_path):
    code = """
        import sys, time
        sys.path.insert(0, sys.argv[1])
        from musicgen.outputs import atomic_file
        for turn in range(40):
            with atomic_file(sys.argv[2]) as file:
                for _ in range(10):
                    file.write(sys.argv[3].encode() * 1000)
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(ROOT), str(tmp_path / "a.wav")]
    processes = [subprocess.Popen([*command, letter]) for letter in "ab"]
    end = time.monotonic() + 60
    assert [process.wait(max(end - time.monotonic(), 1)) for process in processes] == [0, 0]
    assert (tmp_path / "a.wav").read_bytes() in (b"a" * 10_000, b"b" * 10_000)
    assert drafts(tmp_path) == []
