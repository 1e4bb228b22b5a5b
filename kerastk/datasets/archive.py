"""Archives as lists of names and a way to read each; nothing is ever written outside the cache.

An archive may come from anybody. What its headers say is believed only as far as it can do no harm: a name must stay
inside, links are left out, and sizes and counts are held against limits before memory, disk or time is spent on them.
An archive in an archive is a file like any other, and not opened.
"""

import bz2
import contextlib
import gzip
import hashlib
import itertools
import json
import lzma
import math
import os
import re
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from kerastk.datasets.files import Finding, folder_reader, is_hidden, walk
from kerastk.datasets.images import MAX_BYTES
from kerastk.errors import DataError, PhotoError
from kerastk.storage import cache_folder, write_atomic

# The endings of what is read as an archive.
ARCHIVE = re.compile(r"\.(zip|tar|tar\.gz|tgz|tar\.bz2|tbz2|tar\.xz|txz)$", re.IGNORECASE)
MAX_FILES = 5_000_000
MAX_UNPACKED = 200 * 2**30
# Photos hardly shrink. Beyond the size of one photo, nothing unpacks to more than so many times what it was.
MAX_RATIO = 100
# tarfile reads the extension of a header in one piece, and copies files in pieces of at most this.
MAX_PIECE = 2**20
# The first bytes of what a tar is compressed to.
_COMPRESSED = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
# See `first_names`.
_GUESS_NAMES, _GUESS_BYTES = 12, 2**25

Listing = tuple[list[str], list[Finding], Callable[[str], bytes]]


def open_archive(path: Path) -> Listing:
    """Names, findings and reader of a .zip or .tar; read in place, but a compressed .tar is unpacked into the cache.

    Raises:
        DataError: it is neither, it is damaged, or it would unpack to more than the limits.
    """
    try:
        opener = _opener(path)
        with (opener or open)(path, "rb") as stream:
            # First as a tar: one that ends in a zip looks like a zip.
            archive = _tar(_Bounded(stream, path, _room(path) if opener else math.inf))
            if archive is not None:
                return _open_unpacked(path, archive) if opener else _open_tar(path, archive)
        if zipfile.is_zipfile(path):
            return _open_zip(path)
    except (DataError, MemoryError):
        raise
    except Exception as error:
        # Hostile headers make zipfile and tarfile raise anything: struct.error, NotImplementedError, RecursionError.
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise DataError(f"cannot read the archive {str(path)!r}: {reason}.") from None
    raise DataError(f"{str(path)!r} is neither a zip nor a tar file, or it is damaged.")


def first_names(path: Path) -> list[str]:
    """The names of the first files in an archive, for a guess at what it holds: a dozen, or those in the first 32 MiB.

    None where it cannot be read. Nothing is written, and a compressed .tar unpacked no further.
    """
    names: list[str] = []
    # See `open_archive` on what hostile headers raise.
    with contextlib.suppress(Exception):
        opener = _opener(path)
        with (opener or open)(path, "rb") as stream:
            archive = _tar(_Bounded(stream, path, _GUESS_BYTES if opener else math.inf))
            if archive is not None:
                # One by one: what was found before the end of the room or of a cut file stays.
                for member in itertools.islice(_members(archive, path), _GUESS_NAMES):
                    if _is_wanted(member, []):
                        names.append(member.name)
                return names
        with zipfile.ZipFile(path) as packed:
            for each in packed.infolist()[:_GUESS_NAMES]:
                if not each.is_dir() and _triage(each.filename, each.file_size, []):
                    names.append(each.filename)
    return names


def _opener(path: Path) -> Callable[..., Any] | None:
    """What unpacks the file; None where it is not compressed."""
    with open(path, "rb") as file:
        start = file.read(6)
    return next((each for mark, each in _COMPRESSED.items() if start.startswith(mark)), None)


def _unsafe(name: str) -> bool:
    path = PurePosixPath(name.replace("\\", "/"))
    return not path.parts or path.is_absolute() or ".." in path.parts or ":" in path.parts[0] or "\0" in name


def _triage(name: str, size: int, findings: list[Finding]) -> bool:
    """Whether a member of an archive is to be listed; where not, a finding says why."""
    if _unsafe(name):
        findings.append(Finding("unsafe-path", (name,), "the name leads out of the archive"))
    elif any(is_hidden(part) for part in PurePosixPath(name).parts):
        findings.append(Finding("hidden", (name,), "hidden files are left out"))
    elif not 0 <= size <= MAX_BYTES:
        findings.append(Finding("oversized", (name,), f"{size >> 20} MiB; the limit is {MAX_BYTES >> 20} MiB"))
    else:
        return True
    return False


def _open_zip(path: Path) -> Listing:
    archive = zipfile.ZipFile(path)
    findings: list[Finding] = []
    members = archive.infolist()
    _cap(len(members), path)
    # By name: one may stand in the archive twice, and the last one is read.
    sizes: dict[str, int] = {}
    for member in members:
        if member.is_dir() or not _triage(member.filename, member.file_size, findings):
            continue
        if member.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            sizes[member.filename] = member.file_size
        else:
            # Of these, zipfile unpacks a whole piece at once, whatever size the member claims.
            findings.append(Finding("unreadable", (member.filename,), "neither stored nor deflated in the zip"))
    room = max(MAX_BYTES, MAX_RATIO * path.stat().st_size)
    if sum(sizes.values()) > room:
        raise _too_much(path, room)

    def read(name: str) -> bytes:
        try:
            with archive.open(name) as file:
                # No more than it claims, so that no more is unpacked; zipfile then compares the checksum.
                return file.read(sizes[name])
        except Exception as error:
            # zipfile raises RuntimeError for encryption, zlib.error and BadZipFile for damage, KeyError for absence.
            raise PhotoError(f"cannot be read from the archive ({error})", "damaged") from None

    return sorted(sizes), findings, read


