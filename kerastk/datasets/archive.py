"""Archives as lists of names and a way to read each; nothing is ever written outside the cache."""

import hashlib
import json
import lzma
import os
import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from kerastk.datasets.files import Finding, folder_reader, is_hidden, walk
from kerastk.datasets.images import MAX_BYTES
from kerastk.errors import DataError, PhotoError
from kerastk.storage import cache_folder, write_atomic

# The endings of what is read as an archive.
ARCHIVE = re.compile(r"\.(zip|tar|tar\.gz|tgz|tar\.bz2|tbz2|tar\.xz|txz)$", re.IGNORECASE)
MAX_FILES = 5_000_000
MAX_UNPACKED = 200 * 2**30


def open_archive(path: Path) -> tuple[list[str], list[Finding], Callable[[str], bytes]]:
    """Names, findings and reader of a .zip or .tar; read in place, but a compressed .tar is unpacked into the cache."""
    try:
        # In this order: a tar that ends in a zip looks like a zip.
        if tarfile.is_tarfile(path):
            return _open_tar(path)
        if zipfile.is_zipfile(path):
            return _open_zip(path)
    except (OSError, zipfile.BadZipFile, tarfile.TarError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"cannot read the archive {str(path)!r}: {error}.") from None
    raise DataError(f"{str(path)!r} is neither a zip nor a tar file, or it is damaged.")


def _unsafe(name: str) -> bool:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    return not parts or parts[0] == "/" or ".." in parts or ":" in parts[0]


def _triage(name: str, size: int, findings: list[Finding]) -> bool:
    """Whether a member of an archive is to be listed; where not, a finding says why."""
    if _unsafe(name):
        findings.append(Finding("unsafe-path", (name,), "the name leads out of the archive"))
    elif any(is_hidden(part) for part in PurePosixPath(name).parts):
        findings.append(Finding("hidden", (name,), "hidden files are left out"))
    elif size > MAX_BYTES:
        findings.append(Finding("oversized", (name,), f"{size >> 20} MiB; the limit is {MAX_BYTES >> 20} MiB"))
    else:
        return True
    return False


def _open_zip(path: Path) -> tuple[list[str], list[Finding], Callable[[str], bytes]]:
    archive = zipfile.ZipFile(path)
    findings: list[Finding] = []
    members = archive.infolist()
    _cap(len(members), path)
    # A set: a name may stand in the archive twice, and the last one is read.
    names = sorted({m.filename for m in members if not m.is_dir() and _triage(m.filename, m.file_size, findings)})

    def read(name: str) -> bytes:
        try:
            with archive.open(name) as file:
                data = file.read(MAX_BYTES + 1)
        except Exception as error:
            # zipfile raises RuntimeError for encryption, zlib.error and BadZipFile for damage, KeyError for absence.
            raise PhotoError(f"cannot be read from the archive ({error})", "damaged") from None
        if len(data) > MAX_BYTES:
            raise PhotoError(f"more than {MAX_BYTES >> 20} MiB", "oversized")
        return data

    return names, findings, read


def _open_tar(path: Path) -> tuple[list[str], list[Finding], Callable[[str], bytes]]:
    try:
        archive = tarfile.open(path, "r:")  # noqa: SIM115 - only the index is read from it
    except tarfile.ReadError:
        folder, left_out = _unpack(path)
        names, findings = walk(folder)
        return names, left_out + findings, folder_reader(folder)
    findings: list[Finding] = []
    places: dict[str, tuple[int, int]] = {}
    with archive:
        for member in archive:
            if _is_wanted(member, findings):
                places[member.name] = (member.offset_data, member.size)
            _cap(len(places), path)

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
    if member.isfile():
        return _triage(member.name, member.size, findings)
    if not member.isdir():
        findings.append(Finding("not-a-file", (member.name,), "links and devices are left out"))
    return False


def _cap(count: int, path: Path) -> None:
    if count > MAX_FILES:
        raise DataError(f"{str(path)!r} holds more than {MAX_FILES:,} files.")


def _unpack(path: Path) -> tuple[Path, list[Finding]]:
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
    total = 0
    findings: list[Finding] = []
    folder.parent.mkdir(parents=True, exist_ok=True)
    room = min(MAX_UNPACKED, 0.9 * shutil.disk_usage(folder.parent).free)
    try:
        with tarfile.open(path, "r:*") as archive:
            for number, member in enumerate(archive):
                _cap(number, path)
                if not _is_wanted(member, findings):
                    continue
                total += member.size
                if total > room:
                    raise DataError(f"{str(path)!r} unpacks to more than {room / 2**30:.1f} GiB; unpack it yourself.")
                target = partial / PurePosixPath(member.name)
                target.parent.mkdir(parents=True, exist_ok=True)
                with archive.extractfile(member) as content, open(target, "wb") as file:
                    shutil.copyfileobj(content, file)
        partial.mkdir(parents=True, exist_ok=True)
        write_atomic(record, json.dumps([[each.kind, each.paths, each.text] for each in findings]))
        os.replace(partial, folder)
    except OSError:
        # Another process may have unpacked it in the meantime.
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder, findings
