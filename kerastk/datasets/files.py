"""Files in folders: names and bytes of photos, what is no photo's place, and the files of a run, checked."""

import os
import stat
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kerastk.datasets.images import MAX_BYTES
from kerastk.errors import PhotoError, RunError


@dataclass(frozen=True, slots=True)
class Finding:
    """Something worth telling about the data: `kind` is a key of `check.KINDS`; `paths` are the files it is about."""

    kind: str
    paths: tuple[str, ...]
    text: str = ""


def walk(root: Path) -> tuple[list[str], list[Finding]]:
    """All regular files below `root`, links followed once, in sorted order; the rest as findings."""
    names, findings = [], []
    # The folders above the data count as seen: a link to one of them would list the whole disk.
    seen = {_identity(parent) for parent in Path(os.path.realpath(root)).parents}
    # A stack of our own: folders can be nested deeper than Python's.
    waiting = [(root, "")]
    while waiting:
        folder, prefix = waiting.pop()
        try:
            identity = _identity(folder)
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            findings.append(Finding("unreadable", (prefix.rstrip("/"),), error.strerror or "cannot be listed"))
            continue
        if identity in seen:
            findings.append(Finding("link-loop", (prefix.rstrip("/"),), "the same folder again, by a link"))
            continue
        seen.add(identity)
        inside = []
        for entry in entries:
            name = prefix + entry.name
            try:
                mode = entry.stat().st_mode
            except OSError as error:
                findings.append(Finding("unreadable", (name,), error.strerror or "cannot be read"))
                continue
            if is_hidden(entry.name):
                findings.append(Finding("hidden", (name,), "hidden files are left out"))
            elif stat.S_ISDIR(mode):
                inside.append((Path(folder, entry.name), name + "/"))
            elif stat.S_ISREG(mode):
                names.append(name)
            else:
                findings.append(Finding("not-a-file", (name,), "neither a file nor a folder"))
        if not entries:
            findings.append(Finding("empty-folder", (prefix.rstrip("/"),), "nothing in it"))
        waiting += reversed(inside)
    return sorted(names), findings


def _identity(folder: Path) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def is_hidden(name: str) -> bool:
    """Whether a file or folder name is one that people never mean: `.x`, `__MACOSX`, `Thumbs.db`, `desktop.ini`."""
    return name.startswith(".") or name.lower() in ("__macosx", "thumbs.db", "desktop.ini")


def folder_reader(root: Path) -> Callable[[str], bytes]:
    """A function that reads a file below `root` by its name."""
    return lambda name: read_file(root / name)


def read_file(path: Path) -> bytes:
    """The bytes of a regular file within the size limit. Raises PhotoError."""
    try:
        with open(path, "rb", opener=open_nonblocking) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise PhotoError("not a regular file", "unreadable")
            if status.st_size > MAX_BYTES:
                raise PhotoError(f"{status.st_size >> 20} MiB; the limit is {MAX_BYTES >> 20} MiB", "oversized")
            return file.read()
    except (OSError, ValueError) as error:
        raise PhotoError(getattr(error, "strerror", None) or str(error), "unreadable") from None


def open_nonblocking(path: str, flags: int) -> int:
    """An `opener` for `open` that a named pipe does not hold until somebody writes into it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def run_file(path: Path, limit: int) -> Path:
    """`path`, where it is a file of a run folder: no link, which may lead anywhere, and at most `limit` bytes.

    Raises:
        FileNotFoundError: there is nothing.
        RunError: it is something else, or larger.
    """
    status = os.lstat(path)
    if not stat.S_ISREG(status.st_mode):
        raise RunError(f"{path} is a link or no file; the files of a run lie in its folder themselves.")
    if status.st_size > limit:
        raise RunError(f"{path} has {status.st_size / 2**20:,.0f} MiB; the limit is {limit >> 20:,} MiB.")
    return path


def run_zip(path: Path, limit: int) -> list[str]:
    """The names in a zip of a run folder that unpacks to no more than it is: nothing in it is compressed.

    Keras and NumPy write theirs so. Raises as `run_file`, and RunError for any other zip.
    """
    with zipfile.ZipFile(run_file(path, limit)) as archive:
        members = archive.infolist()
    stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
    if not stored or sum(member.file_size for member in members) > path.stat().st_size:
        raise RunError(f"{path} unpacks to more than it is; the files of a run are not compressed.")
    return [member.filename for member in members]
