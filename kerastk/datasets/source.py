"""Where photos come from: DATA as a list of labelled files and a way to read each one's bytes.

`open_source` understands a folder of class folders, a folder with train/, val/ and test/ of those, a .zip or .tar of
either, a CSV or Parquet table with path,label[,split], `tfds:NAME`, and from Python a list of (path, label) or a data
frame. Nothing is decoded here; what is not a photo's place is set aside with the reason.
"""

import difflib
import os
import re
import stat
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from kerastk.datasets.archive import ARCHIVE, open_archive
from kerastk.datasets.files import Finding, folder_reader, walk
from kerastk.datasets.images import SUFFIXES
from kerastk.datasets.table import Row, csv_rows, parquet_rows, python_rows
from kerastk.errors import DataError
from kerastk.storage import cache_folder, write_atomic

SPLITS = ("train", "val", "test")
SPLIT_NAMES = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "dev": "val",
    "test": "test", "testing": "test",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class File:
    """A file that may be a photo. `path` is relative to the source, with slashes; `split` as the source gives it."""

    path: str
    label: str
    split: str | None = None


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
    keys = []
    for part in filter(None, parts):
        # Numbers by length, then digits: int() refuses very long ones.
        digits = part.lstrip("0")
        keys.append((1, len(digits), digits) if part.isdecimal() else (2, 0, part.casefold()))
    return [*keys, (0, 0, text)]


def open_source(data: Any, *, labelled: bool = True) -> Source:
    """The labelled files of `data`; without `labelled` photos that lie in no class folder are taken too, as class "".

    Raises:
        DataError: nothing is there, it is of no kind that kerastk reads, or it holds no class.
    """
    if not isinstance(data, str | os.PathLike):
        return _from_table(*python_rows(data), root=Path(), name="table")
    text = os.fspath(data)
    if text.startswith("tfds:"):
        return _from_tfds(text[5:])
    path = Path(text)
    try:
        if not text:
            raise ValueError("the name is empty")
        mode = path.stat().st_mode
    except OSError as error:
        raise DataError(f"cannot open the data {text!r}: {error.strerror}. Give a folder, archive or table.") from None
    except ValueError as error:
        raise DataError(f"cannot open the data {text!r}: {error}.") from None
    name = run_name(path)
    if stat.S_ISDIR(mode):
        return _from_tree(name, *walk(path), folder_reader(path), labelled=labelled)
    if not stat.S_ISREG(mode):
        raise DataError(f"{text!r} is neither a folder nor a file.")
    lower = path.name.lower()
    if lower.endswith(".csv"):
        return _from_table(*csv_rows(path), root=path.parent, name=name)
    if lower.endswith((".parquet", ".pq")):
        return _from_table(*parquet_rows(path), root=path.parent, name=name)
    if ARCHIVE.search(lower):
        members, findings, read = open_archive(path)
        return _from_tree(name, members, findings, read, labelled=labelled)
    raise DataError(
        f"{text!r} is no data that kerastk reads; give a folder, a .zip, .tar, .csv or .parquet file, or tfds:NAME."
    )


def only(source: Source, names: Sequence[str]) -> Source:
    """The files of these classes alone.

    Raises:
        DataError: there is no such class, or only one is left.
    """
    check_chosen(names, source.classes, source.name)
    files = [file for file in source.files if file.label in names]
    return replace(source, files=files, classes=[name for name in source.classes if name in names])


def check_chosen(names: Sequence[str], classes: Sequence[str], where: str) -> None:
    """Refuse, with a DataError, to choose classes that are not there, or a single one."""
    for name in names:
        if name not in classes:
            near = difflib.get_close_matches(name, classes, n=3, cutoff=0.5)
            hint = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(classes[:20])}."
            raise DataError(f"{where} has no class {name[:100]!r}; {hint}")
    if len(set(names)) < 2:
        raise DataError(f"classes must name two or more; got {', '.join(names)[:100] or 'none'}.")


