"""Where photos come from: DATA as a list of labelled files and a way to read each one's bytes.

`open_source` understands a folder of class folders, a folder with train/, val/ and test/ of those, a .zip or .tar of
either, a CSV or Parquet table with path,label[,split], `tfds:NAME`, and from Python a list of (path, label) or a data
frame. Nothing is decoded here; what is not a photo's place is set aside with the reason.
"""

import csv
import hashlib
import itertools
import json
import lzma
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from kerastk.datasets.images import MAX_BYTES, SUFFIXES
from kerastk.errors import DataError, PhotoError
from kerastk.storage import cache_folder, write_atomic

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
MAX_FILES = 5_000_000
MAX_UNPACKED = 200 * 2**30
_ARCHIVE = re.compile(r"\.(zip|tar|tar\.gz|tgz|tar\.bz2|tbz2|tar\.xz|txz)$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class File:
    """A file that may be a photo. `path` is relative to the source, with slashes; `split` as the source gives it."""

    path: str
    label: str
    split: str | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """Something worth telling about the data: `kind` is a key of `check.KINDS`; `paths` are the files it is about."""

    kind: str
    paths: tuple[str, ...]
    text: str = ""


@dataclass(frozen=True)
class Source:
    """Labelled files, what is no photo's place, and a way to read each file's bytes (from any thread)."""

    name: str
    files: list[File]
    findings: list[Finding]
    read: Callable[[str], bytes]
    classes: list[str]


def natural_key(text: str) -> list:
    """Sorts `1, 2, 10` by number and the rest by letter, without regard to case; ties by the text itself."""
    parts = re.split(r"(\d+)", text)
    return [(1, int(part), "") if part.isdecimal() else (2, 0, part.casefold()) for part in parts if part] + [
        (0, 0, text)
    ]


def open_source(data: Any) -> Source:
    """The labelled files of `data`.

    Raises:
        DataError: nothing is there, it is of no kind that kerastk reads, or it holds no class.
    """
    if not isinstance(data, str | os.PathLike):
        return _from_table(*_rows_of(data), root=Path(), name="table")
    text = os.fspath(data)
    if text.startswith("tfds:"):
        return _from_tfds(text[5:])
    path = Path(text)
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise DataError(f"cannot open the data {text!r}: {error.strerror}. Give a folder, archive or table.") from None
    except ValueError as error:
        raise DataError(f"cannot open the data {text!r}: {error}.") from None
    name = run_name(path)
    if stat.S_ISDIR(mode):
        return _from_tree(name, *_walk(path), _folder_reader(path))
    if not stat.S_ISREG(mode):
        raise DataError(f"{text!r} is neither a folder nor a file.")
    lower = path.name.lower()
    if lower.endswith(".csv"):
        return _from_table(*_csv_rows(path), root=path.parent, name=name)
    if lower.endswith((".parquet", ".pq")):
        return _from_table(*_parquet_rows(path), root=path.parent, name=name)
    if _ARCHIVE.search(lower):
        members, findings, read = open_archive(path)
        return _from_tree(name, members, findings, read)
    raise DataError(
        f"{text!r} is no data that kerastk reads; give a folder, a .zip, .tar, .csv or .parquet file, or tfds:NAME."
    )


def run_name(path: Path) -> str:
    """A short name for runs on this data: `photos` for `photos/`, `photos.zip` and `photos.csv`."""
    name = _ARCHIVE.sub("", path.resolve().name)
    name = re.sub(r"\.(csv|parquet|pq)$", "", name, flags=re.IGNORECASE)
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")[:60] or "data"


# Folders and archives: both are lists of names with slashes.


def _walk(root: Path) -> tuple[list[str], list[Finding]]:
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


def _folder_reader(root: Path) -> Callable[[str], bytes]:
    return lambda name: read_file(root / name)


def read_file(path: Path) -> bytes:
    """The bytes of a regular file within the size limit. Raises PhotoError."""
    try:
        with open(path, "rb", opener=_nonblocking) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise PhotoError("not a regular file", "unreadable")
            if status.st_size > MAX_BYTES:
                raise PhotoError(f"{status.st_size >> 20} MiB; the limit is {MAX_BYTES >> 20} MiB", "oversized")
            return file.read()
    except (OSError, ValueError) as error:
        raise PhotoError(getattr(error, "strerror", None) or str(error), "unreadable") from None


def _nonblocking(path: str, flags: int) -> int:
    # A named pipe would otherwise hold the open() until somebody writes into it.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _from_tree(name: str, names: list[str], findings: list[Finding], read: Callable[[str], bytes]) -> Source:
    """Labels and splits from the names: the first folder (below train/, val/, test/ where it has them) is the class."""
    trees = [PurePosixPath(each).parts for each in names]
    # Texts and tables beside the photos say nothing of the layout.
    photos = [tree for tree in trees if not _is_other(tree[-1])] or trees
    depth = 0
    while True:
        top = {tree[depth] for tree in photos if len(tree) > depth + 1}
        deeper = all(len(tree) > depth + 2 for tree in photos)
        if len(top) != 1 or not deeper or next(iter(top)).lower() in SPLIT_NAMES:
            break
        # Archives often hold everything in one folder.
        depth += 1
    by_split = bool(top) and all(each.lower() in SPLIT_NAMES for each in top) and any(
        len(tree) > depth + 2 for tree in photos
    )  # fmt: skip
    wrapping = photos[0][:depth] if photos else ()
    files = []
    for each, tree in zip(names, trees, strict=True):
        inner = tree[depth + by_split :]
        if len(inner) < 2 or tree[:depth] != wrapping or (by_split and tree[depth].lower() not in SPLIT_NAMES):
            if not _is_other(tree[-1]):
                findings.append(Finding("no-class", (each,), "not inside a class folder"))
            continue
        files.append(File(each, inner[0], SPLIT_NAMES[tree[depth].lower()] if by_split else None))
    return _source(name, files, findings, read)


def _is_other(name: str) -> bool:
    """Whether the name is not that of a photo (README.txt, labels.json)."""
    suffix = PurePosixPath(name).suffix.lower()
    return bool(suffix) and suffix not in SUFFIXES


def _source(name: str, files: list[File], findings: list[Finding], read: Callable[[str], bytes]) -> Source:
    classes = sorted({file.label for file in files}, key=natural_key)
    if not files:
        raise DataError(
            f"{name}: no photos in class folders. "
            f"Expected {name}/<class>/<photo>.jpg, or train/, val/ and test/ of that."
        )
    return Source(name, files, findings, read, classes)


def open_archive(path: Path) -> tuple[list[str], list[Finding], Callable[[str], bytes]]:
    """Names, findings and reader of a .zip or .tar; read in place, but a compressed .tar is unpacked into the cache."""
    try:
        if zipfile.is_zipfile(path):
            return _open_zip(path)
        if tarfile.is_tarfile(path):
            return _open_tar(path)
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
        names, findings = _walk(folder)
        return names, left_out + findings, _folder_reader(folder)
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
    try:
        with tarfile.open(path, "r:*") as archive:
            for number, member in enumerate(archive):
                _cap(number, path)
                if not _is_wanted(member, findings):
                    continue
                total += member.size
                if total > min(MAX_UNPACKED, 0.9 * shutil.disk_usage(cache_folder().anchor or "/").free):
                    raise DataError(f"{str(path)!r} unpacks to more than {total >> 30} GiB; unpack it yourself.")
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


# Tables.

Row = tuple[str, str, str | None]


def _from_table(rows: Iterable[Row], where: str, *, root: Path, name: str) -> Source:
    files, seen = [], {}
    for number, (path, label, split) in enumerate(rows, start=1):
        if not path or not label:
            raise DataError(f"{where}, row {number}: path and label must not be empty; got {path!r}, {label!r}.")
        if split is not None and split.lower() not in SPLIT_NAMES:
            raise DataError(f"{where}, row {number}: split must be train, val or test; got {split!r}.")
        file = File(path, label, SPLIT_NAMES[split.lower()] if split is not None else None)
        if path in seen and seen[path] != label:
            raise DataError(
                f"{where}, row {number}: {path!r} has the labels {seen[path]!r} and {label!r}; "
                "several labels a photo are not supported yet."
            )
        if path not in seen:
            seen[path] = label
            files.append(file)
    if not files:
        raise DataError(f"{where} has no rows.")
    if 0 < sum(file.split is None for file in files) < len(files):
        raise DataError(f"{where}: some rows have a split and some have none; give all or none.")
    return _source(name, files, [], _folder_reader(root))


def _columns(names: Iterable[str], where: str) -> bool:
    """Whether the table has a split column, once its other columns are known to be there."""
    names = list(names)
    missing = [each for each in ("path", "label") if each not in names]
    if missing:
        plural = "labels are lists; several labels a photo are not supported yet" if "labels" in names else ""
        raise DataError(f"{where} needs the columns path and label; it has {', '.join(names)}. {plural}".strip())
    return "split" in names


def _csv_rows(path: Path) -> tuple[Iterator[Row], str]:
    def rows() -> Iterator[Row]:
        try:
            with open(path, encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
                reader = csv.DictReader(file, strict=True)
                has_split = _columns(reader.fieldnames or (), str(path))
                for row in reader:
                    yield row["path"] or "", row["label"] or "", (row["split"] or None) if has_split else None
        except (csv.Error, OSError) as error:
            raise DataError(f"cannot read the table {str(path)!r}: {error}.") from None

    return rows(), str(path)


def _parquet_rows(path: Path) -> tuple[Iterator[Row], str]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"cannot read the table {str(path)!r}: {error}.") from None
    return _column_rows({name: table[name].to_pylist() for name in table.column_names}, str(path)), str(path)


def _column_rows(columns: dict[str, list], where: str) -> Iterator[Row]:
    has_split = _columns(columns, where)
    splits = columns["split"] if has_split else itertools.repeat(None)
    for path, label, split in zip(columns["path"], columns["label"], splits, strict=False):
        yield _text(path), _label(label, where), _text(split) or None


def _text(value: Any) -> str:
    # Missing values of data frames: NaN differs from itself, and pandas.NA refuses to say.
    if type(value).__name__ == "NAType":
        return ""
    return "" if value is None or value != value else os.fspath(value) if isinstance(value, os.PathLike) else str(value)


def _label(value: Any, where: str) -> str:
    if isinstance(value, list | tuple | set) or type(value).__name__ == "ndarray":
        raise DataError(f"{where}: a label is a list, {value!r}; several labels a photo are not supported yet.")
    return _text(value)


def _rows_of(data: Any) -> tuple[Iterator[Row], str]:
    """Rows of a data frame (anything with `columns` and column access) or of a list of (path, label[, split])."""
    if hasattr(data, "columns") and hasattr(data, "__getitem__"):
        columns = {str(name): list(data[name]) for name in data.columns}
        return _column_rows(columns, "the table"), "the table"
    try:
        rows = [tuple(row) for row in data]
    except TypeError:
        rows = None
    if rows is None or any(len(row) not in (2, 3) or isinstance(row[0], bytes) for row in rows):
        raise DataError(
            "data must be a path, tfds:NAME, a list of (path, label[, split]) or a data frame; "
            f"got {type(data).__name__}."
        )
    padded = ((*row, None)[:3] for row in rows)
    return ((_text(path), _label(label, "the list"), _text(split) or None) for path, label, split in padded), "the list"


# TensorFlow Datasets.


def _from_tfds(name: str) -> Source:
    """The photos of a TFDS data set, written once as they are encoded there into the cache, a folder per split."""
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name)
        # The photos stay encoded: kerastk has one decoder.
        decoders = {"image": tfds.decode.SkipDecoding()}
        features = builder.info.features
        is_labelled = "label" in features and isinstance(features["label"], tfds.features.ClassLabel)
        if "image" not in features or not is_labelled:
            raise DataError(f"tfds:{name} has no image and label; it has {', '.join(features)}.")
        folder = cache_folder() / "tfds" / builder.info.full_name
        if not (folder / "complete").exists():
            builder.download_and_prepare()
            for split in builder.info.splits:
                for number, example in enumerate(tfds.as_numpy(builder.as_dataset(split=split, decoders=decoders))):
                    label = features["label"].int2str(int(example["label"])) if example["label"] >= 0 else None
                    if label is not None and SPLIT_NAMES.get(split):
                        target = folder / SPLIT_NAMES[split] / label.replace("/", "-") / f"{number:07d}.jpg"
                        write_atomic(target.with_suffix(_suffix(example["image"])), example["image"])
            write_atomic(folder / "complete", "")
    except DataError:
        raise
    except Exception as error:
        # TFDS raises its own, TensorFlow's and the network's errors alike.
        reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise DataError(f"cannot open tfds:{name}: {reason}") from None
    names, findings = _walk(folder)
    names = [each for each in names if each != "complete"]
    only_train = {PurePosixPath(each).parts[0] for each in names} == {"train"}
    source = _from_tree(re.sub(r"[^\w.-]+", "-", name), names, findings, _folder_reader(folder))
    if only_train:
        files = [File(file.path, file.label) for file in source.files]
        return Source(source.name, files, source.findings, source.read, source.classes)
    return source


def _suffix(data: bytes) -> str:
    return ".png" if data.startswith(b"\x89PNG") else ".gif" if data.startswith(b"GIF8") else ".jpg"