class _Bounded:
    """A stream as tarfile reads it, that never goes back, gives much at once, or passes `room` bytes.

    tarfile believes the sizes in headers: it reads an extension in one piece, however long, and until 2025 followed a
    negative size backwards for ever (CVE-2025-8194).
    """

    def __init__(self, stream: IO[bytes], path: Path, room: float):
        self._stream, self._path, self._room = stream, path, room

    def tell(self) -> int:
        return self._stream.tell()

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_PIECE:
            raise DataError(f"{str(self._path)!r} is damaged: a header of {size:,} bytes.")
        self._go(self.tell() + size)
        return self._stream.read(size)

    def seek(self, place: int) -> int:
        # tarfile takes the byte before a header once more, to see that it is there.
        if place < self.tell() - 1:
            raise DataError(f"{str(self._path)!r} is damaged: a header points back.")
        self._go(place)
        return self._stream.seek(place)

    def _go(self, place: int) -> None:
        if place > self._room:
            raise _too_much(self._path, self._room)


def _room(path: Path) -> float:
    """How many bytes a compressed tar may unpack to."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    room = max(MAX_BYTES, MAX_RATIO * path.stat().st_size)
    # On a full disk the first header can still be read: the tar may have been unpacked before.
    return min(MAX_UNPACKED, room, max(MAX_PIECE, 0.9 * shutil.disk_usage(folder).free))


def _too_much(path: Path, room: float) -> DataError:
    return DataError(
        f"{str(path)!r} unpacks to more than {room / 2**30:.2f} GiB, too much for its size or for this disk; if you "
        "trust it, unpack it yourself."
    )


def _tar(stream: _Bounded) -> tarfile.TarFile | None:
    try:
        return tarfile.open(fileobj=stream, mode="r:")
    except tarfile.ReadError:
        return None


def _members(archive: tarfile.TarFile, path: Path) -> Iterator[tarfile.TarInfo]:
    for number, member in enumerate(archive):
        _cap(number, path)
        # tarfile would keep all of them.
        archive.members.clear()
        yield member


def _open_tar(path: Path, archive: tarfile.TarFile) -> Listing:
    findings: list[Finding] = []
    places: dict[str, tuple[int, int]] = {}
    for member in _members(archive, path):
        if _is_wanted(member, findings):
            places[member.name] = (member.offset_data, member.size)

    def read(name: str) -> bytes:
        offset, size = places[name]
        try:
            with open(path, "rb") as file:
                file.seek(offset)
                return file.read(size)
        except OSError as error:
            raise PhotoError(f"cannot be read from the archive ({error.strerror})", "unreadable") from None

    return sorted(places), findings, read


def _is_wanted(member: tarfile.TarInfo, findings: list[Finding]) -> bool:
    # A sparse file says itself how many zeros it has.
    if member.isfile() and not member.issparse():
        return _triage(member.name, member.size, findings)
    if not member.isdir():
        findings.append(Finding("not-a-file", (member.name,), "links, devices and sparse files are left out"))
    return False


def _cap(count: int, path: Path) -> None:
    if count > MAX_FILES:
        raise DataError(f"{str(path)!r} holds more than {MAX_FILES:,} files.")


def _open_unpacked(path: Path, archive: tarfile.TarFile) -> Listing:
    folder, left_out = _unpack(path, archive)
    names, findings = walk(folder)
    return names, left_out + findings, folder_reader(folder)


def _unpack(path: Path, archive: tarfile.TarFile) -> tuple[Path, list[Finding]]:
    """A compressed tar in the cache, unpacked once per content: regular files only, none outside, within the caps.

    What was left out is kept beside the folder, so that a second look tells it as well.
    """
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    folder = cache_folder() / "unpacked" / digest
    record = folder.with_suffix(".json")
    if folder.is_dir():
        rows = json.loads(record.read_text(encoding="utf-8"))
        return folder, [Finding(kind, tuple(paths), text) for kind, paths, text in rows]
    partial = folder.with_name(f"{digest}.{os.getpid()}.partial")
    findings: list[Finding] = []
    try:
        partial.mkdir(parents=True, exist_ok=True)
        for member in _members(archive, path):
            if not _is_wanted(member, findings):
                continue
            target = partial / PurePosixPath(member.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.extractfile(member) as content, open(target, "wb") as file:
                shutil.copyfileobj(content, file)
        # A tar ends before the checksum of what it is compressed in, which is compared when its end is read.
        while archive.fileobj.read(tarfile.BLOCKSIZE):
            pass
        write_atomic(record, json.dumps([[each.kind, each.paths, each.text] for each in findings]))
        os.replace(partial, folder)
    except OSError:
        # Another process may have unpacked it in the meantime.
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder, findings