def chosen(text: str) -> list[str]:
    """The names in a recipe's `classes`: as they stand there, or from a .txt file, one a line. Raises DataError."""
    if not text.endswith(".txt"):
        return [name for each in text.split(",") if (name := each.strip())]
    try:
        lines = Path(text).read_text("utf-8-sig", "surrogateescape").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the classes in {text!r}: {getattr(error, 'strerror', None) or error}.") from None
    return [name for line in lines if (name := line.strip())]


def run_name(path: Path) -> str:
    """A short name for runs on this data: `photos` for `photos/`, `photos.zip` and `photos.csv`."""
    name = ARCHIVE.sub("", path.resolve().name)
    name = re.sub(r"\.(csv|parquet|pq)$", "", name, flags=re.IGNORECASE)
    return re.sub(r"[^\w.-]+", "-", name).strip("-.")[:60] or "data"


def _from_tree(
    name: str, names: list[str], findings: list[Finding], read: Callable[[str], bytes], *, labelled: bool = True
) -> Source:
    """Labels and splits from the names: the first folder (below train/, val/, test/ where it has them) is the class."""
    trees = [PurePosixPath(each).parts for each in names]
    # Texts, tables and files without an ending, beside the photos, say nothing of the layout.
    photos = [tree for tree in trees if PurePosixPath(tree[-1]).suffix.lower() in SUFFIXES]
    photos = photos or [tree for tree in trees if not _is_other(tree[-1])] or trees
    depth = 0
    while True:
        top = {tree[depth] for tree in photos if len(tree) > depth + 1}
        deeper = all(len(tree) > depth + 2 for tree in photos)
        if len(top) != 1 or not deeper or next(iter(top)).lower() in SPLIT_NAMES:
            break
        # Archives often hold everything in one folder.
        depth += 1
    deep = {tree[depth] for tree in photos if len(tree) > depth + 2}
    by_split = any(each.lower() in SPLIT_NAMES for each in deep)
    neither = sorted(each for each in top if each.lower() not in SPLIT_NAMES)
    if by_split and neither:
        split = max(each for each in deep if each.lower() in SPLIT_NAMES)
        raise DataError(
            f"{name}: {split!r} looks like a split with class folders, {neither[0]!r} like a class. Take the one out, "
            "or rename it to train, val or test."
        )
    wrapping = photos[0][:depth] if photos else ()
    files = []
    for each, tree in zip(names, trees, strict=True):
        inner = tree[depth + by_split :]
        if len(inner) < 2 or tree[:depth] != wrapping or (by_split and tree[depth].lower() not in SPLIT_NAMES):
            kind = "other-file" if _is_other(tree[-1]) else "no-class"
            if kind == "no-class" and not labelled:
                files.append(File(each, ""))
                continue
            findings.append(Finding(kind, (each,), "not inside a class folder"))
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


def _from_table(rows: Iterable[Row], where: str, *, root: Path, name: str) -> Source:
    files, seen, splits = [], {}, {}
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
            splits[path] = file.split
        elif splits[path] != file.split:
            raise DataError(f"{where}, row {number}: {path!r} stands in {splits[path]} and in {file.split}.")
    if not files:
        raise DataError(f"{where} has no rows.")
    if 0 < sum(file.split is None for file in files) < len(files):
        raise DataError(f"{where}: some rows have a split and some have none; give all or none.")
    return _source(name, files, [], folder_reader(root))


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
        raise DataError(f"cannot open {'tfds:' + name!r}: {reason}") from None
    names, findings = walk(folder)
    names = [each for each in names if each != "complete"]
    only_train = {PurePosixPath(each).parts[0] for each in names} == {"train"}
    source = _from_tree(re.sub(r"[^\w.-]+", "-", name), names, findings, folder_reader(folder))
    if only_train:
        files = [File(file.path, file.label) for file in source.files]
        return Source(source.name, files, source.findings, source.read, source.classes)
    return source


def _suffix(data: bytes) -> str:
    return ".png" if data.startswith(b"\x89PNG") else ".gif" if data.startswith(b"GIF8") else ".jpg"
